"""The coordinator of one job: what happens next, from what was told so far.

It decides attempts, checkpoints, ends and recoveries; every decision that must not be taken twice is
an entry of the log first, and only a won entry has consequences. It never touches a clock, a socket
or the store: `handle` takes one fact and returns what is to be done, in order
(`runtime.coordinator` does it in production, `testing.simulation` in simulation).

While the outcome of an entry or of a manifest is unknown nothing is given up, deleted or decided:
orders and failures wait until it is known.
"""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from typing import Any

from penstock.checkpoint import effects as do
from penstock.checkpoint import events as told
from penstock.checkpoint import log, opening, recovery, retention
from penstock.checkpoint.attempt import RunningAttempt
from penstock.checkpoint.effects import Effect
from penstock.checkpoint.ending import Ending, savepoint_of
from penstock.checkpoint.events import Event, Failure
from penstock.checkpoint.known import KnownSnapshots
from penstock.checkpoint.opening import Opening
from penstock.checkpoint.pending import PendingCheckpoint
from penstock.checkpoint.restart import Restarts
from penstock.checkpoint.schedule import Demand, Schedule, Wanted
from penstock.checkpoint.settings import (
    CheckpointSettings,
    ExponentialDelay,
    Identity,
    OnCancellation,
)
from penstock.core import paths
from penstock.core.errors import Rejected
from penstock.core.graph import JobGraph
from penstock.core.ids import AttemptNumber, CheckpointId, WorkerId
from penstock.core.log import End, EndKind, Entry, EntryKind, SnapshotRef
from penstock.core.manifest import Manifest


class Phase(StrEnum):
    """Where the coordinator stands."""

    BACKING_OFF = "backing off"
    READING = "reading"
    WAITING = "waiting"
    GATHERING = "gathering"
    OPENING = "opening"
    DEPLOYING = "deploying"
    RUNNING = "running"
    STOPPING = "stopping"
    ENDING = "ending"
    ENDED = "ended"
    STOOD_DOWN = "stood down"


_P = Phase
MOVES: dict[Phase, frozenset[Phase]] = {
    # between attempts
    _P.BACKING_OFF: frozenset({_P.READING, _P.ENDING}),
    _P.READING: frozenset({_P.WAITING, _P.GATHERING, _P.ENDING, _P.ENDED}),
    _P.WAITING: frozenset({_P.READING}),
    # an attempt: workers are there, the entry is won, all restored, records flow
    _P.GATHERING: frozenset({_P.OPENING, _P.WAITING, _P.ENDING}),
    _P.OPENING: frozenset({_P.DEPLOYING}),
    _P.DEPLOYING: frozenset({_P.RUNNING, _P.BACKING_OFF, _P.ENDING}),
    _P.RUNNING: frozenset({_P.STOPPING, _P.BACKING_OFF, _P.ENDING}),
    _P.STOPPING: frozenset({_P.RUNNING, _P.BACKING_OFF, _P.ENDING}),
    # the end stands in the log; sinks commit what is left
    _P.ENDING: frozenset({_P.ENDED, _P.BACKING_OFF}),
    _P.ENDED: frozenset({_P.READING}),
    _P.STOOD_DOWN: frozenset(),
}

_WITH_CHILDREN = frozenset({_P.DEPLOYING, _P.RUNNING, _P.STOPPING, _P.ENDING})


class JobCoordinator:
    """One job's coordinator: call `start` once, then `handle` with everything that happens."""

    def __init__(self, identity: Identity, graph: JobGraph, settings: CheckpointSettings) -> None:
        self.phase = Phase.READING
        self.entry: Entry | None = None
        self.workers: dict[WorkerId, tuple[str, ...]] = {}
        self.run: RunningAttempt | None = None
        self.last_failure: Failure | None = None
        self.restarts = Restarts(settings.restart)
        self._identity = identity
        self._graph = graph
        self._settings = settings
        self._schedule = Schedule(settings)
        self._now_ms = 0
        self._retry_at_ms = 0
        self._nonces = 0
        self._snapshots = KnownSnapshots(identity.job)
        self._failed_in_a_row = 0
        self._order: told.StartOrdered | None = None
        self._opening: Opening | None = None
        self._ending: Ending | None = None
        self._ending_restarts = Restarts(ExponentialDelay())
        self._appending: Entry | None = None
        self._publishing: dict[str, do.PublishSavepoint] = {}
        self._answers: dict[str, do.Answer] = {}
        self._deferred: list[Event] = []
        self._effects: list[Effect] = []

    def start(self) -> list[Effect]:
        """What is to be done first."""
        return [do.ReadLog()]

    def handle(self, event: Event) -> list[Effect]:
        """Take one fact; what is to be done now, in this order."""
        if self.phase is Phase.STOOD_DOWN:
            return []
        self._effects = []
        if isinstance(event, told.Tick):
            self._now_ms = event.now_ms
        elif self._is_busy and isinstance(event, _WAIT_FOR_OUTCOMES):
            self._deferred.append(event)
        else:
            self._take(event)
        while self._deferred and not self._is_busy:
            self._take(self._deferred.pop(0))
        if not self._is_busy:
            self._advance()
        return self._effects

    @property
    def _is_busy(self) -> bool:
        """Whether an outcome is unknown that every decision depends on."""
        pending = self.run.pending if self.run else None
        return (
            self.phase is Phase.READING
            or self._appending is not None
            or (pending is not None and pending.is_committing)
        )

    def _take(self, event: Event) -> None:
        match event:
            case told.LogRead():
                self._on_log_read(event)
            case told.WorkerJoined(worker, copies):
                if worker in self.workers:
                    self._on_worker_left(worker, "it started again")
                self.workers[worker] = copies
            case told.WorkerLeft(worker, reason):
                self._on_worker_left(worker, reason)
            case told.WorkerReady(worker, attempt) if run := self._run_of(attempt):
                run.ready.add(worker)
            case told.SubtaskAcked():
                self._on_acked(event)
            case told.SubtaskDeclined(attempt, checkpoint, subtask, reason):
                if (pending := self._collecting(attempt)) and pending.checkpoint == checkpoint:
                    self._checkpoint_failed(f"{subtask} declined: {reason}")
            case told.SubtaskFinished(attempt, subtask) if run := self._run_of(attempt):
                run.finished.add(subtask)
            case told.WorkerCommitted(worker, attempt, checkpoint) if run := self._run_of(attempt):
                run.committed[worker] = max(checkpoint, run.committed.get(worker, checkpoint))
            case told.AttemptFailed(attempt, failure) if self._run_of(attempt):
                self._on_failed(failure)
            case told.EntryWon(entry):
                self._on_won(entry)
            case told.EntryLost(newest):
                self._stand_down(f"entry {newest.seq} of the log is {newest.attempt.number}'s")
            case told.ManifestWritten() | told.ManifestRefused():
                self._on_manifest(event)
            case told.SavepointPublished(request_id):
                self._on_published(request_id)
            case told.SnapshotDeleted(snapshot):
                self._snapshots.deleted(snapshot)
            case told.StartOrdered():
                self._on_start_ordered(event)
            case told.StopOrdered() | told.SavepointOrdered() | told.CheckpointOrdered():
                self._on_checkpoint_ordered(event)
            case told.CancelOrdered(request_id):
                self._on_cancel_ordered(request_id)
            case _:
                pass  # about an attempt that is over

    def _advance(self) -> None:
        """Whatever can be done now is done; called after every event, so twice is harmless."""
        match self.phase:
            case Phase.BACKING_OFF if self._now_ms >= self._retry_at_ms:
                self._read_log()
            case Phase.GATHERING:
                self._open()
            case Phase.DEPLOYING if self.run and self.run.is_ready:
                self._move(Phase.RUNNING)
                self._schedule.attempt_started(self._now_ms)
                self._effects.append(do.Run(self.run.attempt.number))
                self._take_checkpoint()
            case Phase.RUNNING | Phase.STOPPING:
                self._take_checkpoint()
            case Phase.ENDING:
                self._go_on_ending()
            case _:
                pass

    # ── from the log to an attempt ──────────────────────────────────────────────────────────────

    def _read_log(self) -> None:
        self._move(Phase.READING)
        self._effects.append(do.ReadLog())

    def _on_log_read(self, read: told.LogRead) -> None:
        newest = read.newest
        if self.entry is not None and newest != self.entry:
            self._stand_down("another coordinator wrote to the log")
            return
        self.entry = newest
        self._snapshots.read(newest, read.manifests)
        identity = self._identity
        decision = recovery.recovery(
            read, owner=identity.owner, revision=identity.revision, adopt=identity.adopt
        )
        if isinstance(decision, recovery.Foreign):
            self._stand_down(f"the job's folder belongs to {decision.owner}")
        elif isinstance(decision, recovery.CommitOnly):
            self._begin_ending(decision.committed, is_deployed=False)
        elif self._obey(read):
            self._move(Phase.GATHERING)
        elif isinstance(decision, recovery.Restore):
            self._recover(read, decision.snapshot)
        else:
            self._settle(decision)

    def _settle(self, decision: recovery.Recovery) -> None:
        """Nothing runs until an order comes."""
        match decision:
            case recovery.HasEnded():
                assert self.entry is not None, decision
                self._move(Phase.ENDED)
                self._effects.append(do.JobOver(self.entry))
                return
            case recovery.Damaged(snapshot, reason, older):
                self._tell("damaged", path=snapshot.path, reason=reason, older=older)
            case recovery.WaitForOrder(revision):
                self._tell("waits for an order", revision=revision)
            case _:
                pass
        self._move(Phase.WAITING)

    def _recover(self, read: told.LogRead, snapshot: SnapshotRef | None) -> None:
        try:
            self._opening = opening.recovered(read, snapshot, self._graph)
        except Rejected as e:
            self._tell("refused", **_reason(e))
            self._move(Phase.WAITING)
        else:
            self._move(Phase.GATHERING)

    def _obey(self, read: told.LogRead) -> bool:
        """Whether there was an order to start, and it can be obeyed."""
        order, self._order = self._order, None
        if order is None or self._is_obeyed(order):
            return False
        try:
            if order.after not in _seen(read.newest):
                raise Rejected(
                    f"the order was given after entry {order.after} of the log, which has moved on",
                    where="start",
                    fix="look at the job's status, and order again",
                )
            self._opening = opening.ordered(order, read, self._graph)
        except Rejected as e:
            self._answer(order.request_id, ok=False, **_reason(e))
            return False
        return True

    def _is_obeyed(self, order: told.StartOrdered) -> bool:
        """Whether the newest entry shows that the order was obeyed before."""
        entry = self.entry
        if entry is None or entry.request_id != order.request_id:
            return False
        self._answer(order.request_id, ok=True, attempt=entry.attempt.number)
        return True

    def _open(self) -> None:
        opening_ = self._opening
        assert opening_ is not None, self.phase
        if not all(WorkerId(i) in self.workers for i in range(opening_.parallelism)):
            return
        self._move(Phase.OPENING)
        self._append(
            opening.entry_of(
                opening_,
                self.entry,
                self._identity,
                self.workers,
                nonce=self._nonce(),
                at_ms=self._now_ms,
            )
        )

    def _deploy(self, entry: Entry) -> None:
        opening_, self._opening = self._opening, None
        assert opening_ is not None, entry
        if opening_.snapshot is not None and opening_.manifest is not None:
            self._snapshots.add(opening_.snapshot, opening_.manifest)
        self.run = RunningAttempt(self._identity, self._graph, entry.attempt)
        self._failed_in_a_row = 0
        self._move(Phase.DEPLOYING)
        self._effects.append(do.CancelWorkers(AttemptNumber(entry.attempt.number - 1)))
        self._effects.append(opening.prepare(entry, opening_.manifest, self._graph))
        self._effects += self._snapshots.settle(entry)
        if entry.request_id is not None and entry.request_id not in self._answers:
            start = entry.attempt.restored_from
            self._answer(
                entry.request_id,
                ok=True,
                attempt=entry.attempt.number,
                restored_from=start.path if start else None,
            )
        for worker in self.run.subtasks:
            if worker not in self.workers:
                self._on_failed(Failure(f"worker {worker} left while the attempt was opened"))
                return

    # ── entries ─────────────────────────────────────────────────────────────────────────────────

    def _append(self, entry: Entry) -> None:
        assert self._appending is None, (self._appending, entry)
        self._appending = entry
        self._effects.append(do.Append(entry))

    def _on_won(self, entry: Entry) -> None:
        if entry != self._appending:
            return
        self._appending = None
        self.entry = entry
        self._trim(entry)
        match entry.kind:
            case EntryKind.OPENED:
                self._deploy(entry)
            case EntryKind.COMPLETED:
                self._on_completed(entry)
            case EntryKind.RELEASED:
                self._notify_completed(entry)
            case EntryKind.ENDED if entry.end and entry.end.committed:
                self._on_end_committed(entry)
            case EntryKind.ENDED:
                self._on_ended(entry)
            case _:
                raise AssertionError(entry.kind)

    def _trim(self, entry: Entry) -> None:
        old = entry.seq - max(self._settings.log_entries, 1)
        if old > 0:
            self._effects.append(do.DeleteFiles((paths.log_entry(self._identity.job, old),)))

    # ── checkpoints ─────────────────────────────────────────────────────────────────────────────

    def _take_checkpoint(self) -> None:
        run, entry = self.run, self.entry
        assert run is not None, self.phase
        assert entry is not None, self.phase
        if run.pending is not None:
            if run.pending.is_expired(self._now_ms, self._settings.timeout_ms):
                self._checkpoint_failed(f"not done in {self._settings.timeout_ms} ms")
            return
        if entry.hold is not None and run.completed_count >= entry.hold.stable:
            self._append(log.released(entry, nonce=self._nonce(), at_ms=self._now_ms))
            return
        wanted = self._schedule.next(
            self._now_ms,
            holds=entry.hold is not None,
            savepoint_waits=run.taken is not None,
            is_final=run.is_finished,
        )
        if wanted is None:
            return
        if wanted.demand is Demand.STOP:
            self._move(Phase.STOPPING)
        self._schedule.started(wanted, self._now_ms)
        base = max((ref.id for ref in entry.retained), default=None)
        self._effects += run.trigger(wanted, base=base, now_ms=self._now_ms)

    def _collecting(self, attempt: AttemptNumber) -> PendingCheckpoint | None:
        run = self._run_of(attempt)
        pending = run.pending if run else None
        return pending if pending and not pending.is_committing else None

    def _on_acked(self, ack: told.SubtaskAcked) -> None:
        run = self._run_of(ack.attempt)
        if run is None:
            if self.entry is not None:
                self._effects += self._snapshots.collect(ack, self.entry)
            return
        was_taken = run.taken
        self._effects += run.acknowledge(ack, now_ms=self._now_ms)
        if run.taken is not was_taken:
            self._schedule.ended(self._now_ms)

    def _on_manifest(self, event: told.ManifestWritten | told.ManifestRefused) -> None:
        run, entry = self.run, self.entry
        pending = run.pending if run else None
        if pending is None or not pending.is_committing or pending.checkpoint != event.checkpoint:
            return
        assert run is not None, event
        assert entry is not None, event
        if isinstance(event, told.ManifestRefused):
            pending.written = None
            if event.is_taken:
                self._take_the_next_number(pending)
            else:
                self._checkpoint_failed(event.reason)
            return
        path = paths.checkpoint_metadata(self._identity.job, pending.checkpoint)
        ref = SnapshotRef(pending.checkpoint, path, event.digest)
        assert pending.written is not None, pending
        self._snapshots.add(ref, pending.written)
        if pending.wanted.demand in (Demand.STOP, Demand.FINAL):
            is_stop = pending.wanted.demand is Demand.STOP
            self._end(
                EndKind.STOPPED if is_stop else EndKind.FINISHED,
                new=ref,
                request_id=pending.wanted.request_id or entry.request_id,
                savepoint=self._folder(pending.wanted) if is_stop else None,
            )
            return
        retained, dropped = retention.retain(
            entry.retained, ref, count=self._settings.retained, hold=entry.hold
        )
        self._append(
            log.completed(
                entry,
                nonce=self._nonce(),
                at_ms=self._now_ms,
                retained=retained,
                dropping=(*self._snapshots.undeleted, *dropped),
            )
        )

    def _on_completed(self, entry: Entry) -> None:
        run = self.run
        assert run is not None, entry
        pending, run.pending = run.pending, None
        assert pending is not None, entry
        run.completed_count += 1
        self._failed_in_a_row = 0
        self._schedule.ended(self._now_ms)
        self._notify_completed(entry)
        self._effects += self._snapshots.settle(entry)
        self._publish_taken(run)
        self._tell(
            "checkpoint completed",
            id=pending.checkpoint,
            duration_ms=self._now_ms - pending.started_ms,
            bytes_new=pending.bytes_new,
        )
        if pending.wanted.demand is Demand.ORDERED and pending.wanted.request_id is not None:
            self._answer(pending.wanted.request_id, ok=True, checkpoint=pending.checkpoint)

    def _notify_completed(self, entry: Entry) -> None:
        newest = log.recovery_point(entry)
        if newest is not None:
            self._effects.append(
                do.NotifyCompleted(entry.attempt.number, newest.id, commit=entry.hold is None)
            )

    def _publish_taken(self, run: RunningAttempt) -> None:
        taken, run.taken = run.taken, None
        if taken is not None:
            assert taken.wanted.request_id is not None, taken
            self._publish(
                do.PublishSavepoint(
                    taken.wanted.request_id,
                    self._folder(taken.wanted) + paths.METADATA,
                    taken.manifest,
                )
            )

    def _publish(self, effect: do.PublishSavepoint) -> None:
        self._publishing[effect.request_id] = effect
        self._effects.append(effect)

    def _on_published(self, request_id: str) -> None:
        published = self._publishing.pop(request_id, None)
        if published is None:
            return
        if self._ending is not None and request_id in self._ending.unpublished:
            self._ending.unpublished.discard(request_id)
            return  # a stop is answered when everything is committed
        self._answer_savepoint(request_id, published.path, published.manifest)

    def _take_the_next_number(self, pending: PendingCheckpoint) -> None:
        assert self.run is not None, pending
        self._effects += self.run.give_up("another attempt's manifest stands under its number")
        self._running_again()
        if pending.wanted.demand not in (Demand.FINAL, Demand.BEHIND):
            self._queue(pending.wanted)

    def _checkpoint_failed(self, reason: str) -> None:
        run = self.run
        assert run is not None, reason
        pending = run.pending
        assert pending is not None, reason
        self._effects += run.give_up(reason)
        self._schedule.ended(self._now_ms)
        self._tell("checkpoint failed", id=pending.checkpoint, reason=reason)
        self._running_again()
        wanted = pending.wanted
        if wanted.request_id is not None:
            self._answer(wanted.request_id, ok=False, error=reason)
        if wanted.to_savepoint:
            return
        self._failed_in_a_row += 1
        if self._failed_in_a_row > self._settings.tolerable_failures:
            self._on_failed(Failure(f"checkpoint {pending.checkpoint} failed: {reason}"))

    def _running_again(self) -> None:
        if self.phase is Phase.STOPPING:
            self._move(Phase.RUNNING)

    # ── failures ────────────────────────────────────────────────────────────────────────────────

    def _run_of(self, attempt: AttemptNumber) -> RunningAttempt | None:
        run = self.run
        is_live = self.phase in _WITH_CHILDREN
        return run if run is not None and is_live and run.attempt.number == attempt else None

    def _on_worker_left(self, worker: WorkerId, reason: str) -> None:
        self.workers.pop(worker, None)
        if self.run is not None and worker in self.run.subtasks and self.phase in _WITH_CHILDREN:
            failed = told.AttemptFailed(
                self.run.attempt.number, Failure(f"worker {worker} left: {reason}")
            )
            self._deferred.append(failed)

    def _on_failed(self, failure: Failure) -> None:
        run = self.run
        assert run is not None, failure
        self.last_failure = failure
        self._tell("failed", failure=failure)
        self._effects.append(do.CancelWorkers(run.attempt.number))
        if self._ending is not None:
            self._ending_failed(failure)
            return
        pending, taken = run.pending, run.taken
        self._effects += run.give_up(failure.what)
        self._effects += run.give_up_taken()
        for wanted in (pending and pending.wanted, taken and taken.wanted):
            if wanted and wanted.demand is Demand.SAVEPOINT:
                self._queue(wanted)
            elif wanted and wanted.request_id is not None:
                self._answer(wanted.request_id, ok=False, error=failure.what)
        delay_ms = self.restarts.failed(failure, self._now_ms)
        if delay_ms is None:
            assert self.entry is not None, failure
            self._end(EndKind.FAILED, request_id=self.entry.request_id, reason=failure.what)
            return
        self.run = None
        self._retry_at_ms = self._now_ms + delay_ms
        self._move(Phase.BACKING_OFF)

    # ── the end ─────────────────────────────────────────────────────────────────────────────────

    def _end(
        self,
        kind: EndKind,
        *,
        request_id: str | None,
        new: SnapshotRef | None = None,
        savepoint: str | None = None,
        reason: str | None = None,
    ) -> None:
        """Write the end down; an ordered end by `new` ends a hold, a broken-off one keeps it."""
        entry = self.entry
        assert entry is not None, kind
        retained, dropped = entry.retained, tuple[SnapshotRef, ...]()
        if new is not None:
            retained, dropped = retention.retain(
                entry.retained, new, count=self._settings.retained, hold=None
            )
        self._append(
            log.ended(
                entry,
                End(kind, new or log.recovery_point(entry), savepoint=savepoint, reason=reason),
                nonce=self._nonce(),
                at_ms=self._now_ms,
                request_id=request_id,
                retained=retained,
                dropping=(*self._snapshots.undeleted, *dropped),
                hold=None if new else entry.hold,
            )
        )

    def _on_ended(self, entry: Entry) -> None:
        end, run = entry.end, self.run
        assert end is not None, entry
        if run is not None:
            run.pending = None
        committed = recovery.committed_up_to(entry, end.go_on_from)
        is_live = end.kind in (EndKind.STOPPED, EndKind.FINISHED)
        self._begin_ending(committed, is_deployed=is_live)
        if is_live:
            self._notify_completed(entry)
            if run is not None:
                self._publish_taken(run)
        else:
            self._effects.append(do.CancelWorkers(entry.attempt.number))
            if run is not None:
                self._fail_taken(run)
        self._effects += self._snapshots.settle(entry)
        for wanted in self._schedule.clear():
            if wanted.request_id is not None:
                self._answer(wanted.request_id, ok=False, error=f"the job has {end.kind}")

    def _fail_taken(self, run: RunningAttempt) -> None:
        taken = run.taken
        self._effects += run.give_up_taken()
        if taken is not None and taken.wanted.request_id is not None:
            self._answer(taken.wanted.request_id, ok=False, error="the job ended")

    def _begin_ending(self, committed: CheckpointId | None, *, is_deployed: bool) -> None:
        entry = self.entry
        assert entry is not None, committed
        assert entry.end is not None, entry
        self._ending = Ending(committed, is_deployed)
        self._move(Phase.ENDING)
        if entry.end.go_on_from is not None:
            manifest = self._snapshots.manifest(entry.end.go_on_from)
            publish = savepoint_of(entry, manifest, self._identity.savepoints_url)
            if publish is not None:
                self._ending.unpublished.add(publish.request_id)
                self._publish(publish)

    def _go_on_ending(self) -> None:
        entry, ending = self.entry, self._ending
        assert entry is not None, self.phase
        assert ending is not None, self.phase
        if not ending.is_deployed and not ending.is_committed(self.run):
            self._deploy_commit_only(entry, ending)
        if ending.is_done(self.run):
            self._end_committed(entry)

    def _end_committed(self, entry: Entry) -> None:
        end, is_dropping = entry.end, self._drops_all(entry)
        assert end is not None, entry
        go_on_from = None if is_dropping else end.go_on_from
        self._append(
            log.ended(
                entry,
                replace(end, committed=True, go_on_from=go_on_from),
                nonce=self._nonce(),
                at_ms=self._now_ms,
                request_id=entry.request_id,
                retained=() if is_dropping else entry.retained,
                dropping=(*self._snapshots.undeleted, *(entry.retained if is_dropping else ())),
                hold=None if is_dropping else entry.hold,
            )
        )

    def _drops_all(self, entry: Entry) -> bool:
        is_cancelled = entry.end is not None and entry.end.kind is EndKind.CANCELLED
        return is_cancelled and self._settings.on_cancellation is OnCancellation.DELETE

    def _deploy_commit_only(self, entry: Entry, ending: Ending) -> None:
        assert entry.end is not None, entry
        assert ending.committed is not None, entry
        assert entry.end.go_on_from is not None, entry
        prepare = opening.prepare_commit_only(
            entry,
            self._snapshots.manifest(entry.end.go_on_from),
            ending.committed,
            self._graph,
        )
        if not prepare.subtasks.keys() <= self.workers.keys():
            return
        ending.is_deployed = True
        self.run = RunningAttempt(self._identity, self._graph, entry.attempt)
        self.run.subtasks = prepare.subtasks
        if prepare.subtasks:
            self._effects.append(do.CancelWorkers(entry.attempt.number))
            self._effects.append(prepare)

    def _ending_failed(self, failure: Failure) -> None:
        """Workers broke before all was committed: others do it, if this is still the newest end."""
        entry, self.run, self._ending = self.entry, None, None
        assert entry is not None, failure
        delay_ms = self._ending_restarts.failed(failure, self._now_ms)
        if delay_ms is None:
            self._over(entry)  # the next coordinator tries once more
        else:
            self._retry_at_ms = self._now_ms + delay_ms
            self._move(Phase.BACKING_OFF)

    def _on_end_committed(self, entry: Entry) -> None:
        self._effects.append(do.CancelWorkers(entry.attempt.number))
        self._effects += self._snapshots.settle(entry)
        assert entry.end is not None, entry
        if entry.end.kind in (EndKind.STOPPED, EndKind.CANCELLED):
            self._answer_end(entry)
        self._over(entry)

    def _over(self, entry: Entry) -> None:
        self._ending = None
        self.run = None
        self._move(Phase.ENDED)
        self._effects.append(do.JobOver(entry))
        if self._order is not None:
            self._read_log()

    # ── orders and answers ──────────────────────────────────────────────────────────────────────

    def _on_start_ordered(self, order: told.StartOrdered) -> None:
        if self._answered(order.request_id) or self._is_obeyed(order):
            return
        if self.phase in (Phase.WAITING, Phase.ENDED):
            self._order = order
            self._read_log()
        elif self.phase is Phase.ENDING:
            self._order = order
        elif self._opening is None or self._opening.request_id != order.request_id:
            self._answer(order.request_id, ok=False, error="the job runs already")

    def _on_checkpoint_ordered(
        self, order: told.StopOrdered | told.SavepointOrdered | told.CheckpointOrdered
    ) -> None:
        if self._answered(order.request_id):
            return
        if isinstance(order, told.SavepointOrdered) and order.published is not None:
            folder = paths.savepoint_folder(self._identity.job, order.request_id)
            self._answer_savepoint(order.request_id, folder + paths.METADATA, order.published)
            return
        entry = self.entry
        if self.phase in (Phase.ENDING, Phase.ENDED) and entry is not None:
            if entry.request_id != order.request_id:
                self._answer(order.request_id, ok=False, error="the job does not run")
            elif self.phase is Phase.ENDED:
                self._answer_end(entry)
            return
        if self.phase is Phase.WAITING:
            self._answer(order.request_id, ok=False, error="the job does not run")
            return
        if not self._is_under_way(order.request_id):
            self._queue(_wanted(order))

    def _is_under_way(self, request_id: str) -> bool:
        run = self.run
        on_its_way = (run.pending, run.taken) if run else ()
        is_pending = any(p is not None and p.wanted.request_id == request_id for p in on_its_way)
        return is_pending or request_id in self._publishing

    def _queue(self, wanted: Wanted) -> None:
        dropped = self._schedule.order(wanted)
        if dropped is not None and dropped.request_id is not None:
            self._answer(dropped.request_id, ok=False, error="too many orders are waiting")

    def _on_cancel_ordered(self, request_id: str) -> None:
        entry = self.entry
        if self._answered(request_id):
            return
        if self.phase in (Phase.WAITING, Phase.ENDING, Phase.ENDED):
            if entry is None or entry.request_id != request_id:
                self._answer(request_id, ok=False, error="the job does not run")
            elif self.phase is Phase.ENDED:
                self._answer_end(entry)
        elif entry is None or entry.end is not None:
            self._opening = None  # nothing of the new run was written yet
            self._move(Phase.WAITING)
            self._answer(request_id, ok=True)
        else:
            if self.run is not None:
                self._drop_pending(self.run, "the job was cancelled")
            self._opening = None
            self._end(EndKind.CANCELLED, request_id=request_id)

    def _drop_pending(self, run: RunningAttempt, reason: str) -> None:
        pending = run.pending
        self._effects += run.give_up(reason)
        if pending is not None and pending.wanted.request_id is not None:
            self._answer(pending.wanted.request_id, ok=False, error=reason)

    def _answered(self, request_id: str) -> bool:
        answer = self._answers.get(request_id)
        if answer is not None:
            self._effects.append(answer)
        return answer is not None

    def _answer(self, request_id: str, *, ok: bool, **detail: Any) -> None:
        answer = do.Answer(request_id, ok, detail)
        self._answers[request_id] = answer
        self._effects.append(answer)

    def _answer_savepoint(self, request_id: str, path: str, manifest: Manifest) -> None:
        self._answer(
            request_id,
            ok=True,
            path=f"{self._identity.savepoints_url}/{path.rpartition('/')[0]}",
            checkpoint=manifest.checkpoint,
            bytes=manifest.size_bytes,
        )

    def _answer_end(self, entry: Entry) -> None:
        end = entry.end
        assert end is not None, entry
        detail: dict[str, Any] = {"end": end.kind.value}
        if end.go_on_from is not None:
            detail["checkpoint"] = end.go_on_from.id
        if end.savepoint is not None:
            detail["path"] = f"{self._identity.savepoints_url}/{end.savepoint.rstrip('/')}"
        self._answer(entry.request_id or "", ok=True, **detail)

    # ── small things ────────────────────────────────────────────────────────────────────────────

    def _folder(self, wanted: Wanted) -> str:
        assert wanted.request_id is not None, wanted
        return paths.savepoint_folder(self._identity.job, wanted.request_id)

    def _nonce(self) -> str:
        self._nonces += 1
        return f"{self._identity.incarnation}-{self._nonces}"

    def _tell(self, kind: str, **fields: Any) -> None:
        self._effects.append(do.Tell(kind, fields))

    def _move(self, phase: Phase) -> None:
        assert phase in MOVES[self.phase], (self.phase, phase)
        self.phase = phase

    def _stand_down(self, reason: str) -> None:
        self.phase = Phase.STOOD_DOWN
        self._deferred.clear()
        self._effects.append(do.StandDown(reason))


_WAIT_FOR_OUTCOMES = (
    told.AttemptFailed,
    told.SubtaskDeclined,
    told.StartOrdered,
    told.StopOrdered,
    told.SavepointOrdered,
    told.CheckpointOrdered,
    told.CancelOrdered,
)


def _seen(newest: Entry | None) -> set[int]:
    """The numbers that an orderer may have seen last; `end.committed` changes nothing for him."""
    if newest is None:
        return {0}
    is_settled = newest.end is not None and newest.end.committed
    return {newest.seq, newest.seq - 1} if is_settled else {newest.seq}


def _reason(e: Rejected) -> dict[str, Any]:
    return {"error": e.what, "where": e.where, "fix": e.fix}


def _wanted(order: told.StopOrdered | told.SavepointOrdered | told.CheckpointOrdered) -> Wanted:
    match order:
        case told.StopOrdered(request_id, drain):
            return Wanted(Demand.STOP, request_id, drain)
        case told.SavepointOrdered(request_id):
            return Wanted(Demand.SAVEPOINT, request_id)
        case _:
            return Wanted(Demand.ORDERED, order.request_id)
