"""Functions as authors write them, for the other typing tests."""

from collections.abc import Iterator
from dataclasses import dataclass

import penstock
from penstock import aggregates


@dataclass(frozen=True)
class Request:
    host: str
    status: int
    size: int


def parse(line: str) -> Request:
    host, status, size = line.split()
    return Request(host, int(status), int(size))


class CountWords(penstock.KeyedFunction):
    count = penstock.ValueState(int, default=0)

    def process(self, word: str, ctx: penstock.Context[str]) -> Iterator[tuple[str, int]]:
        self.count.value += 1
        yield word, self.count.value


class FirstOnly(penstock.KeyedFunction):
    seen = penstock.ValueState(bool, default=False)
    again = penstock.SideOutput(Request)

    def process(self, request: Request, ctx: penstock.Context[str]) -> Iterator[Request]:
        if self.seen.value:
            self.again.emit(request)
        else:
            self.seen.value = True
            yield request


class EveryKind(penstock.KeyedFunction):
    a = penstock.ValueState(int, default=0)
    b = penstock.ValueState(tuple[str, int])
    c = penstock.ValueState(int | str, default=0)
    d = penstock.MapState(str, list[float])
    e = penstock.ReducingState(int, max)
    f = penstock.AggregatingState(aggregates.mean(float))
    g = penstock.ListState(Request)

    def process(self, record: float, ctx: penstock.Context[str]) -> Iterator[int]:
        yield self.a.value


class Batches(penstock.Function):
    """Operator state, no key."""

    left = penstock.SplitListState(str)

    def process(self, record: str, ctx: penstock.Context[None]) -> list[str]:
        self.left.append(record)
        return [record]
