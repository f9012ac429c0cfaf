"""What surrounds the production mailbox in a simulated child: channels, source, sinks, the helper.

A channel holds one batch; barriers and ends are taken by a full one, behind what is in it.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TypeVar

from penstock.core.errors import Retryable
from penstock.core.ids import ChannelId, OperatorId
from penstock.core.records import Batch, Element
from penstock.dataflow.connector import (
    END,
    IDLE,
    Quiet,
    Reader,
    SinkContext,
    SourceContext,
    SourceState,
    Writer,
)
from penstock.network.port import ChannelLost
from penstock.testing.simulation import job
from penstock.testing.simulation.job import Input, Record
from penstock.testing.simulation.outside import Outside, Transaction
from penstock.testing.simulation.world import Link, World

CAPACITY = 1
RECORDS_AT_ONCE = 4

T = TypeVar("T")


class Channel:
    """One channel of one attempt, both ends of it (`network.port`): what is sent arrives late."""

    def __init__(self, world: World, channel: ChannelId) -> None:
        self.channel = channel
        self.lost: ChannelLost | None = None
        self.is_paused = False
        self._arrived: deque[Element] = deque()
        self._batches = 0
        self._link = Link(world, self._arrive, delay_ms=30)

    @property
    def is_full(self) -> bool:
        """Whether it takes no further batch, on its way or waiting to be taken."""
        return self._batches >= CAPACITY

    def send(self, element: Element) -> None:
        """Take an element; see `port.Output`."""
        self._batches += isinstance(element, Batch)
        self._link.send(element)

    def peek(self) -> Element | None:
        """What `next` would give, without taking it."""
        return self._arrived[0] if self._arrived and not self.is_paused else None

    def next(self) -> Element | None:
        """Take the next element; None if none is there, or while paused."""
        element = self.peek()
        if element is not None:
            self._arrived.popleft()
            self._batches -= isinstance(element, Batch)
        return element

    def pause(self) -> None:
        """Hold back all elements."""
        self.is_paused = True

    def resume(self) -> None:
        """Go on where it was paused."""
        self.is_paused = False

    def close(self) -> None:
        """The connection is lost, with what was on its way."""
        self._link.close()

    def _arrive(self, element: object) -> None:
        assert isinstance(element, Element), element
        self._arrived.append(element)


class Helper:
    """The thread beside a mailbox: one thing after the other, each some time from now.

    What it was asked for still happens when the child is dead, as a request on its way does.
    """

    def __init__(self, world: World) -> None:
        self._link = Link(world, self._work, delay_ms=300)

    def submit(self, fn: Callable[[], T], /) -> Future[T]:
        """See `runtime.mailbox.Helper`."""
        future: Future[T] = Future()

        def work() -> None:
            try:
                future.set_result(fn())
            except Retryable as e:
                future.set_exception(e)

        self._link.send(work)
        return future

    def _work(self, work: object) -> None:
        assert callable(work), work
        work()


class LinesReader(Reader[Record]):
    """One subtask of the source: some of the splits, each with the offset of its next record."""

    def __init__(
        self, ctx: SourceContext, input_: Input, world: World, speed: Callable[[], float]
    ) -> None:
        self._input = input_
        self._world = world
        self._speed = speed
        self._offsets = {
            s: 0 for s in range(len(input_.splits)) if s % ctx.parallelism == ctx.subtask
        }

    def restore(self, state: SourceState) -> None:
        """See Reader."""
        self._offsets = dict(map(job.decode_offset, state.splits))

    def poll(self, limit: int) -> Sequence[Record] | Quiet:
        """A few records of any split, now and then."""
        ends = self._input.splits
        left = [split for split, offset in sorted(self._offsets.items()) if offset < ends[split]]
        if not left:
            return END
        if not self._world.chance(self._speed() / 2):
            return IDLE
        split = self._world.rng.choice(left)
        start = self._offsets[split]
        stop = min(ends[split], start + self._world.rng.randint(1, min(limit, RECORDS_AT_ONCE)))
        self._offsets[split] = stop
        return [Record(split, offset) for offset in range(start, stop)]

    def snapshot(self) -> SourceState:
        """See Reader."""
        return SourceState([job.encode_offset(s, o) for s, o in sorted(self._offsets.items())])

    def unread(self) -> bool:
        """See Reader."""
        return any(offset < self._input.splits[s] for s, offset in self._offsets.items())

    def position(self, index: int) -> str:
        """See Reader."""
        return f"record {index} of a batch"

    def close(self) -> None:
        """See Reader."""


class OutsideWriter(Writer[Record]):
    """One subtask of a sink: records become a transaction at each barrier."""

    def __init__(
        self, ctx: SinkContext, outside: Outside, world: World, faults: Callable[[], float]
    ) -> None:
        self._ctx = ctx
        self._outside = outside
        self._world = world
        self._faults = faults
        self._open: list[Record] = []

    def write(self, records: Sequence[Record]) -> None:
        """See Writer."""
        self._open += records

    def prepare(self, checkpoint: int) -> Sequence[bytes]:
        """See Writer."""
        if not self._open:
            return ()
        name, ctx = self._ctx.transaction(checkpoint), self._ctx
        records, self._open = tuple(self._open), []
        self._outside.precommit(
            Transaction(name, OperatorId(ctx.uid), ctx.attempt, checkpoint, records)
        )
        return (json.dumps(name).encode(),)

    def commit(self, transaction: bytes) -> None:
        """See Writer; sometimes the outside does not answer, before or after it did it."""
        self._fail_now_and_then()
        self._outside.commit(json.loads(transaction))
        self._fail_now_and_then()

    def abort_except(self, transactions: Sequence[bytes]) -> None:
        """See Writer."""
        self._outside.abort_others(
            OperatorId(self._ctx.uid),
            attempt=self._ctx.attempt,
            named=set(map(json.loads, transactions)),
        )

    def close(self) -> None:
        """See Writer."""
        self._open = []

    def _fail_now_and_then(self) -> None:
        if self._world.chance(self._faults()):
            raise Retryable("the outside does not answer")
