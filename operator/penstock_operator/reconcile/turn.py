"""One look at one StreamJob: what was seen, and the status and effects that are decided from it.

An intention is acted on only when it was read back: whatever cannot be taken back is decided from
`move`, which is the observed one; steps that are entered now stand in the draft, `status`, and are
acted on at the next look. A turn that changes the intention does nothing of the former one.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from penstock.spec.orders import (
    CancelOrder,
    JobStatus,
    Order,
    RequestPhase,
    RequestStatus,
    RescaleOrder,
    StartOrder,
    StopOrder,
)
from penstock.spec.streamjob import StreamJobSpec
from penstock_operator.reconcile.effects import (
    Announce,
    Decision,
    DeleteClaims,
    DeletePods,
    Effect,
    EnsureCoordinator,
    EnsureWorkers,
    RemoveCoordinator,
    RunCheck,
    RunDisposal,
    Send,
)
from penstock_operator.reconcile.facts import shortened
from penstock_operator.reconcile.observed import JobObject, Observed
from penstock_operator.resources.status import (
    HISTORY_LENGTH_MAX,
    HistoryEntry,
    Move,
    MoveKind,
    Phase,
    RequestView,
    Step,
    StreamJobStatus,
)

SOON = timedelta(seconds=1)
WHILE_MOVING = timedelta(seconds=2)
STALLED = timedelta(seconds=15)
"""What changes by itself is seen by watches, too."""
IDLE = timedelta(seconds=60)
PENDING, RUNNING, DONE, FAILED = "Pending", "Running", "Done", "Failed"
"""Phases of a receipt."""


@dataclass(frozen=True, slots=True)
class Stall:
    """Why nothing more happens until a person, or the world, changes something."""

    reason: str
    message: str


class Turn:
    """What is decided at one look; each concern adds its part."""

    def __init__(self, observed: Observed, now: datetime) -> None:
        self.observed = observed
        self.now = now
        self.status: StreamJobStatus = observed.job.status
        self.mistakes: tuple[str, ...] = observed.job.mistakes
        self.waits_for: str | None = None
        self.stall: Stall | None = None
        self._effects: list[Effect] = []
        self._look_again = IDLE

    # ── what was seen ───────────────────────────────────────────────────────────────────────────

    @property
    def job(self) -> JobObject:
        """The StreamJob as it was read."""
        return self.observed.job

    @property
    def move(self) -> Move | None:
        """The intention as it was read back."""
        return self.observed.job.status.move

    @property
    def coordinator(self) -> JobStatus | None:
        """What the coordinator answered."""
        return self.observed.coordinator

    @property
    def spec(self) -> StreamJobSpec | None:
        """The spec to go by: the present one, else the last accepted at the parallelism in force."""
        if self.job.spec is not None and not self.mistakes:
            return self.job.spec
        accepted, parallelism = self.observed.accepted, self.job.status.parallelism
        if accepted is None or parallelism is None:
            return accepted
        return accepted.model_copy(update={"parallelism": parallelism})

    @property
    def is_valid(self) -> bool:
        """Whether the present spec can be gone by."""
        return self.job.spec is not None and not self.mistakes

    def has_revision(self, revision: str | None) -> bool:
        """Whether a revision is recorded, so that it can be applied."""
        return any(r.id == revision for r in self.observed.revisions)

    def is_over(self, since: datetime, limit_ms: int) -> bool:
        """Whether more than that time has passed; while nobody looked it stood still."""
        watched = self.observed.watched_since
        began = since if watched is None else max(since, watched)
        return self.now - began > timedelta(milliseconds=limit_ms)

    # ── what is decided ─────────────────────────────────────────────────────────────────────────

    def update(self, **changes: Any) -> None:
        """Change fields of the status to write."""
        self.status = self.status.model_copy(update=changes)

    def do(self, *effects: Effect) -> None:
        """Add effects, in order."""
        self._effects += effects

    def announce(self, reason: str, message: str, *, is_warning: bool = False) -> None:
        """Tell a Kubernetes Event."""
        self.do(Announce(reason, message, is_warning))

    def wait(self, what: str) -> None:
        """Say what is waited for, and look again soon."""
        self.waits_for = what
        self.look_again(WHILE_MOVING)

    def look_again(self, after: timedelta) -> None:
        """Look again no later than that."""
        self._look_again = min(self._look_again, after)

    def ask(self, order: Order) -> RequestStatus | None:
        """What became of an order; it is sent as long as the coordinator knows nothing of it.

        The same request id gets the same answer, also from a coordinator that started since.
        """
        assert self.coordinator is not None, order
        self.look_again(SOON)
        known = self.outcome(order.request_id)
        if known is None:
            self.do(Send(order))
        return known

    def outcome(self, request_id: str) -> RequestStatus | None:
        """What is known of a request: its coordinator tells, or refused to take it at all."""
        requests = self.coordinator.requests if self.coordinator is not None else ()
        known = next((r for r in requests if r.request_id == request_id), None)
        refused = self.observed.refusals.get(request_id)
        if known is None and refused is not None:
            known = RequestStatus(
                request_id=request_id,
                kind="",
                phase=RequestPhase.FAILED,
                error=refused.error,
                refusal=refused.kind,
            )
        if known is None or known.error is None:
            return known
        return known.model_copy(update={"error": shortened(known.error)})

    # ── moves ───────────────────────────────────────────────────────────────────────────────────

    def begin(self, kind: MoveKind, step: Step, *, reason: str, **fields: Any) -> None:
        """Intend a move; it begins once this was read back."""
        self.update(
            move=Move(
                kind=kind,
                step=step,
                id=move_id(self.job, kind, self.now),
                started_at=self.now,
                since=self.now,
                reason=reason,
                **fields,
            )
        )
        self.announce(f"{kind}Began", reason)
        self.look_again(SOON)

    def enter(self, step: Step, message: str, *, is_warning: bool = False, **fields: Any) -> None:
        """Intend the next step of the move."""
        move = self._drafted()
        changes = {
            "step": step,
            "since": self.now,
            "tries": 0,
            "not_before": None,
            "error": None,
        } | fields
        self.update(move=move.model_copy(update=changes))
        self.announce(f"{move.kind}{step}", message, is_warning=is_warning)
        self.look_again(SOON)

    def note(self, **fields: Any) -> None:
        """Change the move within its step."""
        self.update(move=self._drafted().model_copy(update=fields))
        self.look_again(SOON)

    def try_again(self, after: timedelta = timedelta(0), **fields: Any) -> None:
        """Repeat the step's order under the next request id."""
        move = self._drafted()
        self.note(tries=move.tries + 1, not_before=self.now + after, **fields)

    def finish(self, outcome: str, message: str, *, phase: Phase, is_warning: bool = False) -> None:
        """The move is over."""
        move = self._drafted()
        message = "; ".join(filter(None, (message, move.image_changed)))
        entry = HistoryEntry(at=self.now, move=move.kind, outcome=outcome, message=message)
        history = (*self.status.history, entry)[-HISTORY_LENGTH_MAX:]
        self.update(move=None, phase=phase, history=history)
        self.announce(f"{move.kind}{outcome}", message, is_warning=is_warning)
        self.look_again(SOON)

    def _drafted(self) -> Move:
        assert self.status.move is not None, self.status
        return self.status.move

    # ── receipts ────────────────────────────────────────────────────────────────────────────────

    def receipt(self, kind: str) -> RequestView | None:
        """The receipt for the annotation of that kind, as drafted."""
        return self.status.requests.get(kind)

    def give_receipt(self, kind: str, view: RequestView) -> None:
        """Write a receipt."""
        if self.receipt(kind) != view:
            self.update(requests=self.status.requests | {kind: view})
            self.look_again(SOON)

    # ── the end ─────────────────────────────────────────────────────────────────────────────────

    def decision(self) -> Decision:
        """What was decided."""
        effects = self._effects
        if self.status.move != self.move:
            effects = [effect for effect in effects if not _is_of_a_move(effect)]
        look_again = self._look_again if self.stall is None else max(self._look_again, STALLED)
        return Decision(self.status, tuple(effects), look_again)


def _is_of_a_move(effect: Effect) -> bool:
    if isinstance(effect, Send):
        return isinstance(effect.order, _ORDERS_OF_MOVES)
    return isinstance(effect, _DEEDS_OF_MOVES)


_ORDERS_OF_MOVES = (StartOrder, StopOrder, CancelOrder, RescaleOrder)
_DEEDS_OF_MOVES = (
    EnsureCoordinator,
    EnsureWorkers,
    RemoveCoordinator,
    DeletePods,
    DeleteClaims,
    RunCheck,
    RunDisposal,
)


def move_id(job: JobObject, kind: MoveKind, at: datetime) -> str:
    """Names a move for ever, also when the status was lost: two begin never in one millisecond."""
    return f"{job.uid}.{job.generation}.{kind.lower()}.{int(at.timestamp() * 1000)}"


def request_id(move: Move, what: str) -> str:
    """Names an order of a move: by step, when that began, and try; a step may be entered twice."""
    since_ms = int(move.since.timestamp() * 1000)
    return f"{move.id}.{move.step.lower()}.{what}.{since_ms}.{move.tries}"


def object_request_id(uid: str, what: str, number: int | str) -> str:
    """Names an order that belongs to no move: of an object, by what it asks and which time."""
    return f"{uid}.{what}.{number}"


def savepoint_name(job_name: str, id: str) -> str:
    """Name of the Savepoint object for a request of this id."""
    return f"{job_name}-{hashed(id)}"


def hashed(text: str) -> str:
    """Ten hex digits that stand for a text of any length."""
    return hashlib.sha256(text.encode()).hexdigest()[:10]
