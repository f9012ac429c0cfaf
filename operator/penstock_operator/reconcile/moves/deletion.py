"""The end of a StreamJob: what becomes of its state, and when our finalizer goes.

A finalizer stands only where something is to be done first, never waits for a job that cannot run,
and goes anyway after a time; state then stays where it is, and that is told.
"""

from __future__ import annotations

from penstock.spec.orders import CancelOrder, RequestPhase
from penstock.spec.parts.moves import Deletion, DeletionPolicy
from penstock_operator.reconcile import facts, steady
from penstock_operator.reconcile.effects import (
    EnsureWorkers,
    RemoveCoordinator,
    RunDisposal,
    SetFinalizer,
)
from penstock_operator.reconcile.moves import stopping
from penstock_operator.reconcile.turn import SOON, Turn, request_id
from penstock_operator.resources.names import (
    ANNOTATION_DELETION,
    DELETION_FORCE,
    FINALIZER_STREAMJOB,
)
from penstock_operator.resources.status import Move, MoveKind, Phase, Step, StopWay

_TRIES_MAX = 5
_AT_REST = (Phase.SUSPENDED, Phase.FINISHED, Phase.FAILED)
ALL_CHECKPOINTS = "checkpoints"
"""The purpose of a disposal that is not about one savepoint."""


def guard(turn: Turn) -> None:
    """A finalizer for the policies that need one, none for the other."""
    if turn.job.spec is None:
        return  # what was recorded with the revision may be older than what was wished last
    wanted = turn.job.spec.deletion.policy is not DeletionPolicy.RETAIN
    if wanted != _has_finalizer(turn):
        turn.do(SetFinalizer(wanted))


def take(turn: Turn) -> None:
    """Whatever the deletion needs next."""
    turn.update(phase=Phase.DELETING)
    if not _has_finalizer(turn):
        return
    move = turn.move
    if move is None or move.kind is not MoveKind.DELETE:
        _begin(turn)
        return
    if move.step is Step.RELEASING:
        turn.do(SetFinalizer(False))
        turn.wait("the finalizer goes")
        return
    if (why := _must_release(turn)) is not None:
        _release(turn, why, is_warning=True)
        return
    match move.step:
        case Step.STOPPING:
            _stop(turn)
        case _:
            _dispose(turn)


def _begin(turn: Turn) -> None:
    policy = _rules(turn).policy
    status = turn.job.status
    is_at_rest = status.phase in _AT_REST or status.revision is None or not _may_have_run(turn)
    is_idle = nothing_runs(turn) and is_at_rest
    turn.begin(
        MoveKind.DELETE,
        Step.STOPPING,
        reason=f"the object is deleted; deletion.policy is {policy}",
        way=StopWay.NOTHING if is_idle else None,
    )


def nothing_runs(turn: Turn) -> bool:
    """Whether there is nobody who could run the job."""
    observed = turn.observed
    return observed.coordinator_workload is None and not observed.coordinator_pods


def _rules(turn: Turn) -> Deletion:
    """As the object says; from one that cannot be read nothing is deleted on a guess."""
    return turn.job.spec.deletion if turn.job.spec is not None else Deletion()


def _has_finalizer(turn: Turn) -> bool:
    return FINALIZER_STREAMJOB in turn.job.finalizers


def _must_release(turn: Turn) -> str | None:
    """Why nothing is waited for any longer."""
    job, rules = turn.job, _rules(turn)
    if job.annotations.get(ANNOTATION_DELETION) == DELETION_FORCE:
        return f"the annotation {ANNOTATION_DELETION} says so"
    if job.is_namespace_terminating:
        return "its namespace is deleted, where pods can do nothing more: policy Retain"
    if rules.policy is DeletionPolicy.RETAIN:
        return "deletion.policy is Retain"
    assert job.deleted_at is not None, job.name
    if turn.is_over(job.deleted_at, rules.timeout_ms):
        return "deletion.timeout is over"
    return None


def _release(turn: Turn, why: str, *, is_warning: bool = False, keeps: bool = True) -> None:
    move, where = turn.move, turn.status.next_restore if keeps else None
    is_newest = turn.coordinator is not None or (move is not None and move.way is StopWay.NOTHING)
    beside = "" if is_newest else ", or newer beside it"
    kept = f"; the job's state stays at {where}{beside}" if where else ""
    turn.enter(Step.RELEASING, f"the object goes: {why}{kept}", is_warning=is_warning)


def _stop(turn: Turn) -> None:
    move, observed = turn.move, turn.observed
    assert move is not None, turn.status
    workload = observed.coordinator_workload
    is_taken_down = workload is None or workload.is_deleting
    if move.way is not StopWay.NOTHING and not is_taken_down:
        _keep_while_it_ends(turn)
    drops_all = _rules(turn).policy is DeletionPolicy.DELETE and _may_have_run(turn)
    if turn.coordinator is not None and drops_all:
        _drop_checkpoints(turn, move)
        return
    # A foreground deletion takes the coordinator away before the finalizer goes.
    if turn.coordinator is None and is_taken_down:
        _after_stop(turn, was_seen=move.way is StopWay.NOTHING)
    elif stopping.stop(turn):
        _after_stop(turn)


def _drop_checkpoints(turn: Turn, move: Move) -> None:
    """The coordinator ends the run, if there is one, and deletes what it has."""
    known = turn.ask(CancelOrder(request_id=request_id(move, "drop"), retain=False))
    if known is not None and known.phase is RequestPhase.DONE:
        _release(turn, "its checkpoints are deleted", keeps=False)
    elif known is not None and known.phase is RequestPhase.FAILED and move.tries < _TRIES_MAX:
        turn.try_again(SOON)
    elif known is not None and known.phase is RequestPhase.FAILED:
        turn.enter(Step.DISPOSING, f"the coordinator cannot delete its checkpoints: {known.error}")
    else:
        turn.wait("the coordinator deletes the job's checkpoints")


def _keep_while_it_ends(turn: Turn) -> None:
    c = turn.coordinator
    needs_workers = c is None or not c.phase.is_end
    steady.keep(turn, replicas=None if needs_workers else 0)


def _after_stop(turn: Turn, *, was_seen: bool = True) -> None:
    if _rules(turn).policy is DeletionPolicy.DELETE and _may_have_run(turn):
        turn.enter(Step.DISPOSING, "a pod deletes the job's checkpoints")
    elif not _may_have_run(turn):
        _release(turn, "it never ran")
    elif was_seen:
        _release(turn, "the run has ended")
    else:
        why = "its pods were deleted before it, and nobody has seen its run end: policy Retain"
        _release(turn, why, is_warning=True)


def _may_have_run(turn: Turn) -> bool:
    """Whether there may be state: nobody may have told so far."""
    return turn.status.attempt != 0


def _dispose(turn: Turn) -> None:
    """Delete all checkpoints with a pod of their own, once no other pod is left."""
    observed, revision = turn.observed, turn.job.status.revision
    if revision is None or not turn.has_revision(revision):
        _release(turn, "no revision is left that could delete its checkpoints", is_warning=True)
        return
    if observed.worker_workload is not None and observed.worker_workload.replicas > 0:
        turn.do(EnsureWorkers(revision, 0))
    if observed.coordinator_workload is not None:
        turn.do(RemoveCoordinator())
    if observed.worker_pods or observed.coordinator_pods:
        turn.wait("pods go")
        return
    report = next((r for r in observed.disposals if r.purpose == ALL_CHECKPOINTS), None)
    if report is None:
        turn.do(RunDisposal(revision, None))
        turn.wait("a pod deletes the job's checkpoints")
    elif not report.has_ended:
        turn.wait("a pod deletes the job's checkpoints")
    elif report.verdict is not None and report.verdict.get("disposed") is True:
        _release(turn, "its checkpoints are deleted", keeps=False)
    else:
        told = facts.sentence_of(dict(report.verdict or {"what": report.message}))
        _release(
            turn, f"its checkpoints could not be deleted: {told or 'no reason'}", is_warning=True
        )
