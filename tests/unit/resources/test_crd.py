"""The schemas that are drawn from the models: complete, bounded, and no default makes a revision."""

import copy
from typing import Any

import pytest
from tests.invalid_specs import GOOD

from penstock.spec.changes import FieldClass, class_of, revision_of
from penstock.spec.streamjob import StreamJobSpec
from penstock_operator.resources import crd
from penstock_operator.resources.rules import SAVEPOINT_RULES, STREAMJOB_RULES

DEFINITIONS = {"streamjobs": crd.streamjobs(), "savepoints": crd.savepoints()}


def schema_of(name):
    return DEFINITIONS[name]["spec"]["versions"][0]["schema"]["openAPIV3Schema"]


def fields(schema, path=""):
    """Every field below, by its path; `[]` for items, `{}` for the values of a map."""
    for name, field in schema.get("properties", {}).items():
        yield from node(field, f"{path}.{name}" if path else name)


def node(schema, path):
    yield path, schema
    yield from fields(schema, path)
    if "items" in schema:
        yield from node(schema["items"], f"{path}[]")
    if isinstance(schema.get("additionalProperties"), dict):
        yield from node(schema["additionalProperties"], f"{path}{{}}")


def ours(name):
    return [(p, f) for p, f in fields(schema_of(name)) if p.partition(".")[0] in {"spec", "status"}]


ALL = [(name, path, field) for name in DEFINITIONS for path, field in ours(name)]
IDS = [f"{name}:{path}" for name, path, _ in ALL]


@pytest.mark.parametrize(("name", "path", "field"), ALL, ids=IDS)
def test_a_field_is_structural_described_and_bounded(name, path, field):
    assert not field.keys() & {"$ref", "title", "anyOf", "allOf", "const", "nullable"}
    assert field.get("additionalProperties") is not False
    if not path.endswith(("[]", "{}")):
        assert field["description"].rstrip().endswith((".", ")"))
    match field["type"]:
        case "string":
            assert field.keys() & {"maxLength", "enum", "format"}
        case "array":
            assert "maxItems" in field
        case "object":
            kinds = {"properties", "additionalProperties", "x-kubernetes-preserve-unknown-fields"}
            assert len(field.keys() & kinds) == 1


def test_what_authors_and_kubernetes_define_is_free_form():
    free = {
        p for p, f in ours("streamjobs") if f.get("x-kubernetes-preserve-unknown-fields") is True
    }
    assert free == {
        "spec.parameters",
        "spec.worker.resources",
        "spec.worker.podTemplate",
        "spec.coordinator.resources",
        "spec.coordinator.podTemplate",
    }


@pytest.mark.parametrize(
    ("name", "rules"), [("streamjobs", STREAMJOB_RULES), ("savepoints", SAVEPOINT_RULES)]
)
def test_every_rule_has_found_its_field(name, rules):
    schema = schema_of(name)
    standing = {"": schema, **dict(fields(schema))}
    for path, expected in rules.items():
        there = standing[path]["x-kubernetes-validations"]
        assert all(rule.schema() in there for rule in expected), path


def test_every_duration_that_must_be_longer_than_zero_has_the_rule_for_it():
    found = {
        path
        for path, field in ours("streamjobs")
        for rule in field.get("x-kubernetes-validations", ())
        if rule["message"] == "must be longer than 0s"
    }
    assert {"spec.checkpoints.timeout", "spec.restart.initialDelay"} <= found
    for path in found:
        part: Any = "0s"
        for attribute in reversed(path.split(".")[1:]):
            part = {attribute: part}
        with pytest.raises(ValueError, match="longer than 0s"):
            StreamJobSpec.model_validate(GOOD | part)
    assert "spec.checkpoints.interval" not in found


# ── defaults ─────────────────────────────────────────────────────────────────────────────────────


def filled_in(schema, value):
    """What the API server stores: every default whose place is there."""
    value = copy.deepcopy(value)
    for name, field in schema.get("properties", {}).items():
        if name not in value and "default" in field:
            value[name] = field["default"]
        if name in value and field["type"] == "object":
            value[name] = filled_in(field, value[name])
    return value


@pytest.mark.parametrize(
    "written",
    [
        GOOD,
        GOOD | {"state": {}, "worker": {"volume": {}}, "errors": {}, "coordinator": {}},
        GOOD | {"restart": {"strategy": "FailureRate", "attempts": 3}, "parallelism": 4},
        GOOD | {"state": {"backend": "RocksDB"}, "checkpoints": {"mode": "ExactlyOnce"}},
    ],
)
def test_defaults_of_the_schema_change_neither_the_spec_nor_its_revision(written):
    stored = filled_in(schema_of("streamjobs")["properties"]["spec"], written)
    assert stored != written
    before, after = (StreamJobSpec.model_validate(spec) for spec in (written, stored))
    assert after == before
    assert revision_of(after) == revision_of(before)


def test_what_makes_a_revision_has_no_default_in_the_schema():
    upgrade = {
        path
        for path, field in ours("streamjobs")
        if path.startswith("spec.")
        and "properties" not in field
        and not path.endswith(("[]", "{}"))
        and class_of(path.removeprefix("spec.")) is FieldClass.UPGRADE
    }
    assert "spec.state.backend" in upgrade
    known = dict(ours("streamjobs"))
    assert [path for path in upgrade if "default" in known[path]] == []


def test_a_default_that_is_not_in_the_schema_is_told():
    known = dict(ours("streamjobs"))
    assert known["spec.state.backend"]["description"].endswith("Default: RocksDB.")
    assert known["spec.restart.delay"]["description"].endswith("Default: 1s.")
    assert known["spec.upgrade.rollback"]["description"].endswith("Default: true.")
    assert known["spec.upgrade.rollback"]["default"] is True


def test_a_field_that_changes_nothing_yet_says_so():
    known = dict(ours("streamjobs"))
    assert known["spec.checkpoints.maxConcurrent"]["description"].endswith(
        "No effect yet: one at a time."
    )


def test_a_status_asks_for_nothing_and_fills_in_nothing():
    for path, field in ours("streamjobs"):
        if path.startswith("status"):
            assert "default" not in field, path
            assert field.get("required", []) == (
                ["type"] if path == "status.conditions[]" else []
            ), path
