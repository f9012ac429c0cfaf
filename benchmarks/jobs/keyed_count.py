"""The keyed count that Penstock and Flink are measured with: peers/KeyedCount.java, line by line.

RECORDS numbers, hashed to KEYS keys, shuffled, counted in a ValueState, thrown away.
"""

import json
from collections.abc import Callable, Iterator, Sequence

import penstock
from penstock.dataflow.connector import END, Quiet, SinkContext, SourceContext, SourceState
from penstock.sinks import Sink
from penstock.sources import Source

_WORD = (1 << 64) - 1


class Numbers(Source[int]):
    """0, 1, 2, … count - 1, cut into one range for each subtask."""

    split_schema = "Range v1"
    record_type = int

    def __init__(self, count: int) -> None:
        self._count = count

    def open(self, ctx: SourceContext) -> "_NumbersReader":
        of = ctx.parallelism
        start, stop = (self._count * i // of for i in (ctx.subtask, ctx.subtask + 1))
        return _NumbersReader([(start, stop)])


class _NumbersReader:
    """Reads half-open ranges, one after the other."""

    def __init__(self, ranges: list[tuple[int, int]]) -> None:
        self._ranges = ranges
        self._first = 0

    def restore(self, state: SourceState) -> None:
        self._ranges = [(start, stop) for start, stop in map(json.loads, state.splits)]

    def poll(self, limit: int) -> Sequence[int] | Quiet:
        while self._ranges:
            start, stop = self._ranges[0]
            if start < stop:
                self._first = start
                upto = min(start + limit, stop)
                self._ranges[0] = (upto, stop)
                return range(start, upto)
            self._ranges.pop(0)
        return END

    def snapshot(self) -> SourceState:
        return SourceState(splits=[json.dumps(r).encode() for r in self._ranges])

    def unread(self) -> bool:
        return any(start < stop for start, stop in self._ranges)

    def position(self, index: int) -> str:
        return f"number {self._first + index}"

    def close(self) -> None: ...


class Discard(Sink[object]):
    """Throws every record away."""

    exactly_once = False

    def open(self, ctx: SinkContext) -> "_DiscardWriter":
        return _DiscardWriter()


class _DiscardWriter:
    def write(self, records: Sequence[object]) -> None: ...

    def prepare(self, checkpoint: int) -> Sequence[bytes]:
        return ()

    def commit(self, transaction: bytes) -> None: ...

    def abort_except(self, transactions: Sequence[bytes]) -> None: ...

    def close(self) -> None: ...


class Count(penstock.KeyedFunction):
    """The sum of ones, by key."""

    count = penstock.ValueState(int, default=0)

    def process(
        self, pair: tuple[int, int], ctx: penstock.Context[int]
    ) -> Iterator[tuple[int, int]]:
        self.count.value += pair[1]
        yield pair[0], self.count.value


def spread(keys: int) -> Callable[[int], tuple[int, int]]:
    """Numbers as (key, 1), over so many keys; the keys of neighbours have nothing in common."""

    def spread_one(number: int) -> tuple[int, int]:
        mixed = (number * 0x9E3779B97F4A7C15) & _WORD
        return (mixed ^ (mixed >> 32)) % keys, 1

    return spread_one


def key_of(pair: tuple[int, int]) -> int:
    return pair[0]


def job(env: penstock.Environment, *, records: int, keys: int) -> None:
    numbers = env.source(Numbers(records), uid="numbers")
    counts = numbers.map(spread(keys)).key_by(key_of).process(Count(), uid="count")
    counts.sink(Discard(), uid="nowhere")
