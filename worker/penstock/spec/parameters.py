"""A job's parameters: the keyword-only arguments of its function, checked against their annotations.

Values come from YAML or from `-p NAME=VALUE`, which is read as YAML too, unless text is wanted.
"""

from __future__ import annotations

import dataclasses
import inspect
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from enum import Enum
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, PydanticUserError, TypeAdapter, ValidationError

from penstock.core.errors import Rejected
from penstock.spec.entrypoint import Job, file_name
from penstock.spec.mistakes import nearest
from penstock.spec.parts.quantities import WRITE_DURATION, format_duration, parse_duration_ms
from penstock.spec.wording import shown, value_sentence
from penstock.spec.yaml_lines import FieldPath, read_scalar

_UNIONS = frozenset({Union, types.UnionType})
_LISTS: tuple[type, ...] = (list, tuple, set, frozenset)
_WRITE_TIME = "write 2026-11-21T02:58:04Z"


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a job. `type_text` is for people; `default` is None when `required`."""

    name: str
    hint: Any
    type_text: str
    required: bool
    default: Any = None
    help: str | None = None

    def __str__(self) -> str:
        return f"{self.name} ({self.type_text}, {self._need})"

    @property
    def _need(self) -> str:
        if self.required:
            return "required"
        if isinstance(self.default, timedelta):
            return f"default {_duration_text(self.default)}"
        value = self.default.value if isinstance(self.default, Enum) else self.default
        return f"default {value if isinstance(value, str) and value else repr(value)}"


@dataclass(frozen=True, slots=True)
class ParameterMistake:
    """What is wrong with a parameter; `path` begins with its name."""

    path: FieldPath
    message: str
    hint: str | None = None


@dataclass(frozen=True, slots=True)
class Arguments:
    """What a job is called with, or `mistakes` is not empty.

    `values` are the keyword arguments, `written` the same as plain values for a manifest.
    """

    values: dict[str, Any] = field(default_factory=dict)
    mistakes: tuple[ParameterMistake, ...] = ()
    written: dict[str, Any] = field(default_factory=dict)


def describe_parameters(job: Job) -> tuple[Parameter, ...]:
    """The parameters in the order of the function.

    Raises Rejected for a signature other than `(env, *, name: type, ...)` and for an annotation that
    has no meaning.
    """
    name = f"{getattr(job, '__name__', type(job).__name__)}() in {file_name(job)}"
    if inspect.iscoroutinefunction(job) or inspect.isgeneratorfunction(job):
        kind = "async" if inspect.iscoroutinefunction(job) else "a generator"
        raise Rejected(f"{name} is {kind}; a job only builds the graph", fix="write a plain def")
    try:
        arguments = list(inspect.signature(job).parameters.values())
    except (TypeError, ValueError) as e:
        raise Rejected(f"{name} has no signature that can be read") from e
    _refuse_other_signatures(name, arguments)
    keyword_only = arguments[1:]
    hints = _hints(job, name, keyword_only)
    return tuple(_parameter(name, a, hints[a.name]) for a in keyword_only)


def check_parameters(
    job: Job, written: Mapping[str, Any], overrides: Mapping[str, str] | None = None
) -> Arguments:
    """The job's arguments from the manifest's `parameters` and from `-p NAME=VALUE`, which wins.

    Unknown, wrong and missing ones are found together; a missing one that an unknown one is a near
    miss of is not told twice. Raises Rejected for an unusable signature.
    """
    parameters = {p.name: p for p in describe_parameters(job)}
    name = f"{getattr(job, '__name__', type(job).__name__)}() in {file_name(job)}"
    given = {**written, **(overrides or {})}
    values: dict[str, Any] = {}
    plain: dict[str, Any] = {}
    mistakes: list[ParameterMistake] = []
    explained = set()
    for key, value in given.items():
        parameter = parameters.get(key)
        if parameter is None:
            mistakes.append(_unknown(name, key, parameters.values()))
            explained.add(nearest(key, parameters.keys() - given.keys()))
            continue
        if overrides and key in overrides:
            value = _from_command_line(parameter.hint, overrides[key])
        found = _check(parameter, value)
        mistakes.extend(found.mistakes)
        values.update(found.values)
        plain[key] = value
    for parameter in parameters.values():
        if parameter.required and parameter.name not in given and parameter.name not in explained:
            message = f"is missing; {name} needs it ({parameter.type_text})"
            mistakes.append(ParameterMistake((parameter.name,), message, parameter.help))
    return Arguments(values, tuple(mistakes), plain)


def override_values(job: Job, overrides: Mapping[str, str]) -> dict[str, Any]:
    """What `-p NAME=VALUE` stands for in a manifest's parameters; names that exist, values unchecked."""
    hints = {p.name: p.hint for p in describe_parameters(job)}
    return {name: _from_command_line(hints[name], text) for name, text in overrides.items()}


def _refuse_other_signatures(name: str, arguments: list[inspect.Parameter]) -> None:
    fix = "write def job(env: penstock.Environment, *, input: str) -> None"
    positional = {inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD}
    if not arguments or arguments[0].kind not in positional:
        raise Rejected(f"{name} does not take the environment first", fix=fix)
    for argument in arguments[1:]:
        if argument.kind in positional:
            raise Rejected(
                f"{name} takes {argument.name} by position; parameters are keyword-only",
                fix="put a * after env: def job(env: penstock.Environment, *, …)",
            )
        if argument.kind is not inspect.Parameter.KEYWORD_ONLY:
            stars = "*" if argument.kind is inspect.Parameter.VAR_POSITIONAL else "**"
            raise Rejected(
                f"{name} takes {stars}{argument.name}; parameters are named one by one", fix=fix
            )


def _hints(job: Job, name: str, arguments: list[inspect.Parameter]) -> dict[str, Any]:
    """Annotations as types; only the parameters', for env's may be imported for type checkers only."""
    function = inspect.unwrap(job)
    function = function if inspect.isfunction(function) else type(function).__call__
    hints = {}
    for argument in arguments:
        if argument.annotation is inspect.Parameter.empty:
            hints[argument.name] = Any
            continue
        holder = types.SimpleNamespace(__annotations__={argument.name: argument.annotation})
        try:
            hints |= typing.get_type_hints(
                holder, globalns=getattr(function, "__globals__", {}), include_extras=True
            )
        except (NameError, TypeError, SyntaxError, AttributeError) as e:
            raise Rejected(
                f"{name}: the annotation of {argument.name} cannot be read: {e}",
                fix="import its names at run time too, not under TYPE_CHECKING only",
            ) from e
    return hints


def _parameter(name: str, argument: inspect.Parameter, hint: Any) -> Parameter:
    help = None
    if get_origin(hint) is Annotated:
        help = next((note for note in get_args(hint)[1:] if isinstance(note, str)), None)
    try:
        TypeAdapter(hint)
    except (PydanticUserError, TypeError) as e:
        raise Rejected(
            f"{name}: {argument.name} has type {type_text(hint)}, which no manifest can give",
            fix="take text, numbers, timedelta, datetime, Literal, Enum, lists, a dataclass or a model",
        ) from e
    required = argument.default is inspect.Parameter.empty
    default = None if required else argument.default
    return Parameter(argument.name, hint, type_text(hint), required, default, help)


def type_text(hint: Any) -> str:
    """An annotation as people read it: `str`, `list[int]`, `"a" | "b"`, `duration or nothing`."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return type_text(arguments[0])
    if origin is Literal:
        return " | ".join(str(a) for a in arguments)
    if origin in _UNIONS:
        return " | ".join(type_text(a) for a in arguments)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return " | ".join(str(member.value) for member in hint)
    if hint is Any:
        return "?"
    if hint in {None, type(None)}:
        return "null"
    if origin is not None and arguments:
        inner = ", ".join("…" if a is Ellipsis else type_text(a) for a in arguments)
        return f"{getattr(origin, '__name__', origin)}[{inner}]"
    return str(getattr(hint, "__name__", hint))


def _unknown(name: str, key: str, parameters: Iterable[Parameter]) -> ParameterMistake:
    known = ", ".join(str(p) for p in parameters)
    hint = f"it takes: {known}" if known else "it takes none"
    return ParameterMistake((key,), f"{name} takes no parameter {key}", hint)


def _from_command_line(hint: Any, text: str) -> Any:
    if _takes(hint, str):
        return text
    value = read_scalar(text)
    is_one = not isinstance(value, list | dict) and value is not None
    if is_one and any(_takes(hint, kind) for kind in _LISTS):
        return [read_scalar(part.strip()) for part in text.split(",")]
    return value


def _takes(hint: Any, kind: type) -> bool:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _takes(arguments[0], kind)
    if origin in _UNIONS:
        return any(_takes(a, kind) for a in arguments)
    return hint is kind or origin is kind


def _check(parameter: Parameter, value: Any) -> Arguments:
    mistakes: list[ParameterMistake] = []
    path: FieldPath = (parameter.name,)
    value = _prepare(parameter.hint, value, path, mistakes)
    if mistakes:
        return Arguments(mistakes=tuple(mistakes))
    try:
        return Arguments({parameter.name: TypeAdapter(parameter.hint).validate_python(value)})
    except ValidationError as e:
        return Arguments(mistakes=_objections(parameter, e))


def _objections(parameter: Parameter, error: ValidationError) -> tuple[ParameterMistake, ...]:
    found: dict[FieldPath, ParameterMistake] = {}
    for details in error.errors(include_url=False):
        inside, union = _walk(parameter.hint, details["loc"])
        path = (parameter.name, *inside)
        if union is not None:
            message = f"{shown(details['input'])} is not {type_text(union)}"
        elif details["input"] is None and not details["type"].startswith("missing"):
            message = f"is empty; {type_text(parameter.hint)} is needed"
        else:
            message = value_sentence(details)
        found.setdefault(path, ParameterMistake(path, message, parameter.help))
    return tuple(found.values())


def _walk(hint: Any, location: tuple[str | int, ...]) -> tuple[FieldPath, Any]:
    """Where in the value pydantic objects, and the union there whose members object one by one."""
    path: list[str | int] = []
    for part in location:
        hint = _bare(hint)
        if get_origin(hint) in _UNIONS:
            return tuple(path), hint
        path.append(part)
        arguments = get_args(hint)
        if isinstance(hint, type) and not arguments:
            hint = _fields(hint).get(str(part), Any)
        else:
            hint = arguments[-1] if isinstance(part, str) else arguments[0]
    return tuple(path), None


def _bare(hint: Any) -> Any:
    """Without Annotated and without `| None`."""
    if get_origin(hint) is Annotated:
        return _bare(get_args(hint)[0])
    if get_origin(hint) in _UNIONS:
        real = [m for m in get_args(hint) if m is not type(None)]
        return _bare(real[0]) if len(real) == 1 else hint
    return hint


def _prepare(hint: Any, value: Any, path: FieldPath, mistakes: list[ParameterMistake]) -> Any:
    """The value with durations, times and enum names made what they stand for, however deep."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _prepare(arguments[0], value, path, mistakes)
    if origin in _UNIONS:
        return _prepare_union(arguments, value, path, mistakes)
    if origin in _LISTS and isinstance(value, list) and arguments:
        return [_prepare(arguments[0], v, (*path, i), mistakes) for i, v in enumerate(value)]
    if origin is dict and isinstance(value, dict) and arguments:
        return {k: _prepare(arguments[1], v, (*path, str(k)), mistakes) for k, v in value.items()}
    if isinstance(value, dict) and isinstance(hint, type):
        return {
            k: _prepare(inner, v, (*path, str(k)), mistakes) if inner is not None else v
            for k, v in value.items()
            for inner in [_fields(hint).get(str(k))]
        }
    for kind, convert in _CONVERSIONS:
        if isinstance(hint, type) and issubclass(hint, kind):
            try:
                return convert(hint, value)
            except _Unfit as e:
                mistakes.append(ParameterMistake(path, str(e)))
                return value
    return value


def _prepare_union(
    members: tuple[Any, ...], value: Any, path: FieldPath, mistakes: list[ParameterMistake]
) -> Any:
    """As the first member that can make something of it; only one real member may object."""
    real = [m for m in members if m is not type(None)]
    if value is None and len(real) < len(members):
        return None
    if len(real) == 1:
        return _prepare(real[0], value, path, mistakes)
    for member in real:
        objections: list[ParameterMistake] = []
        prepared = _prepare(member, value, path, objections)
        if not objections and prepared is not value:
            return prepared
    return value


def _fields(kind: type) -> dict[str, Any]:
    if dataclasses.is_dataclass(kind):
        return typing.get_type_hints(kind, include_extras=True)
    if issubclass(kind, BaseModel):
        return {f.alias or name: f.annotation for name, f in kind.model_fields.items()}
    return {}


class _Unfit(Exception):
    """A sentence on its way, not an error of the program."""


def _timedelta(_: type, value: Any) -> timedelta:
    if isinstance(value, str):
        try:
            return timedelta(milliseconds=parse_duration_ms(value))
        except (ValueError, OverflowError):
            pass
    raise _Unfit(f"{shown(value)} is not a duration; {WRITE_DURATION}")


def _datetime(_: type, value: Any) -> datetime:
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        moment = None
    if moment is None:
        raise _Unfit(f"{shown(value)} is not a time; {_WRITE_TIME}")
    if moment.tzinfo is None:
        raise _Unfit(f"{shown(value)} has no time zone; {_WRITE_TIME}")
    return moment


def _enum(kind: type[Enum], value: Any) -> Enum:
    for member in kind:
        if value == member.value or value == member.name:
            return member
    allowed = [str(member.value) for member in kind]
    near = nearest(value, allowed) if isinstance(value, str) else None
    tail = f"; did you mean {near}?" if near else ""
    raise _Unfit(f"{shown(value)} is none of {', '.join(allowed)}{tail}")


def _not_a_number(kind: type, value: Any) -> Any:
    if isinstance(value, bool | int | float) or value is None:
        example = "12:30" if kind is time else "2026-11-21"
        raise _Unfit(f"{shown(value)} is not a {kind.__name__}; write {example}")
    return value


_CONVERSIONS: tuple[tuple[type, Callable[[Any, Any], Any]], ...] = (
    (timedelta, _timedelta),
    (datetime, _datetime),
    (Enum, _enum),
    (date, _not_a_number),
    (time, _not_a_number),
)


def _duration_text(value: timedelta) -> str:
    return format_duration(value // timedelta(milliseconds=1))
