"""Which move comes next, and which step of it does what.

One move at a time. A spec that changes during a move is taken up at the next safe point: before the
stop, after it, after stable or rolled back; a rescale gives way to whatever is stronger.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from penstock.spec.orders import JobPhase, restore_id_of
from penstock.spec.streamjob import DesiredState
from penstock_operator.reconcile import facts, learning, requests, steady
from penstock_operator.reconcile.effects import EnsureWorkers, RemoveCoordinator
from penstock_operator.reconcile.moves import deletion, rescale, starting, stopping, upgrade
from penstock_operator.reconcile.turn import Stall, Turn
from penstock_operator.resources.conditions import ConditionType
from penstock_operator.resources.status import Move, MoveKind, Phase, Step, StopWay

PHASES: Mapping[MoveKind, Phase] = MappingProxyType(
    {
        MoveKind.START: Phase.STARTING,
        MoveKind.UPGRADE: Phase.UPGRADING,
        MoveKind.ROLLBACK: Phase.ROLLING_BACK,
        MoveKind.RESCALE: Phase.RESCALING,
        MoveKind.RESTORE: Phase.RESTORING,
        MoveKind.RESTART: Phase.RESTARTING,
        MoveKind.SUSPEND: Phase.SUSPENDING,
        MoveKind.DELETE: Phase.DELETING,
    }
)
"""What the job's phase is while a move goes on."""

_AFTER_THE_STOP = (Step.REPLACING, Step.STARTING, Step.STABILIZING)
DROPPED_AT_ONCE = frozenset(
    {
        (MoveKind.START, Step.REPLACING),
        (MoveKind.START, Step.STARTING),
        (MoveKind.RESTART, Step.REPLACING),
        (MoveKind.RESTART, Step.STARTING),
        (MoveKind.RESTORE, Step.REPLACING),
        (MoveKind.RESTORE, Step.STARTING),
        (MoveKind.UPGRADE, Step.CHECKING),
        (MoveKind.RESCALE, Step.ADDING_WORKERS),
        (MoveKind.RESCALE, Step.REMOVING_WORKERS),
    }
)
"""Where a move can be dropped for another one, which begins from what is there: a job that runs, or one
that was ended and may not start again without what is wanted now."""


# ── no move is under way ────────────────────────────────────────────────────────────────────────


def choose(turn: Turn) -> None:
    """Intend the move that the difference between spec and world asks for, the strongest first."""
    spec = turn.job.spec
    if spec is None or not turn.is_valid:
        _start_what_was_accepted(turn)
        return
    if spec.desired_state is DesiredState.SUSPENDED:
        _suspend_if_running(turn)
        return
    target = wanted_revision(turn)
    if target is None or not turn.has_revision(target):
        return
    status = turn.status
    if status.revision is None:
        _begin_start(turn, target, "the job is started")
    elif status.revision != target:
        upgrade.begin(turn, target, way=StopWay.NOTHING if deletion.nothing_runs(turn) else None)
    elif learning.is_needed(turn):
        return
    elif learning.was_replacing(turn):
        upgrade.take_up(turn, target)
    elif not _is_up(turn):
        _begin_start(turn, target, _why_started(turn))
    elif turn.coordinator is None:
        return  # what is there is kept; what it does is not known
    elif starting.lacks_workers(turn):
        _begin_start(turn, target, f"there is no room for {turn.coordinator.parallelism} workers")
    elif _is_restored_anew(turn):
        turn.begin(
            MoveKind.RESTORE,
            Step.STOPPING,
            reason=f"spec.restore changed: from {spec.restore.from_}",
            to_revision=target,
        )
    elif requests.is_restart_asked_for(turn):
        requests.note_restart(turn)
        turn.begin(
            MoveKind.RESTART,
            Step.STOPPING,
            reason="a restart was asked for by annotation",
            to_revision=target,
        )
    elif rescale.is_wanted(turn):
        rescale.begin_when_allowed(turn)


def _start_what_was_accepted(turn: Turn) -> None:
    """The spec has mistakes: what ran before them runs on."""
    revision = turn.status.revision
    is_wanted = turn.job.status.phase is not Phase.SUSPENDED and turn.spec is not None
    is_wanted = is_wanted and not learning.is_needed(turn)
    if revision is not None and turn.has_revision(revision) and is_wanted and not _is_up(turn):
        _begin_start(turn, revision, _why_started(turn))


def wanted_revision(turn: Turn) -> str | None:
    """The spec's, but not one that failed: then what runs stays."""
    revision, status = turn.job.revision, turn.status
    is_banned = revision == status.failed_revision and status.revision is not None
    return status.revision if is_banned else revision


def _is_up(turn: Turn) -> bool:
    """Whether somebody runs the job, may be about to, or it is over by itself."""
    c, status = turn.coordinator, turn.job.status
    if status.phase is Phase.SUSPENDED:
        return False
    if c is None:
        return status.phase is not Phase.PENDING or bool(turn.status.attempt)
    if c.phase in (JobPhase.STOPPED, JobPhase.CANCELLED):
        return False
    if c.phase is not JobPhase.WAITING:
        return True
    return facts.is_about_to_recover(turn.observed) and not _has_waited(turn)


def _has_waited(turn: Turn) -> bool:
    """Whether a coordinator that should recover by itself does not: an order gets a reason."""
    ready = next((c for c in turn.job.status.conditions if c.type == ConditionType.READY), None)
    return (
        ready is not None
        and (ready.status, ready.reason) == ("False", JobPhase.WAITING)
        and turn.is_over(ready.last_transition_time, starting.RECOVERY_PATIENCE_MS)
    )


def _why_started(turn: Turn) -> str:
    c = turn.coordinator
    if turn.job.status.phase is Phase.SUSPENDED:
        return "the job is resumed"
    if c is not None and c.phase in (JobPhase.STOPPED, JobPhase.CANCELLED):
        return f"the job is {c.phase}, and spec.desiredState is Running"
    return "the job is started"


def _begin_start(turn: Turn, revision: str, reason: str) -> None:
    assert turn.spec is not None, turn.status
    turn.begin(
        MoveKind.START,
        Step.REPLACING,
        reason=reason,
        to_revision=revision,
        to_parallelism=turn.spec.parallelism,
        way=StopWay.NOTHING,
    )
    turn.update(revision=revision)


def _is_restored_anew(turn: Turn) -> bool:
    obeyed, spec = turn.job.status.restore_id, turn.job.spec
    if spec is None or obeyed is None or starting.is_latest(spec.restore):
        return False
    return obeyed != restore_id_of(spec.restore)


def _suspend_if_running(turn: Turn) -> None:
    observed = turn.observed
    nothing_is_there = (
        observed.coordinator_workload is None
        and not observed.coordinator_pods
        and not observed.worker_pods
    )
    if turn.job.status.phase is Phase.SUSPENDED:
        return
    if nothing_is_there:
        turn.update(phase=Phase.SUSPENDED)
    else:
        turn.begin(
            MoveKind.SUSPEND,
            Step.STOPPING,
            reason="spec.desiredState is Suspended",
            way=StopWay.NOTHING if deletion.nothing_runs(turn) else None,
        )


# ── a move is under way ─────────────────────────────────────────────────────────────────────────


def go_on(turn: Turn) -> None:
    """Do what the step of the move asks for, unless the spec asks for something stronger by now."""
    move = turn.move
    assert move is not None, turn.status
    step = STEPS.get((move.kind, move.step))
    if step is None or not _is_whole(move):
        turn.finish("Withdrawn", f"nobody knows how to go on: {move.step}", phase=Phase.PENDING)
    elif turn.spec is None:
        turn.wait("the spec has mistakes, and no revision is left that had none")
    elif _can_be_dropped(turn, move) and _is_overtaken(turn, move):
        if starting.is_taken_back(turn):
            _drop(turn, move)
    else:
        step(turn)


def _is_whole(move: Move) -> bool:
    """Whether the intention says all that its step goes by; one that lost a part is none."""
    needs_revision = move.kind not in (MoveKind.RESCALE, MoveKind.SUSPEND)
    needs_parallelism = move.step in _AFTER_THE_STOP or move.kind is MoveKind.RESCALE
    return not (needs_revision and move.to_revision is None) and not (
        needs_parallelism and move.to_parallelism is None
    )


def _can_be_dropped(turn: Turn, move: Move) -> bool:
    return (move.kind, move.step) in DROPPED_AT_ONCE or rescale.is_stuck(turn, move)


def _is_overtaken(turn: Turn, move: Move) -> bool:
    spec = turn.job.spec
    if spec is None or not turn.is_valid:
        return False
    if spec.desired_state is DesiredState.SUSPENDED:
        return True
    target = wanted_revision(turn)
    if move.kind is not MoveKind.RESCALE:
        return target != move.to_revision
    is_stronger = (
        (target != turn.job.status.revision and turn.has_revision(target))
        or _is_restored_anew(turn)
        or requests.is_restart_asked_for(turn)
    )
    is_other_target = move.step is Step.ADDING_WORKERS and spec.parallelism != move.to_parallelism
    return is_stronger or is_other_target


def _drop(turn: Turn, move: Move) -> None:
    """What is wanted now begins from what is there; no order of this move is left that could change it."""
    why = "the spec changed in the meantime"
    if move.kind is MoveKind.RESCALE:
        rescale.give_up(turn, why)
        return
    is_idle = deletion.nothing_runs(turn)
    if turn.status.upgrade is not None and move.kind is MoveKind.UPGRADE:
        turn.update(upgrade=turn.status.upgrade.model_copy(update={"step": "Withdrawn"}))
    turn.finish("Withdrawn", why, phase=Phase.SUSPENDED if is_idle else Phase.PENDING)


def _start_step(turn: Turn) -> None:
    """The step Starting of a move that leads to a running job."""
    move, c = turn.move, turn.coordinator
    assert move is not None, turn.status
    if not starting.start(turn):
        _say_what_is_wrong(turn, move)
        return
    is_finished = c is not None and c.phase is JobPhase.FINISHED
    turn.update(restore_id=move.restore_id)
    turn.finish(
        "Done",
        "there was nothing left to read"
        if is_finished
        else f"attempt {c.attempt if c else 0} runs",
        phase=Phase.FINISHED if is_finished else Phase.RUNNING,
    )


def _say_what_is_wrong(turn: Turn, move: Move) -> None:
    """Why nothing starts: it goes on being tried, as pods do, less and less often."""
    trouble = facts.trouble(turn.observed, move.to_revision, turn.now)
    if trouble is not None and turn.stall is None:
        turn.stall = Stall(trouble.reason, trouble.message)
    if (loop := starting.crash_loop(turn, move)) is not None:
        turn.stall = Stall("CrashLoop", loop)
    starting.look_at_refusal(turn, move, "StartRefused")


def _replace_step(turn: Turn) -> None:
    move = turn.move
    assert move is not None, turn.status
    if starting.replace(turn):
        starting.enter_starting(turn, "the coordinator is ordered to start the job")
    else:
        _say_what_is_wrong(turn, move)


def _stop_step(turn: Turn) -> None:
    """The step Stopping; after it the spec is looked at again."""
    move = turn.move
    assert move is not None, turn.status
    if move.way is not StopWay.NOTHING:
        c = turn.coordinator
        is_over = c is not None and c.phase.is_end
        steady.keep(turn, replicas=None if not is_over else _present_workers(turn))
    if stopping.stop(turn):
        _after_stop(turn, move)


def _present_workers(turn: Turn) -> int:
    workload = turn.observed.worker_workload
    return workload.replicas if workload is not None else 0


def _after_stop(turn: Turn, move: Move) -> None:
    """The safe point after a stop: what does the spec want now?"""
    spec, target = turn.spec, wanted_revision(turn) if turn.is_valid else move.to_revision
    wants_pause = (
        turn.is_valid and spec is not None and spec.desired_state is DesiredState.SUSPENDED
    )
    if wants_pause or (move.kind is MoveKind.SUSPEND and not turn.is_valid):
        _become(turn, move, MoveKind.SUSPEND)
        turn.enter(Step.REMOVING_WORKERS, "pods go, volumes stay")
    elif move.kind is MoveKind.UPGRADE and target == move.to_revision:
        upgrade.enter_replacing(turn)
    elif move.kind in (MoveKind.RESTORE, MoveKind.RESTART) and target == move.to_revision:
        assert target is not None, move
        starting.enter_replacing(turn, "the job is stopped", to_revision=target)
    else:
        _rest(turn, "the spec changed in the meantime")


def _rest(turn: Turn, why: str) -> None:
    """The run was ended for what is not wanted any more: the next move begins from there."""
    turn.finish("Withdrawn", why, phase=Phase.PENDING)


def _become(turn: Turn, move: Move, kind: MoveKind) -> None:
    if move.kind is not kind:
        turn.note(kind=kind, reason="spec.desiredState is Suspended")


def _take_down(turn: Turn) -> None:
    """The last step of a suspension: no pod is left."""
    observed, revision = turn.observed, turn.job.status.revision
    if revision is not None and turn.has_revision(revision) and observed.worker_workload:
        turn.do(EnsureWorkers(revision, 0))
    if observed.coordinator_workload is not None:
        turn.do(RemoveCoordinator())
    has_pods = bool(observed.worker_pods or observed.coordinator_pods)
    if has_pods or observed.coordinator_workload is not None:
        turn.wait("pods go")
    else:
        turn.finish("Done", "no pod is left; volumes and state stay", phase=Phase.SUSPENDED)


STEPS: Mapping[tuple[MoveKind, Step], Callable[[Turn], None]] = MappingProxyType(
    {
        (MoveKind.START, Step.REPLACING): _replace_step,
        (MoveKind.START, Step.STARTING): _start_step,
        (MoveKind.UPGRADE, Step.CHECKING): upgrade.check,
        (MoveKind.UPGRADE, Step.STOPPING): _stop_step,
        (MoveKind.UPGRADE, Step.REPLACING): upgrade.replace,
        (MoveKind.UPGRADE, Step.STARTING): upgrade.start,
        (MoveKind.UPGRADE, Step.STABILIZING): upgrade.stabilize,
        (MoveKind.ROLLBACK, Step.STOPPING): upgrade.stop_failed,
        (MoveKind.ROLLBACK, Step.REPLACING): upgrade.replace_back,
        (MoveKind.ROLLBACK, Step.STARTING): upgrade.start_back,
        (MoveKind.RESCALE, Step.ADDING_WORKERS): rescale.add_workers,
        (MoveKind.RESCALE, Step.MOVING): rescale.move_groups,
        (MoveKind.RESCALE, Step.REMOVING_WORKERS): rescale.remove_workers,
        (MoveKind.RESTORE, Step.STOPPING): _stop_step,
        (MoveKind.RESTORE, Step.REPLACING): _replace_step,
        (MoveKind.RESTORE, Step.STARTING): _start_step,
        (MoveKind.RESTART, Step.STOPPING): _stop_step,
        (MoveKind.RESTART, Step.REPLACING): _replace_step,
        (MoveKind.RESTART, Step.STARTING): _start_step,
        (MoveKind.SUSPEND, Step.STOPPING): _stop_step,
        (MoveKind.SUSPEND, Step.REMOVING_WORKERS): _take_down,
    }
)
"""Every step of every move but a deletion's, which is `deletion`'s."""
