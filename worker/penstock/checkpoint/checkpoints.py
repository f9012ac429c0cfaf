"""The checkpoints and savepoints of a job: when one is taken, completed, given up, published.

It outlives attempts, so that no order is lost, and takes checkpoints of the `run` that it is given.
It never writes the log: what is ready for an entry it hands back (`Ready`), and what is too much for
the attempt as well (`Broken`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from penstock.checkpoint import events as told
from penstock.checkpoint import log, rescaling
from penstock.checkpoint.attempt import RunningAttempt
from penstock.checkpoint.effects import NotifyCompleted, PublishSavepoint
from penstock.checkpoint.known import KnownSnapshots
from penstock.checkpoint.outbox import Outbox
from penstock.checkpoint.pending import PendingCheckpoint
from penstock.checkpoint.phases import Phase
from penstock.checkpoint.schedule import Demand, Schedule, Wanted
from penstock.checkpoint.settings import CheckpointSettings
from penstock.core import paths
from penstock.core.failure import Failure
from penstock.core.ids import JobId
from penstock.core.log import Entry, SnapshotRef

Order: TypeAlias = (
    told.StopOrdered | told.SavepointOrdered | told.CheckpointOrdered | told.RescaleOrdered
)


@dataclass(frozen=True, slots=True)
class Ready:
    """The manifest of the pending checkpoint stands; its entry makes it complete."""

    snapshot: SnapshotRef
    wanted: Wanted
    savepoint: str | None
    """The folder of the savepoint that it stops the job with."""


@dataclass(frozen=True, slots=True)
class Broken:
    """More checkpoints failed in a row than the attempt may survive."""

    failure: Failure


class Checkpoints:
    """At most one is pending."""

    def __init__(
        self,
        job: JobId,
        settings: CheckpointSettings,
        snapshots: KnownSnapshots,
        outbox: Outbox,
    ) -> None:
        self.run: RunningAttempt | None = None
        self._job = job
        self._settings = settings
        self._snapshots = snapshots
        self._out = outbox
        self._schedule = Schedule(settings)
        self._failed_in_a_row = 0
        self._publishing: dict[str, PublishSavepoint] = {}

    # ── taking one ──────────────────────────────────────────────────────────────────────────────

    @property
    def pending(self) -> PendingCheckpoint | None:
        """The one that is being taken."""
        return self.run.pending if self.run else None

    @property
    def phase(self) -> Phase:
        """What the running attempt is at: the one that is being taken may let no record follow."""
        demand = self.pending.wanted.demand if self.pending else None
        phases = {Demand.STOP: Phase.STOPPING, Demand.RESCALE: Phase.RESCALING}
        return Phase.RUNNING if demand is None else phases.get(demand, Phase.RUNNING)

    @property
    def rescales(self) -> set[str | None]:
        """Who ordered a change of parallelism that waits, or whose checkpoint is being taken."""
        return {wanted.request_id for wanted in self._wanted_for(Demand.RESCALE)}

    @property
    def is_stop_wanted(self) -> bool:
        """Whether somebody ordered a stop."""
        return bool(self._wanted_for(Demand.STOP))

    @property
    def savepoints_under_way(self) -> set[str]:
        """The folders of savepoints that are wanted, taken, or given their manifest."""
        taken = [self.run.taken.wanted] if self.run and self.run.taken else []
        wanted = (*self._wanted_for(Demand.SAVEPOINT), *self._wanted_for(Demand.STOP), *taken)
        published = (e.path.removesuffix(paths.METADATA) for e in self._publishing.values())
        return {*map(self._folder, wanted), *published}

    def apply(self, settings: CheckpointSettings) -> None:
        """Other settings are in force."""
        self._settings = settings
        self._schedule.apply(settings)

    def _wanted_for(self, demand: Demand) -> list[Wanted]:
        taken = [self.pending.wanted] if self.pending else []
        return [w for w in (*taken, *self._schedule.queued(demand)) if w.demand is demand]

    def begin(self, run: RunningAttempt) -> None:
        """A new attempt is deployed."""
        self.run = run
        self._failed_in_a_row = 0

    def flow(self, now_ms: int) -> None:
        """Records flow: the interval begins."""
        self._schedule.attempt_started(now_ms)

    def advance(self, entry: Entry, now_ms: int) -> Broken | None:
        """Give up what takes too long, or take what is due."""
        run = self.run
        assert run is not None, entry
        if run.pending is not None:
            timeout_ms = self._settings.timeout_ms
            if run.pending.is_expired(now_ms, timeout_ms):
                return self._failed(run, f"not done in {timeout_ms} ms", now_ms)
            return None
        wanted = self._schedule.next(
            now_ms,
            holds=entry.hold is not None,
            savepoint_waits=run.taken is not None,
            is_final=run.is_finished,
            is_awaited=rescaling.trying(entry) is not None,
        )
        if wanted is not None:
            self._schedule.started(wanted, now_ms)
            base = max((ref.id for ref in entry.retained), default=None)
            self._out.do_all(run.trigger(wanted, base=base, now_ms=now_ms))
        return None

    def acknowledged(self, ack: told.SubtaskAcked, now_ms: int) -> None:
        """A subtask of this attempt gave its part."""
        run = self.run
        assert run is not None, ack
        was_taken = run.taken
        self._out.do_all(run.acknowledge(ack, now_ms=now_ms))
        if run.taken is not was_taken:
            self._schedule.ended(now_ms)

    def declined(self, event: told.SubtaskDeclined, now_ms: int) -> Broken | None:
        """A subtask of this attempt cannot give its part."""
        run, pending = self.run, self.pending
        assert run is not None, event
        if pending is None or pending.is_committing or pending.checkpoint != event.checkpoint:
            return None
        return self._failed(run, f"{event.subtask} declined: {event.reason}", now_ms)

    def written(
        self, event: told.ManifestWritten | told.ManifestRefused, now_ms: int
    ) -> Ready | Broken | None:
        """The manifest stands, or another's stands in its way, or it cannot be written."""
        run, pending = self.run, self.pending
        if run is None or pending is None or pending.checkpoint != event.checkpoint:
            return None
        manifest = pending.written
        if manifest is None:
            return None
        if isinstance(event, told.ManifestRefused):
            pending.written = None
            if not event.is_taken:
                return self._failed(run, event.reason, now_ms)
            self._take_the_next_number(run, pending)
            return None
        path = paths.checkpoint_metadata(self._job, pending.checkpoint)
        snapshot = SnapshotRef(pending.checkpoint, path, event.digest)
        self._snapshots.add(snapshot, manifest)
        is_stop = pending.wanted.demand is Demand.STOP
        return Ready(snapshot, pending.wanted, self._folder(pending.wanted) if is_stop else None)

    def completed(self, entry: Entry, now_ms: int) -> PendingCheckpoint:
        """The entry that completes the pending one was won; which that was."""
        run = self.run
        assert run is not None, entry
        pending, run.pending = run.pending, None
        assert pending is not None, entry
        run.completed_count += 1
        self._failed_in_a_row = 0
        self._schedule.ended(now_ms)
        self.notify(entry)
        self._out.do_all(self._snapshots.settle(entry))
        self._publish_taken(run)
        self._out.tell(
            "checkpoint completed",
            id=pending.checkpoint,
            duration_ms=now_ms - pending.started_ms,
            bytes_new=pending.bytes_new,
        )
        if pending.wanted.demand is Demand.ORDERED:
            self._out.answer(pending.wanted.request_id, ok=True, checkpoint=pending.checkpoint)
        return pending

    def notify(self, entry: Entry) -> None:
        """Tell the workers what is complete, and whether sinks may commit it."""
        newest = log.recovery_point(entry)
        if newest is not None:
            commit = entry.hold is None
            self._out.do(NotifyCompleted(entry.attempt.number, newest.id, commit=commit))

    # ── orders ──────────────────────────────────────────────────────────────────────────────────

    def order(self, order: Order) -> None:
        """Somebody wants one; it is taken as soon as it can be."""
        run = self.run
        on_its_way = (run.pending, run.taken) if run else ()
        is_known = order.request_id in self._publishing or any(
            item is not None and item.wanted.request_id == order.request_id for item in on_its_way
        )
        if not is_known:
            self._queue(_wanted(order))

    def refuse_queued(self) -> None:
        """There is no run, and a later one is not what these orders were given to."""
        for wanted in self._schedule.clear():
            self._out.answer(
                wanted.request_id, ok=False, error="the job does not run", outdated=True
            )

    def publish(self, effect: PublishSavepoint) -> None:
        """Give a savepoint its manifest."""
        self._publishing[effect.request_id] = effect
        self._out.do(effect)

    def published(self, request_id: str) -> PublishSavepoint | None:
        """The manifest of a savepoint stands; which one that was."""
        return self._publishing.pop(request_id, None)

    def _queue(self, wanted: Wanted) -> None:
        dropped = self._schedule.order(wanted)
        if dropped is not None:
            self._out.answer(dropped.request_id, ok=False, error="too many orders are waiting")

    def _publish_taken(self, run: RunningAttempt) -> None:
        taken, run.taken = run.taken, None
        if taken is not None:
            assert taken.wanted.request_id is not None, taken
            path = self._folder(taken.wanted) + paths.METADATA
            self.publish(PublishSavepoint(taken.wanted.request_id, path, taken.manifest))

    def _folder(self, wanted: Wanted) -> str:
        assert wanted.request_id is not None, wanted
        return paths.savepoint_folder(self._job, wanted.request_id)

    # ── giving up ───────────────────────────────────────────────────────────────────────────────

    def broke(self, reason: str) -> None:
        """The attempt failed: savepoints are taken again in the next one, the rest is told."""
        run, self.run = self.run, None
        assert run is not None, reason
        for wanted in self._schedule.queued(Demand.RESCALE):
            self._schedule.withdraw(wanted)
            self._out.answer(wanted.request_id, ok=False, error=reason)
        for wanted in self._drop(run, reason):
            if wanted.demand is Demand.SAVEPOINT:
                self._queue(wanted)
            else:
                self._out.answer(wanted.request_id, ok=False, error=reason)

    def end(self, entry: Entry, *, is_complete: bool) -> None:
        """The run ended, with a complete checkpoint of its own or without: nothing more is taken."""
        run, reason = self.run, "the job ended"
        dropped: list[Wanted] = self._schedule.clear()
        if run is not None and is_complete:
            run.pending = None
            self._publish_taken(run)
        elif run is not None:
            dropped += self._drop(run, reason)
        for wanted in dropped:
            if wanted.request_id != entry.request_id:
                self._out.answer(wanted.request_id, ok=False, error=reason)

    def _drop(self, run: RunningAttempt, reason: str) -> list[Wanted]:
        """Give up everything that is on its way; what was wanted."""
        on_its_way = [item.wanted for item in (run.pending, run.taken) if item is not None]
        self._out.do_all(run.give_up(reason))
        self._out.do_all(run.give_up_taken())
        return on_its_way

    def cancel_pending(self, reason: str) -> None:
        """Nothing is to be completed any more."""
        run = self.run
        if run is not None and run.pending is not None:
            self._out.answer(run.pending.wanted.request_id, ok=False, error=reason)
            self._out.do_all(run.give_up(reason))

    def _take_the_next_number(self, run: RunningAttempt, pending: PendingCheckpoint) -> None:
        self._out.do_all(run.give_up("another attempt's manifest stands under its number"))
        if pending.wanted.demand not in (Demand.FINAL, Demand.BEHIND):
            self._queue(pending.wanted)

    def _failed(self, run: RunningAttempt, reason: str, now_ms: int) -> Broken | None:
        pending = run.pending
        assert pending is not None, reason
        wanted = pending.wanted
        self._out.do_all(run.give_up(reason))
        self._schedule.ended(now_ms)
        self._out.tell("checkpoint failed", id=pending.checkpoint, reason=reason)
        self._out.answer(wanted.request_id, ok=False, error=reason)
        if wanted.to_savepoint or wanted.demand is Demand.RESCALE:
            return None
        self._failed_in_a_row += 1
        if self._failed_in_a_row <= self._settings.tolerable_failures:
            return None
        return Broken(Failure(f"checkpoint {pending.checkpoint} failed: {reason}"))


def _wanted(order: Order) -> Wanted:
    match order:
        case told.StopOrdered(request_id, drain):
            return Wanted(Demand.STOP, request_id, drain)
        case told.SavepointOrdered(request_id):
            return Wanted(Demand.SAVEPOINT, request_id)
        case told.RescaleOrdered(request_id, parallelism):
            return Wanted(Demand.RESCALE, request_id, parallelism=parallelism)
        case _:
            return Wanted(Demand.ORDERED, order.request_id)
