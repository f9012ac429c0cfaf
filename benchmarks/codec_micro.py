"""How fast batches of 2,000 records become bytes and records again: M records/s, the best of runs.

    PYTHONPATH=worker python benchmarks/codec_micro.py

pickle, which any value would fit, stands beside it.
"""

from __future__ import annotations

import json
import pickle
import time
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, NamedTuple

import pydantic

from penstock.core.records import Batch
from penstock.network import codec

RECORDS = 2_000


@dataclass(frozen=True, slots=True)
class Order:
    customer: str
    amount: Decimal
    at_ms: int


@dataclass
class Plain:
    customer: str
    amount: float
    at_ms: int


class Model(pydantic.BaseModel):
    customer: str
    amount: float
    at_ms: int


class Point(NamedTuple):
    name: str
    x: float


def batches() -> dict[str, Batch]:
    words = [f"word-{i % 997}" for i in range(RECORDS)]
    times = list(range(1_700_000_000_000, 1_700_000_000_000 + RECORDS))
    pairs = list(zip(words, range(RECORDS), strict=True))
    return {
        "int": Batch(list(range(RECORDS))),
        "str": Batch(words),
        "(str, int)": Batch(pairs),
        "(str, int), keyed, timed": Batch(pairs, words, times),
        "(str, (int, None | float))": Batch(
            [(word, (i, None if i % 3 else i / 7)) for word, i in pairs]
        ),
        "dict of 3": Batch([{"word": word, "n": i, "ok": i % 2 == 0} for word, i in pairs]),
        "NamedTuple of 2": Batch([Point(word, i / 3) for word, i in pairs]),
        "dataclass of 3": Batch([Plain(word, i / 3, i) for word, i in pairs]),
        "dataclass of 3, slots, frozen, Decimal": Batch(
            [Order(word, Decimal(i) / 100, i) for word, i in pairs]
        ),
        "pydantic model of 3": Batch(
            [Model(customer=word, amount=i / 3, at_ms=i) for word, i in pairs]
        ),
        "list of 0 to 4": Batch([words[: i % 5] for i in range(RECORDS)]),
        "set (pickled)": Batch([{i, i + 1} for i in range(RECORDS)]),
    }


def rate(work: Callable[[], Any], rounds: int = 60) -> float:
    """Million records a second, the best of some rounds."""
    best = min(_timed(work) for _ in range(rounds))
    return round(RECORDS / best / 1e6, 2)


def _timed(work: Callable[[], Any]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def main() -> None:
    for name, batch in batches().items():
        data = codec.encode(batch)
        assert codec.decode(data) == batch, name
        pickled = pickle.dumps(batch, 5)
        figures = {
            "records": name,
            "out": rate(lambda b=batch: codec.encode(b)),
            "in": rate(lambda d=data: codec.decode(d)),
            "bytes": round(len(data) / RECORDS, 1),
            "pickle_out": rate(lambda b=batch: pickle.dumps(b, 5)),
            "pickle_in": rate(lambda d=pickled: pickle.loads(d)),
        }
        print(json.dumps(figures))


if __name__ == "__main__":
    main()
