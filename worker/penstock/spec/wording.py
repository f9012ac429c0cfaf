"""What pydantic objects to, in our own words: one sentence each, beginning after the field's name."""

from __future__ import annotations

import json
import re
import textwrap
import types
from collections.abc import Iterator
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from penstock.spec.mistakes import Mistake, nearest
from penstock.spec.yaml_lines import Document, FieldPath, field_text

_QUOTED = re.compile(r"'([^']+)'")
_SHOWN_LENGTH_MAX = 60


def shown(value: Any) -> str:
    """A value as it stands in a sentence: short, texts in double quotes."""
    match value:
        case None:
            return "an empty value"
        case dict():
            return "a block of fields"
        case list():
            return "a list"
        case str() if len(value) > _SHOWN_LENGTH_MAX:
            return json.dumps(value[:_SHOWN_LENGTH_MAX] + "…", ensure_ascii=False)
        case str() | bool() | int() | float():
            return json.dumps(value, ensure_ascii=False)
        case _:
            return str(value)


def mistakes_of(
    error: ValidationError, model: type[BaseModel], document: Document
) -> list[Mistake]:
    """Every objection as a Mistake, in the order of lines.

    A field said to be missing is left out when an unknown field beside it is a near miss of it.
    """
    found: list[tuple[FieldPath, str | None, ErrorDetails]] = []
    for details in error.errors(include_url=False):
        is_unknown = details["type"] == "extra_forbidden"
        path: FieldPath = details["loc"] if is_unknown else _in_yaml(model, details["loc"])
        if at := details.get("ctx", {}).get("at"):
            path = (*path, at)
        meant = None
        if is_unknown:
            meant = nearest(str(path[-1]), _fields_at(model, path[:-1]))
        found.append((path, meant, details))
    explained = {(*path[:-1], meant) for path, meant, _ in found if meant}
    mistakes = [
        Mistake(document.line_of(path), field_text(path), *_sentence(model, path, meant, details))
        for path, meant, details in found
        if not (details["type"] in {"missing", "absent"} and path in explained)
    ]
    return sorted(mistakes, key=lambda m: m.line or 0)


def _sentence(
    model: type[BaseModel], path: FieldPath, meant: str | None, details: ErrorDetails
) -> tuple[str, str | None]:
    value = details["input"]
    context = details.get("ctx", {})
    match details["type"]:
        case "extra_forbidden":
            return _no_such_field(model, path, meant)
        case "missing":
            return "is missing", None
        case "wrong" | "absent" as kind:
            message = str(context["message"])
            return (message, None) if value is not None or kind == "absent" else (_EMPTY, None)
        case _ if value is None:
            return _EMPTY, None
        case "model_type" | "model_attributes_type" | "dict_type":
            fields = _fields_at(model, path)
            hint = _listed("it takes", fields) if fields else None
            return f"must be a block of fields, not {shown(value)}", hint
    return value_sentence(details), None


_EMPTY = "is empty; write a value, or leave the line out"


def value_sentence(details: ErrorDetails) -> str:
    """What is wrong with one value, whatever its field: `"four" is not a whole number`."""
    value = details["input"]
    context = details.get("ctx", {})
    match details["type"]:
        case "not_a_duration" | "not_a_size":
            return f"{shown(value)} {details['msg']}"
        case "wrong" | "absent":
            return str(context["message"])
        case "int_type" | "int_parsing" | "int_from_float" | "int_parsing_size":
            return f"{shown(value)} is not a whole number"
        case "float_type" | "float_parsing":
            return f"{shown(value)} is not a number"
        case "bool_type" | "bool_parsing":
            return f"{shown(value)} is not true or false"
        case "string_type" if isinstance(value, bool | int | float):
            return f"{shown(value)} is not text; put it in quotes"
        case "string_type":
            return f"must be text, not {shown(value)}"
        case "enum" | "literal_error":
            allowed = _QUOTED.findall(str(context["expected"])) or [str(context["expected"])]
            near = nearest(value, allowed) if isinstance(value, str) else None
            tail = f"; did you mean {near}?" if near else ""
            return f"{shown(value)} is none of {', '.join(allowed)}{tail}"
        case "greater_than_equal":
            return f"is {shown(value)}; at least {context['ge']} is needed"
        case "less_than_equal":
            return f"is {shown(value)}; at most {context['le']} is allowed"
        case "string_too_short":
            return "is empty; write a value, or leave the line out"
        case "string_too_long":
            return f"has {len(value)} characters; at most {context['max_length']} are allowed"
        case "too_long":
            return (
                f"has {context['actual_length']} items; at most {context['max_length']} are allowed"
            )
        case "list_type" | "tuple_type" | "set_type" | "frozen_set_type":
            return f"must be a list, not {shown(value)}"
        case "dict_type" | "model_type" | "dataclass_type" | "model_attributes_type":
            return f"must be a block of fields, not {shown(value)}"
        case "missing" | "missing_argument":
            return "is missing"
        case "extra_forbidden" | "unexpected_keyword_argument":
            return "no such field"
        case "value_error" | "assertion_error":
            return f"{shown(value)}: {context.get('error', details['msg'])}"
    reason = details["msg"][:1].lower() + details["msg"][1:]
    return f"{shown(value)} does not fit: {reason}"


def _no_such_field(
    model: type[BaseModel], path: FieldPath, meant: str | None
) -> tuple[str, str | None]:
    elsewhere = [field_text(p) for p in _all_fields(model, ()) if p[-1] == path[-1]]
    if meant and meant != path[-1]:
        return f"no such field; did you mean {meant}?", None
    if len(elsewhere) == 1:
        return f"no such field here; did you mean {elsewhere[0]}?", None
    return "no such field", _listed("known here", _fields_at(model, path[:-1]))


def _listed(introduction: str, names: list[str]) -> str:
    return textwrap.fill(f"{introduction}: {', '.join(names)}", width=78)


def _in_yaml(model: type[BaseModel], path: FieldPath) -> FieldPath:
    """The same path in YAML's names: of a default that is refused, pydantic tells the attribute."""
    here: type[BaseModel] | None = model
    names: list[str | int] = []
    for name in path:
        info = here.model_fields.get(str(name)) if here else None
        names.append(info.alias if info and info.alias else name)
        here = _parts(here).get(str(names[-1])) if here else None
    return tuple(names)


def _fields_at(model: type[BaseModel], path: FieldPath) -> list[str]:
    """Names in YAML of the fields of the part at that path; none where anything goes."""
    here: type[BaseModel] | None = model
    for name in path:
        here = _parts(here).get(str(name)) if here else None
    return [f.alias or name for name, f in here.model_fields.items()] if here else []


def _parts(model: type[BaseModel]) -> dict[str, type[BaseModel] | None]:
    return {f.alias or name: part_of(f.annotation) for name, f in model.model_fields.items()}


def part_of(annotation: Any) -> type[BaseModel] | None:
    """The model in `Model` or `Model | None`; None for any other annotation."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in {Union, types.UnionType}:
        return next((p for a in get_args(annotation) if (p := part_of(a))), None)
    return None


def _all_fields(model: type[BaseModel], above: FieldPath) -> Iterator[FieldPath]:
    for name, part in _parts(model).items():
        yield (*above, name)
        if part:
            yield from _all_fields(part, (*above, name))
