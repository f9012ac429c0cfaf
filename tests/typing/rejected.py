"""Mistakes that the type checker catches; an ignore that is not needed is an error too."""

from collections.abc import Iterator

from tests.typing.functions import Batches, CountWords, FirstOnly, parse

import penstock
from penstock import formats, sinks, sources, testing


class WrongKey(penstock.KeyedFunction):
    count = penstock.ValueState(int, default=0)
    # Not caught by types (T joins to object), but when the class is made: ValueState(str, default=0)

    def process(self, word: str, ctx: penstock.Context[int]) -> Iterator[str]:
        self.count.value = "x"  # type: ignore[assignment]
        yield word


def job(env: penstock.Environment) -> None:
    lines = env.source(sources.Files("x"), uid="lines")
    env.source(sources.Files("x"))  # type: ignore[call-arg]
    lines.map(parse).map(lambda r: r.nothing)  # type: ignore[attr-defined]
    lines.map(parse).key_by(lambda r: r.status).process(CountWords(), uid="x")  # type: ignore[arg-type]
    lines.key_by(lambda w: w).process(WrongKey(), uid="x")  # type: ignore[arg-type]
    lines.key_by(lambda w: w).process(CountWords())  # type: ignore[call-arg]
    lines.key_by(lambda w: w).count()  # type: ignore[call-arg]
    lines.key_by(lambda w: w).count(uid="x", emit="always")  # type: ignore[arg-type]
    lines.key_by(lambda w: w).map(len)  # type: ignore[attr-defined]
    lines.key_by(str.lower, key_type=int)  # type: ignore[arg-type]
    lines.process(CountWords(), uid="x")  # type: ignore[arg-type]
    lines.map(parse).process(Batches(), uid="x")  # type: ignore[arg-type]
    lines.map(parse).sink(sinks.Files("out"), uid="out")  # type: ignore[arg-type]
    lines.map(parse).sink(sinks.Files("out", formats.Json()), uid="out")
    lines.sink(sinks.Print())  # type: ignore[call-arg]


def test() -> None:
    testing.harness(CountWords()).send(1, key="a")  # type: ignore[arg-type]
    testing.harness(CountWords()).send("a", key=1)  # type: ignore[arg-type]
    testing.harness(FirstOnly()).state(FirstOnly.seen, key="a").value = 1  # type: ignore[assignment]
