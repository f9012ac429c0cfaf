"""Cells that find out what a running job cannot afford to look for.

Values go through their serializer on every read and write, and a cell remembers what it gave out:
`forgotten()` says whether the author changed some of it and did not write it back.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from penstock.core.descriptors import StateKind
from penstock.state.cells import (
    AggregatingCell,
    Cell,
    EncodedReducingCell,
    EncodedValueCell,
    ListCell,
    MapCell,
)


class CheckedCell(Cell):
    """Base: remembers objects that the author holds, with their bytes when he got them.

    `_given` has them by what part of the state they are: a map's key, else None.
    """

    __slots__ = ()
    _given: dict[Any, list[tuple[Any, bytes]]]

    def look_away(self) -> None:
        """Forget what was given out: it was for somebody else's eyes."""
        self._given.clear()

    def forgotten(self) -> bool:
        """Whether something that was given out, or written, was changed afterwards."""
        encode = self.spec.serializer.encode
        return any(encode(value) != data for given in self._given.values() for value, data in given)

    def _give(self, value: Any, part: Any = None) -> Any:
        if value is not None and not self.spec.serializer.immutable:
            data = self.spec.serializer.encode(value)
            self._given.setdefault(part, []).append((value, data))
        return value

    def _written(self, value: Any, part: Any = None) -> None:
        self._given.pop(part, None)
        self._give(value, part)


class CheckedValue(CheckedCell, EncodedValueCell):
    """A value of any type, always held as bytes."""

    __slots__ = ("_given",)

    def __init__(self, row: bytes, stored: bytes | None) -> None:
        super().__init__(row, stored)
        self._given = {}

    @property
    def value(self) -> Any:
        """See EncodedValueCell."""
        return self._give(EncodedValueCell.value.fget(self))  # type: ignore[attr-defined]

    @value.setter
    def value(self, value: Any) -> None:
        EncodedValueCell.value.fset(self, value)  # type: ignore[attr-defined]
        self._written(value)

    def clear(self) -> None:
        """See EncodedValueCell."""
        super().clear()
        self.look_away()


class CheckedReducing(CheckedValue, EncodedReducingCell):
    """A fold of any type, always held as bytes."""

    __slots__ = ()


class CheckedAggregating(CheckedCell, AggregatingCell):
    """An accumulator that goes through its serializer after every `add`; nobody else holds it."""

    __slots__ = ("_given",)

    def __init__(self, row: bytes, stored: bytes | None) -> None:
        super().__init__(row, stored)
        self._given = {}

    def add(self, item: Any) -> None:
        """See AggregatingCell."""
        super().add(item)
        serializer = self.spec.serializer
        self.acc = serializer.decode(serializer.encode(self.acc))


class CheckedList(CheckedCell, ListCell):
    """A list that remembers the items it gave out, and those it was given."""

    __slots__ = ("_given",)

    def __init__(self, row: bytes) -> None:
        super().__init__(row)
        self._given = {}

    def __iter__(self) -> Iterator[Any]:
        return map(self._give, super().__iter__())

    def append(self, item: Any) -> None:
        """See ListCell."""
        super().append(item)
        self._give(item)

    def extend(self, items: Iterable[Any]) -> None:
        """See ListCell."""
        items = list(items)
        super().extend(items)
        for item in items:
            self._give(item)

    def replace(self, items: Iterable[Any]) -> None:
        """See ListCell."""
        items = list(items)
        super().replace(items)
        self.look_away()
        for item in items:
            self._give(item)

    def clear(self) -> None:
        """See ListCell."""
        super().clear()
        self.look_away()


class CheckedMap(CheckedCell, MapCell):
    """A map that remembers the values it gave out, and those it was given."""

    __slots__ = ("_given",)

    def __init__(self, row: bytes) -> None:
        super().__init__(row)
        self._given = {}

    def __getitem__(self, key: Any) -> Any:
        return self._give(super().__getitem__(key), self._sub(key))

    def get(self, key: Any, default: Any = None) -> Any:
        """See MapCell."""
        try:
            return self[key]
        except KeyError:
            return default

    def __setitem__(self, key: Any, value: Any) -> None:
        super().__setitem__(key, value)
        self._written(value, self._sub(key))

    def update(self, items: Mapping[Any, Any]) -> None:
        """See MapCell."""
        for key, value in items.items():
            self[key] = value

    def values(self) -> Iterator[Any]:
        """See MapCell."""
        return (value for _, value in self.items())

    def items(self) -> Iterator[tuple[Any, Any]]:
        """See MapCell."""
        return ((key, self._give(value, self._sub(key))) for key, value in super().items())

    def _put(self, key: Any, data: bytes | None) -> None:
        super()._put(key, data)
        if data is None:
            self._given.pop(self._sub(key), None)


_CHECKED: dict[StateKind, type[CheckedCell]] = {
    StateKind.VALUE: CheckedValue,
    StateKind.REDUCING: CheckedReducing,
    StateKind.AGGREGATING: CheckedAggregating,
    StateKind.LIST: CheckedList,
    StateKind.MAP: CheckedMap,
}


def checked(plain: type[Cell]) -> type[Cell]:
    """The checking class for one state, in place of the one that a job has."""
    spec = plain.spec
    base = _CHECKED[spec.kind]
    return type(
        f"{base.__name__}[{spec.name}]",
        (base,),
        {"__slots__": (), "spec": spec, "backend": plain.backend},
    )
