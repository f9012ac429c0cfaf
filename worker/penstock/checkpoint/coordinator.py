"""The coordinator of one job: what happens next, from what was told so far.

It decides attempts and recoveries; every decision that must not be taken twice is an entry of the log
first, and only a won entry has consequences. It never touches a clock, a socket or the store: `handle`
takes one fact and returns what is to be done, in order (`runtime.coordinator` does it in production,
`testing.simulation` in simulation). Checkpoints are `checkpoints`', the end is `ends`', orders are
`orders`'.

While the outcome of an entry or of a manifest is unknown nothing is given up, deleted or decided:
orders, failures and acknowledgements wait until it is known.
"""

from __future__ import annotations

from penstock.checkpoint import effects as do
from penstock.checkpoint import events as told
from penstock.checkpoint import log, opening, recovery, rescaling, retention
from penstock.checkpoint.attempt import RunningAttempt
from penstock.checkpoint.checkpoints import Broken, Checkpoints, Ready
from penstock.checkpoint.effects import Effect
from penstock.checkpoint.ends import Ends
from penstock.checkpoint.events import Event
from penstock.checkpoint.known import KnownSnapshots
from penstock.checkpoint.live import LiveSettings, ReadSettings
from penstock.checkpoint.orders import ORDERS, Orders, reason_of
from penstock.checkpoint.outbox import Outbox
from penstock.checkpoint.pending import PendingCheckpoint
from penstock.checkpoint.phases import WITH_CHILDREN, Phase
from penstock.checkpoint.position import Position
from penstock.checkpoint.restart import Restarts
from penstock.checkpoint.restore import IsReadable, is_same_type
from penstock.checkpoint.schedule import Demand
from penstock.checkpoint.settings import CheckpointSettings, Identity
from penstock.core import paths
from penstock.core.errors import Rejected
from penstock.core.failure import Failure
from penstock.core.graph import JobGraph
from penstock.core.ids import AttemptNumber, WorkerId
from penstock.core.log import EndKind, Entry, EntryKind, SnapshotRef


class JobCoordinator:
    """One job's coordinator: call `start` once, then `handle` with everything that happens.

    `settings` are the manifest's; `read_settings` says what others mean that are ordered later.
    """

    def __init__(
        self,
        identity: Identity,
        graph: JobGraph,
        settings: CheckpointSettings,
        *,
        is_readable: IsReadable = is_same_type,
        read_settings: ReadSettings | None = None,
    ) -> None:
        self._identity = identity
        self._graph = graph
        self._is_readable = is_readable
        self._out = out = Outbox(identity.savepoints_url)
        self._at = Position(identity, out)
        self._snapshots = snapshots = KnownSnapshots(identity.job)
        self._checkpoints = Checkpoints(identity.job, settings, snapshots, out)
        self._restarts = Restarts(settings.restart)
        self._ends = Ends(self._at, graph, snapshots, self._checkpoints, out)
        self._live = LiveSettings(settings, read_settings, self._checkpoints, self._restarts, out)
        self._orders = Orders(self._at, self._checkpoints, self._ends, snapshots, self._live, out)
        self._deferred: list[Event] = []
        self._paused_since_ms = 0
        self._why_taken_back: str | None = None

    @property
    def phase(self) -> Phase:
        """Where it stands."""
        return self._at.phase

    @property
    def entry(self) -> Entry | None:
        """The newest entry of the log that it knows."""
        return self._at.entry

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
            self._at.now_ms = event.now_ms
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
        return self.phase is Phase.READING or self._at.appending is not None or is_committing

    def _take(self, event: Event) -> None:
        match event:
            case told.LogRead():
                self._on_log_read(event)
            case told.WorkerJoined(worker, copies):
                if worker in self._at.workers:
                    self._on_worker_left(worker, "it started again")
                self._at.workers[worker] = copies
            case told.WorkerLeft(worker, reason):
                self._on_worker_left(worker, reason)
            case told.WorkerReady(worker, attempt, fetched) if run := self._run_of(attempt):
                run.restored(worker, fetched)
            case told.SubtaskAcked() if self._run_of(event.attempt):
                self._checkpoints.acknowledged(event, self._at.now_ms)
            case told.SubtaskAcked() if self.entry is not None:
                self._out.do_all(self._snapshots.collect(event, self.entry))
            case told.SubtaskDeclined() if self._run_of(event.attempt):
                self._unless_broken(self._checkpoints.declined(event, self._at.now_ms))
            case told.SubtaskFinished(attempt, subtask) if run := self._run_of(attempt):
                run.finished.add(subtask)
            case told.WorkerCommitted(worker, attempt, checkpoint) if run := self._run_of(attempt):
                run.committed[worker] = max(checkpoint, run.committed.get(worker, checkpoint))
            case told.AttemptFailed(attempt, failure) if self._run_of(attempt):
                self._on_failed(failure)
            case told.EntryWon(entry) if entry == self._at.appending:
                self._on_won(entry)
            case told.EntryLost(newest):
                self._stand_down(f"entry {newest.seq} of the log is another coordinator's")
            case told.ManifestWritten() | told.ManifestRefused():
                self._on_manifest(event)
            case told.SavepointPublished(request_id):
                self._on_published(request_id)
            case told.SavepointDisposed(request_id):
                self._orders.disposed(request_id)
            case told.SnapshotDeleted(snapshot):
                self._snapshots.deleted(snapshot)
            case (
                told.StartOrdered()
                | told.StopOrdered()
                | told.SavepointOrdered()
                | told.CheckpointOrdered()
                | told.CancelOrdered()
                | told.RescaleOrdered()
                | told.SettingsOrdered()
                | told.DisposeOrdered()
            ):
                self._orders.take(event)
            case _:
                pass  # about an attempt that is over

    def _advance(self) -> None:
        """Whatever can be done now is done; called after every event, so twice is harmless."""
        if self._orders.advance():
            return
        run = self.run
        match self.phase:
            case Phase.BACKING_OFF if self._at.now_ms >= self._at.retry_at_ms:
                self._at.read_log()
            case Phase.GATHERING:
                self._open()
            case Phase.DEPLOYING if run and run.is_ready:
                self._begin_to_run(run)
            case Phase.RUNNING | Phase.STOPPING | Phase.RESCALING if run:
                self._go_on(run)
            case Phase.ENDING:
                self._ends.advance()
            case Phase.ENDED if self._orders.start is not None:
                self._at.read_log()
            case _:
                pass

    # ── from the log to an attempt ──────────────────────────────────────────────────────────────

    def _on_log_read(self, read: told.LogRead) -> None:
        newest = read.newest
        if self.entry is not None and newest != self.entry:
            self._stand_down("another coordinator wrote to the log")
            return
        self._at.entry = newest
        self._snapshots.read(newest, read.manifests)
        identity = self._identity
        decision = recovery.recovery(
            read, owner=identity.owner, revision=identity.revision, adopt=identity.adopt
        )
        if isinstance(decision, recovery.Foreign):
            self._refuse_all(f"the job's folder belongs to {decision.owner}")
            return
        if newest is not None:
            self._live.adopt(newest)
        if isinstance(decision, recovery.CommitOnly):
            self._commit_what_is_left(read, decision)
        elif self._orders.obey(read, self._graph, self._is_readable):
            self._at.move(Phase.GATHERING)
        elif isinstance(decision, recovery.Restore):
            self._recover(read, decision.snapshot)
        else:
            self._settle(decision)

    def _refuse_all(self, reason: str) -> None:
        """Nothing will ever be done here: who asked is told why."""
        for event in self._deferred:
            if isinstance(event, ORDERS):
                self._out.answer(event.request_id, ok=False, error=reason)
        self._stand_down(reason)

    def _commit_what_is_left(self, read: told.LogRead, left: recovery.CommitOnly) -> None:
        """Nothing is started before; code that has other sinks cannot do it."""
        entry, point = self._at.newest, left.end.go_on_from
        try:
            if point is not None:
                opening.check_commit_only(entry, read.manifests[point.path], self._graph)
        except Rejected as e:
            self._out.tell("refused", **reason_of(e))
            self._orders.refuse_start(e)
            self._wait()
        else:
            self._ends.begin(left.committed, is_deployed=False)

    def _wait(self) -> None:
        """Nothing runs until an order comes; what was ordered of the run before is not carried out."""
        self._checkpoints.refuse_queued()
        self._at.move(Phase.WAITING)

    def _settle(self, decision: recovery.Recovery) -> None:
        """Nothing runs until an order comes."""
        match decision:
            case recovery.HasEnded():
                if self._ends.is_settled(self._at.newest):
                    self._at.move(Phase.ENDED)
                    self._out.do(do.JobOver(self._at.newest))
                else:
                    self._at.move(Phase.ENDING)
                return
            case recovery.Damaged(snapshot, reason, older):
                self._out.tell("damaged", path=snapshot.path, reason=reason, older=older)
            case recovery.WaitForOrder(revision):
                self._out.tell("waits for an order", revision=revision)
            case _:
                pass
        self._wait()

    def _recover(self, read: told.LogRead, snapshot: SnapshotRef | None) -> None:
        why = {"reason": self._why_taken_back} if self._why_taken_back else {}
        try:
            self._at.opening = opening.recovered(
                read, snapshot, self._graph, self._is_readable, **why
            )
        except Rejected as e:
            self._out.tell("refused", **reason_of(e))
            self._wait()
        else:
            self._at.move(Phase.GATHERING)

    def _open(self) -> None:
        """Compete for the next attempt, once its workers are there."""
        wanted = self._at.opening
        assert wanted is not None, self.phase
        if rescaling.missing(wanted.parallelism, self._at.workers.keys()) is None:
            self._at.move(Phase.OPENING)
            opened = opening.entry_of(
                wanted, self.entry, self._identity, self._at.workers, **self._at.stamp()
            )
            self._at.append(rescaling.with_groups_moved(opened, self._graph))

    def _deploy(self, entry: Entry) -> None:
        opened, self._at.opening = self._at.opening, None
        assert opened is not None, entry
        self._why_taken_back = None
        if opened.snapshot is not None and opened.manifest is not None:
            self._snapshots.add(opened.snapshot, opened.manifest)
        run = RunningAttempt(self._identity, self._graph, entry.attempt)
        self._checkpoints.begin(run)
        self._at.move(Phase.DEPLOYING)
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
        gone = sorted(run.subtasks.keys() - self._at.workers.keys())
        if gone:
            self._on_failed(Failure(f"worker {gone[0]} left while the attempt was opened"))

    def _begin_to_run(self, run: RunningAttempt) -> None:
        """Every worker restored: records flow."""
        self._at.move(Phase.RUNNING)
        self._checkpoints.flow(self._at.now_ms)
        if rescaling.trying(self.entry):
            run.pause_ms = self._at.now_ms - self._paused_since_ms
        self._out.do(do.Run(run.attempt.number))
        self._go_on(run)

    # ── entries ─────────────────────────────────────────────────────────────────────────────────

    def _on_won(self, entry: Entry) -> None:
        was_trying = rescaling.trying(self.entry)
        self._at.won(entry)
        old = entry.seq - max(self._live.settings.log_entries, 1)
        if old > 0:
            self._out.do(do.DeleteFiles((paths.log_entry(self._identity.job, old),)))
        if was_trying:
            self._orders.answer_rescale(entry)
        match entry.kind:
            case EntryKind.OPENED:
                self._live.adopt(entry)
                self._deploy(entry)
            case EntryKind.COMPLETED:
                done = self._checkpoints.completed(entry, self._at.now_ms)
                if done.wanted.demand is Demand.RESCALE:
                    self._rescale(done)
            case EntryKind.RELEASED:
                self._checkpoints.notify(entry)
            case EntryKind.SETTINGS:
                self._live.adopt(entry)
                self._orders.settings_won()
            case EntryKind.DROPPED:
                self._orders.dropped_won()
            case EntryKind.ENDED:
                self._ends.won(entry)

    def _go_on(self, run: RunningAttempt) -> None:
        """While records flow: end a hold that was long enough, see to checkpoints."""
        entry = self._at.newest
        if entry.hold is not None and run.pending is None and run.has_completed(entry.hold.stable):
            self._at.append(log.released(entry, **self._at.stamp()))
            return
        self._unless_broken(self._checkpoints.advance(entry, self._at.now_ms))
        if self.phase in (Phase.RUNNING, Phase.STOPPING, Phase.RESCALING):
            phase = self._checkpoints.phase
            if phase is not self.phase:
                self._at.move(phase)

    def _on_manifest(self, event: told.ManifestWritten | told.ManifestRefused) -> None:
        outcome = self._checkpoints.written(event, self._at.now_ms)
        if isinstance(outcome, Ready):
            self._complete(outcome)
        else:
            self._unless_broken(outcome)

    def _complete(self, ready: Ready) -> None:
        entry, run = self._at.newest, self.run
        assert run is not None, ready
        settings = self._live.settings
        previous = rescaling.firm(entry, bytes_moved=run.fetched_bytes, pause_ms=run.pause_ms)
        if ready.wanted.demand in (Demand.STOP, Demand.FINAL):
            self._ends.complete(
                previous,
                ready.snapshot,
                retained=settings.retained,
                savepoint=ready.savepoint,
                request_id=ready.wanted.request_id,
            )
            return
        retained, dropped = retention.retain(
            entry.retained, ready.snapshot, count=settings.retained, hold=entry.hold
        )
        self._at.append(
            log.completed(
                previous,
                **self._at.stamp(),
                retained=retained,
                dropping=(*self._snapshots.undeleted, *dropped),
            )
        )

    def _rescale(self, done: PendingCheckpoint) -> None:
        """No record follows the barrier of this checkpoint: go on from it at another parallelism."""
        run, entry, wanted = self.run, self._at.newest, done.wanted
        assert run is not None, done
        absent = rescaling.missing(wanted.parallelism, self._at.workers.keys())
        if absent is not None:
            self._out.do(do.Resume(run.attempt.number, done.checkpoint))
            self._out.answer(wanted.request_id, ok=False, error=absent)
            return
        assert wanted.request_id is not None, wanted
        snapshot = max(entry.retained, key=lambda ref: ref.id)
        self._paused_since_ms = done.started_ms
        self._at.opening = opening.rescaled(
            entry,
            snapshot,
            self._snapshots.manifest(snapshot),
            request_id=wanted.request_id,
            parallelism=wanted.parallelism,
            highest_checkpoint=run.highest_checkpoint,
        )
        self._open()

    def _on_published(self, request_id: str) -> None:
        published = self._checkpoints.published(request_id)
        if published is not None and not self._ends.published(request_id):
            folder = published.path.removesuffix(paths.METADATA)
            self._out.answer_savepoint(request_id, folder, published.manifest)

    # ── failures ────────────────────────────────────────────────────────────────────────────────

    def _run_of(self, attempt: AttemptNumber) -> RunningAttempt | None:
        run = self.run
        is_live = self.phase in WITH_CHILDREN
        return run if run is not None and is_live and run.attempt.number == attempt else None

    def _on_worker_left(self, worker: WorkerId, reason: str) -> None:
        self._at.workers.pop(worker, None)
        run = self.run
        if run is not None and worker in run.subtasks and self.phase in WITH_CHILDREN:
            failure = Failure(f"worker {worker} left: {reason}")
            self._deferred.append(told.AttemptFailed(run.attempt.number, failure))

    def _unless_broken(self, outcome: Broken | None) -> None:
        if outcome is not None:
            self._on_failed(outcome.failure)

    def _on_failed(self, failure: Failure) -> None:
        entry = self._at.newest
        self._out.tell("failed", failure=failure)
        self._out.do(do.CancelWorkers(entry.attempt.number))
        if self._ends.is_under_way:
            self._ends.failed(failure)
        elif rescaling.trying(entry):
            # The old parallelism ran: going back to it is no restart that a strategy counts.
            self._why_taken_back = failure.what
            self._checkpoints.broke(failure.what)
            self._at.back_off(0)
        elif (delay_ms := self._restarts.failed(failure, self._at.now_ms)) is not None:
            self._checkpoints.broke(failure.what)
            self._at.back_off(delay_ms)
        else:
            self._ends.break_off(EndKind.FAILED, failure.what)

    def _stand_down(self, reason: str) -> None:
        self._deferred.clear()
        self._at.stand_down(reason)


_WAIT_FOR_OUTCOMES = (told.AttemptFailed, told.SubtaskAcked, told.SubtaskDeclined, *ORDERS)
