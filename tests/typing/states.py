"""What mypy infers of state, inside functions and in tests of them. Checked, never run."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar, assert_type

from tests.typing.functions import Batches, CountWords, EveryKind, FirstOnly, Request

import penstock
from penstock import KeyedStream, Stream, testing

T = TypeVar("T")


class Inside(EveryKind):
    def process(self, record: float, ctx: penstock.Context[str]) -> Iterator[int]:
        assert_type(self.a.value, int)
        assert_type(self.b.value, tuple[str, int] | None)
        assert_type(self.c.value, int | str)
        assert_type(self.d.get("x"), list[float] | None)
        assert_type(self.d.get("x", 0), list[float] | int)
        assert_type(self.e.value, int | None)
        assert_type(self.f.value, float)
        assert_type(list(self.g), list[Request])
        assert_type(ctx.key, str)
        assert_type(ctx.state(CountWords.count).value, int)
        yield self.a.value


class Changes(penstock.KeyedFunction, Generic[T]):
    """Lets a record through when it differs from the key's last one."""

    def __init__(self, type: type[T]) -> None:
        self.last = penstock.ValueState(type)

    def process(self, record: T, ctx: penstock.Context) -> Iterator[T]:
        if record != self.last.value:
            self.last.value = record
            yield record


class Distinct(penstock.KeyedFunction, Generic[T]):
    seen = penstock.ValueState(bool, default=False)

    def process(self, record: T, ctx: penstock.Context) -> Iterator[T]:
        if not self.seen.value:
            self.seen.value = True
            yield record


@dataclass(frozen=True)
class Range:
    low: int
    high: int


class Sizes:
    def create(self) -> Range:
        return Range(2**63, 0)

    def add(self, acc: Range, record: Request) -> Range:
        return Range(min(acc.low, record.size), max(acc.high, record.size))

    def merge(self, a: Range, b: Range) -> Range:
        return Range(min(a.low, b.low), max(a.high, b.high))

    def result(self, acc: Range) -> int:
        return acc.high - acc.low


class Defaults(penstock.KeyedFunction):
    names = penstock.ValueState(Sequence[str], default=())
    spread = penstock.AggregatingState(Sizes())
    maybe = penstock.ValueState(Range | None, default=None)


assert_type(EveryKind.a, penstock.ValueState[int])
assert_type(Defaults.names, penstock.ValueState[Sequence[str]])
assert_type(Defaults.spread, penstock.AggregatingState[Request, int])
assert_type(Defaults.maybe, penstock.ValueState[Range | None])


def reused(keyed: KeyedStream[str, Request]) -> None:
    assert_type(keyed.process(Changes(Request), uid="a"), Stream[Request])
    assert_type(keyed.process(Distinct(), uid="b"), Stream[Request])
    assert_type(keyed.aggregate(Sizes(), uid="c"), Stream[tuple[str, int]])


def under_test() -> None:
    assert_type(testing.harness(CountWords()), testing.Harness[str, str, tuple[str, int]])
    assert_type(testing.harness(EveryKind()).send(1.0, key="a"), list[int])
    assert_type(testing.harness(EveryKind()).state(EveryKind.a, key="k").value, int)
    assert_type(testing.harness(EveryKind()).keys(), set[str])
    assert_type(testing.harness(FirstOnly()).side(FirstOnly.again), list[Request])
    assert_type(testing.harness(Batches()).send("x", key=None), list[str])
    assert_type(list(testing.harness(Batches()).state(Batches.left, key=None)), list[str])
