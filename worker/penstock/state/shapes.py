"""Declared types, taken apart: what a type's values look like, and whether a value is one of them.

A `Shape` knows its schema's text, checks values exactly and says whether they can change. It decides
what may be declared at all; `serializers` turns what is left into bytes. Every refusal says what to
declare instead.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import enum
import types
import typing
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import msgspec
import typing_extensions

from penstock.core.errors import Rejected

_SCALARS: tuple[type, ...] = (
    bool, int, float, str, bytes, date, datetime, time, timedelta, Decimal, uuid.UUID,
)  # fmt: skip

_EXACT_FLOAT = 1 << 53
"""Integers up to here are floats without loss."""


@dataclass(slots=True)
class Shape:
    """What one declared type's values are.

    `schema`: its text, the same in every process. `accepts(value)`: exact, bool is not int and a
    subclass is not its base. `exact_class`: when a value's class is this one, it is accepted.
    `immutable`: no value can change. `hashable`: values may be keys of a dict. `big`: there are
    integers in it, so that 64 bits may not be enough. `hooked`: msgspec needs help with it.
    `named`: a record whose fields are written by name. `named_keys`: a dict in it has such keys,
    which only msgspec itself can read.
    """

    schema: str
    accepts: Callable[[Any], bool]
    exact_class: type | None = None
    immutable: bool = True
    hashable: bool = True
    big: bool = False
    hooked: bool = False
    named: bool = False
    named_keys: bool = False


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a record: its name in bytes and on the object, and whether it may be absent."""

    name: str
    attribute: str
    form: Any
    optional: bool


def shape_of(form: Any, *, where: str | None = None) -> Shape:
    """The shape of a declared type.

    Raises:
        Rejected: values of this type cannot be stored exactly; it says what to declare instead.
    """
    return _Builder(where).shape(form, {})


def _hints_of(record: type) -> dict[str, Any]:
    """The annotations of a class, resolved, with `Annotated` kept."""
    return typing_extensions.get_type_hints(record, include_extras=True)


def model_fields(model: type) -> dict[str, Any]:
    """The fields of a pydantic model, by name; empty for any other class."""
    return getattr(model, "__pydantic_fields__", {}) if hasattr(model, "model_construct") else {}


class _Builder:
    """One walk over a declared type. Records under construction are known by name: types recur."""

    def __init__(self, where: str | None) -> None:
        self.where = where
        self.open: dict[Any, Shape] = {}

    def refused(self, what: str, fix: str) -> Rejected:
        return Rejected(what, where=self.where, fix=fix)

    def shape(self, form: Any, bound: dict[Any, Any]) -> Shape:
        form = self._bare(form, bound)
        if form is None or form is types.NoneType:
            return _of_class(types.NoneType, "None")
        if form is float:
            return Shape("float", _is_float, exact_class=float)
        if form is int:
            return Shape("int", lambda v: v.__class__ is int, exact_class=int, big=True)
        if form in _SCALARS:
            return _of_class(form, form.__name__)
        origin = typing.get_origin(form)
        if origin in (typing.Union, types.UnionType):
            return self._union(form, bound)
        if origin is typing.Literal:
            return self._literal(form)
        if origin is not None:
            return self._generic(form, origin, bound)
        if isinstance(form, type):
            return self._class(form, bound)
        raise self.refused(
            f"{_shown(form)} does not say what is stored",
            "declare a type such as int, list[str] or a dataclass",
        )

    def _bare(self, form: Any, bound: dict[Any, Any]) -> Any:
        """The type itself, without aliases, new names and annotations."""
        while True:
            if isinstance(form, typing.TypeVar):
                if form not in bound:
                    raise self.refused(
                        f"the type parameter {form} stands for no type",
                        "declare it with its parameters, such as Pair[int]",
                    )
                form = bound[form]
            elif isinstance(form, typing_extensions.TypeAliasType):
                form = form.__value__
            elif hasattr(form, "__supertype__"):
                form = form.__supertype__
            elif typing_extensions.get_origin(form) is typing.Annotated:
                if any(isinstance(meta, msgspec.Meta) for meta in form.__metadata__):
                    raise self.refused(
                        f"{_shown(form)} has constraints, which are not checked when it is written",
                        "declare the plain type and check the value where it is made",
                    )
                form = form.__origin__
            else:
                return form

    def _union(self, form: Any, bound: dict[Any, Any]) -> Shape:
        parts = [self.shape(part, bound) for part in typing.get_args(form)]
        checks = [part.accepts for part in parts]
        return _containing(
            parts,
            Shape(
                schema=" | ".join(part.schema for part in parts),
                accepts=lambda value: any(check(value) for check in checks),
                immutable=all(part.immutable for part in parts),
                hashable=all(part.hashable for part in parts),
            ),
        )

    def _literal(self, form: Any) -> Shape:
        values = typing.get_args(form)
        for value in values:
            if value.__class__ not in (int, str, types.NoneType):
                raise self.refused(
                    f"{_shown(form)} contains {value!r}", "use only str, int and None in a Literal"
                )
        members = frozenset((value.__class__, value) for value in values)
        return Shape(
            schema=f"Literal[{', '.join(_literal_text(value) for value in values)}]",
            accepts=lambda value: (
                value.__class__ in (int, str, types.NoneType)
                and (value.__class__, value) in members
            ),
        )

    def _generic(self, form: Any, origin: Any, bound: dict[Any, Any]) -> Shape:
        arguments = typing.get_args(form)
        if not arguments and form != tuple[()]:
            raise self._unknown(origin)
        if origin is tuple:
            return self._tuple(arguments, bound)
        if origin in (list, collections.abc.Sequence):
            return self._collection(list, arguments[0], bound)
        if origin in (set, frozenset):
            return self._collection(origin, arguments[0], bound)
        if origin in (dict, collections.abc.Mapping):
            return self._mapping(arguments, bound)
        parameters = getattr(origin, "__parameters__", ())
        if isinstance(origin, type) and len(parameters) == len(arguments):
            inner = {p: self._bare(a, bound) for p, a in zip(parameters, arguments, strict=True)}
            return self._class(origin, inner, named=form)
        raise self._unknown(form)

    def _tuple(self, arguments: tuple[Any, ...], bound: dict[Any, Any]) -> Shape:
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return self._collection(tuple, arguments[0], bound)
        items = [self.shape(argument, bound) for argument in arguments]
        checks = tuple(item.accepts for item in items)
        return _containing(
            items,
            Shape(
                schema=f"tuple[{', '.join(item.schema for item in items) or '()'}]",
                accepts=lambda value: (
                    value.__class__ is tuple
                    and len(value) == len(checks)
                    and all(check(item) for check, item in zip(checks, value, strict=True))
                ),
                immutable=all(item.immutable for item in items),
                hashable=all(item.hashable for item in items),
            ),
        )

    def _collection(self, kind: type, form: Any, bound: dict[Any, Any]) -> Shape:
        item = self.shape(form, bound)
        if kind in (set, frozenset):
            self._require_hashable(item)
        frozen = kind in (tuple, frozenset)
        suffix = ", ..." if kind is tuple else ""
        return _containing(
            [item],
            Shape(
                schema=f"{kind.__name__}[{item.schema}{suffix}]",
                accepts=_all_items(kind, item),
                immutable=frozen and item.immutable,
                hashable=frozen and item.hashable,
            ),
        )

    def _mapping(self, arguments: tuple[Any, ...], bound: dict[Any, Any]) -> Shape:
        key, value = (self.shape(argument, bound) for argument in arguments)
        self._require_hashable(key)
        keys, values = _all_of(key), _all_of(value)
        shape = Shape(
            schema=f"dict[{key.schema}, {value.schema}]",
            accepts=lambda v: v.__class__ is dict and keys(v) and values(v.values()),
            immutable=False,
            hashable=False,
        )
        _containing([key, value], shape)
        shape.named_keys = shape.named_keys or key.named
        shape.named = False
        return shape

    def _require_hashable(self, shape: Shape) -> None:
        if not shape.hashable:
            raise self.refused(
                f"{shape.schema} cannot be the key of a dict or an element of a set",
                "use a scalar, a tuple or a frozen dataclass",
            )

    def _class(self, kind: Any, bound: dict[Any, Any], *, named: Any = None) -> Shape:
        if issubclass(kind, enum.Enum):
            return self._enum(kind)
        if (known := self.open.get(named or kind)) is not None:
            return known
        fields, style = self._fields(kind)
        if style is None:
            raise self._unknown(kind)
        name = _shown(named or kind)
        # A record inside itself is written by its name alone; its check is the one built below.
        shape = Shape(name, accepts=lambda value: built.accepts(value))  # noqa: PLW0108
        self.open[named or kind] = shape
        shape.hashable = shape.immutable = style.frozen
        shape.hooked = style.hooked
        shapes = [self.shape(field.form, bound) for field in fields]
        del self.open[named or kind]
        left, right = "()" if style.positional else "{}"
        inner = [
            f"{field.name}{'?' if field.optional else ''}: {part.schema}"
            for field, part in zip(fields, shapes, strict=True)
        ]
        if style.tag is not None:
            inner.insert(0, f"{style.tag[0]}: Literal[{_literal_text(style.tag[1])}]")
        built = Shape(
            schema=f"{name}{left}{', '.join(inner)}{right}",
            accepts=_accepts_mapping(fields, shapes)
            if style.mapping
            else _accepts_record(kind, fields, shapes),
            immutable=style.frozen and all(part.immutable for part in shapes),
            hashable=style.frozen and not style.hooked and all(part.hashable for part in shapes),
        )
        _containing(shapes, built)
        built.hooked = style.hooked or built.hooked
        built.named = not style.positional or built.named
        return built

    def _fields(self, kind: Any) -> tuple[list[Field], _Style | None]:
        if dataclasses.is_dataclass(kind):
            return self._dataclass_fields(kind)
        if issubclass(kind, msgspec.Struct):
            config = kind.__struct_config__
            fields = [
                Field(f.encode_name, f.name, f.type, not f.required)
                for f in msgspec.structs.fields(kind)
            ]
            tag = None if config.tag is None else (str(config.tag_field), config.tag)
            return fields, _Style(config.frozen, positional=config.array_like, tag=tag)
        if typing_extensions.is_typeddict(kind):
            required = kind.__required_keys__
            hints = typing_extensions.get_type_hints(kind)
            return [Field(n, n, f, n not in required) for n, f in hints.items()], _Style(
                frozen=False, mapping=True
            )
        if issubclass(kind, tuple) and hasattr(kind, "_fields"):
            hints, defaults = _hints_of(kind), kind._field_defaults
            if set(hints) != set(kind._fields):
                raise self.refused(
                    f"the named tuple {_shown(kind)} does not say the types of its fields",
                    "declare it as a class(NamedTuple) with annotations",
                )
            return [Field(n, n, hints[n], n in defaults) for n in kind._fields], _Style(
                frozen=True, positional=True
            )
        if models := model_fields(kind):
            return self._model_fields(kind, models)
        return [], None

    def _dataclass_fields(self, kind: Any) -> tuple[list[Field], _Style]:
        hints = _hints_of(kind)
        fields = []
        for f in dataclasses.fields(kind):
            if not f.init:
                raise self.refused(
                    f"field {f.name!r} of {_shown(kind)} is not set by its constructor",
                    "leave out init=False, or make it a property",
                )
            optional = (
                f.default is not dataclasses.MISSING or f.default_factory is not dataclasses.MISSING
            )
            fields.append(Field(f.name, f.name, hints[f.name], optional))
        initial = [n for n, h in hints.items() if isinstance(h, dataclasses.InitVar)]
        if initial:
            raise self.refused(
                f"field {initial[0]!r} of {_shown(kind)} is an InitVar, which is not kept",
                "make it an ordinary field",
            )
        parameters = kind.__dataclass_params__
        return fields, _Style(frozen=parameters.frozen and parameters.eq)

    def _model_fields(self, kind: Any, models: dict[str, Any]) -> tuple[list[Field], _Style]:
        if kind.model_config.get("extra") == "allow":
            raise self.refused(
                f"{_shown(kind)} takes extra fields of any type", "leave out extra='allow'"
            )
        hints = typing_extensions.get_type_hints(kind)
        return [Field(n, n, hints[n], not f.is_required()) for n, f in models.items()], _Style(
            frozen=bool(kind.model_config.get("frozen")), hooked=True
        )

    def _enum(self, kind: type[enum.Enum]) -> Shape:
        values = [member.value for member in kind]
        kinds = {value.__class__ for value in values}
        if issubclass(kind, enum.Flag) or (kinds != {int} and kinds != {str}):
            raise self.refused(
                f"{_shown(kind)} is not an enum of only str or only int values",
                "give its members such values, or store .name as str",
            )
        members = ", ".join(f"{member.name}={_literal_text(member.value)}" for member in kind)
        return _of_class(kind, f"{_shown(kind)}<{members}>")

    def _unknown(self, form: Any) -> Rejected:
        if form in (list, dict, set, frozenset, tuple):
            return self.refused(
                f"{form.__name__} does not say what is in it",
                f"declare its contents, such as {_EXAMPLES[form]}",
            )
        if form in (object, Any):
            return self.refused(
                f"{_shown(form)} says nothing about what is stored",
                "declare the type, or a union of the types that occur",
            )
        return self.refused(
            f"values of {_shown(form)} cannot be stored",
            "use str, bytes, numbers, dates, enums, lists, dicts, sets, tuples, dataclasses, "
            "NamedTuple, TypedDict, msgspec.Struct or pydantic models, or give serializer=",
        )


_EXAMPLES: dict[Any, str] = {
    list: "list[int]",
    dict: "dict[str, int]",
    set: "set[int]",
    frozenset: "frozenset[int]",
    tuple: "tuple[int, str] or tuple[int, ...]",
}


@dataclass(frozen=True, slots=True)
class _Style:
    """How a class of records is made: can it change, and how does it lie in bytes?"""

    frozen: bool
    positional: bool = False
    mapping: bool = False
    hooked: bool = False
    tag: tuple[str, str | int] | None = None


def _of_class(kind: Any, schema: str) -> Shape:
    return Shape(schema, lambda value: value.__class__ is kind, exact_class=kind)


def _containing(parts: list[Shape], shape: Shape) -> Shape:
    """The shape of something made of these parts, which has what they have."""
    shape.big = any(part.big for part in parts)
    shape.hooked = any(part.hooked for part in parts)
    shape.named = any(part.named for part in parts)
    shape.named_keys = any(part.named_keys for part in parts)
    return shape


def _is_float(value: Any) -> bool:
    if value.__class__ is int:
        return -_EXACT_FLOAT <= value <= _EXACT_FLOAT
    return value.__class__ is float


def _all_of(item: Shape) -> Callable[[Any], bool]:
    """Whether all of some values are accepted; in C when their class settles it."""
    check = item.accepts
    if item.exact_class is None:
        return lambda values: all(check(value) for value in values)
    only = {item.exact_class}
    return lambda values: only.issuperset(map(type, values)) or all(check(v) for v in values)


def _all_items(kind: type, item: Shape) -> Callable[[Any], bool]:
    items = _all_of(item)
    return lambda value: value.__class__ is kind and items(value)


def _accepts_record(kind: type, fields: list[Field], shapes: list[Shape]) -> Callable[[Any], bool]:
    checks = [
        (field.attribute, part.exact_class, part.accepts)
        for field, part in zip(fields, shapes, strict=True)
    ]

    def accepts(value: Any) -> bool:
        if value.__class__ is not kind:
            return False
        for name, exact, check in checks:
            item = getattr(value, name)
            if item.__class__ is not exact and not check(item):
                return False
        return True

    return accepts


def _accepts_mapping(fields: list[Field], shapes: list[Shape]) -> Callable[[Any], bool]:
    checks = {field.name: part.accepts for field, part in zip(fields, shapes, strict=True)}
    required = {field.name for field in fields if not field.optional}

    def accepts(value: Any) -> bool:
        return (
            value.__class__ is dict
            and required <= value.keys() <= checks.keys()
            and all(checks[name](item) for name, item in value.items())
        )

    return accepts


def _literal_text(value: object) -> str:
    return "None" if value is None else msgspec.json.encode(value).decode()


def _shown(form: Any) -> str:
    if typing.get_origin(form) is not None or not isinstance(form, type):
        return str(form).replace("typing.", "").replace(".<locals>", "")
    if form.__module__ == "builtins":
        return form.__qualname__
    return f"{form.__module__}.{form.__qualname__}".replace(".<locals>", "")
