"""Ready-made aggregates: `count`, `sum`, `mean`, `minimum`, `maximum`, and `combine` of several."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar, cast, overload

from penstock.core.keys import decode_key, encode_key
from penstock.dataflow.aggregate import Aggregate, accumulator_type
from penstock.state.serializers import serializer_for

__all__ = ["Aggregate", "combine", "count", "maximum", "mean", "minimum", "sum"]

In = TypeVar("In")
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")


class _Count:
    def create(self) -> int:
        return 0

    def add(self, acc: int, record: object, /) -> int:
        return acc + 1

    def merge(self, a: int, b: int, /) -> int:
        return a + b

    def result(self, acc: int, /) -> int:
        return acc


class _Sum(Generic[In]):
    def __init__(self, of: Callable[[In], float]) -> None:
        self.of = of

    def create(self) -> int | float:
        return 0

    def add(self, acc: float, record: In, /) -> float:
        return acc + self.of(record)

    def merge(self, a: float, b: float, /) -> float:
        return a + b

    def result(self, acc: float, /) -> float:
        return acc


class _Mean(Generic[In]):
    def __init__(self, of: Callable[[In], float]) -> None:
        self.of = of

    def create(self) -> tuple[float, int]:
        return 0.0, 0

    def add(self, acc: tuple[float, int], record: In, /) -> tuple[float, int]:
        return acc[0] + self.of(record), acc[1] + 1

    def merge(self, a: tuple[float, int], b: tuple[float, int], /) -> tuple[float, int]:
        return a[0] + b[0], a[1] + b[1]

    def result(self, acc: tuple[float, int], /) -> float:
        return acc[0] / acc[1] if acc[1] else 0.0


class _AnyScalar:
    """Values of any type that can be a key: what a minimum of a lambda's results is stored as."""

    name = "scalar"
    version = 1

    def encode(self, value: object, /) -> bytes:
        return b"" if value is None else encode_key(value)

    def decode(self, data: bytes, version: int, /) -> object:
        return decode_key(data) if data else None


class _Extreme(Generic[In]):
    serializer = _AnyScalar()

    def __init__(self, of: Callable[[In], Any], better: Callable[[Any, Any], Any]) -> None:
        self.of = of
        self.better = better

    def create(self) -> Any:
        return None

    def add(self, acc: Any, record: In, /) -> Any:
        value = self.of(record)
        return value if acc is None else self.better(acc, value)

    def merge(self, a: Any, b: Any, /) -> Any:
        if a is None or b is None:
            return b if a is None else a
        return self.better(a, b)

    def result(self, acc: Any, /) -> Any:
        return acc


class _Parts:
    """Accumulators of several aggregates, each in its own format."""

    name = "parts"
    version = 1

    def __init__(self, parts: tuple[Aggregate[Any, Any, Any], ...]) -> None:
        self.parts = []
        for part in parts:
            type_, custom = accumulator_type(part)
            self.parts.append(serializer_for(type_, custom=custom))

    def encode(self, value: tuple[Any, ...], /) -> bytes:
        encoded = [s.encode(v) for s, v in zip(self.parts, value, strict=True)]
        return b"".join(len(e).to_bytes(4, "big") + e for e in encoded)

    def decode(self, data: bytes, version: int, /) -> tuple[Any, ...]:
        values, at = [], 0
        for s in self.parts:
            end = at + 4 + int.from_bytes(data[at : at + 4], "big")
            values.append(s.decode(data[at + 4 : end]))
            at = end
        return tuple(values)


class _Combined:
    def __init__(self, parts: tuple[Aggregate[Any, Any, Any], ...]) -> None:
        self.parts = parts
        self.serializer = _Parts(parts)

    def create(self) -> tuple[Any, ...]:
        return tuple(p.create() for p in self.parts)

    def add(self, acc: tuple[Any, ...], record: Any, /) -> tuple[Any, ...]:
        return tuple(p.add(a, record) for p, a in zip(self.parts, acc, strict=True))

    def merge(self, a: tuple[Any, ...], b: tuple[Any, ...], /) -> tuple[Any, ...]:
        return tuple(p.merge(x, y) for p, x, y in zip(self.parts, a, b, strict=True))

    def result(self, acc: tuple[Any, ...], /) -> tuple[Any, ...]:
        return tuple(p.result(a) for p, a in zip(self.parts, acc, strict=True))


def count() -> Aggregate[object, int, int]:
    """How many."""
    return _Count()


@overload
def sum(of: Callable[[In], int]) -> Aggregate[In, int, int]: ...
@overload
def sum(of: Callable[[In], float]) -> Aggregate[In, float, float]: ...
def sum(of: Callable[[In], Any]) -> Aggregate[In, Any, Any]:
    """The sum of a number of each record."""
    return _Sum(of)


def mean(of: Callable[[In], float]) -> Aggregate[In, tuple[float, int], float]:
    """The arithmetic mean of a number of each record; 0.0 of nothing."""
    return _Mean(of)


def minimum(of: Callable[[In], A]) -> Aggregate[In, A | None, A]:
    """The least of a value of each record (scalars, dates, tuples of them); None of nothing."""
    return _Extreme(of, min)


def maximum(of: Callable[[In], A]) -> Aggregate[In, A | None, A]:
    """The greatest of a value of each record (scalars, dates, tuples of them); None of nothing."""
    return _Extreme(of, max)


@overload
def combine(
    a: Aggregate[In, Any, A], b: Aggregate[In, Any, B], /
) -> Aggregate[In, tuple[Any, ...], tuple[A, B]]: ...
@overload
def combine(
    a: Aggregate[In, Any, A], b: Aggregate[In, Any, B], c: Aggregate[In, Any, C], /
) -> Aggregate[In, tuple[Any, ...], tuple[A, B, C]]: ...
def combine(*parts: Aggregate[In, Any, Any]) -> Aggregate[In, tuple[Any, ...], Any]:
    """Several aggregates of the same records at once; the result is a tuple of theirs."""
    return cast("Aggregate[In, tuple[Any, ...], Any]", _Combined(parts))
