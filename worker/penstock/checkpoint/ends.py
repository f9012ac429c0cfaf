"""The end of a run: written down first, then all is committed, then an entry says that it is.

Between the two entries workers may break; others are deployed to commit, and nothing else.
"""

from __future__ import annotations

from dataclasses import replace

from penstock.checkpoint import effects as do
from penstock.checkpoint import log, opening, recovery, rescaling, retention
from penstock.checkpoint.attempt import RunningAttempt
from penstock.checkpoint.checkpoints import Checkpoints
from penstock.checkpoint.ending import Ending, committed_entry, savepoint_of
from penstock.checkpoint.known import KnownSnapshots
from penstock.checkpoint.outbox import Outbox
from penstock.checkpoint.phases import Phase
from penstock.checkpoint.position import Position
from penstock.checkpoint.restart import Restarts
from penstock.checkpoint.settings import ExponentialDelay
from penstock.core.failure import Failure
from penstock.core.graph import JobGraph
from penstock.core.ids import CheckpointId
from penstock.core.log import End, EndKind, Entry, SnapshotRef


class Ends:
    """At most one end is under way."""

    def __init__(
        self,
        position: Position,
        graph: JobGraph,
        snapshots: KnownSnapshots,
        checkpoints: Checkpoints,
        outbox: Outbox,
    ) -> None:
        self._at = position
        self._graph = graph
        self._snapshots = snapshots
        self._checkpoints = checkpoints
        self._out = outbox
        self._restarts = Restarts(ExponentialDelay())
        self._ending: Ending | None = None

    @property
    def is_under_way(self) -> bool:
        """Whether the end stands, and workers commit or are about to."""
        return self._ending is not None

    # ── deciding it ─────────────────────────────────────────────────────────────────────────────

    def complete(
        self,
        entry: Entry,
        new: SnapshotRef,
        *,
        retained: int,
        savepoint: str | None,
        request_id: str | None,
    ) -> None:
        """End after `entry` with a checkpoint, all input read or with the savepoint of a stop; that
        ends a hold."""
        kind = EndKind.FINISHED if savepoint is None else EndKind.STOPPED
        staying, dropped = retention.retain(entry.retained, new, count=retained, hold=None)
        self._at.append(
            log.ended(
                entry,
                End(kind, new, savepoint=savepoint),
                **self._at.stamp(),
                request_id=request_id or entry.request_id,
                retained=staying,
                dropping=(*self._snapshots.undeleted, *dropped),
                hold=None,
            )
        )

    def break_off(
        self, kind: EndKind, reason: str, *, request_id: str | None = None, deletes: bool = False
    ) -> None:
        """End from the newest checkpoint; a hold is kept, and nothing above it is committed."""
        entry = rescaling.taken_back(self._at.newest, reason)
        self._checkpoints.cancel_pending(reason)
        told = reason if kind is EndKind.FAILED else None
        self._at.append(
            log.ended(
                entry,
                End(kind, log.recovery_point(entry), reason=told, deletes=deletes),
                **self._at.stamp(),
                request_id=request_id or entry.request_id,
                retained=entry.retained,
                dropping=self._snapshots.undeleted,
                hold=entry.hold,
            )
        )

    def drop_all(self, request_id: str) -> None:
        """Of a run that ended and committed everything no checkpoint is to be kept any more."""
        entry = self._at.newest
        assert entry.end is not None, entry
        self._at.move(Phase.ENDING)
        cancelled = replace(entry.end, kind=EndKind.CANCELLED, deletes=True, savepoint=None)
        ended = replace(entry, end=cancelled, request_id=request_id)
        self._at.append(
            committed_entry(ended, **self._at.stamp(), undeleted=self._snapshots.undeleted)
        )

    # ── committing what is left ─────────────────────────────────────────────────────────────────

    def won(self, entry: Entry) -> None:
        """An entry of an end stands: the first or the last of the two."""
        assert entry.end is not None, entry
        if entry.end.committed:
            self._on_committed(entry)
            return
        is_complete = entry.end.kind in (EndKind.STOPPED, EndKind.FINISHED)
        committed = recovery.committed_up_to(entry, entry.end.go_on_from)
        self.begin(committed, is_deployed=is_complete)
        if is_complete:
            self._checkpoints.notify(entry)
        else:
            self._out.do(do.CancelWorkers(entry.attempt.number))
        self._checkpoints.end(entry, is_complete=is_complete)
        self._out.do_all(self._snapshots.settle(entry))

    def begin(self, committed: CheckpointId | None, *, is_deployed: bool) -> None:
        """Commit up to a checkpoint (None: there is nothing), publish the savepoint of a stop."""
        entry = self._at.newest
        assert entry.end is not None, entry
        self._at.opening = None
        self._ending = Ending(committed, is_deployed)
        self._at.move(Phase.ENDING)
        if entry.end.go_on_from is not None:
            manifest = self._snapshots.manifest(entry.end.go_on_from)
            publish = savepoint_of(entry, manifest, self._at.identity.savepoints_url)
            if publish is not None:
                self._ending.unpublished.add(publish.request_id)
                self._checkpoints.publish(publish)

    def published(self, request_id: str) -> bool:
        """Whether the savepoint that stands now is that of the stop, answered when all is committed."""
        if self._ending is not None:
            self._ending.unpublished.discard(request_id)
        entry = self._at.newest
        return entry.end is not None and entry.request_id == request_id

    def advance(self) -> None:
        """Deploy sinks that are still needed; say so when nothing is left."""
        entry, ending, run = self._at.newest, self._ending, self._checkpoints.run
        if ending is None:
            self._finish_deleting(entry)
            return
        if not ending.is_deployed and not ending.is_committed(run):
            self._deploy(entry, ending)
        if ending.is_done(self._checkpoints.run):
            self._at.append(
                committed_entry(entry, **self._at.stamp(), undeleted=self._snapshots.undeleted)
            )

    def failed(self, failure: Failure) -> None:
        """Workers broke before all was committed: others do it, if this is still the newest end.

        Whatever it was, nobody gives up: a run is not over whose output is missing.
        """
        delay_ms = self._restarts.failed(Failure(failure.what), self._at.now_ms)
        assert delay_ms is not None, failure
        self._ending = self._checkpoints.run = None
        self._at.back_off(delay_ms)

    def _deploy(self, entry: Entry, ending: Ending) -> None:
        assert entry.end is not None, entry
        assert entry.end.go_on_from is not None, entry
        assert ending.committed is not None, entry
        manifest = self._snapshots.manifest(entry.end.go_on_from)
        prepare = opening.prepare_commit_only(entry, manifest, ending.committed, self._graph)
        if not prepare.subtasks.keys() <= self._at.workers.keys():
            return
        ending.is_deployed = True
        run = RunningAttempt(self._at.identity, self._graph, entry.attempt)
        run.subtasks = prepare.subtasks
        self._checkpoints.begin(run)
        if prepare.subtasks:
            self._out.do(do.CancelWorkers(entry.attempt.number), prepare)

    def is_settled(self, entry: Entry) -> bool:
        """Whether nothing is left to do for an end that is committed; what it dropped is deleted.

        The checkpoints of a run that was to leave none are waited for: the answer says they are gone.
        """
        assert entry.end is not None, entry
        self._out.do_all(self._snapshots.settle(entry))
        return not (entry.end.deletes and self._snapshots.undeleted)

    def _on_committed(self, entry: Entry) -> None:
        self._out.do(do.CancelWorkers(entry.attempt.number))
        self._ending = self._checkpoints.run = None
        if self.is_settled(entry):
            self._answer(entry)

    def _finish_deleting(self, entry: Entry) -> None:
        if not self._snapshots.undeleted:
            self._answer(entry)

    def _answer(self, entry: Entry) -> None:
        assert entry.end is not None, entry
        if entry.end.kind in (EndKind.STOPPED, EndKind.CANCELLED):
            self._out.answer_end(entry)
        self._over(entry)

    def _over(self, entry: Entry) -> None:
        self._ending = self._checkpoints.run = None
        self._at.move(Phase.ENDED)
        self._out.do(do.JobOver(entry))
