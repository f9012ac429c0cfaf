"""The source `Generator`: records made from their index, the same ones however often they are read.

Indices are cut into blocks of 1,024, each with a `Random` of its own; to go on inside a block, its
beginning is made again and thrown away. Block b belongs to split b % splits. The number of splits
is fixed when the job starts fresh and stands in each, so any parallelism may take them over.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from heapq import heapify, heapreplace
from operator import length_hint
from random import Random
from typing import Any, TypeVar

from penstock.connectors.rate import Rate, check_rate
from penstock.core.errors import Corrupt, Rejected
from penstock.dataflow.connector import (
    END,
    IDLE,
    Quiet,
    Reader,
    Source,
    SourceContext,
    SourceState,
)

T_co = TypeVar("T_co", covariant=True)

BLOCK = 1024
_SPLITS = 128


class Generator(Source[T_co]):
    """`make(index, random)` for index 0, 1, 2 …, up to `count`, or for ever; replayable.

    `make` may depend on its arguments alone: a record is made again after a failure and must be the
    same. `per_second` limits the records of all subtasks together.
    """

    split_schema = "GeneratorSplit v1"

    def __init__(
        self,
        make: Callable[[int, Random], T_co],
        *,
        count: int | None = None,
        per_second: float | None = None,
        seed: int = 0,
    ) -> None:
        if count is not None and count < 0:
            raise Rejected(
                f"count must not be below 0, not {count}",
                where="sources.Generator",
                fix="give a whole number, or leave it out for no end",
            )
        check_rate(per_second, "sources.Generator")
        self._make = make
        self._count = count
        self._per_second = per_second
        self._seed = seed
        # Annotations need a look at the module of `make`; whoever builds the graph takes it.
        self.record_type = None

    def open(self, ctx: SourceContext) -> Reader[T_co]:
        """See Source."""
        rate = Rate(self._per_second, parallelism=ctx.parallelism, now_ms=ctx.now_ms)
        return GeneratorReader(self._make, self._count, self._seed, ctx, rate)

    @property
    def label(self) -> str:
        """See Source."""
        name = getattr(self._make, "__name__", type(self._make).__name__)
        return f"Generator({name})"


class GeneratorReader(Reader[Any]):
    """One subtask of `Generator`. It works through its splits by index, a block at a time."""

    def __init__(
        self,
        make: Callable[[int, Random], Any],
        count: int | None,
        seed: int,
        ctx: SourceContext,
        rate: Rate,
    ) -> None:
        self._make = make
        self._count = count
        self._seed = seed
        self._rate = rate
        self._splits = _SPLITS * -(-ctx.parallelism // _SPLITS)
        mine = range(ctx.subtask, self._splits, ctx.parallelism)
        self._next = [split * BLOCK for split in mine]
        """The next index of each split, as a heap: split = index // BLOCK % splits."""
        self._random: Random | None = None
        """Of the block of the least next index, when that is being read."""
        self._batch_begin = 0

    def restore(self, state: SourceState) -> None:
        """See Reader."""
        try:
            found = [json.loads(item) for item in state.splits]
            self._next = [int(one["next"]) for one in found]
            self._splits = int(found[0]["splits"]) if found else self._splits
        except (ValueError, TypeError, KeyError) as e:
            raise Corrupt("not splits of a Generator", where="state of a source") from e
        heapify(self._next)

    def poll(self, limit: int) -> Sequence[Any] | Quiet:
        """See Reader."""
        if not self.unread():
            return END
        allowed = self._rate.allowed(limit)
        if allowed < 1:
            return IDLE
        begin = self._next[0]
        block_begin = begin - begin % BLOCK
        make = self._make
        # Taken away while it is used: when `make` fails, the next poll begins the block anew.
        random, self._random = self._random, None
        if random is None:
            random = Random(f"{self._seed}:{block_begin // BLOCK}")
            for index in range(block_begin, begin):
                make(index, random)
        end = min(begin + allowed, block_begin + BLOCK)
        if self._count is not None:
            end = min(end, self._count)
        indexes = iter(range(begin, end))
        try:
            records = [make(index, random) for index in indexes]
        except OSError:
            raise  # the world's: it may go the next time
        except Exception as e:
            raise self._failed(e, end - length_hint(indexes) - 1) from e
        self._go_on_at(end, random)
        self._batch_begin = begin
        self._rate.took(len(records))
        return records

    def snapshot(self) -> SourceState:
        """See Reader."""
        items = [{"next": index, "splits": self._splits} for index in sorted(self._next)]
        return SourceState(splits=[json.dumps(item).encode() for item in items])

    def unread(self) -> bool:
        """See Reader."""
        return bool(self._next) and (self._count is None or self._next[0] < self._count)

    def position(self, index: int) -> str:
        """See Reader."""
        return f"record {self._batch_begin + index:,} of Generator(seed={self._seed})"

    def close(self) -> None:
        """See Reader."""

    def _failed(self, error: Exception, index: int) -> Rejected:
        return Rejected(
            f"the generator's function raised {type(error).__name__}: {error}",
            where=f"record {index:,} of Generator(seed={self._seed})",
            fix="correct it; it is called with an index and a Random",
        )

    def _go_on_at(self, index: int, random: Random) -> None:
        if index % BLOCK:
            self._random = random
        else:
            index += (self._splits - 1) * BLOCK
        heapreplace(self._next, index)
