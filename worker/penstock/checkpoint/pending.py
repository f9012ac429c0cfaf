"""A checkpoint on its way: collecting → committing → completed.

While it collects acknowledgements it may be given up. From the writing of its manifest on it may
not, since the log entry that makes it complete could then stand already.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from penstock.checkpoint.events import SubtaskAcked
from penstock.checkpoint.schedule import Wanted
from penstock.core.chains import Chain
from penstock.core.descriptors import StateDescriptor
from penstock.core.handles import FileHandle, SubtaskSnapshot
from penstock.core.ids import CheckpointId, JobId, OperatorId, SubtaskId
from penstock.core.keygroups import HASH_NAME
from penstock.core.keys import KEY_FORMAT
from penstock.core.log import Attempt
from penstock.core.manifest import Manifest, OperatorSnapshot, SnapshotKind
from penstock.core.rows import ROW_FORMAT


@dataclass(slots=True)
class PendingCheckpoint:
    """Acknowledgements of one checkpoint, until all subtasks gave theirs."""

    checkpoint: CheckpointId
    wanted: Wanted
    expected: frozenset[SubtaskId]
    started_ms: int
    acks: dict[SubtaskId, SubtaskAcked] = field(default_factory=dict)
    written: Manifest | None = None

    @property
    def is_committing(self) -> bool:
        """Whether its manifest may stand already."""
        return self.written is not None

    def acknowledge(self, ack: SubtaskAcked) -> tuple[str, ...]:
        """Take an acknowledgement; what it uploaded and nobody will use."""
        if ack.subtask not in self.expected:
            return ack.files
        first = self.acks.setdefault(ack.subtask, ack)
        return tuple(path for path in ack.files if path not in first.files)

    @property
    def is_acknowledged(self) -> bool:
        """Whether every subtask gave its part."""
        return len(self.acks) == len(self.expected)

    def is_expired(self, now_ms: int, timeout_ms: int) -> bool:
        """Whether it took too long to collect."""
        return now_ms - self.started_ms >= timeout_ms

    @property
    def files(self) -> tuple[str, ...]:
        """What was uploaded for it so far."""
        return tuple(path for ack in self.acks.values() for path in ack.files)

    @property
    def bytes_new(self) -> int:
        """Bytes that were uploaded for it."""
        return sum(ack.bytes_new for ack in self.acks.values())

    def manifest(
        self, job: JobId, attempt: Attempt, chains: Iterable[Chain], *, now_ms: int
    ) -> Manifest:
        """All parts together, as the manifest of a checkpoint."""
        return Manifest(
            kind=SnapshotKind.CHECKPOINT,
            job=job,
            attempt=attempt.number,
            checkpoint=self.checkpoint,
            at_ms=now_ms,
            duration_ms=now_ms - self.started_ms,
            parallelism=attempt.parallelism,
            max_parallelism=attempt.max_parallelism,
            hash_name=HASH_NAME,
            key_format=KEY_FORMAT,
            row_format=ROW_FORMAT,
            operators={
                operator: self._operator(chain, operator)
                for chain in chains
                for operator in chain.operators
            },
            request_id=self.wanted.request_id,
            parent=attempt.restored_from.path if attempt.restored_from else None,
        )

    def _operator(self, chain: Chain, operator: OperatorId) -> OperatorSnapshot:
        parts = [self.acks[subtask].parts.get(operator) for subtask in chain.subtasks()]
        states: dict[str, StateDescriptor] = {}
        for part in parts:
            for state in part.states if part else ():
                states.setdefault(state.name, state)
        return OperatorSnapshot(
            parallelism=chain.parallelism,
            states=tuple(states.values()),
            key_schema=next((p.key_schema for p in parts if p and p.key_schema), None),
            subtasks=tuple(part.snapshot if part else SubtaskSnapshot() for part in parts),
        )


def as_savepoint(manifest: Manifest, folder: str) -> Manifest:
    """The manifest in a savepoint's own folder: what lies there is named relative to it."""
    moved = _with_paths(manifest, folder, is_relative=True)
    return replace(moved, kind=SnapshotKind.SAVEPOINT)


def from_savepoint(manifest: Manifest, folder: str) -> Manifest:
    """A checkpoint's manifest whose relative paths lie in that folder: named absolutely."""
    return _with_paths(manifest, folder, is_relative=False)


def _with_paths(manifest: Manifest, folder: str, *, is_relative: bool) -> Manifest:
    def moved(file: FileHandle) -> FileHandle:
        if is_relative:
            return replace(file, path=file.path.removeprefix(folder))
        return replace(file, path=folder + file.path)

    def subtask(snapshot: SubtaskSnapshot) -> SubtaskSnapshot:
        if snapshot.keyed is None:
            return snapshot
        files = tuple(moved(file) for file in snapshot.keyed.files)
        return replace(snapshot, keyed=replace(snapshot.keyed, files=files))

    operators = {
        uid: replace(operator, subtasks=tuple(subtask(s) for s in operator.subtasks))
        for uid, operator in manifest.operators.items()
    }
    return replace(manifest, operators=operators)
