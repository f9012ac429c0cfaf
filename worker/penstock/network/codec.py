"""What travels in a channel, as bytes. Pure, and exact: what comes out equals what went in, types
included (a tuple stays a tuple, `True` stays `True`).

A batch is columns, and a column is looked at as a whole: where all its values have one shape, the
shape is written once and the values are taken apart into columns of their own, down to plain
scalars, which msgspec writes and reads in C. What has no such shape is pickled, column by column.
Both ends are children of one job, running the same code; channels are authenticated.

Authors declare nothing. Reference: docs/reference/frames.md.
"""

from __future__ import annotations

import pickle
import zlib
from collections.abc import Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from itertools import chain, islice, repeat
from types import NoneType
from typing import Any, TypeAlias

import msgspec

from penstock.core.errors import Rejected
from penstock.core.ids import CheckpointId
from penstock.core.records import END_OF_INPUT, Barrier, Batch, Element, EndOfInput, Watermark
from penstock.network.shapes import Shape, named_shape, shape_of

_SCALARS = frozenset({int, float, bool, str, bytes, NoneType})
_DEPTH_MAX = 12
_MIXED_TYPES_MAX = 6


class _Column(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Base of the shapes that a column can have; `Any` below stands for values of it."""


class _Plain(_Column, frozen=True, tag=0):
    """What msgpack itself gives back exactly: scalars, lists of them, dicts from text to them."""

    values: list[Any]


class _Tuples(_Column, frozen=True, tag=1):
    """Tuples of one length, by position."""

    columns: list[AnyColumn]


class _Objects(_Column, frozen=True, tag=2):
    """Instances of one class, by field."""

    name: str
    columns: list[AnyColumn]


class _Ragged(_Column, frozen=True, tag=3):
    """Other lists, or tuples of different lengths, laid end to end."""

    are_tuples: bool
    lengths: list[int]
    items: AnyColumn


class _Rows(_Column, frozen=True, tag=4):
    """Dicts that all have the same keys in the same order."""

    keys: list[str]
    columns: list[AnyColumn]


class _Dicts(_Column, frozen=True, tag=5):
    """Other dicts, their items laid end to end."""

    lengths: list[int]
    keys: AnyColumn
    values: AnyColumn


class _Decimals(_Column, frozen=True, tag=6):
    texts: list[str]


class _Dates(_Column, frozen=True, tag=7):
    ordinals: list[int]


class _Datetimes(_Column, frozen=True, tag=8):
    """Naive ones and ones in UTC."""

    texts: list[str]


class _Mixed(_Column, frozen=True, tag=9):
    """A few types in turn: `which[i]` is the column that has the next value."""

    which: list[int]
    columns: list[AnyColumn]


class _Pickled(_Column, frozen=True, tag=10):
    """The rest. It is unpickled only if the checksum fits: stray bytes must not become code."""

    crc32: int
    data: bytes


AnyColumn: TypeAlias = (
    _Plain
    | _Tuples
    | _Objects
    | _Ragged
    | _Rows
    | _Dicts
    | _Decimals
    | _Dates
    | _Datetimes
    | _Mixed
    | _Pickled
)


class _Batch(msgspec.Struct, array_like=True, frozen=True, tag=0):
    values: AnyColumn
    keys: AnyColumn | None
    timestamps: list[int] | None


class _Watermark(msgspec.Struct, array_like=True, frozen=True, tag=1):
    at_ms: int


class _Barrier(msgspec.Struct, array_like=True, frozen=True, tag=2):
    checkpoint: int


class _EndOfInput(msgspec.Struct, array_like=True, frozen=True, tag=3):
    pass


_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[_Batch | _Watermark | _Barrier | _EndOfInput]
_decoder = msgspec.msgpack.Decoder(_Batch | _Watermark | _Barrier | _EndOfInput)


def encode(element: Element) -> bytes:
    """An element as bytes, without their length.

    Raises:
        Rejected: a record that cannot travel, such as an open file or an instance of a class that
            was defined inside a function.
    """
    match element:
        case Batch():
            try:
                return _encoder.encode(_taken_apart(element, is_careful=False))
            except (OverflowError, UnicodeEncodeError):
                # an integer beyond 64 bits or a lone surrogate; rare, so found out by trying
                return _encoder.encode(_taken_apart(element, is_careful=True))
        case Watermark():
            return _encoder.encode(_Watermark(element.at_ms))
        case Barrier():
            return _encoder.encode(_Barrier(element.checkpoint))
        case EndOfInput():
            return _encoder.encode(_EndOfInput())


def decode(data: bytes | bytearray | memoryview) -> Element:
    """The element in these bytes; its columns are lists.

    Raises:
        ValueError: these bytes are no element, or this process does not know a class in them.
    """
    try:
        found = _decoder.decode(data)
        match found:
            case _Batch():
                return _put_together(found)
            case _Watermark():
                return Watermark(found.at_ms)
            case _Barrier():
                return Barrier(CheckpointId(found.checkpoint))
            case _EndOfInput():
                return END_OF_INPUT
    except (ArithmeticError, LookupError, RecursionError, StopIteration, TypeError) as e:
        raise ValueError(f"these bytes are no element: {e}") from e


# ── taking columns apart ────────────────────────────────────────────────────────────────────────


def _taken_apart(batch: Batch, *, is_careful: bool) -> _Batch:
    writer = _Writer(is_careful=is_careful)
    return _Batch(
        writer.column(batch.values),
        None if batch.keys is None else writer.column(batch.keys),
        None if batch.timestamps is None else list(batch.timestamps),
    )


class _Writer:
    """Finds the shape of columns; careful: tries each scalar column for what msgpack lacks."""

    def __init__(self, *, is_careful: bool) -> None:
        self._is_careful = is_careful

    def column(self, values: Sequence[Any], depth: int = 0) -> AnyColumn:
        types = set(map(type, values))
        if types <= _SCALARS:
            return self._plain(values)
        if depth == _DEPTH_MAX:
            return _pickled(values)
        if len(types) > 1:
            return self._mixed(values, types, depth)
        (kind,) = types
        if kind is tuple:
            return self._tuples(values, depth)
        if kind is list:
            return self._lists(values, depth)
        if kind is dict:
            return self._dicts(values, depth)
        if kind is Decimal:
            return _Decimals(list(map(str, values)))
        if kind is datetime:
            return _datetimes(values)
        if kind is date:
            return _Dates(list(map(date.toordinal, values)))
        shape = shape_of(kind)
        return _pickled(values) if shape is None else self._objects(shape, values, depth)

    def _columns(self, columns: Sequence[Sequence[Any]], depth: int) -> list[AnyColumn]:
        return [self.column(column, depth + 1) for column in columns]

    def _plain(self, values: Sequence[Any]) -> AnyColumn:
        if self._is_careful:
            try:
                _encoder.encode(values)
            except (OverflowError, UnicodeEncodeError):
                return _pickled(values)
        return _Plain(values)  # type: ignore[arg-type]  # a tuple is written like a list

    def _tuples(self, values: Sequence[Any], depth: int) -> AnyColumn:
        if len(set(map(len, values))) > 1 or not values[0]:
            items = list(chain.from_iterable(values))
            return _Ragged(True, list(map(len, values)), self.column(items, depth + 1))
        return _Tuples(self._columns(list(zip(*values, strict=True)), depth))

    def _lists(self, values: Sequence[Any], depth: int) -> AnyColumn:
        items = list(chain.from_iterable(values))
        if set(map(type, items)) <= _SCALARS:
            return self._plain(values)
        return _Ragged(False, list(map(len, values)), self.column(items, depth + 1))

    def _dicts(self, values: Sequence[Any], depth: int) -> AnyColumn:
        # only of exact text is it true that equal keys are the same keys: 1 == 1.0 == True
        has_text_keys = set(map(type, chain.from_iterable(values))) == {str}
        items = list(chain.from_iterable(map(dict.values, values)))
        if has_text_keys and set(map(type, items)) <= _SCALARS:
            return self._plain(values)
        if has_text_keys and len(set(map(tuple, values))) == 1:
            columns = list(zip(*map(dict.values, values), strict=True))
            return _Rows(list(values[0]), self._columns(columns, depth))
        keys = list(chain.from_iterable(values))
        return _Dicts(
            list(map(len, values)), self.column(keys, depth + 1), self.column(items, depth + 1)
        )

    def _objects(self, shape: Shape, values: Sequence[Any], depth: int) -> AnyColumn:
        columns = shape.take_apart(values)
        if columns is None:
            return _pickled(values)
        return _Objects(shape.name, self._columns(columns, depth))

    def _mixed(self, values: Sequence[Any], types: set[type], depth: int) -> AnyColumn:
        if len(types) > _MIXED_TYPES_MAX:
            return _pickled(values)
        order = {kind: which for which, kind in enumerate(types - _SCALARS, start=1)}
        which = [order.get(type(value), 0) for value in values]
        groups: list[list[Any]] = [[] for _ in range(len(order) + 1)]
        for group, value in zip(which, values, strict=True):
            groups[group].append(value)
        return _Mixed(which, self._columns(groups, depth))


def _datetimes(values: Sequence[datetime]) -> AnyColumn:
    utc = UTC
    if all((at.tzinfo is None or at.tzinfo is utc) and not at.fold for at in values):
        return _Datetimes(list(map(datetime.isoformat, values)))
    return _pickled(values)


def _pickled(values: Sequence[Any]) -> _Pickled:
    try:
        data = pickle.dumps(list(values), protocol=5)
    except Exception as e:
        kinds = ", ".join(sorted({kind.__qualname__ for kind in set(map(type, values))}))
        raise Rejected(
            f"a record cannot travel between workers: {e} (in a column of {kinds})",
            fix="send plain values, or instances of classes defined at the top of a module",
        ) from e
    return _Pickled(zlib.crc32(data), data)


# ── and putting them together ───────────────────────────────────────────────────────────────────


def _put_together(found: _Batch) -> Batch:
    values = _values(found.values)
    keys = None if found.keys is None else _values(found.keys)
    timestamps = found.timestamps
    for column in (keys, timestamps):
        if column is not None and len(column) != len(values):
            raise ValueError(f"columns of {len(values)} and {len(column)} values in one batch")
    if not values:
        raise ValueError("a batch without records")
    return Batch(values, keys, timestamps)


def _values(column: AnyColumn) -> list[Any]:
    match column:
        case _Plain(values):
            return values
        case _Tuples(columns):
            return list(zip(*map(_values, columns), strict=True))
        case _Objects(name, columns):
            return named_shape(name).put_together([_values(column) for column in columns])
        case _Ragged(are_tuples, lengths, items):
            return _cut(tuple if are_tuples else list, lengths, _values(items))
        case _Rows(keys, columns):
            rows = zip(*map(_values, columns), strict=True)
            return [dict(zip(keys, row, strict=True)) for row in rows]
        case _Dicts(lengths, names, items):
            return _cut(dict, lengths, list(zip(_values(names), _values(items), strict=True)))
        case _Decimals(texts):
            return list(map(Decimal, texts))
        case _Dates(ordinals):
            return list(map(date.fromordinal, ordinals))
        case _Datetimes(texts):
            return list(map(datetime.fromisoformat, texts))
        case _Mixed(which, columns):
            sources = [iter(_values(column)) for column in columns]
            return [next(sources[source]) for source in which]
        case _Pickled(crc32, data):
            return _unpickled(crc32, data)


def _cut(kind: type, lengths: list[int], items: list[Any]) -> list[Any]:
    if sum(lengths) != len(items):
        raise ValueError(f"{len(items)} items where {sum(lengths)} were announced")
    rest = iter(items)
    return list(map(kind, map(islice, repeat(rest), lengths)))


def _unpickled(crc32: int, data: bytes) -> list[Any]:
    if zlib.crc32(data) != crc32:
        raise ValueError("the checksum of pickled records does not fit")
    try:
        values = pickle.loads(data)
    except Exception as e:
        raise ValueError(f"records cannot be unpickled: {e}") from e
    if type(values) is not list:
        raise ValueError("pickled records that are no list")
    return values
