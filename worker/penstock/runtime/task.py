"""One subtask of one chain: its inputs, its loop, its outputs, and its part of each checkpoint.

`step` does one piece of work and never waits: a batch, an element, or a slice of what is left to do
at the end of input. A task whose output is full does nothing until it drains. Barriers pass through
full outputs, which keeps alignment free of deadlock.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penstock.checkpoint.alignment import Alignment
from penstock.core.descriptors import StateKind
from penstock.core.errors import Denied, Rejected
from penstock.core.handles import KeyedHandle, SubtaskSnapshot
from penstock.core.ids import CheckpointId, OperatorId, SubtaskId
from penstock.core.records import END_OF_INPUT, Barrier, Batch, EndOfInput, Watermark
from penstock.core.snapshots import OperatorPart, OperatorRestore
from penstock.dataflow.connector import END, IDLE
from penstock.dataflow.functions import SnapshotContext
from penstock.dataflow.nodes import END_EMITTED
from penstock.network.port import Input
from penstock.runtime.endpoints import SinkStage, SourceStage
from penstock.runtime.exchange import Exchange
from penstock.runtime.failures import UserError
from penstock.runtime.functions import calling
from penstock.runtime.stages import KeyedStage, ProcessStage, Stage
from penstock.state.backend import CopiedOut
from penstock.state.operator_state import OperatorList

POLL_RECORDS = 1024


@dataclass(slots=True)
class _Snapshot:
    """A checkpoint's part that is being written."""

    checkpoint: CheckpointId
    parts: dict[OperatorId, OperatorPart]
    path: Path | None = None
    copying: Future[CopiedOut] | None = None


@dataclass(frozen=True, slots=True)
class Snapshotted:
    """A checkpoint's part, written: `keyed` is the copy of the keyed state, if there is any."""

    checkpoint: CheckpointId
    parts: dict[OperatorId, OperatorPart]
    keyed_operator: OperatorId | None
    keyed: CopiedOut | None


@dataclass(slots=True)
class Wiring:
    """What a task is made of; `stages` by operator, in topological order, the head first."""

    subtask: SubtaskId
    stages: dict[OperatorId, Stage]
    exchanges: list[Exchange]
    inputs: Sequence[Input]
    lists: dict[OperatorId, dict[str, OperatorList]]
    carried: dict[OperatorId, OperatorRestore]
    folder: Path
    commit_only: bool = False
    """Nothing is read and nothing ends: sinks commit, and that is all."""


class Task:
    """See the module. Everything is called from the mailbox's thread."""

    def __init__(self, wiring: Wiring) -> None:
        self.subtask = wiring.subtask
        self.stages = wiring.stages
        self.inputs = wiring.inputs
        self.exchanges = wiring.exchanges
        self._lists = wiring.lists
        self._restored = wiring.carried
        self._folder = wiring.folder
        self._head = next(iter(wiring.stages.values()))
        self._source = self._head if isinstance(self._head, SourceStage) else None
        self._commit_only = wiring.commit_only
        self._keyed = self._head if isinstance(self._head, KeyedStage) else None
        self.sinks = [s for s in wiring.stages.values() if isinstance(s, SinkStage)]
        self._alignment = Alignment(i.channel for i in wiring.inputs)
        self._open_inputs = len(wiring.inputs)
        self._turn = 0
        self._due: CheckpointId | None = None
        self._last = CheckpointId(0)
        self._snapshot: _Snapshot | None = None
        self._held_for: CheckpointId | None = None
        self._stopping: CheckpointId | None = None
        self._ending = False
        self._emitted = self._restore_emitted()
        self.has_finished = False

    # ── work ─────────────────────────────────────────────────────────────────────────────────────

    def step(self) -> bool:
        """Do one piece of work; whether there was any."""
        if self._commit_only:
            return False
        if self._due is not None:
            if not self._take(self._due):
                return False
            self._block()
        if any(exchange.is_full for exchange in self.exchanges):
            return False
        if self._ending:
            return self._end_slice()
        return self._poll() if self._source is not None else self._receive()

    @property
    def is_waiting(self) -> bool:
        """Whether records wait in an exchange for more."""
        return any(exchange.is_waiting for exchange in self.exchanges)

    def flush(self) -> None:
        """Send on what waits for more."""
        for exchange in self.exchanges:
            exchange.flush()

    def close(self) -> None:
        """Close every function, reader and writer; the backend last."""
        for stage in self.stages.values():
            stage.close()
        if self._keyed is not None:
            self._keyed.states.backend.close()

    def _poll(self) -> bool:
        assert self._source is not None
        if self._held_for is not None or self.has_finished:
            return False
        try:
            polled = self._source.reader.poll(POLL_RECORDS)
        except Denied:
            raise  # the world's, not a record's
        except Rejected as e:  # a record that cannot be read, the next time neither
            unread = UserError(self._source.node)
            unread.position = e.where
            raise unread from e
        if polled is IDLE:
            return False
        if polled is END:
            self._ending = True
            return True
        assert not isinstance(polled, type(IDLE)), polled
        self._source.records_out += len(polled)
        try:
            self._source.down(polled)
        except UserError as e:
            e.position = self._position(e, polled)
            raise
        return True

    def _receive(self) -> bool:
        for _ in range(len(self.inputs)):
            channel = self.inputs[self._turn]
            self._turn = (self._turn + 1) % len(self.inputs)
            element = channel.next()
            if element is not None:
                self._handle(channel, element)
                return True
        return False

    def _handle(self, channel: Input, element: object) -> None:
        if isinstance(element, Batch):
            if self._keyed is not None:
                assert element.keys is not None
                if self._emitted:
                    self._forget_emitted(element.keys)
                self._keyed.handle(element.keys, element.values)
            else:
                self._head(element.values)
        elif isinstance(element, Barrier):
            self._take(self._alignment.barrier(channel.channel, element.checkpoint))
            self._block()
        elif isinstance(element, EndOfInput):
            due = self._alignment.ended(channel.channel)
            self._open_inputs -= 1
            self._ending = self._open_inputs == 0
            self._take(due)
            self._block()
        else:
            assert isinstance(element, Watermark), element

    def _position(self, error: UserError, polled: Sequence[Any]) -> str | None:
        """Where the record came from that an operator after the source failed on."""
        assert self._source is not None
        uid, position = self._source.node.id, self._source.reader.position
        chained = list(self.stages)
        # A key function fails in this chain, and its operator is the head of another one.
        at = chained.index(error.node.id) if error.node.id in self.stages else len(chained)
        kinds = {self.stages[id].node.kind for id in chained[1:at]}
        if error.index is None or kinds - {"map"}:
            # Something before it changed the number of records: only the batch is known.
            return f"{uid}: between {position(0)} and {position(len(polled) - 1)}"
        return f"{uid}: {position(error.index)}"

    # ── the end of input ─────────────────────────────────────────────────────────────────────────

    def _end_slice(self) -> bool:
        if self.has_finished:
            return False
        if self._keyed is not None and getattr(self._keyed.function, "emits_at_end", False):
            states = self._keyed.states
            if not states.is_settled:
                return False  # The barrier's state is copied out first; a slice of it every turn.
            if states.write_back():
                return True
            group = next((g for g in states.groups if g not in self._emitted), None)
            if group is not None:
                self._keyed.finish_group(group)
                self._emitted.add(group)
                return True
        for exchange in self.exchanges:
            exchange.control(END_OF_INPUT)
        self.has_finished = True
        return True

    def _restore_emitted(self) -> set[int]:
        restore = self._restored.get(self._head.node.id)
        stored = () if restore is None else restore.lists.get(END_EMITTED, ())
        if self._keyed is None or not stored:
            return set()
        ranges = [json.loads(item) for item in stored]
        own = self._keyed.states.groups
        return {g for start, stop in ranges for g in range(start, stop) if g in own}

    def _forget_emitted(self, keys: Iterable[Any]) -> None:
        # New input after an end: what these groups gave is no longer their result.
        assert self._keyed is not None
        self._emitted -= {self._keyed.states.group_of(key) for key in keys}

    # ── checkpoints ──────────────────────────────────────────────────────────────────────────────

    def trigger(self, checkpoint: CheckpointId, *, stop: bool) -> None:
        """The coordinator started a checkpoint; sources, and tasks without input, take it now."""
        if stop:
            self._stopping = checkpoint
        self._take(self._alignment.trigger(checkpoint))
        self._block()

    def abort(self, checkpoint: CheckpointId) -> None:
        """The coordinator gave a checkpoint up."""
        self._alignment.abort(checkpoint)
        if self._due == checkpoint:
            self._due = None
        self._block()
        self.resume(checkpoint)

    def resume(self, checkpoint: CheckpointId) -> None:
        """The stop that this checkpoint was for failed: read on."""
        if self._held_for == checkpoint:
            self._held_for = None

    def write_slice(self, submit: Callable[[Callable[[], CopiedOut]], Future[CopiedOut]]) -> bool:
        """Write a slice of a checkpoint under way; whether there was one to write."""
        snapshot = self._snapshot
        if snapshot is None or self._keyed is None or snapshot.copying is not None:
            return False
        if self._keyed.states.write_slice():
            path = self._folder / f"chk-{snapshot.checkpoint}"
            snapshot.path = path
            states = self._keyed.states
            snapshot.copying = submit(lambda: states.copy_out(path))
        return True

    def snapshotted(self) -> Snapshotted | None:
        """A checkpoint's part that is written now, once.

        Raises:
            PenstockError: its keyed state could not be written.
        """
        snapshot = self._snapshot
        if snapshot is None:
            return None
        if self._keyed is None:
            self._snapshot = None
            return Snapshotted(snapshot.checkpoint, snapshot.parts, None, None)
        if snapshot.copying is None or not snapshot.copying.done():
            return None
        self._snapshot = None
        self._keyed.states.copied_out()
        copied = snapshot.copying.result()
        operator = self._keyed.node.id
        part = snapshot.parts[operator]
        handle = KeyedHandle(
            format=copied.format, groups=self._keyed.states.groups, offsets=copied.offsets
        )
        snapshot.parts[operator] = OperatorPart(
            SubtaskSnapshot(handle, part.snapshot.lists, part.snapshot.watermark_ms),
            part.states,
            part.key_schema,
        )
        return Snapshotted(snapshot.checkpoint, snapshot.parts, operator, copied)

    @property
    def is_snapshotting(self) -> bool:
        """Whether a checkpoint's part is being written."""
        return self._snapshot is not None

    @property
    def last_checkpoint(self) -> CheckpointId:
        """The newest checkpoint this task has taken part in."""
        return self._last

    def _take(self, checkpoint: CheckpointId | None) -> bool:
        """Freeze for a checkpoint and send its barrier on; later, while an older one is written."""
        if checkpoint is None:
            return True
        if self._snapshot is not None:
            self._due = checkpoint
            return False
        self._due = None
        self._last = checkpoint
        self.flush()
        self._snapshot = _Snapshot(checkpoint, self._freeze(checkpoint))
        if not self.has_finished:
            for exchange in self.exchanges:
                exchange.control(Barrier(checkpoint))
        if self._stopping == checkpoint:
            self._held_for = checkpoint
        return True

    def _freeze(self, checkpoint: CheckpointId) -> dict[OperatorId, OperatorPart]:
        parts = {}
        for id, stage in self.stages.items():
            lists = self._lists_of(id, stage, checkpoint)
            key_schema = None
            if isinstance(stage, KeyedStage):
                stage.states.freeze()
                key_schema = stage.states.key_schema
            states = stage.node.descriptors()
            if id in self._restored:
                declared = {d.name for d in states}
                states += tuple(d for d in self._restored[id].states if d.name not in declared)
            if states or lists:
                parts[id] = OperatorPart(SubtaskSnapshot(None, lists), states, key_schema)
        return parts

    def _lists_of(
        self, id: OperatorId, stage: Stage, checkpoint: CheckpointId
    ) -> dict[str, tuple[bytes, ...]]:
        lists: dict[str, tuple[bytes, ...]] = {}
        restored = self._restored.get(id)
        if restored is not None:
            mine = {d.name for d in stage.node.descriptors()}
            if self.subtask.index != 0:
                # Every subtask was given all items of these: one carries them on, once.
                mine |= {d.name for d in restored.states if d.kind is StateKind.UNION_LIST}
            lists.update({k: v for k, v in restored.lists.items() if k not in mine})
        if isinstance(stage, SourceStage):
            lists.update(stage.snapshot())
        elif isinstance(stage, SinkStage):
            lists.update(stage.snapshot(checkpoint))
        elif isinstance(stage, ProcessStage):
            hook = getattr(stage.function, "snapshot_state", None)
            if hook is not None:
                context = SnapshotContext.beside(stage.context)
                context.checkpoint_id = checkpoint
                with calling(stage.node):
                    hook(context)
            lists.update({k: v.snapshot() for k, v in self._lists.get(id, {}).items()})
        if self._emitted and stage is self._keyed:
            lists[END_EMITTED] = tuple(json.dumps(r).encode() for r in _ranges(self._emitted))
        return lists

    def _block(self) -> None:
        for channel in self.inputs:
            if self._alignment.blocked(channel.channel) or self._due is not None:
                channel.pause()
            elif channel.is_paused:
                channel.resume()


def _ranges(numbers: Iterable[int]) -> list[tuple[int, int]]:
    """Half-open ranges of consecutive numbers."""
    found: list[tuple[int, int]] = []
    for number in sorted(numbers):
        if found and found[-1][1] == number:
            found[-1] = (found[-1][0], number + 1)
        else:
            found.append((number, number + 1))
    return found
