"""`nc -lk 9999` feeds it; stop it, run it again from chk-N, and the counts go on."""

from collections.abc import Iterator

import penstock
from penstock import sinks, sources


class CountWords(penstock.KeyedFunction):
    count = penstock.ValueState(int, default=0)

    def process(self, word: str, ctx: penstock.Context[str]) -> Iterator[tuple[str, int]]:
        self.count.value += 1
        yield word, self.count.value


def job(env: penstock.Environment, *, address: str = "localhost:9999") -> None:
    lines = env.source(sources.Socket(address), uid="lines")
    counts = lines.flat_map(str.split).key_by(lambda word: word).process(CountWords(), uid="counts")
    counts.sink(sinks.Print(), uid="out")
