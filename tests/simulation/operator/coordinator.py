"""A faithful small model of the coordinator's process and its REST: what it forgets when it dies, what
the log remembers, and what it answers in between. One tick is a second.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from tests.simulation.operator.code import Code
from tests.simulation.operator.store import (
    RETAINED,
    ROOT,
    SAVEPOINTS,
    End,
    EndKind,
    Entry,
    Hold,
    Rescale,
    Snapshot,
    Store,
    Transaction,
    Violation,
)

from penstock.core.errors import Outdated, Retryable
from penstock.spec.orders import (
    CancelOrder,
    CheckpointOrder,
    DisposeOrder,
    HoldStatus,
    JobPhase,
    JobStatus,
    Order,
    Origin,
    RefusalKind,
    RequestPhase,
    RequestStatus,
    RescaleOrder,
    RescaleStatus,
    SavepointOrder,
    SettingsOrder,
    SnapshotStatus,
    StartOrder,
    StopOrder,
    WorkerStatus,
    restore_id_of,
)
from penstock.spec.parts.snapshots import Restore

CHECKPOINT_INTERVAL = 10
KINDS: Mapping[type[Order], str] = {
    StartOrder: "start",
    StopOrder: "stop",
    CancelOrder: "cancel",
    SavepointOrder: "savepoint",
    CheckpointOrder: "checkpoint",
    RescaleOrder: "rescale",
    SettingsOrder: "settings",
    DisposeOrder: "dispose",
}


def savepoint_path(request_id: str) -> str:
    """Where a savepoint of that request lies."""
    return f"{SAVEPOINTS}/savepoint-{hashlib.sha256(request_id.encode()).hexdigest()[:12]}"


class Coordinator:
    """One process. `workers` tells which ordinals are registered with it, and their revisions."""

    def __init__(
        self,
        store: Store,
        rng: random.Random,
        revision: str,
        code: Code,
        *,
        workers: Callable[[], Mapping[int, str]],
        now: Callable[[], datetime],
        input_length: int | None,
        note: Callable[[str], None],
    ) -> None:
        self.revision = revision
        self.code = code
        self.trouble = 0.0
        """Share of checkpoints that fail."""
        self.stood_down = False
        self.has_read_log = False
        """Nobody may take it for one of a job that never ran: before, it answers nothing."""
        self._store = store
        self._rng = rng
        self._workers = workers
        self._now = now
        self._input_length = input_length
        self._note = note
        self._entry: Entry | None = None
        self._act: Callable[[], None] = self._read
        self._shown = JobPhase.WAITING
        self._delay = rng.randrange(3)
        self._requests: dict[str, RequestStatus] = {}
        self._order: StartOrder | None = None
        self._deferred: list[Order] = []
        self._opening: Entry | None = None
        self._stop: StopOrder | None = None
        self._savepoints: list[SavepointOrder] = []
        self._checkpoint_asked: list[CheckpointOrder] = []
        self._rescale: RescaleOrder | None = None
        self._restarts = 0
        self._failures_in_row = 0
        self._settings: dict[str, Any] = {}
        self._last_checkpoint: SnapshotStatus | None = None
        self._last_savepoint: SnapshotStatus | None = None
        # of the run
        self._position = 0
        self._open_start = 0
        self._pending: list[Transaction] = []
        self._to_commit: int | None = None
        self._since_checkpoint = 0
        self._ran = 0
        self._completed = 0
        self._unpublished: tuple[str, Snapshot] | None = None

    # ── REST ────────────────────────────────────────────────────────────────────────────────────

    def status(self) -> JobStatus:
        """GET status."""
        entry = self._entry
        hold = entry.hold if entry else None
        point = entry.point if entry else None
        firm = entry.rescale if entry and entry.rescale and entry.rescale.is_firm else None
        return JobStatus(
            job_id="ns.job",
            name="job",
            phase=self._shown,
            revision=entry.revision if entry else self.revision,
            attempt=entry.attempt if entry else 0,
            parallelism=entry.parallelism if entry else 1,
            max_parallelism=128 if entry else 0,
            log_seq=entry.seq if entry else 0,
            restarts=self._restarts,
            last_checkpoint=self._last_checkpoint,
            last_savepoint=self._last_savepoint,
            restored_from=entry.restored_from.path if entry and entry.restored_from else None,
            next_restore=point.path if point else None,
            restore_id=entry.restore_id if entry else None,
            completed_in_attempt=self._completed,
            hold=HoldStatus(
                after=hold.after,
                stable=hold.stable,
                completed=self._completed,
                path=hold.from_.path,
            )
            if hold
            else None,
            rescale=RescaleStatus(
                request_id=firm.request_id,
                from_parallelism=firm.former,
                to_parallelism=firm.parallelism,
                key_groups_moved=7,
                bytes_moved=1000,
                pause_ms=400,
            )
            if firm
            else None,
            settings=self._settings,
            workers=tuple(WorkerStatus(id=i) for i in sorted(self._workers())),
            requests=tuple(self._requests.values()),
        )

    def order(self, order: Order) -> None:
        """POST of an order; what became of it stands in `status().requests`."""
        if self.stood_down:
            raise Retryable("the coordinator stood down")
        if order.request_id in self._requests:
            return
        self._note(f"coordinator {self.revision}: ordered {order}")
        self._set(order, RequestPhase.RUNNING)
        if self._is_reading:
            self._deferred.append(order)
        else:
            self._take(order)

    @property
    def _is_reading(self) -> bool:
        return self._act == self._read and self._shown is not JobPhase.RESTARTING

    def _take(self, order: Order) -> None:
        match order:
            case StartOrder():
                self._on_start(order)
            case StopOrder() | SavepointOrder() | CheckpointOrder() | RescaleOrder():
                self._on_run_order(order)
            case CancelOrder():
                self._on_cancel(order)
            case SettingsOrder():
                self._settings = dict(order.settings)
                self._set(order, RequestPhase.DONE)
            case DisposeOrder():
                self._store.dispose(order.path)
                self._set(order, RequestPhase.DONE)

    def _set(
        self,
        order: Order,
        phase: RequestPhase,
        *,
        path: str | None = None,
        error: str | None = None,
        refusal: RefusalKind | None = None,
    ) -> None:
        id = order.request_id
        self._requests[id] = RequestStatus(
            request_id=id,
            kind=KINDS[type(order)],
            phase=phase,
            path=path,
            error=error,
            refusal=refusal,
        )

    def _fail(self, order: Order, error: str, refusal: RefusalKind | None = None) -> None:
        self._note(f"coordinator {self.revision}: {order.request_id} failed: {error}")
        self._set(order, RequestPhase.FAILED, error=error, refusal=refusal)

    def _not_now(self, order: Order, error: str) -> None:
        self._fail(order, error, RefusalKind.OUTDATED)

    def _refuse(self, order: Order, error: str) -> None:
        self._fail(order, error, RefusalKind.REJECTED)

    def _on_start(self, order: StartOrder) -> None:
        if order.revision != self.revision:
            self._requests.pop(order.request_id)  # before it began: it may be sent again
            raise Outdated(f"this coordinator is of {self.revision}, not of {order.revision}")
        entry = self._entry
        if entry is not None and entry.request_id == order.request_id:
            self._set(order, RequestPhase.DONE)
        elif self._act in (self._wait, self._end_quietly, self._ending, self._gather):
            self._forget_opening(order)
            self._order = order
            if self._act != self._ending:
                self._act, self._delay = self._read, self._rng.randrange(2)
        else:
            self._not_now(order, "the job runs already")

    def _forget_opening(self, order: Order) -> None:
        """Nothing was written of an attempt that waits for workers."""
        former = self._opening.request_id if self._opening is not None else None
        known = self._requests.get(former or "")
        if known is not None and known.request_id != order.request_id and known.kind == "start":
            self._requests[known.request_id] = known.model_copy(
                update={
                    "phase": RequestPhase.FAILED,
                    "error": "it is not wanted any more",
                    "refusal": RefusalKind.OUTDATED,
                }
            )
        self._opening = None

    def _on_run_order(self, order: Order) -> None:
        if isinstance(order, SavepointOrder):
            path = savepoint_path(order.request_id)
            if path in self._store.savepoints:
                self._set(order, RequestPhase.DONE, path=path)
                return
        entry = self._entry
        if self._act in (self._wait, self._ending, self._end_quietly) or self._shown.is_end:
            if entry is not None and entry.request_id == order.request_id:
                if self._shown.is_end:
                    self._answer_end(order)
            elif isinstance(order, RescaleOrder) and self._was_rescaled(order):
                pass
            else:
                self._not_now(order, "the job does not run")
            return
        match order:
            case StopOrder():
                if self._stop is not None:
                    self._fail(order, "another stop is under way")
                else:
                    self._stop = order
            case SavepointOrder():
                self._savepoints.append(order)
            case CheckpointOrder():
                self._checkpoint_asked.append(order)
            case RescaleOrder():
                self._on_rescale(order)

    def _was_rescaled(self, order: RescaleOrder) -> bool:
        record = self._entry.rescale if self._entry else None
        if record is None or record.request_id != order.request_id:
            return False
        if record.is_firm:
            self._set(order, RequestPhase.DONE)
        elif record.error is not None:
            self._fail(order, record.error)
        return True

    def _on_rescale(self, order: RescaleOrder) -> None:
        if self._was_rescaled(order):
            return
        assert self._entry is not None, order
        if self._act != self._run or self._rescale is not None or self._stop is not None:
            self._fail(order, "the job does not run quietly")
        elif self._entry.parallelism == order.parallelism:
            self._fail(order, f"the job runs at parallelism {order.parallelism} already")
        elif missing := [i for i in range(order.parallelism) if i not in self._workers()]:
            self._fail(order, f"workers {missing} are not registered")
        else:
            self._rescale = order

    def _on_cancel(self, order: CancelOrder) -> None:
        entry = self._entry
        if self._act in (self._wait, self._ending, self._end_quietly) or self._shown.is_end:
            if entry is not None and entry.request_id == order.request_id:
                if self._shown.is_end:
                    self._answer_end(order)
            else:
                self._not_now(order, "the job does not run")
        elif entry is None or entry.end is not None:
            self._forget_opening(order)
            self._act = self._wait
            self._set(order, RequestPhase.DONE)
        else:
            self._append(
                entry.follows(
                    "ended",
                    request_id=order.request_id,
                    end=End(EndKind.CANCELLED, entry.point, deletes=order.retain is False),
                    rescale=_taken_back(entry.rescale),
                )
            )
            self._begin_ending()

    def _answer_end(self, order: Order) -> None:
        end = self._entry.end if self._entry else None
        path = end.savepoint if end else None
        self._set(order, RequestPhase.DONE, path=path)

    # ── the life of the process ─────────────────────────────────────────────────────────────────

    def tick(self) -> None:
        """A second passes."""
        if self.stood_down:
            return
        if self._delay > 0:
            self._delay -= 1
            return
        self._act()

    def _append(self, entry: Entry) -> None:
        if not self._store.append(self._entry, entry):
            self._note(f"coordinator {self.revision} stands down")
            self.stood_down = True
            self._shown = JobPhase.STOOD_DOWN
            raise StoodDown
        self._entry = entry

    def _read(self) -> None:
        self._read_log()
        while self._deferred and not self._is_reading:
            self._take(self._deferred.pop(0))

    def _read_log(self) -> None:
        newest, order = self._store.newest, self._order
        if self._entry is not None and newest is not self._entry:
            self.stood_down = True
            self._shown = JobPhase.STOOD_DOWN
            return
        entry = self._entry = newest
        self.has_read_log = True
        if entry is not None and entry.end is not None and not entry.end.committed:
            self._begin_ending()
            return
        if order is not None:
            self._order = None
            self._opening = self._ordered(order)
            if self._opening is not None:
                self._act = self._gather
                return
        if entry is None:
            self._act = self._wait
        elif entry.end is not None:
            self._shown = JobPhase(entry.end.kind)
            self._act = self._end_quietly
        elif entry.revision != self.revision or not self.code.reads(entry.point):
            self._act = self._wait
        else:
            tried = entry.rescale if entry.rescale and _is_open(entry.rescale) else None
            self._opening = entry.follows(
                "opened",
                attempt=entry.attempt + 1,
                next_checkpoint=self._store.highest_checkpoint + 1,
                restored_from=entry.point,
                parallelism=tried.former if tried else entry.parallelism,
                rescale=_taken_back(entry.rescale),
            )
            self._act = self._gather

    def _ordered(self, order: StartOrder) -> Entry | None:
        entry = self._entry
        seen = {0} if entry is None else {entry.seq}
        if entry is not None and entry.end is not None:
            seen.add(entry.seq - 1)
        if order.after not in seen:
            self._not_now(
                order, f"the order was given after {order.after} of the log, which has moved on"
            )
            return None
        hold, dropped_above = entry.hold if entry else None, None
        restore = order.restore or Restore()
        restore_id = entry.restore_id if entry else None
        point = entry.point if entry else None
        match order.origin:
            case Origin.EMPTY:
                point = hold = None
            case Origin.HOLD:
                if hold is None:
                    self._refuse(order, "there is nothing to go back to: no hold stands")
                    return None
                point, dropped_above, hold = hold.from_, hold.after, None
            case Origin.LOG:
                if order.restore is not None:
                    is_due = entry is None or point is None or restore_id != restore_id_of(restore)
                    restore_id = restore_id_of(restore)
                    if is_due and restore.from_ != "Latest":
                        hold = None
                        point = None if restore.from_ == "None" else self._store.find(restore.from_)
                        if point is None and restore.from_ != "None":
                            self._refuse(order, f"{restore.from_} is not there")
                            return None
        if not self.code.reads(point):
            self._refuse(order, f"state of schema {point.schema if point else ''} is not readable")
            return None
        first = self._store.highest_checkpoint + 1
        if hold is not None:
            hold = replace(hold, stable=order.hold) if order.hold else hold
        elif order.hold and point is not None:
            hold = Hold(point, first - 1, order.hold)
        retained = entry.retained if entry else ()
        if dropped_above is not None:
            retained = tuple(s for s in retained if s.id <= dropped_above)
        self._settings = dict(order.settings)
        return Entry(
            seq=entry.seq + 1 if entry else 1,
            kind="opened",
            request_id=order.request_id,
            attempt=entry.attempt + 1 if entry else 1,
            revision=self.revision,
            parallelism=order.parallelism,
            next_checkpoint=first,
            restored_from=point,
            retained=retained,
            hold=hold,
            restore_id=restore_id,
            rescale=entry.rescale if entry else None,
        )

    def _wait(self) -> None:
        """Nothing runs until an order comes."""

    def _end_quietly(self) -> None:
        """The run is over; questions are answered."""

    def _gather(self) -> None:
        opening = self._opening
        assert opening is not None, self._shown
        workers = self._workers()
        if any(i not in workers for i in range(opening.parallelism)):
            return
        self._append(opening)
        self._opening = None
        self._answer_start(opening)
        for i in range(opening.parallelism):
            if workers[i] != opening.revision:
                raise Violation(
                    f"worker {i} with code {workers[i]} joins attempt {opening.attempt} of {opening.revision}"
                )
        point = opening.restored_from
        self._shown = JobPhase.DEPLOYING
        self._position = self._open_start = point.position if point else 0
        self._pending = self._store.output.left(point.pending) if point else []
        self._to_commit = _committed_up_to(opening)
        self._completed = self._ran = self._since_checkpoint = 0
        self._act, self._delay = self._deploy, self._rng.randrange(1, 6)

    def _answer_start(self, entry: Entry) -> None:
        known = self._requests.get(entry.request_id or "")
        if known is not None and known.kind == "start":
            self._requests[known.request_id] = known.model_copy(update={"phase": RequestPhase.DONE})

    def _deploy(self) -> None:
        if not self._are_workers_there():
            return
        self._commit()
        if self.code.fails_to_restore:
            self._failed("the author's code raised while it restored")
            return
        self._shown = JobPhase.RUNNING
        self._act = self._run

    def _are_workers_there(self) -> bool:
        assert self._entry is not None, self._shown
        workers = self._workers()
        if all(i in workers for i in range(self._entry.parallelism)):
            return True
        self._failed("a worker left")
        return False

    def _failed(self, why: str) -> None:
        self._note(f"coordinator {self.revision}: attempt failed: {why}")
        self._restarts += 1
        self._failures_in_row += 1
        self._stop_failed(why)
        if self._rescale is not None:
            self._fail(self._rescale, why)
            self._rescale = None
        self._shown = JobPhase.RESTARTING
        self._act, self._delay = self._read, min(60, 2**self._failures_in_row)

    def _stop_failed(self, why: str) -> None:
        if self._stop is not None:
            self._fail(self._stop, why)
            self._stop = None

    def _run(self) -> None:
        entry = self._entry
        assert entry is not None, self._shown
        if self._store.newest is not entry and self._rng.random() < 0.1:
            self.stood_down = True
            self._shown = JobPhase.STOOD_DOWN
            return
        if not self._are_workers_there():
            return
        self._commit()
        self._ran += 1
        if self.code.crashes(ran_s=self._ran, completed=self._completed):
            self._failed("the author's code raised")
            return
        if self._ran > 30:
            self._failures_in_row = 0
        if self._input_length is None or self._position < self._input_length:
            self._position += 1
        self._since_checkpoint += 1
        if entry.hold is not None and self._completed >= entry.hold.stable:
            self._append(entry.follows("released", hold=None))
            self._to_commit = _committed_up_to(self._entry)
            return
        is_over = self._input_length is not None and self._position >= self._input_length
        is_asked = self._stop or self._rescale or self._checkpoint_asked or is_over
        is_asked = is_asked or (self._savepoints and entry.hold is None)
        if self._stop is not None:
            self._shown = JobPhase.STOPPING
        if is_asked or self._since_checkpoint >= CHECKPOINT_INTERVAL:
            self._delay = self._rng.randrange(3)
            self._act = self._complete

    def _complete(self) -> None:
        entry = self._entry
        assert entry is not None, self._shown
        self._act = self._run
        self._since_checkpoint = 0
        if not self._are_workers_there():
            return
        if self._rng.random() < self.trouble:
            self._stop_failed("the savepoint failed")
            self._shown = JobPhase.RUNNING
            return
        n = self._store.next_checkpoint()
        if self._position > self._open_start:
            self._pending.append(
                Transaction(f"{entry.attempt}-{n}", n, self._open_start, self._position)
            )
            self._open_start = self._position
        pending = tuple(self._pending)
        snapshot = Snapshot(n, f"{ROOT}/chk-{n}", self._position, self.code.schema, pending)
        if self._stop is not None:
            path = savepoint_path(self._stop.request_id)
            self._end(EndKind.STOPPED, snapshot, self._stop.request_id, path)
        elif self._input_length is not None and self._position >= self._input_length:
            self._end(EndKind.FINISHED, snapshot, entry.request_id, None)
        else:
            self._completed_one(entry, snapshot)

    def _completed_one(self, entry: Entry, snapshot: Snapshot) -> None:
        rescale = entry.rescale
        if rescale is not None and _is_open(rescale):
            rescale = replace(rescale, is_firm=True)
        retained = (*entry.retained, snapshot)[-RETAINED:]
        self._append(entry.follows("completed", retained=retained, rescale=rescale))
        entry = self._entry
        assert entry is not None, snapshot
        self._completed += 1
        self._to_commit = _committed_up_to(entry)
        self._last_checkpoint = _shown(snapshot, self._now())
        if rescale is not None and rescale.request_id in self._requests and rescale.is_firm:
            known = self._requests[rescale.request_id]
            self._requests[known.request_id] = known.model_copy(update={"phase": RequestPhase.DONE})
        for order in self._checkpoint_asked:
            self._set(order, RequestPhase.DONE, path=snapshot.path)
        self._checkpoint_asked.clear()
        if self._savepoints and entry.hold is None:
            order = self._savepoints.pop(0)
            path = savepoint_path(order.request_id)
            self._store.publish(path, snapshot)
            self._last_savepoint = _shown(replace(snapshot, path=path), self._now())
            self._set(order, RequestPhase.DONE, path=path)
        if self._rescale is not None:
            self._reopen(self._rescale, snapshot)

    def _reopen(self, order: RescaleOrder, snapshot: Snapshot) -> None:
        entry = self._entry
        assert entry is not None, order
        self._rescale = None
        if any(i not in self._workers() for i in range(order.parallelism)):
            self._fail(order, "workers left meanwhile")
            return
        self._opening = entry.follows(
            "opened",
            attempt=entry.attempt + 1,
            next_checkpoint=self._store.highest_checkpoint + 1,
            restored_from=snapshot,
            parallelism=order.parallelism,
            rescale=Rescale(order.request_id, entry.parallelism, order.parallelism),
        )
        self._gather()

    def _commit(self) -> None:
        """What sinks may commit; they may be late."""
        limit = self._to_commit
        if limit is None:
            return
        while self._pending and self._pending[0].checkpoint <= limit:
            self._store.output.commit(self._pending.pop(0))

    def _end(
        self, kind: EndKind, snapshot: Snapshot, request: str | None, path: str | None
    ) -> None:
        entry = self._entry
        assert entry is not None, kind
        self._append(
            entry.follows(
                "ended",
                request_id=request,
                end=End(kind, snapshot, savepoint=path),
                retained=(*entry.retained, snapshot)[-RETAINED:],
                hold=None,
                rescale=_taken_back(entry.rescale),
            )
        )
        self._last_checkpoint = _shown(snapshot, self._now())
        self._begin_ending()

    def _begin_ending(self) -> None:
        self._opening = None
        self._shown = JobPhase.ENDING
        self._act, self._delay = self._ending, self._rng.randrange(3)

    def _ending(self) -> None:
        entry = self._entry
        assert entry is not None, self._shown
        assert entry.end is not None, entry
        point = entry.end.go_on_from
        if point is not None:
            left = self._store.output.left(point.pending)
            limit = _committed_up_to(entry)
            due = [t for t in left if limit is not None and t.checkpoint <= limit]
            if due and any(i not in self._workers() for i in range(entry.parallelism)):
                return
            for transaction in due:
                self._store.output.commit(transaction)
            if entry.end.savepoint is not None and self._rng.random() < 0.5:
                self._store.publish(entry.end.savepoint, point)
                return
            if (
                entry.end.savepoint is not None
                and entry.end.savepoint not in self._store.savepoints
            ):
                return
        end = replace(entry.end, committed=True)
        drops: dict[str, object] = {}
        if end.deletes:
            end = replace(end, go_on_from=None)
            drops = {"retained": (), "hold": None}
        self._append(entry.follows("ended", end=end, **drops))
        self._over(entry)

    def _over(self, entry: Entry) -> None:
        assert entry.end is not None, entry
        self._shown = JobPhase(entry.end.kind)
        self._act = self._end_quietly
        for known in list(self._requests.values()):
            if known.phase is not RequestPhase.RUNNING:
                continue
            is_it = known.request_id == entry.request_id
            changes: dict[str, object] = {"phase": RequestPhase.DONE, "path": entry.end.savepoint}
            if not is_it:
                changes = {"phase": RequestPhase.FAILED, "error": "the job does not run"}
            self._requests[known.request_id] = known.model_copy(update=changes)
        self._savepoints.clear()
        self._checkpoint_asked.clear()
        self._stop = self._rescale = None
        if self._order is not None:
            self._act = self._read


class StoodDown(Exception):
    """The process ends: another has the job."""


def _is_open(rescale: Rescale) -> bool:
    return not rescale.is_firm and rescale.error is None


def _taken_back(rescale: Rescale | None) -> Rescale | None:
    if rescale is None or not _is_open(rescale):
        return rescale
    return replace(rescale, error="the attempt broke before its first checkpoint")


def _committed_up_to(entry: Entry | None) -> int | None:
    point = entry.point if entry else None
    if entry is None or point is None:
        return None
    return entry.hold.after if entry.hold else point.id


def _shown(snapshot: Snapshot, at: datetime) -> SnapshotStatus:
    return SnapshotStatus(
        id=snapshot.id,
        path=snapshot.path,
        completed_at_ms=int(at.timestamp() * 1000),
        duration_ms=500,
        size_bytes=1000,
    )
