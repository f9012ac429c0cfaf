"""Another parallelism, in place: new workers are there before anything stops, old ones go last.

What fails leaves the old parallelism running; the failed target is tried again after a while that
grows, until the target changes.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from penstock.spec.orders import RequestPhase, RescaleOrder, RescaleStatus
from penstock.spec.parts.quantities import format_duration, rounded_size
from penstock_operator.reconcile import facts, steady
from penstock_operator.reconcile.turn import Stall, Turn, request_id
from penstock_operator.resources.status import Move, MoveKind, Phase, RescaleView, Step

DONE, FAILED = "Done", "Failed"
BACK_OFF_FIRST = timedelta(minutes=1)
BACK_OFF_MAX = timedelta(hours=1)


def is_wanted(turn: Turn) -> bool:
    """Whether the job runs, proven, at another parallelism than the spec's."""
    c, spec = turn.coordinator, turn.job.spec
    return (
        c is not None
        and spec is not None
        and facts.is_running(c)
        and c.hold is None
        and c.parallelism != spec.parallelism
    )


def begin_when_allowed(turn: Turn) -> None:
    """Intend the change, unless one was made just now or this one failed."""
    c, spec, former = turn.coordinator, turn.job.spec, turn.status.rescale
    assert c is not None, turn.status
    assert spec is not None, turn.status
    target, failures = spec.parallelism, 0
    if former is not None:
        ready_at = _ready_at(former, target, cooldown_ms=spec.rescale.cooldown_ms)
        if ready_at is not None and turn.now < ready_at:
            turn.waits_for = (
                f"parallelism {c.parallelism} → {target} not before {ready_at:%H:%M:%S} UTC"
            )
            turn.look_again(ready_at - turn.now)
            return
        failures = former.failures if former.to == target and former.step == FAILED else 0
    turn.begin(
        MoveKind.RESCALE,
        Step.ADDING_WORKERS,
        reason=f"parallelism {c.parallelism} → {target}",
        to_parallelism=target,
        attempt=c.attempt,
    )
    turn.update(rescale=_view(c.parallelism, target, Step.ADDING_WORKERS, failures))


def _view(old: int, new: int, step: Step, failures: int = 0) -> RescaleView:
    fields = {"from": old, "to": new, "step": step, "failures": failures}
    return RescaleView.model_validate(fields)


def _ready_at(former: RescaleView, target: int, *, cooldown_ms: int) -> datetime | None:
    if former.finished_at is None:
        return None
    if former.step == FAILED:
        return former.retry_at if former.to == target else None
    return former.finished_at + timedelta(milliseconds=cooldown_ms)


def add_workers(turn: Turn) -> None:
    """The step AddingWorkers: the job runs on."""
    move, c = turn.move, turn.coordinator
    assert move is not None, turn.status
    assert move.to_parallelism is not None, move
    steady.keep(turn, replicas=max(move.to_parallelism, steady.workers(turn)))
    if c is not None and facts.is_running(c):
        missing = set(range(move.to_parallelism)) - facts.connected(c)
        if not missing:
            _step(turn, Step.MOVING, "all workers are registered; key groups move")
            return
        turn.wait(f"workers {', '.join(map(str, sorted(missing)[:10]))} are not registered yet")
    else:
        turn.wait("the job does not run at the moment")
    if _is_late(turn, move):
        trouble = facts.trouble(turn.observed, turn.job.status.revision, turn.now)
        _fail(turn, trouble.message if trouble else f"timeout: {turn.waits_for}")


def move_groups(turn: Turn) -> None:
    """The step Moving: the coordinator changes the parallelism, or leaves it."""
    move, c = turn.move, turn.coordinator
    assert move is not None, turn.status
    assert move.to_parallelism is not None, move
    former = turn.status.rescale.from_ if turn.status.rescale is not None else 0
    steady.keep(turn, replicas=max(move.to_parallelism, former, steady.workers(turn)))
    if c is None:
        turn.wait("the coordinator does not answer")
        _say_why_stuck(turn, move)
        return
    if c.phase.is_end:
        _fail(turn, f"the job is {c.phase}")
        return
    if not facts.is_active(c):
        turn.wait(f"the job is {c.phase}")
        return
    order = RescaleOrder(request_id=request_id(move, "rescale"), parallelism=move.to_parallelism)
    known = turn.ask(order) if facts.is_running(c) else turn.outcome(order.request_id)
    is_told = c.rescale is not None and c.rescale.request_id == order.request_id
    if is_told or (known is not None and known.phase is RequestPhase.DONE):
        _moved(turn, move, c.rescale)
    elif known is not None and known.phase is RequestPhase.FAILED:
        _fail(turn, known.error or "the coordinator gave no reason")
    elif _is_late(turn, move) and c.parallelism != move.to_parallelism:
        _fail(turn, "the coordinator did not do it in time")
    else:
        turn.wait("key groups move")


def is_stuck(turn: Turn, move: Move) -> bool:
    """Whether nobody can tell what became of the order, for longer than a rescale may take."""
    is_ordered = (move.kind, move.step) == (MoveKind.RESCALE, Step.MOVING)
    return is_ordered and turn.coordinator is None and _is_late(turn, move)


def _say_why_stuck(turn: Turn, move: Move) -> None:
    trouble = facts.trouble(turn.observed, turn.job.status.revision, turn.now)
    if trouble is not None:
        turn.stall = Stall(trouble.reason, trouble.message)
    elif is_stuck(turn, move):
        turn.stall = Stall("CoordinatorUnreachable", turn.observed.unreachable or "no answer")


def _is_late(turn: Turn, move: Move) -> bool:
    return turn.spec is not None and turn.is_over(move.since, turn.spec.rescale.timeout_ms)


def _moved(turn: Turn, move: Move, figures: RescaleStatus | None) -> None:
    former = turn.status.rescale
    assert move.to_parallelism is not None, move
    fields: dict[str, object] = {"step": Step.REMOVING_WORKERS}
    message = f"{move.to_parallelism} workers run"
    if figures is not None and figures.to_parallelism == move.to_parallelism:
        pause = format_duration(figures.pause_ms)
        fields |= {
            "key_groups_moved": figures.key_groups_moved,
            "bytes_moved": figures.bytes_moved,
            "pause": pause,
        }
        message = (
            f"{message}: {figures.key_groups_moved} key groups moved, "
            f"{rounded_size(figures.bytes_moved)} fetched, no record flowed for {pause}"
        )
    view = former or _view(0, move.to_parallelism, Step.REMOVING_WORKERS)
    turn.update(rescale=view.model_copy(update=fields), parallelism=move.to_parallelism)
    turn.enter(Step.REMOVING_WORKERS, message)


def remove_workers(turn: Turn) -> None:
    """The step RemovingWorkers: those that are not needed go after the first checkpoint."""
    move, c = turn.move, turn.coordinator
    assert move is not None, turn.status
    assert move.to_parallelism is not None, move
    workload = turn.observed.worker_workload
    if c is None or not facts.is_active(c):
        steady.keep(turn, replicas=workload.replicas if workload else move.to_parallelism)
        turn.wait("the coordinator does not answer")
        return
    if c.parallelism != move.to_parallelism:
        _fail(turn, f"the job went back to parallelism {c.parallelism}")
        return
    is_smaller = workload is not None and workload.replicas > move.to_parallelism
    if is_smaller and not steady.has_proven_parallelism(turn, c):
        assert workload is not None, turn.status
        steady.keep(turn, replicas=workload.replicas)
        turn.wait("the first checkpoint at the new parallelism")
        return
    steady.keep(turn, replicas=move.to_parallelism)
    if any((pod.ordinal or 0) >= move.to_parallelism for pod in turn.observed.worker_pods):
        turn.wait("workers that are not needed go")
        return
    if _has_surplus(turn, move.to_parallelism) and not steady.drop_surplus_claims(turn):
        turn.wait("volumes that are not needed go")
        return
    _tell(turn, step=DONE, failures=0, retry_at=None, finished_at=turn.now)
    turn.finish(DONE, _summary(turn), phase=Phase.RUNNING)


def _has_surplus(turn: Turn, parallelism: int) -> bool:
    return any(claim.ordinal >= parallelism for claim in turn.observed.claims)


def _summary(turn: Turn) -> str:
    view = turn.status.rescale
    assert view is not None, turn.status
    text = f"parallelism {view.from_} → {view.to}"
    if view.key_groups_moved is None or view.bytes_moved is None:
        return text
    return (
        f"{text}: {view.key_groups_moved} key groups moved, {rounded_size(view.bytes_moved)} "
        f"fetched, paused for {view.pause}"
    )


def _step(turn: Turn, step: Step, message: str) -> None:
    turn.enter(step, message)
    _tell(turn, step=step)


def _fail(turn: Turn, why: str) -> None:
    view = turn.status.rescale
    failures = (view.failures if view else 0) + 1
    wait = min(BACK_OFF_FIRST * (1 << min(failures - 1, 10)), BACK_OFF_MAX)
    _tell(
        turn,
        step=FAILED,
        reason=why,
        failures=failures,
        retry_at=turn.now + wait,
        finished_at=turn.now,
    )
    turn.finish(
        FAILED,
        f"{why}; the old parallelism stays, the next try is in "
        f"{format_duration(wait // timedelta(milliseconds=1))}",
        phase=Phase.RUNNING,
        is_warning=True,
    )


def give_up(turn: Turn, why: str) -> None:
    """A stronger change is to be made first."""
    _tell(turn, step=FAILED, reason=why, finished_at=turn.now, retry_at=turn.now)
    turn.finish("Preempted", why, phase=Phase.RUNNING)


def _tell(turn: Turn, **fields: object) -> None:
    if turn.status.rescale is not None:
        turn.update(rescale=turn.status.rescale.model_copy(update=fields))
