"""The status as a view: what the coordinator and the world say, and what follows for conditions.

Nothing here is acted on but `attempt`, `parallelism`, `nextRestore` and `stableRevision`, which are
kept for the time when nobody answers. It changes with what happens, not with every look.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from penstock.spec.orders import JobPhase, JobStatus, SnapshotStatus
from penstock.spec.parts.quantities import format_duration, rounded_size
from penstock_operator.reconcile import facts, learning
from penstock_operator.reconcile.moves import checking, starting, upgrade
from penstock_operator.reconcile.moves.lifecycle import PHASES
from penstock_operator.reconcile.turn import WHILE_MOVING, Stall, Turn
from penstock_operator.resources.conditions import (
    ConditionStatus,
    ConditionType,
    Finding,
    merged,
)
from penstock_operator.resources.names import (
    ANNOTATION_RECONCILE,
    ANNOTATION_RETRY,
    RECONCILE_PAUSED,
)
from penstock_operator.resources.status import Move, MoveKind, Phase, SnapshotView, Step

CHECKPOINT_EVERY = timedelta(seconds=60)
_LATE_INTERVALS = 3
_MESSAGE_LENGTH_MAX = 4000


# ── before anything is decided ──────────────────────────────────────────────────────────────────


def see(turn: Turn) -> None:
    """Take over what was observed."""
    job, c = turn.job, turn.coordinator
    turn.update(observed_generation=job.generation, selector=turn.observed.selector)
    if turn.status.job_id is None and job.spec is not None:  # for ever: never on a guess
        turn.update(job_id=job.spec.job_id or f"{job.namespace}.{job.name}")
    learning.see(turn)
    if c is not None and c.attempt > 0:
        _see_run(turn, c)


def _see_run(turn: Turn, c: JobStatus) -> None:
    status = turn.job.status
    turn.update(
        attempt=c.attempt,
        restarts=c.restarts,
        parallelism=status.parallelism if _is_tried(turn) else c.parallelism,
        max_parallelism=c.max_parallelism or status.max_parallelism,
        restored_from=_told(turn, c.restored_from),
        last_savepoint=_savepoint(turn, c),
    )
    is_at_rest = c.phase.is_end or status.next_restore is None or status.attempt != c.attempt
    former, newest = status.last_checkpoint, _snapshot(c.last_checkpoint)
    if newest is not None and (
        is_at_rest
        or former is None
        or newest.completed_at - former.completed_at >= CHECKPOINT_EVERY
        or newest.id < former.id
    ):
        turn.update(last_checkpoint=newest)
        is_at_rest = True
    if is_at_rest:
        turn.update(next_restore=_told(turn, c.next_restore))
    is_applied = c.revision == status.revision and status.move is None
    if is_applied and facts.is_running(c) and c.revision != status.stable_revision:
        if upgrade.is_proven(turn, c, was_held=False):
            turn.update(stable_revision=c.revision)
        elif turn.spec is not None and (interval_ms := turn.spec.checkpoints.interval_ms):
            # No watch tells of checkpoints.
            turn.look_again(max(WHILE_MOVING, timedelta(milliseconds=interval_ms)))


def _is_tried(turn: Turn) -> bool:
    """Whether the parallelism of the moment may be taken back."""
    move = turn.job.status.move
    return move is not None and (move.kind, move.step) == (MoveKind.RESCALE, Step.MOVING)


def _savepoint(turn: Turn, c: JobStatus) -> SnapshotView | None:
    """The newest, also when this coordinator was started after it was taken."""
    former, newest = turn.job.status.last_savepoint, _snapshot(c.last_savepoint)
    if newest is None or (former is not None and former.completed_at > newest.completed_at):
        return former
    return newest


def _told(turn: Turn, path: str | None) -> str | None:
    """A snapshot as people know it: a stop's checkpoint has the number of the savepoint that it is.

    Others have numbers of their own, so equal numbers mean the same snapshot.
    """
    if path is None:
        return None
    name, last = path.rstrip("/").rpartition("/")[2], turn.status.last_savepoint
    known = {s.status.checkpoint_id: s.status.path for s in turn.observed.savepoints}
    if last is not None:
        known[last.id] = last.path
    found = (place for id, place in known.items() if id is not None and f"chk-{id}" == name)
    return next(found, None) or path


def _snapshot(made: SnapshotStatus | None) -> SnapshotView | None:
    if made is None:
        return None
    return SnapshotView(
        id=made.id,
        path=made.path,
        completed_at=datetime.fromtimestamp(made.completed_at_ms / 1000, UTC),
        duration=format_duration(made.duration_ms),
        size=rounded_size(made.size_bytes),
        size_bytes=made.size_bytes,
    )


# ── after all is decided ────────────────────────────────────────────────────────────────────────


def conclude(turn: Turn) -> None:
    """Phase and conditions, from facts and decisions."""
    turn.update(phase=_phase(turn))
    stall = _stall(turn)
    if turn.status.move is None:
        turn.stall = stall
    findings = (
        _ready(turn, stall),
        _reconciling(turn, stall),
        _finding(ConditionType.STALLED, stall is not None, stall or Stall("Nothing", "")),
        _spec_valid(turn),
        _state_compatible(turn),
        _checkpoints_healthy(turn),
        _stable(turn),
        _finding(
            ConditionType.PAUSED,
            is_paused(turn),
            Stall("Paused", f"the annotation {ANNOTATION_RECONCILE} says so")
            if is_paused(turn)
            else Stall("NotPaused", ""),
        ),
    )
    turn.update(
        conditions=merged(
            turn.job.status.conditions, findings, generation=turn.job.generation, now=turn.now
        )
    )


def is_paused(turn: Turn) -> bool:
    """Whether a person told the operator to leave this job alone."""
    return turn.job.annotations.get(ANNOTATION_RECONCILE) == RECONCILE_PAUSED


def _phase(turn: Turn) -> Phase:
    status, c = turn.status, turn.coordinator
    if turn.job.deleted_at is not None:
        return Phase.DELETING
    if status.move is not None:
        return PHASES[status.move.kind]
    if status.phase is Phase.SUSPENDED or c is None:
        return status.phase
    match c.phase:
        case JobPhase.FINISHED:
            return Phase.FINISHED
        case JobPhase.FAILED:
            return Phase.FAILED
        case JobPhase.RUNNING | JobPhase.STOPPING:
            return Phase.RUNNING
        case JobPhase.DEPLOYING | JobPhase.RESTARTING:
            return Phase.RESTARTING
        case _:
            return status.phase


def _stall(turn: Turn) -> Stall | None:
    status, job, c = turn.status, turn.job, turn.coordinator
    if turn.mistakes:
        return Stall("SpecInvalid", _mistakes(turn))
    if turn.stall is not None:
        return turn.stall
    if status.move is not None or job.deleted_at is not None:
        return None
    view = status.upgrade
    if view is not None and view.to == job.revision == status.failed_revision:
        if view.step == upgrade.ROLLED_BACK:
            return Stall("RolledBack", view.reason or "the new version did not run")
        if view.step == upgrade.CHECK_FAILED:
            return Stall("CheckFailed", view.reason or "the new version could not be checked")
        if view.step == upgrade.REFUSED:
            return Stall("StateIncompatible", view.reason or "the new version does not fit")
    if job.revision is not None and job.revision == status.failed_revision != status.revision:
        return Stall(
            "FailedBefore",
            f"revision {job.revision} failed before, and {status.revision} stays; annotate "
            f"{ANNOTATION_RETRY} to try it again",
        )
    if status.phase is Phase.FAILED and c is not None:
        return Stall("JobFailed", f"the job failed: {c.end_reason or 'no reason given'}")
    if status.phase is Phase.SUSPENDED:
        return None
    trouble = facts.trouble(turn.observed, status.revision, turn.now)
    if trouble is not None:
        return Stall(trouble.reason, trouble.message)
    return _crash_loop(turn, c) if c is not None and facts.is_active(c) else None


def _crash_loop(turn: Turn, c: JobStatus) -> Stall | None:
    """A version that never proved itself, and fails again and again; there is no way back."""
    is_proven = turn.status.stable_revision == turn.status.revision
    if (
        is_proven
        or c.restarts <= starting.ATTEMPTS_MAX
        or upgrade.is_proven(turn, c, was_held=False)
    ):
        return None
    said = c.last_error.what if c.last_error else "no reason given"
    return Stall("CrashLoop", f"{c.restarts} attempts failed: {said}")


def _runs_on(move: Move) -> bool:
    """Whether the job runs while this goes on."""
    return move.kind is MoveKind.RESCALE or (move.kind, move.step) == (
        MoveKind.UPGRADE,
        Step.CHECKING,
    )


def _ready(turn: Turn, stall: Stall | None) -> Finding:
    status, c = turn.status, turn.coordinator
    if status.phase is Phase.DELETING or (status.move is not None and not _runs_on(status.move)):
        why = status.move.reason if status.move is not None else None
        said = stall.message if stall is not None else why
        return _finding(ConditionType.READY, False, Stall(status.phase, said or ""))
    if status.revision is None and turn.mistakes:
        return _finding(ConditionType.READY, False, Stall("SpecInvalid", _mistakes(turn)))
    if status.phase is Phase.SUSPENDED:
        return _finding(ConditionType.READY, True, Stall("Suspended", "as spec.desiredState says"))
    if status.phase is Phase.FINISHED:
        return _finding(ConditionType.READY, True, Stall("Finished", "all input was read"))
    if status.phase is Phase.FAILED and stall is not None:
        return _finding(ConditionType.READY, False, stall)
    if c is None:
        why = turn.observed.unreachable or "the coordinator does not answer"
        return _finding(ConditionType.READY, False, Stall("CoordinatorUnreachable", why))
    if stall is not None and stall.reason == "CrashLoop":
        return _finding(ConditionType.READY, False, stall)
    if facts.is_running(c):
        is_back = stall is not None and stall.reason == "RolledBack"
        reason = "RolledBack" if is_back else "Running"
        return _finding(ConditionType.READY, True, Stall(reason, "records flow"))
    said = f"the job is {c.phase}" + (f": {c.last_error.what}" if c.last_error else "")
    return _finding(ConditionType.READY, False, Stall(str(c.phase), said))


def _reconciling(turn: Turn, stall: Stall | None) -> Finding:
    move = turn.status.move
    if move is None:
        return _finding(ConditionType.RECONCILING, False, Stall("Settled", turn.waits_for or ""))
    said = "; ".join(filter(None, (move.reason, move.image_changed, turn.waits_for)))
    reason = f"{move.kind}{move.step}"
    return _finding(ConditionType.RECONCILING, stall is None, Stall(reason, said))


def _spec_valid(turn: Turn) -> Finding:
    if turn.mistakes:
        return _finding(ConditionType.SPEC_VALID, False, Stall("Invalid", _mistakes(turn)))
    return _finding(ConditionType.SPEC_VALID, True, Stall("Valid", ""))


def _mistakes(turn: Turn) -> str:
    return "; ".join(turn.mistakes)


def _state_compatible(turn: Turn) -> Finding:
    status, kind = turn.status, ConditionType.STATE_COMPATIBLE
    view, move = status.upgrade, status.move
    if view is not None and view.step == upgrade.REFUSED and view.to == turn.job.revision:
        return _finding(kind, False, Stall("Incompatible", view.reason or ""))
    if view is not None and view.step == upgrade.CHECK_FAILED and view.to == turn.job.revision:
        return _finding(kind, None, Stall("CheckFailed", view.reason or ""))
    if move is not None and (move.kind, move.step) == (MoveKind.UPGRADE, Step.CHECKING):
        reason = "ImagePull" if checking.is_waiting_for_image(turn) else "Checking"
        return _finding(kind, None, Stall(reason, turn.waits_for or "the new version is checked"))
    return _finding(kind, True, Stall("Compatible", ""))


def _checkpoints_healthy(turn: Turn) -> Finding:
    kind, c, spec = ConditionType.CHECKPOINTS_HEALTHY, turn.coordinator, turn.spec
    if c is None or spec is None or not facts.is_active(c):
        return _finding(kind, None, Stall("NotRunning", "no checkpoints are taken"))
    rules = spec.checkpoints
    if rules.interval_ms == 0:
        return _finding(kind, True, Stall("OnRequest", "checkpoints.interval is 0s"))
    last_ms = c.last_checkpoint.completed_at_ms if c.last_checkpoint else None
    since_ms = max((ms for ms in (last_ms, c.started_at_ms) if ms is not None), default=None)
    limit_ms = _LATE_INTERVALS * (rules.interval_ms + rules.min_pause_ms) + rules.timeout_ms
    if since_ms is None:
        return _finding(kind, None, Stall("Starting", "no record has flowed so far"))
    if turn.is_over(datetime.fromtimestamp(since_ms / 1000, UTC), limit_ms):
        said = f"none was completed for more than {format_duration(limit_ms)}"
        return _finding(kind, False, Stall("Late", said))
    return _finding(kind, True, Stall("OnTime", ""))


def _stable(turn: Turn) -> Finding:
    status, kind, c = turn.status, ConditionType.STABLE, turn.coordinator
    if c is not None and c.hold is not None:
        said = f"sinks hold their commits for {c.hold.stable} checkpoints"
        if c.holds_not:
            said += f"; these cannot: {', '.join(c.holds_not)}"
        return _finding(kind, False, Stall("HoldingCommits", said))
    is_stable = status.revision is not None and status.stable_revision == status.revision
    if is_stable:
        return _finding(kind, True, Stall("Proven", f"revision {status.revision}"))
    said = f"revision {status.revision} has not proved itself so far"
    return _finding(kind, False, Stall("Unproven", said))


def _finding(kind: ConditionType, truth: bool | None, why: Stall) -> Finding:
    return Finding(
        kind, ConditionStatus.of(truth), str(why.reason), why.message[:_MESSAGE_LENGTH_MAX]
    )
