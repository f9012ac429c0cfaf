"""Classes whose instances are just their fields: dataclasses, named tuples, pydantic models.

A column of them is taken apart into a column per field and put together again without calling
`__init__`, as pickle does. A class with its own idea of how it is pickled has no shape.
"""

from __future__ import annotations

import dataclasses
import importlib
import sys
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import repeat
from operator import attrgetter, itemgetter
from types import NoneType
from typing import Any, Protocol

_LIBRARIES = frozenset({"dataclasses", "pydantic.main"})
_FIELDS_SET = "__pydantic_fields_set__"
_BESIDE_FIELDS = ("__pydantic_extra__", "__pydantic_private__")
_REDUCERS = ("__reduce_ex__", "__reduce__")


class Shape(Protocol):
    """How the instances of one class are taken apart."""

    @property
    def name(self) -> str:
        """The class, as `module:qualname`."""

    def take_apart(self, instances: Sequence[Any]) -> Sequence[Sequence[Any]] | None:
        """A column per field, or None if some instance is more or less than its fields."""

    def put_together(self, columns: list[list[Any]]) -> list[Any]:
        """The instances again.

        Raises:
            ValueError: columns that do not fit the class or each other.
        """


@cache
def shape_of(kind: type) -> Shape | None:
    """The shape of a class, or None if it has none, or cannot be found by its name."""
    name = f"{kind.__module__}:{kind.__qualname__}"
    try:
        is_found = _class_named(name) is kind
    except ValueError:
        is_found = False
    if not is_found:
        return None
    if kind.__bases__ == (tuple,) and vars(kind).get("__slots__") == ():
        fields = getattr(kind, "_fields", None)
        return _NamedTuple(name, kind, fields) if fields else None
    if _pickles_in_its_own_way(kind):
        return None
    if "__dataclass_params__" in vars(kind):
        return _dataclass_shape(name, kind)
    if fields := getattr(kind, "__pydantic_fields__", None):
        return _Model(name, kind, tuple(fields))
    return None


def _dataclass_shape(name: str, kind: type) -> Shape | None:
    fields = tuple(field.name for field in dataclasses.fields(kind))
    slots = {slot for base in kind.__mro__ for slot in _slots(base)} - {"__weakref__"}
    has_dict = any("__dict__" in vars(base) for base in kind.__mro__)
    if fields and has_dict and not slots:
        return _Plain(name, kind, fields)
    if fields and not has_dict and slots == set(fields):
        return _Slotted(name, kind, fields)
    return None


def _slots(kind: type) -> tuple[str, ...]:
    slots = vars(kind).get("__slots__", ())
    return (slots,) if isinstance(slots, str) else tuple(slots)


@cache
def named_shape(name: str) -> Shape:
    """The shape of the class with this name.

    Raises:
        ValueError: there is no such class here, or it has no shape.
    """
    shape = shape_of(_class_named(name))
    if shape is None:
        raise ValueError(f"{name} cannot be put together from its fields")
    return shape


def _class_named(name: str) -> type:
    module_name, _, qualname = name.partition(":")
    try:
        found: Any = sys.modules.get(module_name) or importlib.import_module(module_name)
        for attribute in qualname.split("."):
            found = getattr(found, attribute)
    except (ImportError, AttributeError, TypeError) as e:
        raise ValueError(f"the class {name} is not known in this process") from e
    if not isinstance(found, type):
        raise ValueError(f"{name} is no class")
    return found


def _pickles_in_its_own_way(kind: type) -> bool:
    new: Any = kind.__new__
    if new is not object.__new__:  # a dict or a str with fields is more than its fields
        return True
    if any(getattr(kind, name) is not getattr(object, name) for name in _REDUCERS):
        return True
    if any(hasattr(kind, name) for name in ("__getnewargs__", "__getnewargs_ex__")):
        return True
    # both libraries bring these two, and mean by them what is done here
    state = (getattr(kind, name, None) for name in ("__getstate__", "__setstate__"))
    usual = getattr(object, "__getstate__", None)
    return any(
        method not in (None, usual) and method.__module__ not in _LIBRARIES for method in state
    )


@dataclass(frozen=True, slots=True)
class _NamedTuple:
    name: str
    kind: type
    fields: tuple[str, ...]

    def take_apart(self, instances: Sequence[Any]) -> Sequence[Sequence[Any]] | None:
        if set(map(len, instances)) != {len(self.fields)}:
            return None
        return list(zip(*instances, strict=True))

    def put_together(self, columns: list[list[Any]]) -> list[Any]:
        if len(columns) != len(self.fields):
            raise ValueError(f"{len(columns)} columns for {self.name}")
        return list(map(tuple.__new__, repeat(self.kind), zip(*columns, strict=True)))


@dataclass(frozen=True, slots=True)
class _Slotted:
    name: str
    kind: type
    fields: tuple[str, ...]

    def take_apart(self, instances: Sequence[Any]) -> Sequence[Sequence[Any]] | None:
        try:
            return [list(map(attrgetter(field), instances)) for field in self.fields]
        except AttributeError:
            return None

    def put_together(self, columns: list[list[Any]]) -> list[Any]:
        instances = _blank(self, columns)
        for field, column in zip(self.fields, columns, strict=True):
            # the slot itself, past the __setattr__ of a frozen class
            _exhaust(map(getattr(self.kind, field).__set__, instances, column))
        return instances


@dataclass(frozen=True, slots=True)
class _Plain:
    name: str
    kind: type
    fields: tuple[str, ...]

    def take_apart(self, instances: Sequence[Any]) -> Sequence[Sequence[Any]] | None:
        return _attributes(instances, self.fields)

    def put_together(self, columns: list[list[Any]]) -> list[Any]:
        instances = _blank(self, columns)
        own: Any = self.kind.__setattr__
        # the built-in is twice as fast, but a frozen class has a __setattr__ that refuses
        put = setattr if own is object.__setattr__ else object.__setattr__
        for field, column in zip(self.fields, columns, strict=True):
            _exhaust(map(put, instances, repeat(field), column))
        return instances


@dataclass(frozen=True, slots=True)
class _Model:
    """A pydantic model without extra and private attributes.

    Behind the fields come two columns: which of the sets of fields that were given each instance
    has, and these few sets.
    """

    name: str
    kind: type
    fields: tuple[str, ...]

    def take_apart(self, instances: Sequence[Any]) -> Sequence[Sequence[Any]] | None:
        for beside in _BESIDE_FIELDS:
            if set(map(type, map(attrgetter(beside), instances))) != {NoneType}:
                return None
        columns = _attributes(instances, self.fields)
        if columns is None:
            return None
        given = list(map(frozenset, map(attrgetter(_FIELDS_SET), instances)))
        order = {names: which for which, names in enumerate(set(given))}
        return [*columns, list(map(order.__getitem__, given)), list(map(list, order))]

    def put_together(self, columns: list[list[Any]]) -> list[Any]:
        *columns, given = columns
        instances = _blank(self, columns, beside_fields=1)
        put: Any = object.__setattr__  # past validation, which they have had
        for field, column in zip(self.fields, columns[:-1], strict=True):
            _exhaust(map(put, instances, repeat(field), column))
        sets = map(set, map(given.__getitem__, columns[-1]))
        _exhaust(map(put, instances, repeat(_FIELDS_SET), sets))
        for beside in _BESIDE_FIELDS:
            _exhaust(map(put, instances, repeat(beside), repeat(None)))
        return instances


def _attributes(instances: Sequence[Any], fields: tuple[str, ...]) -> list[list[Any]] | None:
    attributes = [instance.__dict__ for instance in instances]
    if set(map(len, attributes)) != {len(fields)}:
        return None
    try:
        return [list(map(itemgetter(field), attributes)) for field in fields]
    except KeyError:
        return None


def _blank(
    shape: _Slotted | _Plain | _Model, columns: list[list[Any]], beside_fields: int = 0
) -> list[Any]:
    if len(columns) != len(shape.fields) + beside_fields or len(set(map(len, columns))) != 1:
        raise ValueError(f"{len(columns)} columns for {shape.name}, or of different lengths")
    return list(map(object.__new__, repeat(shape.kind, len(columns[0]))))


def _exhaust(iterator: Iterable[Any]) -> None:
    deque(iterator, maxlen=0)
