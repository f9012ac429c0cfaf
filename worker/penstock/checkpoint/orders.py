"""What people and programs order: each is answered at once, or remembered until it can be done.

The same request id gets the same answer, also from a coordinator that was started since, wherever the
log or the store tells what became of the request.
"""

from __future__ import annotations

from typing import Any, TypeAlias

from penstock.checkpoint import disposal, log, rescaling, start
from penstock.checkpoint import effects as do
from penstock.checkpoint import events as told
from penstock.checkpoint.checkpoints import Checkpoints
from penstock.checkpoint.ends import Ends
from penstock.checkpoint.known import KnownSnapshots
from penstock.checkpoint.live import LiveSettings
from penstock.checkpoint.opening import LIVE
from penstock.checkpoint.outbox import Outbox
from penstock.checkpoint.phases import Phase
from penstock.checkpoint.position import Position
from penstock.checkpoint.restore import IsReadable
from penstock.checkpoint.settings import OnCancellation
from penstock.core import paths
from penstock.core.errors import Outdated, Rejected
from penstock.core.graph import JobGraph
from penstock.core.log import EndKind, Entry

Order: TypeAlias = (
    told.StartOrdered
    | told.StopOrdered
    | told.SavepointOrdered
    | told.CheckpointOrdered
    | told.CancelOrdered
    | told.RescaleOrdered
    | told.SettingsOrdered
    | told.DisposeOrdered
)
ORDERS = (
    told.StartOrdered,
    told.StopOrdered,
    told.SavepointOrdered,
    told.CheckpointOrdered,
    told.CancelOrdered,
    told.RescaleOrdered,
    told.SettingsOrdered,
    told.DisposeOrdered,
)
_WITH_A_RUN = frozenset(
    {Phase.BACKING_OFF, Phase.DEPLOYING, Phase.RUNNING, Phase.STOPPING, Phase.RESCALING}
)


class Orders:
    """Takes the orders for one job. `start` is one that waits for the log to be read."""

    def __init__(
        self,
        position: Position,
        checkpoints: Checkpoints,
        ends: Ends,
        snapshots: KnownSnapshots,
        live: LiveSettings,
        outbox: Outbox,
    ) -> None:
        self.start: told.StartOrdered | None = None
        self._at = position
        self._checkpoints = checkpoints
        self._ends = ends
        self._snapshots = snapshots
        self._live = live
        self._out = outbox
        self._settings: told.SettingsOrdered | None = None
        self._disposals: list[told.DisposeOrdered] = []
        self._disposing: dict[str, str] = {}

    def take(self, order: Order) -> None:
        """Do it, or refuse it, or remember it; one that was answered before gets the same answer."""
        if self._out.has_answered(order.request_id):
            return
        match order:
            case told.StartOrdered():
                self._start(order)
            case told.SavepointOrdered(request_id, published) if published is not None:
                folder = paths.savepoint_folder(self._at.identity.job, request_id)
                self._out.answer_savepoint(request_id, folder, published)
            case told.StopOrdered() | told.SavepointOrdered() | told.CheckpointOrdered():
                if not self._answers_as_ended(order.request_id):
                    self._checkpoints.order(order)
            case told.CancelOrdered():
                self._cancel(order)
            case told.RescaleOrdered():
                self._rescale(order)
            case told.SettingsOrdered():
                self._change_settings(order)
            case told.DisposeOrdered():
                self._dispose(order)

    def advance(self) -> bool:
        """Do what was remembered and can be done now; whether an entry is on its way for it."""
        entry = self._at.entry
        if self._settings is not None and self._runs_nothing:
            self._refuse_settings(self._settings)
            self._settings = None
        settings = self._settings
        if entry is None:
            return False
        if settings is not None and self._at.phase in _WITH_A_RUN and not self._is_ending:
            wanted = {**entry.settings, LIVE: settings.live}
            self._at.append(log.with_settings(entry, wanted, **self._at.stamp()))
            return True
        if self._disposals:
            self._at.append(log.dropped(entry, **self._at.stamp()))
            return True
        return False

    # ── start ───────────────────────────────────────────────────────────────────────────────────

    def obey(self, read: told.LogRead, graph: JobGraph, is_readable: IsReadable) -> bool:
        """Whether there was an order to start, and it can be obeyed."""
        order, self.start = self.start, None
        if order is None or self._is_obeyed(order):
            return False
        try:
            self._check_start(order, read)
            self._at.opening = start.ordered(order, read, graph, is_readable)
        except Rejected as e:
            self._refuse(order.request_id, e)
            return False
        return True

    def _start(self, order: told.StartOrdered) -> None:
        if self._is_obeyed(order):
            return
        opening = self._at.opening
        if self._at.phase in (Phase.WAITING, Phase.ENDED):
            self.start = order
            self._at.read_log()
        elif self._is_ending:
            self.start = order
        elif opening is not None and opening.request_id == order.request_id:
            pass
        elif self._at.phase is Phase.GATHERING:
            self._forget_opening("another start was ordered while it waited for workers")
            self.start = order
            self._at.read_log()
        else:
            self._not_now(order.request_id, "the job runs already")

    def _forget_opening(self, why: str) -> None:
        """Nothing was written of an attempt that waits for workers, of whom there may never be enough."""
        opening, self._at.opening = self._at.opening, None
        obeyed = self._at.entry.request_id if self._at.entry else None  # of a run that is restored
        if opening is not None and opening.request_id not in (None, obeyed):
            self._not_now(opening.request_id, why)
        self._checkpoints.refuse_queued()
        self._at.move(Phase.WAITING)

    def _forget_start(self) -> None:
        """What waits for the end of the run before it is not begun after a cancel that came later."""
        order, self.start = self.start, None
        if order is not None:
            self._not_now(order.request_id, "the start was cancelled before it began")

    def refuse_start(self, e: Rejected) -> None:
        """What the log says lets nothing be started."""
        order, self.start = self.start, None
        if order is not None:
            self._refuse(order.request_id, e)

    def _check_start(self, order: told.StartOrdered, read: told.LogRead) -> None:
        revision = self._at.identity.revision
        if order.revision != revision:
            raise Outdated(
                f"the order is for revision {order.revision}, this coordinator runs {revision}",
                where="start",
                fix="send it again, under another request id, when the other coordinator is there",
            )
        if not start.has_seen(read.newest, order.after):
            raise Outdated(
                f"the order was given after entry {order.after} of the log, which has moved on",
                where="start",
                fix="look at the job's status, and order again",
            )
        snapshot = order.restore.snapshot if order.restore else None
        if snapshot and any(snapshot.path.startswith(f"{u}/") for u in self._disposing.values()):
            raise Outdated("the savepoint is being deleted", where=snapshot.path)
        self._live.check(order.live)

    def _is_obeyed(self, order: told.StartOrdered) -> bool:
        """Whether the newest entry shows that the order was obeyed before."""
        entry = self._at.entry
        if entry is None or entry.request_id != order.request_id:
            return False
        self._out.answer(order.request_id, ok=True, attempt=entry.attempt.number)
        return True

    # ── cancel ──────────────────────────────────────────────────────────────────────────────────

    def _cancel(self, order: told.CancelOrdered) -> None:
        request_id, entry = order.request_id, self._at.entry
        if entry is None or entry.request_id != request_id:
            self._forget_start()
        if entry is not None and self._at.phase is Phase.ENDED and order.retain is False:
            self._drop_all(request_id, entry)
        elif entry is None and self._at.phase is Phase.WAITING and order.retain is False:
            self._out.answer(request_id, ok=True)  # there is nothing, and shall be nothing
        elif self._answers_as_ended(request_id):
            pass
        elif entry is None or entry.end is not None or self._is_taken_back(order, entry):
            self._forget_opening("the start was cancelled while it waited for workers")
            self._out.answer(request_id, ok=True)
        else:
            keeps = order.retain
            if keeps is None:
                keeps = self._live.settings.on_cancellation is OnCancellation.RETAIN
            self._ends.break_off(
                EndKind.CANCELLED,
                "the job was cancelled",
                request_id=request_id,
                deletes=not keeps,
            )

    def _is_taken_back(self, order: told.CancelOrdered, entry: Entry) -> bool:
        """Whether it is about a start that waits for workers. What ran before was left by somebody without
        an end; to end it now would take the same workers, who may never come."""
        opening = self._at.opening
        is_ordered = opening is not None and opening.request_id not in (None, entry.request_id)
        return is_ordered and self._at.phase is Phase.GATHERING and order.retain is not False

    def _drop_all(self, request_id: str, entry: Entry) -> None:
        """An ended job's checkpoints are not wanted any more."""
        if entry.end is None or not entry.end.committed:
            self._not_now(request_id, "its sinks have not committed all yet")
        elif entry.end.deletes:
            self._out.answer(request_id, ok=True, end=entry.end.kind.value)
        else:
            self._ends.drop_all(request_id)

    # ── rescale ─────────────────────────────────────────────────────────────────────────────────

    def answer_rescale(self, entry: Entry) -> None:
        """The log tells how a change of parallelism went: who ordered it is told."""
        found = rescaling.rescale_of(entry)
        if found is None or found.outcome is rescaling.Outcome.TRYING:
            return
        if found.outcome is rescaling.Outcome.DONE:
            self._out.answer(found.request_id, ok=True, **found.to_json())
        else:
            self._out.answer(found.request_id, ok=False, error=found.error)

    def _rescale(self, order: told.RescaleOrdered) -> None:
        found = rescaling.rescale_of(self._at.entry)
        if found is not None and found.request_id == order.request_id:
            self.answer_rescale(self._at.newest)
        elif order.request_id not in self._checkpoints.rescales:
            if error := self._why_not(order):
                self._out.answer(order.request_id, ok=False, error=error)
            else:
                self._checkpoints.order(order)

    def _why_not(self, order: told.RescaleOrdered) -> str | None:
        if self._at.phase is Phase.STOPPING or self._checkpoints.is_stop_wanted:
            return "the job is about to stop"
        if self._checkpoints.rescales or rescaling.trying(self._at.entry):
            return "another parallelism is being tried; wait for the outcome"
        if self._at.phase is not Phase.RUNNING:
            return f"the job does not run now, its coordinator is {self._at.phase}"
        attempt = self._at.newest.attempt
        return rescaling.refusal(order.parallelism, attempt, self._at.workers.keys())

    # ── settings ────────────────────────────────────────────────────────────────────────────────

    def settings_won(self) -> None:
        """The entry with the new settings stands."""
        order, self._settings = self._settings, None
        if order is not None:
            self._out.answer(order.request_id, ok=True)

    def _change_settings(self, order: told.SettingsOrdered) -> None:
        if self._settings is not None and self._settings.request_id == order.request_id:
            return
        if self._runs_nothing:
            self._refuse_settings(order)
            return
        try:
            self._live.check(order.live)
        except Rejected as e:
            self._refuse(order.request_id, e)
            return
        if self._settings is not None:
            later = "other settings were ordered before these came into force"
            self._out.answer(self._settings.request_id, ok=False, error=later)
        self._settings = order

    def _refuse_settings(self, order: told.SettingsOrdered) -> None:
        error = "the job does not run; give the settings with the order to start"
        self._not_now(order.request_id, error)

    # ── dispose ─────────────────────────────────────────────────────────────────────────────────

    def dropped_won(self) -> None:
        """Nobody else has the job: what was asked to be deleted is, if nothing needs it now."""
        orders, self._disposals = self._disposals, []
        for order in orders:
            self._delete(order)

    def disposed(self, request_id: str) -> None:
        """All objects of a savepoint are gone."""
        url = self._disposing.pop(request_id, None)
        self._out.answer(request_id, ok=True, path=url)

    def _dispose(self, order: told.DisposeOrdered) -> None:
        entry = self._at.entry
        if order.request_id in self._disposing or order in self._disposals:
            return
        if f"{order.folder}/" in self._checkpoints.savepoints_under_way:
            error = "the savepoint is being taken; ask again when it is complete"
            self._not_now(order.request_id, error)
        elif order.manifest is None:
            self._out.answer(order.request_id, ok=True, path=self._url(order))
        elif entry is None:
            self._delete(order)  # there is no log, and nothing that needs it
        elif self._at.phase is Phase.WAITING and entry.end is None:
            error = "the newest attempt is not this coordinator's; ask again when the job runs"
            self._not_now(order.request_id, error)
        else:
            self._disposals.append(order)

    def _delete(self, order: told.DisposeOrdered) -> None:
        url, manifest = self._url(order), order.manifest
        assert manifest is not None, order
        kept = log.kept(self._at.entry) if self._at.entry else []
        if self._at.opening is not None and self._at.opening.snapshot is not None:
            kept.append(self._at.opening.snapshot)
        known = self._snapshots.manifests
        error = disposal.refusal(self._at.identity.job, url, manifest, kept, known)
        if error is not None:
            self._out.answer(order.request_id, ok=False, error=error)
            return
        self._disposing[order.request_id] = url
        self._out.do(
            do.DisposeSavepoint(order.request_id, disposal.objects(order.folder, manifest))
        )

    def _url(self, order: told.DisposeOrdered) -> str:
        return f"{self._at.identity.savepoints_url}/{order.folder}"

    # ── what all share ──────────────────────────────────────────────────────────────────────────

    @property
    def _is_ending(self) -> bool:
        """Whether the end stands, and its commits are under way or about to be tried again."""
        entry = self._at.entry
        waits = self._at.phase is Phase.BACKING_OFF and entry is not None and entry.end is not None
        return waits or self._at.phase is Phase.ENDING

    @property
    def _runs_nothing(self) -> bool:
        """Whether there is no attempt, and none follows without an order."""
        return self._at.phase in (Phase.WAITING, Phase.ENDED) or self._is_ending

    def _answers_as_ended(self, request_id: str) -> bool:
        """Whether nothing runs: who ordered the end is answered when it is committed."""
        if not self._runs_nothing:
            return False
        if self._at.entry is None or self._at.entry.request_id != request_id:
            self._not_now(request_id, "the job does not run")
        elif self._at.phase is Phase.ENDED:
            self._out.answer_end(self._at.entry)
        elif self._at.phase is Phase.WAITING:
            self._not_now(request_id, "what the run left is not committed, and cannot be here")
        return True

    def _not_now(self, request_id: str, error: str) -> None:
        """It does not fit the job as it is: who looks again orders something else, or later."""
        self._out.answer(request_id, ok=False, error=error, outdated=True)

    def _refuse(self, request_id: str, e: Rejected) -> None:
        self._out.answer(request_id, ok=False, outdated=isinstance(e, Outdated), **reason_of(e))


def reason_of(e: Rejected) -> dict[str, Any]:
    """What an answer says of an error, in its three parts."""
    return {"error": e.what, "where": e.where, "fix": e.fix}
