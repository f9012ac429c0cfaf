"""What mypy infers of sources and sinks; checked by `mypy --strict`, never run."""

from dataclasses import dataclass
from random import Random
from typing import Any, assert_type

from penstock import formats, sinks, sources


@dataclass
class Order:
    amount: float


def number(index: int, random: Random) -> float:
    return index * random.random()


assert_type(sources.Files("x"), sources.Files[str])
assert_type(sources.Files("x", formats.Json(Order)), sources.Files[Order])
assert_type(sources.Files("x", formats.Json(int | None)), sources.Files[int | None])
assert_type(sources.Files("x", formats.Json()), sources.Files[Any])
assert_type(sources.Files("x", formats.Csv(Order, header=False)), sources.Files[Order])
assert_type(sources.Socket("localhost:9999"), sources.Socket[str])
assert_type(sources.Socket("localhost:9999", formats.Json(Order)), sources.Socket[Order])
assert_type(sources.Generator(number, count=5), sources.Generator[float])

any_source: sources.Source[object] = sources.Files("x")
text: sinks.Sink[str] = sinks.Files("out")
orders: sinks.Sink[Order] = sinks.Files("out", formats.Json())
typed: sinks.Sink[Order] = sinks.Files("out", formats.Json(Order))
shown: sinks.Sink[Order] = sinks.Print()
wrong: sinks.Sink[Order] = sinks.Files("out")  # type: ignore[assignment]
