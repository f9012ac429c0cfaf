"""The checkpoints of one running attempt: one pending at a time, and the savepoint that waits for the
checkpoint behind it.

It knows acknowledgements and files. It does not know the log, other attempts or restarts; those are
`coordinator`'s.
"""

from __future__ import annotations

from dataclasses import dataclass

from penstock.checkpoint.effects import Abort, DeleteFiles, Effect, Resume, Trigger, WriteManifest
from penstock.checkpoint.events import SubtaskAcked
from penstock.checkpoint.pending import PendingCheckpoint, as_savepoint, from_savepoint
from penstock.checkpoint.schedule import Demand, Wanted
from penstock.checkpoint.settings import Identity
from penstock.core import paths
from penstock.core.chains import Chain, chains, subtasks_by_worker
from penstock.core.graph import JobGraph
from penstock.core.ids import CheckpointId, SubtaskId, WorkerId
from penstock.core.log import Attempt
from penstock.core.manifest import Manifest


@dataclass(frozen=True, slots=True)
class TakenSavepoint:
    """Acknowledged by all, published when a checkpoint behind it is complete."""

    wanted: Wanted
    manifest: Manifest
    files: tuple[str, ...]


class RunningAttempt:
    """What one attempt's workers have told so far."""

    def __init__(self, identity: Identity, graph: JobGraph, attempt: Attempt) -> None:
        self._identity = identity
        self.attempt = attempt
        self.chains: tuple[Chain, ...] = chains(graph, parallelism=attempt.parallelism)
        self.subtasks = subtasks_by_worker(graph, placement=attempt.placement)
        self.expected = frozenset(s for chain in self.chains for s in chain.subtasks())
        self.ready: set[WorkerId] = set()
        self.finished: set[SubtaskId] = set()
        self.committed: dict[WorkerId, CheckpointId] = {}
        self.fetched_bytes = 0
        self.pause_ms = 0
        self.completed_count = 0
        self.pending: PendingCheckpoint | None = None
        self.taken: TakenSavepoint | None = None
        self.given_up: dict[CheckpointId, Wanted] = {}
        self._next = attempt.next_checkpoint

    @property
    def highest_checkpoint(self) -> CheckpointId:
        """The greatest number that it used."""
        return CheckpointId(self._next - 1)

    def restored(self, worker: WorkerId, fetched_bytes: int) -> None:
        """A worker restored, and listens; told twice, it counts once."""
        if worker not in self.ready:
            self.ready.add(worker)
            self.fetched_bytes += fetched_bytes

    @property
    def is_ready(self) -> bool:
        """Whether every worker restored."""
        return self.ready >= self.subtasks.keys()

    @property
    def is_finished(self) -> bool:
        """Whether all input was read and processed."""
        return self.finished >= self.expected

    def has_completed(self, count: int) -> bool:
        """Whether this attempt completed that many checkpoints."""
        return self.completed_count >= count

    def has_committed(self, checkpoint: CheckpointId) -> bool:
        """Whether every worker's sinks committed all up to a checkpoint."""
        return all(self.committed.get(worker, 0) >= checkpoint for worker in self.subtasks)

    def trigger(self, wanted: Wanted, *, base: CheckpointId | None, now_ms: int) -> list[Effect]:
        """Begin the next checkpoint."""
        assert self.pending is None, self.pending
        checkpoint, self._next = self._next, CheckpointId(self._next + 1)
        self.pending = PendingCheckpoint(checkpoint, wanted, self.expected, now_ms)
        is_stop = wanted.demand is Demand.STOP
        folder = self._folder(wanted) if wanted.to_savepoint else None
        return [
            Trigger(
                self.attempt.number,
                checkpoint,
                base=None if wanted.to_savepoint else base,
                savepoint=folder,
                stop=wanted.lets_nothing_follow,
                drain=is_stop and wanted.drain,
            )
        ]

    def acknowledge(self, ack: SubtaskAcked, *, now_ms: int) -> list[Effect]:
        """Take one acknowledgement of this attempt; after the last, the checkpoint is written.

        A savepoint that does not stop the job is kept as `taken` instead.
        """
        pending = self.pending
        if pending is None or pending.checkpoint != ack.checkpoint:
            wanted = self.given_up.get(ack.checkpoint)
            return [] if wanted is None else delete(ack.files, wanted)
        effects = delete(pending.acknowledge(ack), pending.wanted)
        if pending.is_acknowledged and not pending.is_committing:
            manifest = pending.manifest(
                self._identity.job, self.attempt, self.chains, now_ms=now_ms
            )
            if pending.wanted.demand is Demand.SAVEPOINT:
                manifest = as_savepoint(manifest, self.folder_url(pending.wanted))
                self.taken = TakenSavepoint(pending.wanted, manifest, pending.files)
                self.pending = None
            else:
                if pending.wanted.demand is Demand.STOP:
                    manifest = from_savepoint(manifest, self.folder_url(pending.wanted))
                pending.written = manifest
                path = paths.checkpoint_metadata(self._identity.job, pending.checkpoint)
                effects.append(WriteManifest(path, manifest))
        return effects

    def give_up(self, reason: str) -> list[Effect]:
        """Abort the pending checkpoint, if there is one, and delete what was uploaded for it."""
        pending, self.pending = self.pending, None
        if pending is None:
            return []
        self.given_up[pending.checkpoint] = pending.wanted
        effects: list[Effect] = [Abort(self.attempt.number, pending.checkpoint, reason)]
        if pending.wanted.lets_nothing_follow:
            effects.append(Resume(self.attempt.number, pending.checkpoint))
        return effects + delete(pending.files, pending.wanted)

    def give_up_taken(self) -> list[Effect]:
        """The attempt failed before the checkpoint behind the savepoint: its files are useless."""
        taken, self.taken = self.taken, None
        if taken is None:
            return []
        self.given_up[taken.manifest.checkpoint] = taken.wanted
        return delete(taken.files, taken.wanted)

    def folder_url(self, wanted: Wanted) -> str:
        """Where a savepoint's files lie, absolutely, with a slash at the end."""
        return f"{self._identity.savepoints_url}/{self._folder(wanted)}"

    def _folder(self, wanted: Wanted) -> str:
        assert wanted.request_id is not None, wanted
        return paths.savepoint_folder(self._identity.job, wanted.request_id)


def delete(files: tuple[str, ...], wanted: Wanted) -> list[Effect]:
    """Delete what was uploaded for nothing."""
    return [DeleteFiles(files, savepoints=wanted.to_savepoint)] if files else []
