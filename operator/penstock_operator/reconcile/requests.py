"""What people ask by annotation, and the receipts for it.

Annotations stay on the object: an id is acted on once, when its receipt was read back.
"""

from __future__ import annotations

from penstock.spec.orders import CheckpointOrder, RequestPhase
from penstock_operator.reconcile import facts
from penstock_operator.reconcile.effects import CreateSavepoint
from penstock_operator.reconcile.moves import upgrade
from penstock_operator.reconcile.turn import (
    DONE,
    FAILED,
    PENDING,
    RUNNING,
    Turn,
    hashed,
    object_request_id,
    savepoint_name,
)
from penstock_operator.resources.names import (
    ANNOTATION_CHECKPOINT,
    ANNOTATION_RESTART,
    ANNOTATION_RETRY,
    ANNOTATION_ROLLBACK,
    ANNOTATION_SAVEPOINT,
    request_kind,
)
from penstock_operator.resources.status import (
    MoveKind,
    RequestView,
    SavepointPhase,
    SavepointSpec,
    Step,
)

ID_LENGTH_MAX = 253
SAVEPOINT, CHECKPOINT, RESTART, RETRY, ROLLBACK = (
    request_kind(a)
    for a in (
        ANNOTATION_SAVEPOINT,
        ANNOTATION_CHECKPOINT,
        ANNOTATION_RESTART,
        ANNOTATION_RETRY,
        ANNOTATION_ROLLBACK,
    )
)
_CAN_GO_BACK = frozenset(
    {
        (MoveKind.UPGRADE, Step.REPLACING),
        (MoveKind.UPGRADE, Step.STARTING),
        (MoveKind.UPGRADE, Step.STABILIZING),
        (MoveKind.ROLLBACK, Step.STARTING),
    }
)


def take(turn: Turn) -> None:
    """Give receipts for new ids, and follow those that are under way."""
    for annotation, accept in (
        (ANNOTATION_SAVEPOINT, _accepted),
        (ANNOTATION_CHECKPOINT, _accepted_checkpoint),
        (ANNOTATION_RESTART, _accepted_restart),
        (ANNOTATION_RETRY, _retried),
        (ANNOTATION_ROLLBACK, _rollback),
    ):
        kind, id = request_kind(annotation), turn.job.annotations.get(annotation, "").strip()
        former = turn.receipt(kind)
        if id and (former is None or former.id != id[:ID_LENGTH_MAX]):
            turn.give_receipt(kind, accept(turn, id[:ID_LENGTH_MAX]))
    _follow_savepoint(turn)
    _follow_checkpoint(turn)
    _follow_restart(turn)


def is_restart_asked_for(turn: Turn) -> bool:
    """Whether a restart was asked for that has not begun."""
    receipt = turn.job.status.requests.get(RESTART)
    return receipt is not None and receipt.phase == PENDING


def _accepted(turn: Turn, id: str) -> RequestView:
    return RequestView(id=id, phase=RUNNING)


def _accepted_restart(turn: Turn, id: str) -> RequestView:
    return RequestView(id=id, phase=PENDING)


def _accepted_checkpoint(turn: Turn, id: str) -> RequestView:
    if facts.is_running(turn.coordinator):
        return RequestView(id=id, phase=RUNNING)
    return RequestView(id=id, phase=FAILED, error="the job does not run; ask again when it does")


def _retried(turn: Turn, id: str) -> RequestView:
    upgrade.retried(turn)
    return RequestView(id=id, phase=DONE)


def _rollback(turn: Turn, id: str) -> RequestView:
    move = turn.move
    if move is not None and (move.kind, move.step) in _CAN_GO_BACK:
        return RequestView(id=id, phase=RUNNING)
    return RequestView(
        id=id,
        phase=FAILED,
        error="no upgrade is under way; to run a former version, write it into the spec",
    )


def _follow_savepoint(turn: Turn) -> None:
    receipt = turn.job.status.requests.get(SAVEPOINT)
    if receipt is None or receipt.phase != RUNNING or turn.receipt(SAVEPOINT) != receipt:
        return
    # Of this object: one of a forerunner with its name was taken of another state.
    name = savepoint_name(turn.job.name, f"{turn.job.uid}/{receipt.id}")
    made = next((s for s in turn.observed.savepoints if s.name == name), None)
    if made is None:
        turn.do(
            CreateSavepoint(
                name,
                SavepointSpec(job_name=turn.job.name),
                annotations=((ANNOTATION_SAVEPOINT, receipt.id),),
            )
        )
        turn.wait(f"Savepoint {name}")
        return
    match made.status.phase:
        case SavepointPhase.COMPLETED:
            turn.give_receipt(
                SAVEPOINT, receipt.model_copy(update={"phase": DONE, "path": made.status.path})
            )
        case SavepointPhase.FAILED:
            turn.give_receipt(
                SAVEPOINT, receipt.model_copy(update={"phase": FAILED, "error": made.status.error})
            )
        case _:
            turn.wait(f"Savepoint {name}")


def _follow_checkpoint(turn: Turn) -> None:
    receipt, c = turn.job.status.requests.get(CHECKPOINT), turn.coordinator
    if receipt is None or receipt.phase != RUNNING or turn.receipt(CHECKPOINT) != receipt:
        return
    if c is None:
        return
    id = object_request_id(turn.job.uid, "checkpoint", hashed(receipt.id))
    known = turn.ask(CheckpointOrder(request_id=id))
    if known is None or known.phase is RequestPhase.RUNNING:
        return
    phase = DONE if known.phase is RequestPhase.DONE else FAILED
    turn.give_receipt(
        CHECKPOINT,
        receipt.model_copy(update={"phase": phase, "path": known.path, "error": known.error}),
    )


def _follow_restart(turn: Turn) -> None:
    """Done when its move is over; one that came in between has started the job anew as well."""
    receipt, move = turn.receipt(RESTART), turn.move
    if receipt is None or receipt.phase != RUNNING:
        return
    if move is None or move.kind is not MoveKind.RESTART:
        turn.give_receipt(RESTART, receipt.model_copy(update={"phase": DONE}))


def note_restart(turn: Turn) -> None:
    """The restart that was asked for begins."""
    receipt = turn.receipt(RESTART)
    assert receipt is not None, turn.status
    turn.give_receipt(RESTART, receipt.model_copy(update={"phase": RUNNING}))
