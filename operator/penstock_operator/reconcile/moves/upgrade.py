"""From one version to the next, and back when the next one does not run.

Checking while the old one runs, Stopping, Replacing, Starting under a hold, Stabilizing until the
hold is over; a version that fails on the way is remembered, and the last stable one goes on from the
snapshot before it.
"""

from __future__ import annotations

from penstock.spec.changes import FieldClass, changes
from penstock.spec.orders import JobPhase, JobStatus, restore_id_of
from penstock.spec.parts.moves import UpgradeMode
from penstock.spec.parts.quantities import format_duration
from penstock.spec.streamjob import DesiredState, StreamJobSpec
from penstock_operator.reconcile import facts
from penstock_operator.reconcile.moves import checking, starting, stopping
from penstock_operator.reconcile.steady import keep
from penstock_operator.reconcile.turn import DONE, RUNNING, Stall, Turn, savepoint_name
from penstock_operator.resources.names import ANNOTATION_RETRY, ANNOTATION_ROLLBACK, request_kind
from penstock_operator.resources.status import (
    Move,
    MoveKind,
    Phase,
    Step,
    StopWay,
    UpgradeView,
)

REFUSED, FAILED, STABLE, ROLLED_BACK = "Refused", "Failed", "Stable", "RolledBack"
CHECK_FAILED = "CheckFailed"
"""How an upgrade ends, in `status.upgrade.step` and in the history."""


def begin(turn: Turn, revision: str, *, way: StopWay | None) -> None:
    """Intend the upgrade; `way` Nothing: there is no run to stop."""
    reason = plan(turn, way)
    turn.begin(MoveKind.UPGRADE, Step.CHECKING, reason=reason, to_revision=revision, way=way)
    turn.update(upgrade=_view(turn, turn.status.revision, revision, Step.CHECKING, reason))


def _view(turn: Turn, old: str | None, new: str, step: Step, reason: str) -> UpgradeView:
    return UpgradeView.model_validate(
        {
            "from": old,
            "to": new,
            "step": step,
            "snapshot": turn.status.next_restore,
            "reason": reason,
            "started_at": turn.now,
        }
    )


def take_up(turn: Turn, revision: str) -> None:
    """Intend to go on with one whose status was lost after the stop."""
    c, spec = turn.coordinator, turn.spec
    assert c is not None, turn.status
    assert spec is not None, turn.status
    reason = f"revision {c.revision} ran last; {_snapshot(turn, spec, StopWay.NOTHING)}"
    turn.begin(
        MoveKind.UPGRADE,
        Step.REPLACING,
        reason=reason,
        to_revision=revision,
        to_parallelism=spec.parallelism,
        way=StopWay.NOTHING,
        snapshot=c.next_restore,
    )
    turn.update(upgrade=_view(turn, c.revision, revision, Step.REPLACING, reason))


def plan(turn: Turn, way: StopWay | None) -> str:
    """What changed, which snapshot is carried over, and why that one, in a sentence."""
    spec = turn.spec
    assert spec is not None, turn.status
    return f"{_changed(turn.observed.applied, spec)}; {_snapshot(turn, spec, way)}"


def _changed(old: StreamJobSpec | None, new: StreamJobSpec) -> str:
    if old is None:
        return "a new version"
    found = [c.path for c in changes(old, new) if c.kind is FieldClass.UPGRADE]
    return f"{', '.join(found[:5]) or 'the version'} changed"


def _snapshot(turn: Turn, spec: StreamJobSpec, way: StopWay | None) -> str:
    held = (
        f", and sinks hold their commits for {spec.upgrade.stable_after.checkpoints} checkpoints"
        if spec.upgrade.hold_commits
        else ""
    )
    if spec.upgrade.mode is UpgradeMode.STATELESS:
        return "it begins empty, as upgrade.mode Stateless says"
    if way is StopWay.NOTHING:
        return f"nothing runs, it goes on from where the job ended{held}"
    if spec.upgrade.mode is UpgradeMode.LAST_STATE:
        return f"it goes on from the newest checkpoint, as upgrade.mode LastState says{held}"
    c = turn.coordinator
    if c is not None and not facts.is_running(c):
        return f"the job is {c.phase}: if it cannot take a savepoint soon, {_unhealthy(spec)}{held}"
    return f"it goes on from a savepoint that stops the job{held}"


def _unhealthy(spec: StreamJobSpec) -> str:
    rule = spec.upgrade.when_unhealthy
    return f"upgrade.whenUnhealthy is {rule}"


# ── the steps ───────────────────────────────────────────────────────────────────────────────────


def check(turn: Turn) -> None:
    """The step Checking: the old version runs on."""
    move, spec = turn.move, turn.spec
    assert move is not None, turn.status
    assert move.to_revision is not None, move
    if move.way is not StopWay.NOTHING:
        keep(turn)
    if spec is None:
        turn.wait("the spec has mistakes")
        return
    verdict = checking.check(turn, move.to_revision, against=_against(turn, spec))
    if verdict is None:
        _tell_about_image(turn, spec)
        return
    if verdict.fits:
        _step(turn, Step.STOPPING, "the new version can go on; the old one is stopped")
    else:
        outcome, said = (
            (REFUSED, "cannot go on from the job's state")
            if verdict.is_known
            else (CHECK_FAILED, "could not be checked")
        )
        turn.update(failed_revision=move.to_revision)
        _tell(turn, step=outcome, reason=verdict.sentence, finished_at=turn.now)
        turn.finish(
            outcome,
            f"revision {move.to_revision} {said}: {verdict.sentence}; "
            f"the old one stays. Change the spec, or annotate {ANNOTATION_RETRY} to try it again",
            phase=Phase.PENDING if move.way is StopWay.NOTHING else Phase.RUNNING,
            is_warning=True,
        )


def _against(turn: Turn, spec: StreamJobSpec) -> str | None:
    """What the new version would begin from: a `restore` that is to be obeyed, else the newest."""
    status, restore = turn.job.status, spec.restore
    if spec.upgrade.mode is UpgradeMode.STATELESS:
        return None
    is_due = status.restore_id != restore_id_of(restore) and not starting.is_latest(restore)
    found = starting.resolved(turn, spec)
    if is_due and found is not None:
        return None if found.from_.lower() == "none" else found.from_
    return None if status.attempt == 0 else checking.LATEST


def _tell_about_image(turn: Turn, spec: StreamJobSpec) -> None:
    """The old version runs on while the check waits, for its image or a node; that is told."""
    report, move = turn.observed.check, turn.move
    error = move.error if move is not None else None
    if report is None or report.has_ended:
        if error is not None:
            turn.stall = Stall("CheckWaits", error)
        return
    if report.waiting is None:
        return
    if error is not None or turn.now - report.created_at > facts.IMAGE_GRACE:
        said = f": {facts.shortened(report.message)}" if report.message else ""
        if checking.is_waiting_for_image(turn):
            turn.stall = Stall("ImagePull", f"the image {spec.image} cannot be pulled{said}")
        else:
            turn.stall = Stall("CheckWaits", f"the check pod waits, {report.waiting}{said}")


def enter_replacing(turn: Turn) -> None:
    """The old run is over: the new version's templates come."""
    move = turn.move
    assert move is not None, turn.status
    assert move.to_revision is not None, move
    snapshot, shown = _goes_on_from(turn), _stop_savepoint(turn, move) or _goes_on_from(turn)
    starting.enter_replacing(
        turn,
        f"revision {move.to_revision} takes over from {shown or 'nothing'}",
        to_revision=move.to_revision,
        snapshot=snapshot,
    )
    _tell(turn, step=Step.REPLACING, snapshot=shown)


def replace(turn: Turn) -> None:
    """The step Replacing."""
    if starting.replace(turn):
        starting.enter_starting(turn, "the new version is ordered to start")
        _tell(turn, step=Step.STARTING)
    else:
        _look_for_failure(turn)


def start(turn: Turn) -> None:
    """The step Starting."""
    if starting.start(turn):
        c = turn.coordinator
        if c is not None and c.phase is JobPhase.FINISHED:
            _stable(turn, "it ran to the end of its input", Phase.FINISHED)
            return
        _step(
            turn,
            Step.STABILIZING,
            "the new version runs; it counts as stable after some checkpoints",
        )
    else:
        _look_for_failure(turn)


def stabilize(turn: Turn) -> None:
    """The step Stabilizing."""
    move, c = turn.move, turn.coordinator
    assert move is not None, turn.status
    assert move.to_parallelism is not None, move
    starting.ensure(turn, move.to_revision, move.to_parallelism)
    turn.wait("the new version proves itself")
    if c is None or c.revision != move.to_revision:
        _look_for_failure(turn)
        return
    if c.hold is not None and not move.held:
        turn.note(held=True)
    if c.phase is JobPhase.FINISHED:
        _stable(turn, "it ran to the end of its input", Phase.FINISHED)
    elif is_proven(turn, c, was_held=move.held):
        _stable(turn, "sinks commit again", Phase.RUNNING)
    else:
        _look_for_failure(turn)


def is_proven(turn: Turn, c: JobStatus, *, was_held: bool) -> bool:
    """Whether what runs is stable: its hold is over, or enough checkpoints are completed.

    Without an attempt nothing is proved: that there is no hold says nothing then.
    """
    if turn.spec is None or c.attempt == 0 or c.hold is not None or c.phase is JobPhase.FAILED:
        return False
    return was_held or c.completed_in_attempt >= turn.spec.upgrade.stable_after.checkpoints


def _stable(turn: Turn, why: str, phase: Phase) -> None:
    move = turn.move
    assert move is not None, turn.status
    turn.update(
        stable_revision=move.to_revision,
        restore_id=move.restore_id,
        failed_revision=None,  # what failed had gone on from another state than there is now
    )
    _tell(turn, step=STABLE, finished_at=turn.now)
    turn.finish(STABLE, f"revision {move.to_revision} is stable: {why}", phase=phase)


def _step(turn: Turn, step: Step, message: str) -> None:
    turn.enter(step, message)
    _tell(turn, step=step)


def _tell(turn: Turn, **fields: object) -> None:
    if turn.status.upgrade is not None:
        turn.update(upgrade=turn.status.upgrade.model_copy(update=fields))


def _stop_savepoint(turn: Turn, move: Move) -> str | None:
    """The savepoint that ended the run: it stays when checkpoints go."""
    if move.way is not StopWay.SAVEPOINT:
        return None
    name = savepoint_name(turn.job.name, stopping.stop_request_id(move))
    made = next((s for s in turn.observed.savepoints if s.name == name), None)
    return made.status.path if made is not None else None


def _goes_on_from(turn: Turn) -> str | None:
    c = turn.coordinator
    return (c.next_restore if c is not None else None) or turn.job.status.next_restore


# ── when it does not run ────────────────────────────────────────────────────────────────────────


def _look_for_failure(turn: Turn) -> None:
    """Roll back from a version that does not run, or say that it does not."""
    move = turn.move
    assert move is not None, turn.status
    found = failure(turn, move)
    if found is None:
        return
    if can_roll_back(turn, move):
        _roll_back(turn, move, found)
    elif _wants_something_else(turn, move):
        turn.update(failed_revision=move.to_revision)
        _tell(turn, step=FAILED, reason=found.message, finished_at=turn.now)
        turn.finish(FAILED, found.message, phase=Phase.FAILED, is_warning=True)
    else:
        turn.stall = found
        starting.look_at_refusal(turn, move, found.reason)


def failure(turn: Turn, move: Move) -> Stall | None:
    """Why the version that is started does not run; None as long as it may yet."""
    if is_rollback_asked_for(turn):
        return Stall("RollbackRequested", f"asked for by the annotation {ANNOTATION_ROLLBACK}")
    trouble = facts.trouble(turn.observed, move.to_revision, turn.now)
    if trouble is not None and trouble.is_fault:
        return Stall(trouble.reason, trouble.message)
    if (error := starting.refusal(turn) or move.error) is not None:
        return Stall("StartRefused", error)
    c = turn.coordinator
    if c is not None and c.revision == move.to_revision and _is_begun(move, c):
        if c.phase is JobPhase.FAILED:
            return Stall(
                "JobFailed", f"the job failed: {facts.shortened(c.end_reason or 'no reason')}"
            )
        if (loop := starting.crash_loop(turn, move)) is not None:
            return Stall("CrashLoop", loop)
    return _too_late(turn, move, trouble)


def _is_begun(move: Move, c: JobStatus) -> bool:
    return move.attempt is not None and c.attempt > move.attempt


def _too_late(turn: Turn, move: Move, trouble: facts.Trouble | None) -> Stall | None:
    limit_ms = _limit_ms(turn, move)
    if limit_ms is None or not turn.is_over(move.since, limit_ms):
        return None
    why = trouble.message if trouble else turn.waits_for or "no reason is known"
    return Stall(
        "Timeout", f"the step {move.step} took longer than {format_duration(limit_ms)}: {why}"
    )


def _limit_ms(turn: Turn, move: Move) -> int | None:
    """The longest time for the step; proving takes as long as its checkpoints do."""
    spec = turn.spec
    if spec is None:
        return None
    if move.step is not Step.STABILIZING:
        return spec.upgrade.timeout_ms
    if spec.checkpoints.interval_ms == 0:
        return None
    each_ms = spec.checkpoints.interval_ms + spec.checkpoints.min_pause_ms
    return spec.upgrade.timeout_ms + spec.upgrade.stable_after.checkpoints * each_ms


def can_roll_back(turn: Turn, move: Move) -> bool:
    """Whether there is a version to go back to, and it may be done."""
    stable = turn.status.stable_revision
    return (
        turn.spec is not None
        and (turn.spec.upgrade.rollback or is_rollback_asked_for(turn))
        and stable not in (None, move.to_revision)
        and turn.has_revision(stable)
    )


def is_rollback_asked_for(turn: Turn) -> bool:
    """Whether a person annotated the upgrade so."""
    receipt = turn.job.status.requests.get(request_kind(ANNOTATION_ROLLBACK))
    return receipt is not None and receipt.phase == RUNNING


def _wants_something_else(turn: Turn, move: Move) -> bool:
    spec = turn.spec
    if spec is None or not turn.is_valid:
        return False
    return turn.job.revision != move.to_revision or spec.desired_state is DesiredState.SUSPENDED


def _roll_back(turn: Turn, move: Move, found: Stall) -> None:
    stable = turn.status.stable_revision
    turn.update(failed_revision=move.to_revision)
    _tell(turn, step=FAILED, reason=found.message)
    turn.finish(FAILED, found.message, phase=Phase.ROLLING_BACK, is_warning=True)
    turn.begin(
        MoveKind.ROLLBACK,
        Step.STOPPING,
        reason=f"back to revision {stable}: {found.message}",
        to_revision=stable,
        snapshot=move.snapshot,
    )
    _settle_request(turn)


def _settle_request(turn: Turn) -> None:
    """A request that led to a rollback is no approval of what it may cost."""
    kind = request_kind(ANNOTATION_ROLLBACK)
    receipt = turn.receipt(kind)
    if receipt is not None and receipt.phase == RUNNING:
        turn.give_receipt(kind, receipt.model_copy(update={"phase": DONE}))


# ── the way back ────────────────────────────────────────────────────────────────────────────────


def stop_failed(turn: Turn) -> None:
    """The step Stopping of a rollback: what failed does not run on."""
    move = turn.move
    assert move is not None, turn.status
    assert move.to_revision is not None, move
    if stopping.stop(turn):
        starting.enter_replacing(
            turn,
            f"revision {move.to_revision} comes back",
            to_revision=move.to_revision,
        )


def replace_back(turn: Turn) -> None:
    """The step Replacing of a rollback."""
    if starting.replace(turn):
        starting.enter_starting(turn, "the last stable version is ordered to start")
    else:
        _give_way_or_say_why(turn)


def start_back(turn: Turn) -> None:
    """The step Starting of a rollback."""
    move = turn.move
    assert move is not None, turn.status
    if starting.start(turn):
        _tell(turn, step=ROLLED_BACK, finished_at=turn.now)
        _settle_request(turn)
        failed = turn.status.failed_revision
        turn.finish(
            "Done",
            f"revision {move.to_revision} runs again; {failed} is not tried until the annotation "
            f"{ANNOTATION_RETRY} or another change",
            phase=Phase.RUNNING,
            is_warning=True,
        )
    else:
        _give_way_or_say_why(turn)


def _give_way_or_say_why(turn: Turn) -> None:
    """A way back that is blocked must not block another version, which begins before what is held."""
    _say_stuck(turn)
    if turn.stall is None or not _is_given_up(turn):
        return
    turn.stall = None
    _tell(turn, finished_at=turn.now)
    turn.finish("Withdrawn", "the spec changed in the meantime", phase=Phase.PENDING)


def _is_given_up(turn: Turn) -> bool:
    """Whether the spec asks for neither the version that failed nor the one before it."""
    move, spec = turn.move, turn.spec
    if move is None or spec is None or not turn.is_valid:
        return False
    known = (move.to_revision, turn.status.failed_revision)
    return turn.job.revision not in known or spec.desired_state is DesiredState.SUSPENDED


def _say_stuck(turn: Turn) -> None:
    move = turn.move
    assert move is not None, turn.status
    if turn.stall is not None:
        return
    trouble = facts.trouble(turn.observed, move.to_revision, turn.now)
    said = trouble.message if trouble is not None else starting.crash_loop(turn, move)
    if said is not None:
        turn.stall = Stall("RollbackFailed", said)
    starting.look_at_refusal(turn, move, "RollbackFailed")


def retried(turn: Turn) -> None:
    """A person wants the failed revision to be tried again."""
    if turn.status.failed_revision is not None:
        turn.announce("Retry", f"revision {turn.status.failed_revision} may be tried again")
    turn.update(failed_revision=None)
