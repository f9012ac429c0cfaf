"""From the models to CustomResourceDefinitions: structural schemas with descriptions and rules.

What a field is, its default and its description are the models'; the rules are in `rules`. A default
stands in the schema, and so in every stored object, only where a value that is written out means the
same as none: not for what makes a revision, and not where which fields are given says something. Such
a default is told in the description. So no default, old or new, makes pods start again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from pydantic import BaseModel

from penstock.spec.changes import FieldClass, class_of
from penstock.spec.parts.fields import LongerThanZero
from penstock.spec.streamjob import StreamJobSpec
from penstock.spec.without_effect import instead_of
from penstock.spec.wording import part_of
from penstock_operator.resources.names import (
    ANNOTATION_SCHEMA_VERSION,
    GROUP,
    SCHEMA_VERSION,
    VERSION,
    ResourceKind,
)
from penstock_operator.resources.rules import (
    LONGER_THAN_ZERO,
    SAVEPOINT_RULES,
    STREAMJOB_RULES,
    Rule,
    of_pattern,
)
from penstock_operator.resources.savepoint import SAVEPOINT
from penstock_operator.resources.status import (
    SavepointSpec,
    SavepointStatus,
    StreamJobStatus,
)
from penstock_operator.resources.streamjob import STREAMJOB

Schema: TypeAlias = dict[str, Any]

_KEPT = (
    *("enum", "pattern", "minimum", "maximum", "minLength", "maxLength"),
    *("minItems", "maxItems", "maxProperties", "format"),
)
_INT32_MAX = 2**31 - 1


@dataclass(frozen=True, slots=True)
class _Tree:
    """The schema of one model, drawn field by field; `rules` by path, `defs` by their name.

    Of a status nothing is required and nothing has a default: it is written by one program, and a
    status that an older one wrote stays valid.
    """

    defs: Mapping[str, Schema]
    rules: Mapping[str, tuple[Rule, ...]]
    is_status: bool

    def part(self, model: type[BaseModel], drawn: Schema, path: str) -> Schema:
        """An object with the fields of a model; `drawn` is pydantic's own schema of it."""
        properties = {}
        for attribute, info in model.model_fields.items():
            name = info.serialization_alias or info.alias or attribute
            below = f"{path}.{name}"
            field = self.value(drawn["properties"][name], part_of(info.annotation), below)
            if LongerThanZero in info.metadata:
                field["x-kubernetes-validations"].append(LONGER_THAN_ZERO.schema())
            properties[name] = field
        schema: Schema = {"type": "object", "properties": properties}
        if drawn.get("required") and not self.is_status:
            schema["required"] = drawn["required"]
        if any("default" in field for field in properties.values()):
            schema["default"] = {}
        return schema

    def value(self, drawn: Schema, model: type[BaseModel] | None, path: str) -> Schema:
        """One field, whatever it is."""
        given = self._resolved(drawn)
        if model is not None:
            schema = self.part(model, given, path)
        else:
            schema = {"type": given["type"]} | {n: given[n] for n in _KEPT if n in given}
            if given["type"] == "integer":
                schema["format"] = "int32" if _is_small(given) else "int64"
            if given["type"] == "array":
                schema["items"] = self._inner(given["items"], f"{path}[]")
            if given["type"] == "object":
                schema |= self._free(given, path)
        rules = [*self._rules_of_pattern(given), *self.rules.get(path, ())]
        if rules:
            schema["x-kubernetes-validations"] = [rule.schema() for rule in rules]
        return self._described(schema, given, path)

    def _inner(self, drawn: Schema, path: str) -> Schema:
        """An item of a list, a value of a map: its model is known by its name in `defs` alone."""
        given = self._resolved(drawn)
        if "properties" not in given:
            return self.value(drawn, None, path)
        properties = {n: self._inner(f, f"{path}.{n}") for n, f in given["properties"].items()}
        return {
            "type": "object",
            "description": given["description"],
            "properties": properties,
        }

    def _free(self, given: Schema, path: str) -> Schema:
        values = given.get("additionalProperties")
        if isinstance(values, dict):
            return {"additionalProperties": self._inner(values, f"{path}{{}}")}
        return {"x-kubernetes-preserve-unknown-fields": True}

    def _rules_of_pattern(self, given: Schema) -> tuple[Rule, ...]:
        return of_pattern(given["pattern"]) if "pattern" in given else ()

    def _resolved(self, drawn: Schema) -> Schema:
        """Without references and without `null` beside another type: a field may be left out."""
        given = dict(drawn)
        if options := given.pop("anyOf", None):
            given = next(o for o in options if o.get("type") != "null") | given
        if reference := given.pop("$ref", None):
            given = self.defs[reference.rpartition("/")[2]] | given
        return given

    def _described(self, schema: Schema, given: Schema, path: str) -> Schema:
        description = given.get("description", "")
        default = given.get("default")
        field = path.removeprefix("spec.")
        if default is not None and not self.is_status:
            description += f" Default: {_text(default)}."
            if _may_be_written_out(path):
                schema["default"] = default
        if path.startswith("spec.") and (instead := instead_of(field)):
            description += f" No effect yet: {instead}."
        return {"type": schema.pop("type"), "description": description.strip(), **schema}


def _is_small(given: Schema) -> bool:
    return bool(given.get("maximum", _INT32_MAX + 1) <= _INT32_MAX)


def _text(default: Any) -> str:
    return str(default).lower() if isinstance(default, bool) else str(default)


def _may_be_written_out(path: str) -> bool:
    """Whether the field at that path with its default means the same as the field left out."""
    field = path.removeprefix("spec.")
    if field.startswith("restart.") and field != "restart.strategy":
        return False
    try:
        return class_of(field) is not FieldClass.UPGRADE
    except KeyError:
        return True


def _schema(
    spec: type[BaseModel],
    status: type[BaseModel],
    rules: Mapping[str, tuple[Rule, ...]],
    description: str,
) -> Schema:
    def of(model: type[BaseModel], path: str, *, is_status: bool) -> Schema:
        drawn = model.model_json_schema(by_alias=True, mode="validation")
        tree = _Tree(drawn.get("$defs", {}), rules, is_status)
        return tree.value(drawn, model, path)

    return {
        "type": "object",
        "description": description,
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string", "description": f"{GROUP}/{VERSION}"},
            "kind": {"type": "string", "description": "As in every object."},
            "metadata": {"type": "object"},
            "spec": {k: v for k, v in of(spec, "spec", is_status=False).items() if k != "default"},
            "status": of(status, "status", is_status=True),
        },
        "x-kubernetes-validations": [rule.schema() for rule in rules.get("", ())],
    }


def _column(
    name: str, path: str, about: str, kind: str = "string", *, wide: bool = False
) -> dict[str, Any]:
    column = {"name": name, "type": kind, "jsonPath": path, "description": about}
    return column | ({"priority": 1} if wide else {})


def _condition(kind: str, field: str) -> str:
    return f'.status.conditions[?(@.type=="{kind}")].{field}'


_AGE = _column("Age", ".metadata.creationTimestamp", "Since it was created.", "date")

_STREAMJOB_COLUMNS = (
    _column("Phase", ".status.phase", "Where the job stands."),
    _column("Parallelism", ".status.parallelism", "Parallelism in force.", "integer"),
    _column(
        "Checkpoint",
        ".status.lastCheckpoint.completedAt",
        "Age of the newest complete checkpoint.",
        "date",
    ),
    _column("Restarts", ".status.restarts", "Restarts of the job by itself.", "integer"),
    _AGE,
    _column("Ready", _condition("Ready", "status"), "Whether it is as wanted.", wide=True),
    _column("Revision", ".status.revision", "The revision that runs.", wide=True),
    _column("About", _condition("Ready", "message"), "In a sentence.", wide=True),
)

_SAVEPOINT_COLUMNS = (
    _column("Job", ".spec.jobName", "The StreamJob it is of."),
    _column("Phase", ".status.phase", "Where it stands."),
    _column("Path", ".status.path", "Where it lies."),
    _column("Size", ".status.size", "What a restore reads."),
    _AGE,
    _column("Error", ".status.error", "Why it failed.", wide=True),
)

_SCALE = {
    "specReplicasPath": ".spec.parallelism",
    "statusReplicasPath": ".status.parallelism",
    "labelSelectorPath": ".status.selector",
}


def _definition(
    resource: ResourceKind,
    schema: Schema,
    columns: Iterable[dict[str, Any]],
    subresources: dict[str, Any],
) -> dict[str, Any]:
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": resource.crd_name,
            "annotations": {ANNOTATION_SCHEMA_VERSION: str(SCHEMA_VERSION)},
        },
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": resource.kind,
                "listKind": f"{resource.kind}List",
                "plural": resource.plural,
                "singular": resource.singular,
                "shortNames": list(resource.short_names),
                "categories": list(resource.categories),
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": subresources,
                    "additionalPrinterColumns": list(columns),
                    "schema": {"openAPIV3Schema": schema},
                }
            ],
        },
    }


def streamjobs() -> dict[str, Any]:
    """The CustomResourceDefinition of StreamJob."""
    schema = _schema(StreamJobSpec, StreamJobStatus, STREAMJOB_RULES, "A stream job.")
    # The rule for 0 has better words than a least value.
    del schema["properties"]["spec"]["properties"]["parallelism"]["minimum"]
    conditions = schema["properties"]["status"]["properties"]["conditions"]
    conditions |= {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]}
    conditions["items"]["required"] = ["type"]
    return _definition(STREAMJOB, schema, _STREAMJOB_COLUMNS, {"status": {}, "scale": _SCALE})


def savepoints() -> dict[str, Any]:
    """The CustomResourceDefinition of Savepoint."""
    about = "One savepoint of a StreamJob; it outlives the job."
    schema = _schema(SavepointSpec, SavepointStatus, SAVEPOINT_RULES, about)
    return _definition(SAVEPOINT, schema, _SAVEPOINT_COLUMNS, {"status": {}})
