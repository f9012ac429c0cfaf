"""Cells: the objects in which the current state of one key lives, one class per kind of state.

A cell is what the author holds as `self.count` while a record of its key is processed. It knows its
row's prefix and what of it is stored already (`saved`), so that a value updated a thousand times
between two barriers is encoded once. `drain` gives the changes since the last drain.

Values of immutable type are held as objects, others encoded: what was read must not change the
state by being mutated, on no backend.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, cast

from penstock.core.descriptors import StateKind
from penstock.core.errors import Rejected
from penstock.core.rows import PLAIN, list_index
from penstock.state.backend import KeyedBackend
from penstock.state.serializers import ValueSerializer

Changes = list[tuple[bytes, bytes | None]]

_ABSENT: Any = object()
_STALE: Any = object()
_MAP_CACHED_MAX = 1024


@dataclass(frozen=True, slots=True)
class StateSpec:
    """One declared state, as the cells need it."""

    name: str
    kind: StateKind
    serializer: ValueSerializer
    sub_serializer: ValueSerializer | None = None
    default: Any = None
    reduce: Callable[[Any, Any], Any] | None = None
    aggregate: Any = None

    def stored(self, value: Any) -> bytes | None:
        """A value as its row holds it; None for the default, which is no row at all."""
        if value is None:
            return None
        data = self.serializer.encode(value)
        # Equal is not the same: 0, 0.0 and False are equal, and a state of int | bool holds either.
        if value == self.default and data == self.serializer.encode(self.default):
            return None
        return PLAIN + data


class Cell:
    """Base: one key's part of one state. Subclasses made by `cell_class` carry `spec`, `backend`."""

    __slots__ = ("row",)
    row: bytes
    spec: StateSpec
    backend: KeyedBackend
    single_row = True
    """Whether the whole cell is one row, fetched by multi-get before the cell is made."""

    @classmethod
    def of_rows(cls, rows: Sequence[bytes], stored: Sequence[bytes | None]) -> list[Cell]:
        """The cells of a single-row state, for these rows and what is stored in them."""
        make: Any = cls
        return [make(row, data) for row, data in zip(rows, stored, strict=True)]

    @classmethod
    def drain_all(cls, cells: Iterable[Cell], into: Changes) -> None:
        """Append what must be written of these cells, and take it as written."""
        for cell in cells:
            cell.drain(into)

    def drain(self, into: Changes) -> None:
        """Append what must be written, and take it as written."""
        raise AssertionError

    def refuse(self, value: object) -> Rejected:
        """The error for a value of the wrong type."""
        shown = repr(value)
        return Rejected(
            f"state {self.spec.name} is declared {self.spec.serializer.schema} and was given "
            f"{shown[:80]}{'…' if len(shown) > 80 else ''} ({type(value).__name__})",
            where=f"state {self.spec.name}",
            fix="give a value of the declared type, or declare the type that is meant",
        )


class ValueCell(Cell):
    """A value of immutable type: `value` is a plain slot, its type is checked after each record."""

    __slots__ = ("saved", "value")
    value: Any
    saved: Any

    @classmethod
    def of_rows(cls, rows: Sequence[bytes], stored: Sequence[bytes | None]) -> list[Cell]:
        """See Cell."""
        # Not by __init__, nor is draining a method of one: a call costs as much as all the rest.
        default, decode = cls.spec.default, cls.spec.serializer.decode
        cells = [cls.__new__(cls) for _ in rows]
        for cell, row, data in zip(cells, rows, stored, strict=True):
            cell.row = row
            cell.value = cell.saved = default if data is None else decode(data[1:])
        return cast("list[Cell]", cells)

    @classmethod
    def drain_all(cls, cells: Iterable[Any], into: Changes) -> None:
        """See Cell."""
        default, encode, stored = cls.spec.default, cls.spec.serializer.encode, cls.spec.stored
        for cell in cells:
            value = cell.value
            if value is cell.saved:
                continue
            is_plain = value is not None and value != default
            into.append((cell.row, PLAIN + encode(value) if is_plain else stored(value)))
            cell.saved = value

    def exists(self) -> bool:
        """Whether the value differs from the default."""
        return bool(self.value != self.spec.default)

    def clear(self) -> None:
        """Back to the default."""
        self.value = self.spec.default


class EncodedValueCell(Cell):
    """A value of mutable type: held as bytes, decoded at each read, checked at each write."""

    __slots__ = ("data", "saved")

    def __init__(self, row: bytes, stored: bytes | None) -> None:
        self.row = row
        self.data = self.saved = stored

    @property
    def value(self) -> Any:
        """A fresh copy; write it back to change the state."""
        data, spec = self.data, self.spec
        if data is not None:
            return spec.serializer.decode(data[1:])
        if spec.default is None:
            return None
        return spec.serializer.decode(spec.serializer.encode(spec.default))

    @value.setter
    def value(self, value: Any) -> None:
        if value is not None and not self.spec.serializer.accepts(value):
            raise self.refuse(value)
        self.data = self.spec.stored(value)

    def exists(self) -> bool:
        """Whether the value differs from the default."""
        return self.data is not None

    def clear(self) -> None:
        """Back to the default."""
        self.data = None

    def drain(self, into: Changes) -> None:
        """See Cell."""
        if self.data is not self.saved:
            into.append((self.row, self.data))
            self.saved = self.data


class ReducingCell(ValueCell):
    """A fold of items of immutable type."""

    __slots__ = ()

    def add(self, item: Any) -> None:
        """Fold one in."""
        value = self.value
        self.value = item if value is None else self.spec.reduce(value, item)  # type: ignore[misc]


class EncodedReducingCell(EncodedValueCell):
    """A fold of items of mutable type."""

    __slots__ = ()

    def add(self, item: Any) -> None:
        """Fold one in."""
        value = self.value
        self.value = item if value is None else self.spec.reduce(value, item)  # type: ignore[misc]


class AggregatingCell(Cell):
    """An accumulator, held as an object whatever its type: only the aggregate sees it.

    A result that may be the accumulator, or a part of it, is made from a copy: it goes to others,
    and the next `add` may change it in place.
    """

    __slots__ = ("acc", "saved")

    def __init__(self, row: bytes, stored: bytes | None) -> None:
        self.row = row
        self.acc = self.saved = (
            _ABSENT if stored is None else self.spec.serializer.decode(stored[1:])
        )

    def add(self, item: Any) -> None:
        """Fold one in."""
        spec = self.spec
        acc = spec.aggregate.create() if self.acc is _ABSENT else self.acc
        acc = spec.aggregate.add(acc, item)
        if not spec.serializer.accepts(acc):
            raise self.refuse(acc)
        if acc is self.acc:
            self.saved = _STALE  # It may have been changed in place.
        self.acc = acc

    @property
    def value(self) -> Any:
        """The aggregate's result."""
        aggregate, serializer = self.spec.aggregate, self.spec.serializer
        if self.acc is _ABSENT:
            return aggregate.result(aggregate.create())
        result = aggregate.result(self.acc)
        if serializer.immutable or _is_scalar(result):
            return result
        return aggregate.result(serializer.decode(serializer.encode(self.acc)))

    def clear(self) -> None:
        """Forget it."""
        self.acc = _ABSENT

    def drain(self, into: Changes) -> None:
        """See Cell."""
        acc = self.acc
        if acc is self.saved:
            return
        stored = None if acc is _ABSENT else PLAIN + self.spec.serializer.encode(acc)
        into.append((self.row, stored))
        self.saved = acc


class ListCell(Cell):
    """A list: one row per item. Appending reads nothing but the last row, once."""

    __slots__ = ("added", "next_index", "replaced", "stored")
    single_row = False

    def __init__(self, row: bytes) -> None:
        self.row = row
        self.stored: list[bytes] | None = None
        self.added: list[bytes] = []
        self.replaced = False
        self.next_index: int | None = None

    def append(self, item: Any) -> None:
        """Add one at the end."""
        self.added.append(self._encoded(item))

    def extend(self, items: Iterable[Any]) -> None:
        """Add several at the end."""
        self.added.extend([self._encoded(item) for item in items])

    def replace(self, items: Iterable[Any]) -> None:
        """These, and no others."""
        added = [self._encoded(item) for item in items]
        self.stored, self.added, self.replaced = [], added, True

    def clear(self) -> None:
        """Make it empty."""
        self.stored, self.added, self.replaced = [], [], True

    def __iter__(self) -> Iterator[Any]:
        decode = self.spec.serializer.decode
        return iter([decode(data[1:]) for data in (*self._load(), *self.added)])

    def __bool__(self) -> bool:
        return bool(self.added or self._load())

    def drain(self, into: Changes) -> None:
        """See Cell."""
        if self.replaced:
            into.extend((row, None) for row, _ in self.backend.scan(self.spec.name, self.row))
            self.next_index = 0
        elif not self.added:
            return
        if self.next_index is None:
            last = self.backend.last(self.spec.name, self.row)
            self.next_index = 0 if last is None else int.from_bytes(last[-8:], "big") + 1
        for data in self.added:
            into.append((self.row + list_index(self.next_index), data))
            self.next_index += 1
        if self.stored is not None:
            self.stored = self.stored + self.added
        self.added, self.replaced = [], False

    def _encoded(self, item: Any) -> bytes:
        serializer = self.spec.serializer
        if not serializer.accepts(item):
            raise self.refuse(item)
        return PLAIN + serializer.encode(item)

    def _load(self) -> list[bytes]:
        if self.stored is None:
            self.stored = [data for _, data in self.backend.scan(self.spec.name, self.row)]
        return self.stored


class MapCell(Cell):
    """A map: one row per entry, read when asked for.

    `entries` are those at hand, by their key's bytes: (key, stored value), the value None when it
    was deleted. Once all rows were read and are few, `complete` spares reading them again.
    """

    __slots__ = ("changed", "complete", "entries")
    single_row = False

    def __init__(self, row: bytes) -> None:
        self.row = row
        self.entries: dict[bytes, tuple[Any, bytes | None]] = {}
        self.changed: set[bytes] = set()
        self.complete = False

    def __getitem__(self, key: Any) -> Any:
        data = self._find(key)
        if data is None:
            raise KeyError(key)
        return self.spec.serializer.decode(data[1:])

    def get(self, key: Any, default: Any = None) -> Any:
        """The entry, or the default."""
        data = self._find(key)
        return default if data is None else self.spec.serializer.decode(data[1:])

    def __contains__(self, key: Any) -> bool:
        return self._find(key) is not None

    def __setitem__(self, key: Any, value: Any) -> None:
        serializer = self.spec.serializer
        if not serializer.accepts(value):
            raise self.refuse(value)
        self._put(key, PLAIN + serializer.encode(value))

    def __delitem__(self, key: Any) -> None:
        if self._find(key) is None:
            raise KeyError(key)
        self._put(key, None)

    def pop(self, key: Any, *default: Any) -> Any:
        """Remove an entry and return it."""
        data = self._find(key)
        if data is None:
            if default:
                return default[0]
            raise KeyError(key)
        self._put(key, None)
        return self.spec.serializer.decode(data[1:])

    def update(self, items: Mapping[Any, Any]) -> None:
        """Set several."""
        for key, value in items.items():
            self[key] = value

    def __iter__(self) -> Iterator[Any]:
        return (key for key, _ in self._stored())

    def keys(self) -> Iterator[Any]:
        """The map keys."""
        return iter(self)

    def values(self) -> Iterator[Any]:
        """The values."""
        decode = self.spec.serializer.decode
        return (decode(data[1:]) for _, data in self._stored())

    def items(self) -> Iterator[tuple[Any, Any]]:
        """The entries."""
        decode = self.spec.serializer.decode
        return ((key, decode(data[1:])) for key, data in self._stored())

    def __bool__(self) -> bool:
        return next(self._stored(), None) is not None

    def clear(self) -> None:
        """Make it empty."""
        for key in [key for key, _ in self._stored()]:
            self._put(key, None)

    def drain(self, into: Changes) -> None:
        """See Cell."""
        for sub in self.changed:
            into.append((self.row + sub, self.entries[sub][1]))
        self.changed.clear()
        if len(self.entries) > _MAP_CACHED_MAX:
            self.entries.clear()
            self.complete = False

    def _sub(self, key: Any) -> bytes:
        serializer = self.spec.sub_serializer
        assert serializer is not None
        if not serializer.accepts(key):
            raise Rejected(
                f"map state {self.spec.name} has keys of type {serializer.schema} and was given "
                f"{key!r} ({type(key).__name__})",
                where=f"state {self.spec.name}",
                fix="use a key of the declared type, or declare the type that is meant",
            )
        return serializer.encode(key)

    def _find(self, key: Any) -> bytes | None:
        sub = self._sub(key)
        entry = self.entries.get(sub)
        if entry is not None:
            return entry[1]
        if self.complete:
            return None
        data = self.backend.get_many(self.spec.name, [self.row + sub])[0]
        self.entries[sub] = (key, data)
        return data

    def _put(self, key: Any, data: bytes | None) -> None:
        sub = self._sub(key)
        self.entries[sub] = (key, data)
        self.changed.add(sub)

    def _stored(self) -> Iterator[tuple[Any, bytes]]:
        # Deleting while iterating is allowed: each entry is looked up again before it is given out.
        if not self.complete:
            yield from self._scanned()
            return
        for sub in sorted(self.entries):
            key, data = self.entries.get(sub, (None, None))
            if data is not None:
                yield key, data

    def _scanned(self) -> Iterator[tuple[Any, bytes]]:
        decode = self.spec.sub_serializer.decode  # type: ignore[union-attr]
        width = len(self.row)
        rows = self.backend.scan(self.spec.name, self.row)
        in_rows = ((row[width:], data) for row, data in rows)
        at_hand = ((sub, b"") for sub in sorted(self.entries))
        read: dict[bytes, tuple[Any, bytes]] = {}
        last = None
        for sub, found in heapq.merge(in_rows, at_hand, key=itemgetter(0)):
            if sub == last:
                continue
            last = sub
            entry = self.entries.get(sub)
            if entry is None:
                entry = (decode(sub), found)
                if len(read) <= _MAP_CACHED_MAX:
                    read[sub] = (entry[0], found)
            if entry[1] is not None:
                yield entry[0], entry[1]
        if len(read) <= _MAP_CACHED_MAX:
            self.entries = {**read, **self.entries}
            self.complete = True


_CLASSES: dict[StateKind, tuple[type[Cell], type[Cell]]] = {
    StateKind.VALUE: (ValueCell, EncodedValueCell),
    StateKind.REDUCING: (ReducingCell, EncodedReducingCell),
    StateKind.AGGREGATING: (AggregatingCell, AggregatingCell),
    StateKind.LIST: (ListCell, ListCell),
    StateKind.MAP: (MapCell, MapCell),
}


_SCALARS = frozenset({int, float, str, bytes, bool, type(None)})


def _is_scalar(value: Any) -> bool:
    """Whether a value is one that nobody can change: a scalar, or a tuple of scalars."""
    items = value if value.__class__ is tuple else (value,)
    return all(item.__class__ in _SCALARS for item in items)


def cell_class(spec: StateSpec, backend: KeyedBackend) -> type[Cell]:
    """The class of one state's cells: what is the same for all of them lies on the class."""
    plain, encoded = _CLASSES[spec.kind]
    base = plain if spec.serializer.immutable else encoded
    return type(
        f"{base.__name__}[{spec.name}]",
        (base,),
        {"__slots__": (), "spec": spec, "backend": backend},
    )
