"""How a run begins: the steps Replacing and Starting of every move that has them.

Replacing puts the wanted revision's templates in place and lets every pod of another one go, all at
once: a worker with old code must not join a coordinator with new code. Starting orders the next
attempt, from a coordinator that can only be of the wanted revision.
"""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

from penstock.spec.changes import live_settings
from penstock.spec.orders import (
    CancelOrder,
    JobPhase,
    JobStatus,
    Origin,
    RefusalKind,
    RequestPhase,
    RequestStatus,
    StartOrder,
    restore_id_of,
)
from penstock.spec.parts.moves import UpgradeMode
from penstock.spec.parts.quantities import format_duration
from penstock.spec.parts.snapshots import Restore
from penstock.spec.streamjob import StreamJobSpec
from penstock_operator.reconcile import facts
from penstock_operator.reconcile.effects import (
    DeletePods,
    EnsureCoordinator,
    EnsureShared,
    EnsureWorkers,
)
from penstock_operator.reconcile.moves import checking
from penstock_operator.reconcile.observed import Pod, PodPhase
from penstock_operator.reconcile.turn import RUNNING, SOON, Stall, Turn, request_id
from penstock_operator.resources.names import ANNOTATION_ROLLBACK, request_kind
from penstock_operator.resources.status import Move, MoveKind, Step

ATTEMPTS_MAX = 3
"""So many attempts may fail before a version counts as one that does not run."""
LATEST = "Latest"
RECOVERY_PATIENCE_MS = 60_000
"""A coordinator that should recover by itself, and does not, is ordered to: that gives a reason."""
_ENDING_PATIENCE_MS = 300_000
_AGAIN = timedelta(seconds=3)
_RETRY_MAX = timedelta(minutes=5)
_RETRY_FIRST = timedelta(seconds=10)


def enter_replacing(turn: Turn, message: str, *, to_revision: str, **fields: Any) -> None:
    """Intend to put a revision's templates in place: from now on they are the applied ones."""
    assert turn.spec is not None, turn.status
    turn.update(revision=to_revision)
    turn.enter(
        Step.REPLACING,
        message,
        to_revision=to_revision,
        to_parallelism=turn.spec.parallelism,
        **fields,
    )


def enter_starting(turn: Turn, message: str, **fields: Any) -> None:
    """Intend to order the next attempt, at the parallelism and with the restore of this moment."""
    c, spec, move = turn.coordinator, turn.spec, turn.move
    assert c is not None, turn.status
    assert move is not None, turn.status
    assert spec is not None, turn.status
    turn.enter(
        Step.STARTING,
        message,
        attempt=max(c.attempt, turn.job.status.attempt or 0),
        to_parallelism=move.to_parallelism or spec.parallelism,
        restore_id=restore_id_of(spec.restore),
        **fields,
    )


def ensure(turn: Turn, revision: str | None, replicas: int) -> None:
    """Everything of a revision, with so many workers; nothing of one that is not recorded."""
    if revision is not None and turn.has_revision(revision):
        ensure_coordinator(turn, revision)
        turn.do(EnsureWorkers(revision, replicas))
        _let_go_of_volumes(turn)


def ensure_coordinator(turn: Turn, revision: str | None) -> None:
    """A revision's coordinator alone; nothing of one that is not recorded."""
    if revision is not None and turn.has_revision(revision):
        turn.do(EnsureShared(revision), EnsureCoordinator(revision))


def _let_go_of_volumes(turn: Turn) -> None:
    """A pod that has not begun waits for ever for a volume that is going, and the volume for the pod."""
    going = {claim.ordinal for claim in turn.observed.claims if claim.is_deleting}
    stuck = tuple(
        (pod.name, pod.uid)
        for pod in turn.observed.worker_pods
        if pod.ordinal in going and pod.phase is PodPhase.PENDING and not pod.is_deleting
    )
    if stuck:
        turn.do(DeletePods(stuck))


def replace(turn: Turn) -> bool:
    """Templates and pods of the wanted revision; whether its coordinator answers."""
    move, observed = turn.move, turn.observed
    assert move is not None, turn.status
    assert move.to_parallelism is not None, move
    ensure(turn, move.to_revision, move.to_parallelism)
    old = [p for p in observed.worker_pods if _is_old(move, p)]
    stays = [p for p in observed.coordinator_pods if _is_replaced(move, p) and not p.is_deleting]
    going = tuple((p.name, p.uid) for p in (*old, *stays) if not p.is_deleting)
    if going:
        turn.do(DeletePods(going))
    has_template = (
        observed.worker_workload is not None
        and observed.worker_workload.revision == move.to_revision
    )
    if old or not has_template:
        turn.wait("pods of the former version go")
    elif stays or facts.coordinator_of(observed, move.to_revision) is None:
        turn.wait("the coordinator comes up")
    else:
        return True
    return False


def _is_old(move: Move, pod: Pod) -> bool:
    return pod.revision != move.to_revision or _is_replaced(move, pod)


def _is_replaced(move: Move, pod: Pod) -> bool:
    """A restart replaces pods of the same revision; an old Deployment lets its own go by itself."""
    return move.kind is MoveKind.RESTART and pod.created_at < move.started_at.replace(microsecond=0)


def start(turn: Turn) -> bool:
    """Order the next attempt; whether its records flow."""
    move, spec = turn.move, turn.spec
    assert move is not None, turn.status
    assert move.to_parallelism is not None, move
    c = facts.coordinator_of(turn.observed, move.to_revision)
    ensure(turn, move.to_revision, _replicas(turn, move))
    if c is None:
        turn.wait("the coordinator comes up")
        return False
    if _has_started(turn, move, c):
        turn.note(held=move.held or c.hold is not None)
        if c.phase is JobPhase.RUNNING:
            return True
        if not lacks_workers(turn):
            turn.wait("workers restore")
            return False
    elif facts.is_active(c):
        _wait_for_its_end(turn, move, c)
        return False
    if move.not_before is not None and turn.now < move.not_before:
        turn.look_again(SOON)
        return False
    is_recovering = facts.is_about_to_recover(turn.observed)
    if is_recovering and not turn.is_over(move.since, RECOVERY_PATIENCE_MS):
        turn.wait("the coordinator gathers workers")
        return False
    if spec is None:
        turn.wait("the spec has mistakes")
        return False
    if turn.is_valid and spec.parallelism != move.to_parallelism:
        turn.enter(
            Step.STARTING,
            f"{spec.parallelism} workers are to be ordered instead of {move.to_parallelism}",
            to_parallelism=spec.parallelism,
        )
        return False
    order = _order(turn, move, c)
    return order is not None and _is_answered(turn, c, order)


def lacks_workers(turn: Turn) -> bool:
    """Whether the job waits for workers that have no room, and the spec now asks for another number.

    Nothing runs that could be changed in place, and an attempt with fewer may be opened at once.
    """
    c, spec = turn.coordinator, turn.spec
    if c is None or spec is None or not turn.is_valid or c.phase is not JobPhase.RESTARTING:
        return False
    trouble = facts.trouble(turn.observed, c.revision, turn.now)
    has_no_room = trouble is not None and trouble.reason == facts.UNSCHEDULABLE
    return has_no_room and c.parallelism != spec.parallelism


def _replicas(turn: Turn, move: Move) -> int:
    """As many as the attempt gets; none is taken away from one that recovers by itself."""
    c, workload = turn.coordinator, turn.observed.worker_workload
    assert move.to_parallelism is not None, move
    if facts.is_about_to_recover(turn.observed) and workload is not None:
        return max(move.to_parallelism, workload.replicas)
    if facts.is_active(c) and c is not None and c.revision == move.to_revision:
        return max(move.to_parallelism, c.parallelism)
    return move.to_parallelism


def _has_started(turn: Turn, move: Move, c: JobStatus) -> bool:
    """Whether an attempt of the wanted revision was opened since the step began.

    One of the same revision that recovered by itself is as good, unless the run was ended before.
    """
    if c.revision != move.to_revision or not facts.is_active(c) or c.phase is JobPhase.ENDING:
        return False
    if move.kind is MoveKind.RESTORE:
        known = turn.outcome(request_id(move, "start"))
        wanted = resolved(turn, turn.spec) if turn.spec is not None else None
        return (wanted is not None and c.restore_id == restore_id_of(wanted)) or (
            known is not None and known.phase is RequestPhase.DONE
        )
    return c.attempt > (move.attempt or 0) or move.kind is MoveKind.START


def _wait_for_its_end(turn: Turn, move: Move, c: JobStatus) -> None:
    """An attempt that nobody ordered is in the way: it recovered by itself when it could not be
    stopped."""
    if c.phase is JobPhase.ENDING or move.kind is MoveKind.START:
        turn.wait(f"the job is {c.phase}")
        _tell_about_the_end(turn, move, c)
    else:
        turn.enter(Step.STOPPING, f"{move.kind}: the job is {c.phase}, it is stopped", way=None)


def _tell_about_the_end(turn: Turn, move: Move, c: JobStatus) -> None:
    """A version that does not run cannot commit what the run before it left; an upgrade is timed out."""
    is_ending = c.phase is JobPhase.ENDING and move.kind is not MoveKind.UPGRADE
    if is_ending and turn.is_over(move.since, _ENDING_PATIENCE_MS):
        said = f": {facts.shortened(c.last_error.what)}" if c.last_error else ""
        turn.stall = Stall(
            "EndNotCommitted", f"revision {move.to_revision} cannot end the run before it{said}"
        )


def _is_answered(turn: Turn, c: JobStatus, order: StartOrder) -> bool:
    """Whether there was nothing left to run; all else is seen in the job's phase."""
    known = turn.ask(order)
    if known is None or known.phase is RequestPhase.RUNNING:
        turn.wait("workers register with the coordinator")
        return False
    if known.phase is RequestPhase.DONE:
        if c.phase is JobPhase.FINISHED:
            return True
        turn.wait("the attempt is opened")
        return False
    if _is_outdated(turn, known):
        turn.try_again(_AGAIN)
    return False


def is_taken_back(turn: Turn) -> bool:
    """Whether no order to start of this move waits for workers: it would be obeyed as soon as they come."""
    move = turn.move
    assert move is not None, turn.status
    if move.step is not Step.STARTING or turn.coordinator is None:
        return True
    known = turn.outcome(request_id(move, "start"))
    if known is None or known.phase is not RequestPhase.RUNNING:
        return True
    cancelled = turn.ask(CancelOrder(request_id=request_id(move, "cancel"), retain=True))
    turn.wait("the order to start is taken back")
    return cancelled is not None and cancelled.phase is not RequestPhase.RUNNING


def refusal(turn: Turn) -> str | None:
    """Why the start of this step and try was refused, when looking again does not help."""
    move, c = turn.move, turn.coordinator
    if move is None or move.step is not Step.STARTING or c is None:
        return None
    known = turn.outcome(request_id(move, "start"))
    if known is None or known.phase is not RequestPhase.FAILED or _has_started(turn, move, c):
        return None
    return None if _is_outdated(turn, known) else known.error or "the start was refused"


def crash_loop(turn: Turn, move: Move) -> str | None:
    """Why the attempts since the step began fail, one after the other."""
    c = turn.coordinator
    if c is None or c.revision != move.to_revision or move.attempt is None:
        return None
    if c.attempt - move.attempt <= ATTEMPTS_MAX:
        return None
    said = facts.shortened(c.last_error.what) if c.last_error else "no reason given"
    return f"its attempts fail one after the other: {said}"


def look_at_refusal(turn: Turn, move: Move, reason: str) -> None:
    """Tell why the start is refused, and order it again, less and less often: the reason may go."""
    error = refusal(turn)
    if error is not None:
        wait = min(_RETRY_FIRST * (1 << min(move.tries, 10)), _RETRY_MAX)
        turn.try_again(wait, error=error)
    if (said := error or move.error) is not None:
        turn.stall = Stall(reason, said)


def _is_outdated(turn: Turn, refused: RequestStatus) -> bool:
    """Whether the world was another than it seemed; who does not tell is asked a second time."""
    assert turn.move is not None, refused
    if refused.refusal is None:
        return turn.move.tries == 0
    return refused.refusal is RefusalKind.OUTDATED


def _order(turn: Turn, move: Move, c: JobStatus) -> StartOrder | None:
    spec = turn.spec
    assert spec is not None, move
    assert move.to_revision is not None, move
    assert move.to_parallelism is not None, move
    origin: Origin = Origin.LOG
    restore: Restore | None = restore_of(turn, c)
    if move.restore_id != restore_id_of(spec.restore):
        restore = latest(spec.restore)  # it changed since: a move of its own follows
    if move.kind is MoveKind.ROLLBACK:
        found = _rollback_origin(turn, move, c)
        if found is None:
            return None
        origin, restore = found
    elif move.kind is MoveKind.UPGRADE and spec.upgrade.mode is UpgradeMode.STATELESS:
        origin, restore = Origin.EMPTY, None
    elif c.hold is not None and c.revision != move.to_revision and c.attempt > 0:
        origin = Origin.HOLD  # what an unproven version made of the state is not carried on
    return StartOrder(
        request_id=request_id(move, "start"),
        after=c.log_seq,
        revision=move.to_revision,
        origin=origin,
        parallelism=move.to_parallelism,
        max_parallelism=spec.max_parallelism,
        restore=restore,
        allow_non_restored_state=spec.upgrade.allow_non_restored_state,
        hold=_hold(turn, move),
        settings=settings(spec),
    )


def _hold(turn: Turn, move: Move) -> int | None:
    spec = turn.spec
    assert spec is not None, move
    is_wanted = (
        move.kind is MoveKind.UPGRADE
        and spec.upgrade.hold_commits
        and spec.upgrade.mode is not UpgradeMode.STATELESS
    )
    return spec.upgrade.stable_after.checkpoints if is_wanted else None


def restore_of(turn: Turn, c: JobStatus) -> Restore:
    """`spec.restore` as a coordinator can follow it: a Savepoint's name is its path.

    The newest, by the same rules, when it was obeyed before and would be taken for another one now:
    the coordinator obeys whatever differs from the last. So, too, while the spec has mistakes: what
    was recorded with the revision may be older than what was obeyed since.
    """
    spec = turn.spec
    assert spec is not None, turn.status
    if not turn.is_valid and c.next_restore is not None:
        return latest(spec.restore)
    restore, is_obeyed = (
        resolved(turn, spec),
        turn.job.status.restore_id == restore_id_of(spec.restore),
    )
    if is_obeyed and (restore is None or c.restore_id != restore_id_of(restore)):
        return latest(spec.restore)
    return restore or spec.restore


def latest(restore: Restore) -> Restore:
    """The newest snapshot of the job's own, by the rules of a `restore` that does not act now."""
    return restore.model_copy(update={"from_": LATEST})


def is_latest(restore: Restore) -> bool:
    """Whether it names nothing but the newest."""
    return restore.from_.lower() == LATEST.lower()


def settings(spec: StreamJobSpec) -> dict[str, Any]:
    """The live settings; never `{}`, which would mean those that the coordinator was started with."""
    interval = format_duration(spec.checkpoints.interval_ms)
    return live_settings(spec) or {"checkpoints": {"interval": interval}}


def resolved(turn: Turn, spec: StreamJobSpec) -> Restore | None:
    """`spec.restore` with a path in place of a Savepoint's name; None for a name that leads nowhere."""
    named = turn.observed.restore_savepoint
    if named is not None and named.name == spec.restore.from_ and named.status.path is not None:
        return spec.restore.model_copy(update={"from_": named.status.path})
    return None if _is_name(spec.restore.from_) else spec.restore


_WORDS = frozenset({"latest", "none"})
_NAME = re.compile(r"[a-z]([a-z0-9.-]*[a-z0-9])?")
_CHECKPOINT = re.compile(r"chk-[0-9]+")
_SAVEPOINT_FOLDER = re.compile(r"savepoint-[0-9a-f]{6}-[0-9a-f]{12}")


def _is_name(text: str) -> bool:
    """Whether it can only be the name of a Savepoint object: no word, path, time, nor snapshot."""
    is_snapshot = _CHECKPOINT.fullmatch(text) or _SAVEPOINT_FOLDER.fullmatch(text)
    return bool(_NAME.fullmatch(text)) and not is_snapshot and text.lower() not in _WORDS


def _rollback_origin(turn: Turn, move: Move, c: JobStatus) -> tuple[Origin, Restore | None] | None:
    """What a rollback starts from; None while that is not known or not allowed.

    Under a hold, the snapshot before the version that failed. Without one, the newest: that is the
    same as long as the version completed nothing; else its output is written, and only going on from
    there writes nothing twice, if the old code can. One that began empty and completed nothing has
    left nothing to go on from, and what was before it is named.
    """
    if c.hold is not None:
        return Origin.HOLD, None
    if c.next_restore is None and move.snapshot is not None:
        return Origin.RESTORE, Restore.model_validate({"from": move.snapshot})
    if c.next_restore == move.snapshot:
        return Origin.LOG, None
    if is_approved(turn):
        snapshot = (turn.status.upgrade.snapshot if turn.status.upgrade else None) or move.snapshot
        restore = Restore.model_validate({"from": snapshot or "None", "allowOlder": True})
        return Origin.RESTORE, restore
    assert move.to_revision is not None, move
    verdict = checking.check(turn, move.to_revision, against=c.next_restore)
    if verdict is None or verdict.fits:
        return None if verdict is None else (Origin.LOG, None)
    turn.stall = Stall(
        "RollbackWouldDuplicate",
        f"the version that failed has committed output, and the former one cannot go on from it: "
        f"{verdict.sentence}; annotate {ANNOTATION_ROLLBACK} to go back to {move.snapshot} and "
        "write that output again",
    )
    turn.wait("an approval of the rollback")
    return None


def is_approved(turn: Turn) -> bool:
    """Whether a person asked for the rollback although it repeats output."""
    receipt = turn.job.status.requests.get(request_kind(ANNOTATION_ROLLBACK))
    return receipt is not None and receipt.phase == RUNNING
