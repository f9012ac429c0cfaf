"""The coordinator of one job: what happens next, from what was told so far.

It decides attempts, ends and recoveries; every decision that must not be taken twice is an entry of
the log first, and only a won entry has consequences. It never touches a clock, a socket or the store:
`handle` takes one fact and returns what is to be done, in order (`runtime.coordinator` does it in
production, `testing.simulation` in simulation). Checkpoints are `checkpoints`'.

While the outcome of an entry or of a manifest is unknown nothing is given up, deleted or decided:
orders and failures wait until it is known.
"""

from __future__ import annotations

from typing import Any

from penstock.checkpoint import effects as do
from penstock.checkpoint import events as told
from penstock.checkpoint import log, opening, recovery, retention
from penstock.checkpoint.attempt import RunningAttempt
from penstock.checkpoint.checkpoints import Broken, Checkpoints, Order, Ready
from penstock.checkpoint.effects import Effect
from penstock.checkpoint.ending import Ending, committed_entry, savepoint_of
from penstock.checkpoint.events import Event
from penstock.checkpoint.known import KnownSnapshots
from penstock.checkpoint.opening import Opening
from penstock.checkpoint.outbox import Outbox
from penstock.checkpoint.phases import MOVES, WITH_CHILDREN, Phase
from penstock.checkpoint.restart import Restarts
from penstock.checkpoint.restore import IsReadable, is_same_type
from penstock.checkpoint.schedule import Demand
from penstock.checkpoint.settings import (
    CheckpointSettings,
    ExponentialDelay,
    Identity,
    OnCancellation,
)
from penstock.core import paths
from penstock.core.errors import Rejected
from penstock.core.failure import Failure
from penstock.core.graph import JobGraph
from penstock.core.ids import AttemptNumber, CheckpointId, WorkerId
from penstock.core.log import End, EndKind, Entry, EntryKind, SnapshotRef


class JobCoordinator:
    """One job's coordinator: call `start` once, then `handle` with everything that happens."""

    def __init__(
        self,
        identity: Identity,
        graph: JobGraph,
        settings: CheckpointSettings,
        *,
        is_readable: IsReadable = is_same_type,
    ) -> None:
        self.phase = Phase.READING
        self.entry: Entry | None = None
        self.workers: dict[WorkerId, tuple[str, ...]] = {}
        self._identity = identity
        self._graph = graph
        self._is_readable = is_readable
        self._settings = settings
        self._out = Outbox(identity.savepoints_url)
        self._snapshots = KnownSnapshots(identity.job)
        self._checkpoints = Checkpoints(identity.job, settings, self._snapshots, self._out)
        self._restarts = Restarts(settings.restart)
        self._ending_restarts = Restarts(ExponentialDelay())
        self._now_ms = 0
        self._retry_at_ms = 0
        self._nonces = 0
        self._order: told.StartOrdered | None = None
        self._opening: Opening | None = None
        self._ending: Ending | None = None
        self._appending: Entry | None = None
        self._deferred: list[Event] = []

    @property
    def run(self) -> RunningAttempt | None:
        """The attempt that workers were told to prepare, until it breaks or ends."""
        return self._checkpoints.run

    def start(self) -> list[Effect]:
        """What is to be done first."""
        return [do.ReadLog()]

    def handle(self, event: Event) -> list[Effect]:
        """Take one fact; what is to be done now, in this order."""
        if self.phase is Phase.STOOD_DOWN:
            return []
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
        return self._out.take()

    @property
    def _is_busy(self) -> bool:
        """Whether an outcome is unknown that every decision depends on."""
        pending = self._checkpoints.pending
        is_committing = pending is not None and pending.is_committing
        return self.phase is Phase.READING or self._appending is not None or is_committing

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
            case told.SubtaskAcked() if self._run_of(event.attempt):
                self._checkpoints.acknowledged(event, self._now_ms)
            case told.SubtaskAcked() if self.entry is not None:
                self._out.do_all(self._snapshots.collect(event, self.entry))
            case told.SubtaskDeclined() if self._run_of(event.attempt):
                self._unless_broken(self._checkpoints.declined(event, self._now_ms))
            case told.SubtaskFinished(attempt, subtask) if run := self._run_of(attempt):
                run.finished.add(subtask)
            case told.WorkerCommitted(worker, attempt, checkpoint) if run := self._run_of(attempt):
                run.committed[worker] = max(checkpoint, run.committed.get(worker, checkpoint))
            case told.AttemptFailed(attempt, failure) if self._run_of(attempt):
                self._on_failed(failure)
            case told.EntryWon(entry) if entry == self._appending:
                self._on_won(entry)
            case told.EntryLost(newest):
                self._stand_down(f"entry {newest.seq} of the log is another coordinator's")
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
        run = self.run
        match self.phase:
            case Phase.BACKING_OFF if self._now_ms >= self._retry_at_ms:
                self._read_log()
            case Phase.GATHERING:
                self._open()
            case Phase.DEPLOYING if run and run.is_ready:
                self._move(Phase.RUNNING)
                self._checkpoints.flow(self._now_ms)
                self._out.do(do.Run(run.attempt.number))
                self._go_on(run)
            case Phase.RUNNING | Phase.STOPPING if run:
                self._go_on(run)
            case Phase.ENDING:
                self._go_on_ending()
            case _:
                pass

    # ── from the log to an attempt ──────────────────────────────────────────────────────────────

    def _read_log(self) -> None:
        self._move(Phase.READING)
        self._out.do(do.ReadLog())

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
            self._refuse_all(f"the job's folder belongs to {decision.owner}")
        elif isinstance(decision, recovery.CommitOnly):
            self._begin_ending(decision.committed, is_deployed=False)
        elif self._obey(read):
            self._move(Phase.GATHERING)
        elif isinstance(decision, recovery.Restore):
            self._recover(read, decision.snapshot)
        else:
            self._settle(decision)

    def _refuse_all(self, reason: str) -> None:
        """Nothing will ever be done here: who asked is told why."""
        for event in self._deferred:
            if isinstance(event, _ORDERS):
                self._out.answer(event.request_id, ok=False, error=reason)
        self._stand_down(reason)

    def _settle(self, decision: recovery.Recovery) -> None:
        """Nothing runs until an order comes."""
        match decision:
            case recovery.HasEnded():
                assert self.entry is not None, decision
                self._move(Phase.ENDED)
                self._out.do(do.JobOver(self.entry))
                return
            case recovery.Damaged(snapshot, reason, older):
                self._out.tell("damaged", path=snapshot.path, reason=reason, older=older)
            case recovery.WaitForOrder(revision):
                self._out.tell("waits for an order", revision=revision)
            case _:
                pass
        self._move(Phase.WAITING)

    def _recover(self, read: told.LogRead, snapshot: SnapshotRef | None) -> None:
        try:
            self._opening = opening.recovered(read, snapshot, self._graph, self._is_readable)
        except Rejected as e:
            self._out.tell("refused", **_reason(e))
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
            self._opening = opening.ordered(order, read, self._graph, self._is_readable)
        except Rejected as e:
            self._out.answer(order.request_id, ok=False, **_reason(e))
            return False
        return True

    def _is_obeyed(self, order: told.StartOrdered) -> bool:
        """Whether the newest entry shows that the order was obeyed before."""
        entry = self.entry
        if entry is None or entry.request_id != order.request_id:
            return False
        self._out.answer(order.request_id, ok=True, attempt=entry.attempt.number)
        return True

    def _open(self) -> None:
        wanted = self._opening
        assert wanted is not None, self.phase
        if all(WorkerId(i) in self.workers for i in range(wanted.parallelism)):
            self._move(Phase.OPENING)
            self._append(
                opening.entry_of(
                    wanted,
                    self.entry,
                    self._identity,
                    self.workers,
                    nonce=self._nonce(),
                    at_ms=self._now_ms,
                )
            )

    def _deploy(self, entry: Entry) -> None:
        opened, self._opening = self._opening, None
        assert opened is not None, entry
        if opened.snapshot is not None and opened.manifest is not None:
            self._snapshots.add(opened.snapshot, opened.manifest)
        run = RunningAttempt(self._identity, self._graph, entry.attempt)
        self._checkpoints.begin(run)
        self._move(Phase.DEPLOYING)
        self._out.do(
            do.CancelWorkers(AttemptNumber(entry.attempt.number - 1)),
            opening.prepare(entry, opened.manifest, self._graph),
        )
        self._out.do_all(self._snapshots.settle(entry))
        start = entry.attempt.restored_from
        self._out.answer(
            entry.request_id,
            ok=True,
            attempt=entry.attempt.number,
            restored_from=start.path if start else None,
        )
        gone = sorted(run.subtasks.keys() - self.workers.keys())
        if gone:
            self._on_failed(Failure(f"worker {gone[0]} left while the attempt was opened"))

    # ── entries ─────────────────────────────────────────────────────────────────────────────────

    def _append(self, entry: Entry) -> None:
        assert self._appending is None, (self._appending, entry)
        self._appending = entry
        self._out.do(do.Append(entry))

    def _on_won(self, entry: Entry) -> None:
        self._appending = None
        self.entry = entry
        old = entry.seq - max(self._settings.log_entries, 1)
        if old > 0:
            self._out.do(do.DeleteFiles((paths.log_entry(self._identity.job, old),)))
        match entry.kind:
            case EntryKind.OPENED:
                self._deploy(entry)
            case EntryKind.COMPLETED:
                self._checkpoints.completed(entry, self._now_ms)
            case EntryKind.RELEASED:
                self._checkpoints.notify(entry)
            case EntryKind.ENDED if entry.end and entry.end.committed:
                self._on_end_committed(entry)
            case EntryKind.ENDED:
                self._on_ended(entry)
            case _:
                raise AssertionError(entry.kind)

    def _go_on(self, run: RunningAttempt) -> None:
        """While records flow: end a hold that was long enough, see to checkpoints."""
        entry = self.entry
        assert entry is not None, self.phase
        if entry.hold is not None and run.pending is None and run.has_completed(entry.hold.stable):
            self._append(log.released(entry, nonce=self._nonce(), at_ms=self._now_ms))
            return
        self._unless_broken(self._checkpoints.advance(entry, self._now_ms))
        if self.phase in (Phase.RUNNING, Phase.STOPPING):
            phase = Phase.STOPPING if self._checkpoints.is_stopping else Phase.RUNNING
            if phase is not self.phase:
                self._move(phase)

    def _on_manifest(self, event: told.ManifestWritten | told.ManifestRefused) -> None:
        outcome = self._checkpoints.written(event, self._now_ms)
        if isinstance(outcome, Ready):
            self._complete(outcome)
        else:
            self._unless_broken(outcome)

    def _complete(self, ready: Ready) -> None:
        entry = self.entry
        assert entry is not None, ready
        if ready.wanted.demand in (Demand.STOP, Demand.FINAL):
            self._end(
                EndKind.FINISHED if ready.savepoint is None else EndKind.STOPPED,
                new=ready.snapshot,
                request_id=ready.wanted.request_id,
                savepoint=ready.savepoint,
            )
            return
        retained, dropped = retention.retain(
            entry.retained, ready.snapshot, count=self._settings.retained, hold=entry.hold
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

    def _on_published(self, request_id: str) -> None:
        published = self._checkpoints.published(request_id)
        if published is None:
            return
        if self._ending is not None and request_id in self._ending.unpublished:
            self._ending.unpublished.discard(request_id)  # answered when all is committed
        else:
            folder = published.path.removesuffix(paths.METADATA)
            self._out.answer_savepoint(request_id, folder, published.manifest)

    # ── failures ────────────────────────────────────────────────────────────────────────────────

    def _run_of(self, attempt: AttemptNumber) -> RunningAttempt | None:
        run = self.run
        is_live = self.phase in WITH_CHILDREN
        return run if run is not None and is_live and run.attempt.number == attempt else None

    def _on_worker_left(self, worker: WorkerId, reason: str) -> None:
        self.workers.pop(worker, None)
        run = self.run
        if run is not None and worker in run.subtasks and self.phase in WITH_CHILDREN:
            failure = Failure(f"worker {worker} left: {reason}")
            self._deferred.append(told.AttemptFailed(run.attempt.number, failure))

    def _unless_broken(self, outcome: Broken | None) -> None:
        if outcome is not None:
            self._on_failed(outcome.failure)

    def _on_failed(self, failure: Failure) -> None:
        entry = self.entry
        assert entry is not None, failure
        self._out.tell("failed", failure=failure)
        self._out.do(do.CancelWorkers(entry.attempt.number))
        if self._ending is not None:
            self._on_ending_failed(entry, failure)
            return
        delay_ms = self._restarts.failed(failure, self._now_ms)
        if delay_ms is None:
            self._end(EndKind.FAILED, reason=failure.what)
        else:
            self._checkpoints.broke(failure.what)
            self._back_off(delay_ms)

    def _back_off(self, delay_ms: int) -> None:
        self._retry_at_ms = self._now_ms + delay_ms
        self._move(Phase.BACKING_OFF)

    # ── the end ─────────────────────────────────────────────────────────────────────────────────

    def _end(
        self,
        kind: EndKind,
        *,
        request_id: str | None = None,
        new: SnapshotRef | None = None,
        savepoint: str | None = None,
        reason: str | None = None,
    ) -> None:
        """Write the end down; one with a `new` checkpoint ends a hold, a broken-off one keeps it."""
        entry = self.entry
        assert entry is not None, kind
        retained, dropped = entry.retained, tuple[SnapshotRef, ...]()
        if new is not None:
            retained, dropped = retention.retain(
                entry.retained, new, count=self._settings.retained, hold=None
            )
        else:
            self._checkpoints.cancel_pending(reason or "the job was cancelled")
        self._append(
            log.ended(
                entry,
                End(kind, new or log.recovery_point(entry), savepoint=savepoint, reason=reason),
                nonce=self._nonce(),
                at_ms=self._now_ms,
                request_id=request_id or entry.request_id,
                retained=retained,
                dropping=(*self._snapshots.undeleted, *dropped),
                hold=None if new else entry.hold,
            )
        )

    def _on_ended(self, entry: Entry) -> None:
        end = entry.end
        assert end is not None, entry
        is_complete = end.kind in (EndKind.STOPPED, EndKind.FINISHED)
        committed = recovery.committed_up_to(entry, end.go_on_from)
        self._begin_ending(committed, is_deployed=is_complete)
        if is_complete:
            self._checkpoints.notify(entry)
        else:
            self._out.do(do.CancelWorkers(entry.attempt.number))
        self._checkpoints.end(entry, is_complete=is_complete)
        self._out.do_all(self._snapshots.settle(entry))

    def _begin_ending(self, committed: CheckpointId | None, *, is_deployed: bool) -> None:
        entry = self.entry
        assert entry is not None, committed
        assert entry.end is not None, entry
        self._opening = None
        self._ending = Ending(committed, is_deployed)
        self._move(Phase.ENDING)
        if entry.end.go_on_from is not None:
            manifest = self._snapshots.manifest(entry.end.go_on_from)
            publish = savepoint_of(entry, manifest, self._identity.savepoints_url)
            if publish is not None:
                self._ending.unpublished.add(publish.request_id)
                self._checkpoints.publish(publish)

    def _go_on_ending(self) -> None:
        entry, ending = self.entry, self._ending
        assert entry is not None, self.phase
        assert ending is not None, self.phase
        if not ending.is_deployed and not ending.is_committed(self.run):
            self._deploy_commit_only(entry, ending)
        if ending.is_done(self.run):
            self._append(
                committed_entry(
                    entry,
                    nonce=self._nonce(),
                    at_ms=self._now_ms,
                    undeleted=self._snapshots.undeleted,
                    drops_all=self._drops_all(entry),
                )
            )

    def _drops_all(self, entry: Entry) -> bool:
        is_cancelled = entry.end is not None and entry.end.kind is EndKind.CANCELLED
        return is_cancelled and self._settings.on_cancellation is OnCancellation.DELETE

    def _deploy_commit_only(self, entry: Entry, ending: Ending) -> None:
        assert entry.end is not None, entry
        assert entry.end.go_on_from is not None, entry
        assert ending.committed is not None, entry
        manifest = self._snapshots.manifest(entry.end.go_on_from)
        prepare = opening.prepare_commit_only(entry, manifest, ending.committed, self._graph)
        if not prepare.subtasks.keys() <= self.workers.keys():
            return
        ending.is_deployed = True
        run = RunningAttempt(self._identity, self._graph, entry.attempt)
        run.subtasks = prepare.subtasks
        self._checkpoints.begin(run)
        if prepare.subtasks:
            self._out.do(do.CancelWorkers(entry.attempt.number), prepare)

    def _on_ending_failed(self, entry: Entry, failure: Failure) -> None:
        """Workers broke before all was committed: others do it, if this is still the newest end."""
        delay_ms = self._ending_restarts.failed(failure, self._now_ms)
        if delay_ms is None:
            self._over(entry)  # the next coordinator tries once more
            return
        self._ending = self._checkpoints.run = None
        self._back_off(delay_ms)

    def _on_end_committed(self, entry: Entry) -> None:
        assert entry.end is not None, entry
        self._out.do(do.CancelWorkers(entry.attempt.number))
        self._out.do_all(self._snapshots.settle(entry))
        if entry.end.kind in (EndKind.STOPPED, EndKind.CANCELLED):
            self._out.answer_end(entry)
        self._over(entry)

    def _over(self, entry: Entry) -> None:
        self._ending = self._checkpoints.run = None
        self._move(Phase.ENDED)
        self._out.do(do.JobOver(entry))
        if self._order is not None:
            self._read_log()

    # ── orders ──────────────────────────────────────────────────────────────────────────────────

    def _on_start_ordered(self, order: told.StartOrdered) -> None:
        if self._out.has_answered(order.request_id) or self._is_obeyed(order):
            return
        if self.phase in (Phase.WAITING, Phase.ENDED):
            self._order = order
            self._read_log()
        elif self._is_ending:
            self._order = order
        elif self._opening is None or self._opening.request_id != order.request_id:
            self._out.answer(order.request_id, ok=False, error="the job runs already")

    def _on_checkpoint_ordered(self, order: Order) -> None:
        if self._out.has_answered(order.request_id):
            return
        if isinstance(order, told.SavepointOrdered) and order.published is not None:
            folder = paths.savepoint_folder(self._identity.job, order.request_id)
            self._out.answer_savepoint(order.request_id, folder, order.published)
        elif not self._answers_as_ended(order.request_id):
            self._checkpoints.order(order)

    def _on_cancel_ordered(self, request_id: str) -> None:
        if self._out.has_answered(request_id) or self._answers_as_ended(request_id):
            return
        if self.entry is None or self.entry.end is not None:
            self._opening = None  # nothing of the new run was written yet
            self._move(Phase.WAITING)
            self._out.answer(request_id, ok=True)
        else:
            self._end(EndKind.CANCELLED, request_id=request_id)

    @property
    def _is_ending(self) -> bool:
        """Whether the end stands, and its commits are under way or about to be tried again."""
        entry = self.entry
        waits = self.phase is Phase.BACKING_OFF and entry is not None and entry.end is not None
        return waits or self.phase is Phase.ENDING

    def _answers_as_ended(self, request_id: str) -> bool:
        """Whether nothing runs: who ordered the end is answered when it is committed."""
        if self.phase not in (Phase.WAITING, Phase.ENDED) and not self._is_ending:
            return False
        if self.entry is None or self.entry.request_id != request_id:
            self._out.answer(request_id, ok=False, error="the job does not run")
        elif self.phase is Phase.ENDED:
            self._out.answer_end(self.entry)
        return True

    # ── small things ────────────────────────────────────────────────────────────────────────────

    def _nonce(self) -> str:
        self._nonces += 1
        return f"{self._identity.incarnation}-{self._nonces}"

    def _move(self, phase: Phase) -> None:
        assert phase in MOVES[self.phase], (self.phase, phase)
        self.phase = phase

    def _stand_down(self, reason: str) -> None:
        self.phase = Phase.STOOD_DOWN
        self._deferred.clear()
        self._out.do(do.StandDown(reason))


_ORDERS = (
    told.StartOrdered,
    told.StopOrdered,
    told.SavepointOrdered,
    told.CheckpointOrdered,
    told.CancelOrdered,
)
_WAIT_FOR_OUTCOMES = (told.AttemptFailed, told.SubtaskDeclined, *_ORDERS)


def _seen(newest: Entry | None) -> set[int]:
    """The numbers that an orderer may have seen last; `end.committed` changes nothing for him."""
    if newest is None:
        return {0}
    is_settled = newest.end is not None and newest.end.committed
    return {newest.seq, newest.seq - 1} if is_settled else {newest.seq}


def _reason(e: Rejected) -> dict[str, Any]:
    return {"error": e.what, "where": e.where, "fix": e.fix}
