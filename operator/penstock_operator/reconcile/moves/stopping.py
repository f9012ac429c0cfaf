"""How a run is brought to its end: the step Stopping of every move that has one.

The way is an intention like any other: with a savepoint from a job that runs, else from the newest
checkpoint; once it is changed to the latter there is no way back. A run is over when its coordinator
says so; without its answer, when it can give none and has been waited for: whoever opens the next
attempt fences the old one.
"""

from __future__ import annotations

from datetime import timedelta

from penstock.spec.orders import (
    CancelOrder,
    JobPhase,
    JobStatus,
    RefusalKind,
    RequestPhase,
    StopOrder,
)
from penstock.spec.parts.moves import UpgradeMode, WhenUnhealthy
from penstock.spec.streamjob import DesiredState
from penstock_operator.reconcile import facts
from penstock_operator.reconcile.effects import CreateSavepoint
from penstock_operator.reconcile.turn import SOON, Stall, Turn, request_id, savepoint_name
from penstock_operator.resources.names import ANNOTATION_REQUEST_ID
from penstock_operator.resources.status import (
    Move,
    MoveKind,
    SavepointPhase,
    SavepointSpec,
    StopWay,
)

_UNHEALTHY_GRACE_MS = 30_000
"""A job that restarts by itself may be healthy again in a moment."""
STOP_RETRY = timedelta(seconds=30)
_CANCEL_RETRY = timedelta(seconds=5)
_RECORD_GRACE_MS = 30_000
_UNREACHABLE_IN_ROLLBACK_MS = 60_000
_UNCOMMITTED_IN_ROLLBACK_MS = 60_000
_CRASHING_MS = 120_000
OPEN = frozenset({SavepointPhase.PENDING, SavepointPhase.RUNNING})


def stop(turn: Turn) -> bool:
    """Do the next thing towards the end of the run; whether it is over."""
    move, c = turn.move, turn.coordinator
    assert move is not None, turn.status
    if move.way is StopWay.NOTHING and c is None:
        return True
    if c is None or c.phase is JobPhase.STOOD_DOWN:
        return _goes_without_answer(turn, move)
    if c.phase.is_end:
        return _is_recorded(turn, move)
    if c.phase is JobPhase.WAITING and not facts.is_about_to_recover(turn.observed):
        return True
    if c.phase is JobPhase.ENDING:
        return _goes_uncommitted(turn, move, c)
    if move.way in (None, StopWay.NOTHING):
        turn.note(way=_way(turn, move))
    elif move.way is StopWay.SAVEPOINT:
        _with_savepoint(turn, move)
    else:
        return _from_checkpoint(turn, move, c.phase)
    return False


def _goes_uncommitted(turn: Turn, move: Move, c: JobStatus) -> bool:
    """Whether the coordinator that follows is left to commit what the sinks of this one cannot.

    The end stands in the log, and nobody opens an attempt before all is committed. After a pause
    nobody follows, so one waits. A savepoint may have taken all of the first time-out.
    """
    turn.wait("sinks commit what the run has completed")
    timeout_ms = _timeout_ms(turn)
    if move.kind is MoveKind.ROLLBACK:
        return turn.is_over(move.since, min(timeout_ms, _UNCOMMITTED_IN_ROLLBACK_MS))
    somebody_follows = move.kind is not MoveKind.DELETE and not _ends_in_a_pause(turn, move)
    if somebody_follows and turn.is_over(move.since, 2 * timeout_ms):
        return True
    if turn.is_over(move.since, timeout_ms):
        why = c.uncommitted or c.last_error
        said = f": {facts.shortened(why.what)}" if why else ""
        turn.stall = Stall(
            "EndNotCommitted", f"revision {c.revision} cannot commit what its run completed{said}"
        )
    return False


def _ends_in_a_pause(turn: Turn, move: Move) -> bool:
    if turn.is_valid and turn.spec is not None:
        return turn.spec.desired_state is DesiredState.SUSPENDED
    return move.kind is MoveKind.SUSPEND


def stop_request_id(move: Move) -> str:
    """Names the stop of this move and try; its Savepoint carries it, too."""
    return request_id(move, "stop")


def _way(turn: Turn, move: Move) -> StopWay:
    spec = turn.spec
    match move.kind:
        case MoveKind.ROLLBACK:
            return StopWay.CHECKPOINT
        case MoveKind.UPGRADE if (
            spec is not None and spec.upgrade.mode is not UpgradeMode.SAVEPOINT
        ):
            return StopWay.CHECKPOINT
        case _:
            return StopWay.SAVEPOINT


def _with_savepoint(turn: Turn, move: Move) -> None:
    c = turn.coordinator
    assert c is not None, move
    if move.not_before is not None and turn.now < move.not_before:
        turn.wait(move.reason or "the next try to stop with a savepoint")
        return
    if c.phase not in (JobPhase.RUNNING, JobPhase.STOPPING):
        _unhealthy(turn, move, f"the job is {c.phase}, it can take no savepoint")
        return
    order = StopOrder(request_id=stop_request_id(move))
    name = savepoint_name(turn.job.name, order.request_id)
    if all(s.name != name for s in turn.observed.savepoints):
        turn.do(
            CreateSavepoint(
                name,
                SavepointSpec(job_name=turn.job.name),
                annotations=((ANNOTATION_REQUEST_ID, order.request_id),),
            )
        )
    known = turn.ask(order)
    if known is not None and known.phase is RequestPhase.FAILED:
        _savepoint_failed(turn, move, f"the savepoint failed: {known.error or 'no reason given'}")
    elif turn.is_over(move.since, _timeout_ms(turn)):
        _savepoint_failed(turn, move, "the savepoint took longer than the timeout")
    else:
        turn.wait("the job stops with a savepoint")


def _unhealthy(turn: Turn, move: Move, why: str) -> None:
    if not turn.is_over(move.since, _UNHEALTHY_GRACE_MS):
        turn.wait(f"{why} yet")
    elif _waits_for_health(turn, move):
        turn.wait(f"{why}; upgrade.whenUnhealthy is Wait")
    else:
        _take_checkpoint(turn, why)


def _savepoint_failed(turn: Turn, move: Move, why: str) -> None:
    if _waits_for_health(turn, move):
        turn.try_again(STOP_RETRY, since=turn.now)
        turn.announce("SavepointFailed", f"{why}; it is tried again", is_warning=True)
    else:
        _take_checkpoint(turn, why)


def _take_checkpoint(turn: Turn, why: str) -> None:
    turn.try_again(way=StopWay.CHECKPOINT, since=turn.now)
    turn.announce(
        "SavepointNotTaken", f"{why}; the newest checkpoint is gone on from", is_warning=True
    )


def _waits_for_health(turn: Turn, move: Move) -> bool:
    if move.kind is MoveKind.DELETE or turn.spec is None:
        return False
    return turn.spec.upgrade.when_unhealthy is WhenUnhealthy.WAIT


def _from_checkpoint(turn: Turn, move: Move, phase: JobPhase) -> bool:
    """Whether there is nothing to cancel, or the coordinator has refused to for so long that it is
    fenced by the next one, as one without an answer is."""
    if move.error is not None:
        turn.stall = Stall("StopRefused", f"the coordinator refuses to end the run: {move.error}")
    if move.not_before is not None and turn.now < move.not_before:
        turn.look_again(SOON)
        return False
    order = CancelOrder(request_id=request_id(move, "cancel"), retain=True)
    known = turn.ask(order)
    if known is None or known.phase is not RequestPhase.FAILED:
        turn.wait("the run is cancelled, to go on from its newest checkpoint")
        return False
    if known.refusal is RefusalKind.OUTDATED:
        turn.try_again(_CANCEL_RETRY, error=None)
        return phase is JobPhase.WAITING  # there was nothing to cancel
    if move.error is not None and turn.is_over(move.since, _refused_ms(turn, move)):
        turn.stall = None
        turn.announce(
            "StopRefused", f"the run is fenced, it was not ended: {move.error}", is_warning=True
        )
        return True
    turn.try_again(_CANCEL_RETRY, error=known.error or "it gives no reason")
    return phase is JobPhase.WAITING


def _refused_ms(turn: Turn, move: Move) -> int:
    timeout_ms, is_back = _timeout_ms(turn), move.kind is MoveKind.ROLLBACK
    return min(timeout_ms, _UNREACHABLE_IN_ROLLBACK_MS) if is_back else timeout_ms


def _is_recorded(turn: Turn, move: Move) -> bool:
    """Whether the savepoint that ended the run stands in its Savepoint; asked again if need be."""
    if move.way is not StopWay.SAVEPOINT:
        return True
    order = StopOrder(request_id=stop_request_id(move))
    name = savepoint_name(turn.job.name, order.request_id)
    made = next((s for s in turn.observed.savepoints if s.name == name), None)
    if made is None or made.status.phase not in OPEN:
        return True
    turn.ask(order)
    turn.wait("the savepoint of the stop is written down")
    return turn.is_over(move.since, _timeout_ms(turn) + _RECORD_GRACE_MS)


def _goes_without_answer(turn: Turn, move: Move) -> bool:
    never_ran = turn.status.attempt == 0
    if never_ran or turn.is_over(move.since, _patience_ms(turn, move)):
        return True
    turn.wait("the coordinator does not answer")
    return False


def _patience_ms(turn: Turn, move: Move) -> int:
    """How long an answer is waited for: a container that was killed twice is back in a minute, and may
    have the end of the run to tell. Of a version that does not run nothing is expected."""
    timeout_ms, cannot = _timeout_ms(turn), facts.cannot_answer(turn.observed)
    if move.kind is MoveKind.ROLLBACK:
        return 0 if cannot else min(timeout_ms, _UNREACHABLE_IN_ROLLBACK_MS)
    return min(timeout_ms, _CRASHING_MS) if cannot else timeout_ms


def _timeout_ms(turn: Turn) -> int:
    return turn.spec.upgrade.timeout_ms if turn.spec is not None else 600_000
