"""Savepoint objects: taken, followed to their end, disposed of.

A Savepoint that a stop makes carries the order's request id and is only followed here; any other is
ordered here, under a request id of its own that a later coordinator answers with the truth.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from penstock.spec.orders import (
    DisposeOrder,
    JobPhase,
    JobStatus,
    RequestPhase,
    RequestStatus,
    SavepointOrder,
)
from penstock.spec.parts.quantities import rounded_size
from penstock_operator.reconcile import facts
from penstock_operator.reconcile.effects import (
    Announce,
    DeletePods,
    Effect,
    RunDisposal,
    SetSavepointFinalizer,
    WriteSavepointStatus,
)
from penstock_operator.reconcile.moves.stopping import OPEN, stop_request_id
from penstock_operator.reconcile.observed import Report, SavepointObject
from penstock_operator.reconcile.turn import SOON, Turn, object_request_id
from penstock_operator.resources.names import ANNOTATION_REQUEST_ID, FINALIZER_SAVEPOINT
from penstock_operator.resources.status import (
    MoveKind,
    Phase,
    SavepointPhase,
    Step,
)

DISPOSAL_TIMEOUT = timedelta(minutes=5)
_ENDS = frozenset({MoveKind.SUSPEND, MoveKind.DELETE})


def take(turn: Turn) -> None:
    """See to every Savepoint of this job."""
    for savepoint in turn.observed.savepoints:
        if savepoint.deleted_at is not None:
            _dispose(turn, savepoint)
            continue
        _guard(turn, savepoint)
        if savepoint.status.phase in OPEN:
            _follow(turn, savepoint)


def orphaned(savepoint: SavepointObject, now: datetime) -> tuple[Effect, ...]:
    """What becomes of a Savepoint whose job is gone: nobody can delete its files any more."""
    if savepoint.deleted_at is None or FINALIZER_SAVEPOINT not in savepoint.finalizers:
        return ()
    if now - savepoint.deleted_at < DISPOSAL_TIMEOUT and savepoint.status.path is not None:
        return ()
    return _release(savepoint, "its job is gone")


def _guard(turn: Turn, savepoint: SavepointObject) -> None:
    wanted = savepoint.spec.dispose_on_delete
    if wanted != (FINALIZER_SAVEPOINT in savepoint.finalizers):
        turn.do(SetSavepointFinalizer(savepoint.name, wanted))


# ── taking one ──────────────────────────────────────────────────────────────────────────────────


def _follow(turn: Turn, savepoint: SavepointObject) -> None:
    stop_id = savepoint.annotations.get(ANNOTATION_REQUEST_ID)
    if stop_id is not None:
        _follow_stop(turn, savepoint, stop_id)
    elif savepoint.status.phase is SavepointPhase.PENDING:
        _begin(turn, savepoint)
    else:
        _order(turn, savepoint)


def _follow_stop(turn: Turn, savepoint: SavepointObject, stop_id: str) -> None:
    move = turn.move
    known = turn.outcome(stop_id)
    is_live = move is not None and move.step is Step.STOPPING and stop_request_id(move) == stop_id
    if known is not None and known.phase is not RequestPhase.RUNNING:
        _end(turn, savepoint, known)
    elif not is_live:
        _fail(turn, savepoint, "the stop went on without it")
    elif savepoint.status.phase is SavepointPhase.PENDING:
        _write(turn, savepoint, phase=SavepointPhase.RUNNING, started_at=turn.now)


def _begin(turn: Turn, savepoint: SavepointObject) -> None:
    c, move = turn.coordinator, turn.move
    if facts.is_running(c):
        if move is None or move.step is not Step.STOPPING:
            _write(turn, savepoint, phase=SavepointPhase.RUNNING, started_at=turn.now)
    elif _will_not_run(turn, c):
        _fail(
            turn,
            savepoint,
            f"the job does not run: it is {turn.job.status.phase}; resume or restart it first",
        )


def _will_not_run(turn: Turn, c: JobStatus | None) -> bool:
    """Whether nothing under way ends in a running job."""
    move, phase = turn.move, turn.job.status.phase
    if turn.job.deleted_at is not None:
        return True
    if move is not None:
        return move.kind in _ENDS
    if turn.status.move is not None:
        return False
    is_at_rest = phase in (Phase.SUSPENDED, Phase.FINISHED, Phase.FAILED)
    return is_at_rest and not facts.is_active(c)


def _order(turn: Turn, savepoint: SavepointObject) -> None:
    c = turn.coordinator
    if c is None:
        if _will_not_run(turn, c) and turn.job.status.phase is Phase.SUSPENDED:
            _fail(turn, savepoint, "the job was suspended before it was taken")
        return
    if c.phase is JobPhase.WAITING:
        return
    known = turn.ask(SavepointOrder(request_id=_request_id(savepoint)))
    if known is not None and known.phase is not RequestPhase.RUNNING:
        _end(turn, savepoint, known)


def _request_id(savepoint: SavepointObject) -> str:
    return object_request_id(savepoint.uid, "savepoint", 0)


def _end(turn: Turn, savepoint: SavepointObject, known: RequestStatus) -> None:
    if known.phase is RequestPhase.FAILED:
        _fail(turn, savepoint, known.error or "the coordinator gave no reason")
        return
    c = turn.coordinator
    assert c is not None, known
    made = c.last_savepoint
    if known.path is None or (made is not None and made.path != known.path):
        made = None
    _write(
        turn,
        savepoint,
        phase=SavepointPhase.COMPLETED,
        job_id=c.job_id,
        path=known.path,
        size=rounded_size(made.size_bytes) if made is not None else None,
        size_bytes=made.size_bytes if made is not None else None,
        checkpoint_id=made.id if made is not None else _number(savepoint, c),
        finished_at=turn.now,
    )
    turn.announce("SavepointCompleted", f"{savepoint.name}: {known.path}")


def _number(savepoint: SavepointObject, c: JobStatus) -> int | None:
    """Of a stop's savepoint, from a coordinator that was started since: the run ended with it."""
    if ANNOTATION_REQUEST_ID not in savepoint.annotations or c.phase is not JobPhase.STOPPED:
        return None
    digits = (c.next_restore or "").rpartition("chk-")[2]
    return int(digits) if digits.isdigit() else None


def _fail(turn: Turn, savepoint: SavepointObject, why: str) -> None:
    _write(turn, savepoint, phase=SavepointPhase.FAILED, error=why, finished_at=turn.now)
    turn.announce("SavepointFailed", f"{savepoint.name}: {why}", is_warning=True)


def _write(turn: Turn, savepoint: SavepointObject, **fields: object) -> None:
    status = savepoint.status.model_copy(update=fields)
    turn.do(WriteSavepointStatus(savepoint.name, status))
    turn.look_again(SOON)


# ── disposal ────────────────────────────────────────────────────────────────────────────────────


def _dispose(turn: Turn, savepoint: SavepointObject) -> None:
    if FINALIZER_SAVEPOINT not in savepoint.finalizers:
        return
    assert savepoint.deleted_at is not None, savepoint.name
    path, c = savepoint.status.path, turn.coordinator
    if not savepoint.spec.dispose_on_delete or path is None:
        turn.do(SetSavepointFinalizer(savepoint.name, False))
    elif turn.job.is_namespace_terminating:
        turn.do(*_release(savepoint, "its namespace is deleted, where pods can do nothing more"))
    elif turn.is_over(savepoint.deleted_at, DISPOSAL_TIMEOUT // timedelta(milliseconds=1)):
        turn.do(*_release(savepoint, "it could not be deleted in time"))
    elif savepoint.status.phase is not SavepointPhase.DISPOSING:
        _write(turn, savepoint, phase=SavepointPhase.DISPOSING)
    elif _is_needed(turn, path):
        turn.wait(f"the job may still go on from {savepoint.name}; it is deleted afterwards")
    elif c is not None:
        known = turn.ask(
            DisposeOrder(
                request_id=object_request_id(savepoint.uid, "dispose", _minute(turn, savepoint)),
                path=path,
            )
        )
        if known is not None and known.phase is RequestPhase.DONE:
            turn.do(SetSavepointFinalizer(savepoint.name, False))
    elif turn.observed.coordinator_workload is None:
        _dispose_by_pod(turn, savepoint, path)
    else:
        turn.look_again(SOON)


def _minute(turn: Turn, savepoint: SavepointObject) -> int:
    """A refused disposal is tried once a minute."""
    assert savepoint.deleted_at is not None, savepoint.name
    return max(0, (turn.now - savepoint.deleted_at) // timedelta(minutes=1))


def _is_needed(turn: Turn, path: str) -> bool:
    """Whether what lies there is what the job would go on from."""
    c, status = turn.coordinator, turn.job.status
    needed = [status.next_restore, *((c.next_restore,) if c is not None else ())]
    if c is not None and c.hold is not None:
        needed.append(c.hold.path)
    if not facts.is_running(c) and status.last_savepoint is not None:
        needed.append(status.last_savepoint.path)  # a stop's: the files of what is resumed from
    return any(p is not None and p.startswith(path.rstrip("/")) for p in needed)


def _dispose_by_pod(turn: Turn, savepoint: SavepointObject, path: str) -> None:
    revision = turn.job.status.revision
    report = next((r for r in turn.observed.disposals if r.purpose == path), None)
    if report is None:
        if revision is not None and turn.has_revision(revision):
            turn.do(RunDisposal(revision, path))
        turn.look_again(SOON)
    elif report.has_ended:
        if _is_disposed(report):
            turn.do(SetSavepointFinalizer(savepoint.name, False))
        turn.do(DeletePods(((report.name, report.uid),)))
    else:
        turn.look_again(SOON)


def _is_disposed(report: Report) -> bool:
    return report.verdict is not None and report.verdict.get("disposed") is True


def _release(savepoint: SavepointObject, why: str) -> tuple[Effect, ...]:
    where = savepoint.status.path or "nowhere"
    return (
        Announce(
            "SavepointOrphaned",
            f"Savepoint {savepoint.name} goes, its files stay at {where}: {why}",
            is_warning=True,
        ),
        SetSavepointFinalizer(savepoint.name, False),
    )
