"""The simulated data path: subtasks of chains, and the channels between them.

Alignment is the production one. A channel holds one batch; barriers and ends are taken by a full one,
behind what is in it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from penstock.checkpoint.alignment import Alignment
from penstock.checkpoint.effects import Trigger
from penstock.core.chains import Chain, input_channels, output_channels
from penstock.core.graph import Exchange
from penstock.core.ids import ChannelId, CheckpointId, OperatorId, SubtaskId
from penstock.core.keygroups import KeyGroupRange, owned_range, subtask_of
from penstock.core.records import END_OF_INPUT, Barrier, Batch, Element, EndOfInput
from penstock.core.snapshots import OperatorRestore
from penstock.testing.simulation import job
from penstock.testing.simulation.job import AUDIT, COUNTS, GRAPH, LINES, OUT, Groups, Record
from penstock.testing.simulation.world import Link, World

CAPACITY = 1


class Channel:
    """One channel of one attempt, both ends of it."""

    def __init__(self, world: World) -> None:
        self.inbox: deque[Element] = deque()
        self._batches = 0
        self._link = Link(world, self._arrive, delay_ms=30)

    @property
    def is_full(self) -> bool:
        """Whether it takes no further batch."""
        return self._batches >= CAPACITY

    def send(self, element: Element) -> None:
        """Take an element."""
        self._batches += isinstance(element, Batch)
        self._link.send(element)

    def take(self) -> Element:
        """The next element of the inbox."""
        element = self.inbox.popleft()
        self._batches -= isinstance(element, Batch)
        return element

    def close(self) -> None:
        """The connection is lost."""
        self._link.close()

    def _arrive(self, element: object) -> None:
        assert isinstance(element, (Batch, Barrier, EndOfInput)), element
        self.inbox.append(element)


@dataclass(slots=True)
class SinkState:
    """One sink's subtask: what is open, and what waits for its commit."""

    open: list[Record] = field(default_factory=list)
    pending: dict[str, CheckpointId] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Frozen:
    """A subtask's state at a barrier."""

    checkpoint: CheckpointId
    offsets: tuple[bytes, ...]
    groups: Groups
    pending: dict[OperatorId, dict[str, CheckpointId]]


class Task:
    """One subtask of a chain."""

    def __init__(
        self,
        chain: Chain,
        index: int,
        *,
        parallelism: int,
        world: World,
        channel: Callable[[ChannelId], Channel],
        snapshot: Callable[[Task, CheckpointId], None],
        finished: Callable[[Task], None],
    ) -> None:
        self.subtask = SubtaskId(chain.head, index)
        self.chain = chain
        self.groups: Groups = {}
        self.offsets: dict[int, int] = {}
        self.sinks = {uid: SinkState() for uid in chain.operators if uid in job.SINKS}
        self.stopped_at: CheckpointId | None = None
        self._world = world
        self._parallelism = parallelism
        self._inputs = input_channels(GRAPH, chain, index, parallelism=parallelism)
        self._outputs = output_channels(GRAPH, chain, index, parallelism=parallelism)
        self._channel = channel
        self._snapshot = snapshot
        self._finished = finished
        self._alignment = Alignment(self._inputs)
        self._open = set(self._inputs)
        self._unsent: deque[tuple[ChannelId, Element]] = deque()
        self.is_finished = False

    @property
    def owned(self) -> KeyGroupRange:
        """The key groups of a keyed subtask."""
        return owned_range(
            self.subtask.index,
            parallelism=self.chain.parallelism,
            max_parallelism=job.MAX_PARALLELISM,
        )

    def restore(self, restored: dict[OperatorId, OperatorRestore], groups: Groups) -> None:
        """Begin from a snapshot's parts."""
        self.groups = groups
        for uid, part in restored.items():
            if uid == LINES:
                self.offsets = dict(
                    job.decode_pair(item) for item in part.lists.get(job.OFFSETS.name, ())
                )
            elif uid in self.sinks:
                self.sinks[uid].pending = {
                    name: CheckpointId(n)
                    for name, n in map(job.decode_pending, part.lists.get(job.PENDING.name, ()))
                }

    def begin(self, input_: job.Input) -> None:
        """A source's subtask that restored nothing takes its share of the splits."""
        if self.subtask.operator == LINES:
            for split in range(len(input_.splits)):
                if split % self.chain.parallelism == self.subtask.index:
                    self.offsets[split] = 0

    def freeze(self, checkpoint: CheckpointId) -> Frozen:
        """A copy of all state; sinks must have closed their transactions."""
        return Frozen(
            checkpoint,
            tuple(job.encode_offset(s, o) for s, o in sorted(self.offsets.items())),
            {g: dict(keys) for g, keys in self.groups.items()},
            {uid: dict(sink.pending) for uid, sink in self.sinks.items()},
        )

    def trigger(self, trigger: Trigger) -> None:
        """The coordinator started a checkpoint."""
        due = self._alignment.trigger(trigger.checkpoint)
        if due is not None:
            self._take_snapshot(due)
            if trigger.stop and not self._inputs:
                self.stopped_at = trigger.checkpoint

    def abort(self, checkpoint: CheckpointId) -> None:
        """The coordinator gave a checkpoint up."""
        self._alignment.abort(checkpoint)

    def resume(self, checkpoint: CheckpointId) -> None:
        """The stop failed: read on."""
        if self.stopped_at == checkpoint:
            self.stopped_at = None

    def turn(self, input_: job.Input, speed: float) -> None:
        """Do a little, if there is something to do."""
        if not self._flush() or self.is_finished:
            return
        if not self._inputs:
            self._read(input_, speed)
            return
        ready = [c for c in self._inputs if self._channel(c).inbox]
        ready = [c for c in ready if not self._alignment.blocked(c)]
        if ready:
            self._process(ready[self._world.rng.randrange(len(ready))])

    def _process(self, channel: ChannelId) -> None:
        element = self._channel(channel).take()
        due: CheckpointId | None = None
        if isinstance(element, Batch):
            self._records(list(element.values))
        elif isinstance(element, Barrier):
            due = self._alignment.barrier(channel, element.checkpoint)
        elif isinstance(element, EndOfInput):
            due = self._alignment.ended(channel)
        if due is not None:
            self._take_snapshot(due)
        if isinstance(element, EndOfInput):
            self._open.discard(channel)
            if not self._open:
                self._end()

    def _records(self, records: list[Record]) -> None:
        if self.subtask.operator == COUNTS:
            job.count(self.groups, records)
            self.sinks[OUT].open += records
        elif self.subtask.operator == AUDIT:
            self.sinks[AUDIT].open += records

    def _read(self, input_: job.Input, speed: float) -> None:
        if self.stopped_at is not None or not self._world.chance(speed):
            return
        left = [s for s, offset in sorted(self.offsets.items()) if offset < input_.splits[s]]
        if not left:
            self._end()
            return
        split = left[self._world.rng.randrange(len(left))]
        start = self.offsets[split]
        stop = min(input_.splits[split], start + self._world.rng.randrange(1, 5))
        self.offsets[split] = stop
        self._emit([Record(split, i) for i in range(start, stop)])
        self._flush()

    def _emit(self, records: list[Record]) -> None:
        parts: dict[ChannelId, list[Record]] = {}
        for number, edge in enumerate(GRAPH.edges):
            channels = [c for c in self._outputs if c.edge == number]
            for record in records if channels else ():
                target = 0
                if edge.exchange is Exchange.HASH:
                    target = subtask_of(
                        record.group,
                        parallelism=len(channels),
                        max_parallelism=job.MAX_PARALLELISM,
                    )
                parts.setdefault(channels[target], []).append(record)
        self._unsent += ((channel, Batch(part)) for channel, part in parts.items())

    def _take_snapshot(self, checkpoint: CheckpointId) -> None:
        self._snapshot(self, checkpoint)
        if not self.is_finished:
            self._unsent += ((channel, Barrier(checkpoint)) for channel in self._outputs)
            self._flush()

    def _end(self) -> None:
        self.is_finished = True
        self._unsent += ((channel, END_OF_INPUT) for channel in self._outputs)
        self._flush()
        self._finished(self)

    def _flush(self) -> bool:
        """Send what can be sent, in order per channel; whether nothing is left."""
        left: deque[tuple[ChannelId, Element]] = deque()
        stuck: set[ChannelId] = set()
        for name, element in self._unsent:
            channel = self._channel(name)
            if name in stuck or (isinstance(element, Batch) and channel.is_full):
                stuck.add(name)
                left.append((name, element))
            else:
                channel.send(element)
        self._unsent = left
        return not left
