"""What mypy infers along a chain; `assert_type` fails otherwise. Checked, never run."""

from collections.abc import Sequence
from typing import assert_type

from tests.typing.functions import Batches, CountWords, FirstOnly, Request, parse

import penstock
from penstock import KeyedStream, Stream, aggregates, formats, sinks, sources


def upper(batch: Sequence[str]) -> list[bytes]:
    return [s.encode() for s in batch]


def stateless(env: penstock.Environment) -> None:
    lines = env.source(sources.Files("x"), uid="lines")
    assert_type(lines, Stream[str])
    words = lines.flat_map(str.split)
    assert_type(words, Stream[str])
    assert_type(words.map(len), Stream[int])
    assert_type(words.map(lambda w: (w, len(w))), Stream[tuple[str, int]])
    assert_type(words.filter(lambda w: len(w) > 3), Stream[str])
    assert_type(words.filter(str.isupper).rebalance(), Stream[str])
    assert_type(words.map_batches(upper), Stream[bytes])
    both = words.union(words.map(len))
    assert_type(both, Stream[str | int])
    assert_type(both.of_type(int), Stream[int])
    assert_type(
        env.source(sources.Files("j", formats.Json()), uid="j").map(lambda r: 1), Stream[int]
    )


def keyed(env: penstock.Environment) -> None:
    words = env.source(sources.Files("x"), uid="lines").flat_map(str.split)
    by_word = words.key_by(lambda w: w)
    assert_type(by_word, KeyedStream[str, str])
    assert_type(by_word.count(uid="c"), Stream[tuple[str, int]])
    assert_type(by_word.count(uid="d", emit="end"), Stream[tuple[str, int]])
    assert_type(by_word.process(CountWords(), uid="p"), Stream[tuple[str, int]])
    assert_type(by_word.reduce(lambda a, b: max(b, a), uid="r"), Stream[tuple[str, str]])
    assert_type(words.key_by(len, key_type=int), KeyedStream[int, str])
    assert_type(words.process(Batches(), uid="b"), Stream[str])


def requests(env: penstock.Environment) -> None:
    lines = env.source(sources.Files("x"), uid="lines")
    of_host = lines.map(parse).key_by(lambda r: r.host)
    assert_type(of_host, KeyedStream[str, Request])
    sizes = of_host.aggregate(
        aggregates.combine(aggregates.count(), aggregates.mean(lambda r: r.size)), uid="a"
    )
    assert_type(sizes, Stream[tuple[str, tuple[int, float]]])
    first = of_host.process(FirstOnly(), uid="f")
    assert_type(first, Stream[Request])
    assert_type(first.side(FirstOnly.again), Stream[Request])
    first.sink(sinks.Files("out", formats.Json()), uid="out")
    first.sink(sinks.Print(), uid="shown")


def widened(numbers: Stream[bool]) -> Stream[int]:
    """A stream of a class is a stream of its base class."""
    return numbers
