"""What is to be done about one StreamJob, from what was seen of it: begin to read here.

`reconcile` is level-triggered: it looks at what is, never at what happened, so that any number of
calls, by operators that were killed anywhere in between, lead to the same. It knows no clock, no API
server and no coordinator; `cluster.observe` brings the facts, `cluster.execute` carries out effects,
the status first. What cannot be taken back is decided only from an intention that was read back.

In this order: what is the world like (`summary`), is the object going (`deletion`), may anything be
done, is the spec valid, what runs under its name (`images`), what did people ask (`requests`), go on
with the move or choose one (`lifecycle`), keep what should be there (`steady`), Savepoints, and what
follows for conditions.
"""

from __future__ import annotations

from datetime import datetime

from penstock.spec.changes import FieldClass, changes
from penstock.spec.orders import restore_id_of
from penstock.spec.streamjob import StreamJobSpec
from penstock_operator.reconcile import images, learning, requests, savepoint, steady, summary
from penstock_operator.reconcile.effects import Decision, ForgetRevision, RecordRevision
from penstock_operator.reconcile.moves import checking, deletion, lifecycle, starting
from penstock_operator.reconcile.observed import Observed
from penstock_operator.reconcile.turn import SOON, Turn
from penstock_operator.resources.names import ANNOTATION_HOLD_AT
from penstock_operator.resources.status import MoveKind, Phase, Step

REVISIONS_KEPT = 10


def reconcile(observed: Observed, now: datetime) -> Decision:
    """What is to be done now. Never raises for any state of the world."""
    if _is_held(observed):
        return Decision(observed.job.status, (), SOON)
    turn = Turn(observed, now)
    summary.see(turn)
    turn.mistakes += _mistakes(turn)
    if observed.job.deleted_at is not None:
        deletion.take(turn)
        savepoint.take(turn)
    elif not summary.is_paused(turn):
        _take_care(turn)
    summary.conclude(turn)
    return turn.decision()


def _take_care(turn: Turn) -> None:
    deletion.guard(turn)
    _record_revision(turn)
    images.look(turn)
    requests.take(turn)
    if turn.move is None:
        _keep(turn)
        lifecycle.choose(turn)
    elif turn.move.kind is MoveKind.DELETE:
        turn.finish("Withdrawn", "the object is not deleted any more", phase=Phase.PENDING)
    else:
        lifecycle.go_on(turn)
    steady.apply_settings(turn)
    savepoint.take(turn)
    _tidy(turn)


def _keep(turn: Turn) -> None:
    status = turn.job.status
    if status.revision is None:
        return
    if learning.is_needed(turn):
        learning.keep(turn)
    elif status.phase is Phase.SUSPENDED:
        steady.keep_suspended(turn)
    else:
        steady.keep(turn)
        steady.drop_surplus_claims(turn)


def _is_held(observed: Observed) -> bool:
    """Whether a test wants the world to stand still at this step."""
    move, step = observed.job.status.move, observed.job.annotations.get(ANNOTATION_HOLD_AT)
    return observed.fail_points and move is not None and move.step == step


def _mistakes(turn: Turn) -> tuple[str, ...]:
    """What is wrong with the spec as things are, each in a sentence."""
    spec, accepted, status = turn.job.spec, turn.observed.accepted, turn.job.status
    if spec is None:
        return ()
    found = []
    limit = status.max_parallelism
    if limit and spec.max_parallelism not in (None, limit):
        found.append(f"spec.maxParallelism is {limit} for the job's life; it cannot be changed")
    if limit and spec.parallelism > limit:
        found.append(f"spec.parallelism is {spec.parallelism}, more than maxParallelism, {limit}")
    if status.job_id and (spec.job_id or f"{turn.job.namespace}.{turn.job.name}") != status.job_id:
        found.append(f"spec.jobId is {status.job_id} for the job's life; it cannot be changed")
    found += [
        f"spec.{change.path} cannot be changed; set it back, or delete the StreamJob and apply it again"
        for change in (changes(accepted, spec) if accepted is not None else ())
        if change.kind is FieldClass.FORBIDDEN and change.path not in {"maxParallelism", "jobId"}
    ]
    if turn.observed.job.status.restore_id != restore_id_of(spec.restore):
        found += _unknown_savepoint(turn, spec)
    return tuple(found)


def _unknown_savepoint(turn: Turn, spec: StreamJobSpec) -> list[str]:
    """A name is looked up here: the coordinator cannot read the API server."""
    if starting.resolved(turn, spec) is not None:
        return []
    name, named = spec.restore.from_, turn.observed.restore_savepoint
    if named is None:
        return [f"spec.restore.from names {name}; there is no Savepoint of that name"]
    return [f"spec.restore.from names Savepoint {name}, which is {named.status.phase}"]


def _record_revision(turn: Turn) -> None:
    """The accepted revision has the highest number, also when it is an older one again."""
    revision = turn.job.revision
    newest = max(turn.observed.revisions, key=lambda r: r.number, default=None)
    if turn.is_valid and revision is not None and (newest is None or newest.id != revision):
        turn.do(RecordRevision(revision, newest.number + 1 if newest else 1))
        turn.look_again(SOON)


def _tidy(turn: Turn) -> None:
    """Revisions that nothing goes back to, and a check that nobody waits for."""
    move, report = turn.status.move, turn.observed.check
    workloads = (turn.observed.coordinator_workload, turn.observed.worker_workload)
    pinned = {turn.job.revision, *(w.revision for w in workloads if w is not None)}
    for status in (turn.job.status, turn.status):
        pinned |= {status.revision, status.stable_revision, status.failed_revision}
        pinned.add(status.move.to_revision if status.move else None)
    newest_first = sorted(turn.observed.revisions, key=lambda r: r.number, reverse=True)
    for old in newest_first[REVISIONS_KEPT:]:
        if old.id not in pinned:
            turn.do(ForgetRevision(old.name))
    is_asked = move is not None and (move.step is Step.CHECKING or move.kind is MoveKind.ROLLBACK)
    if report is not None and not is_asked and turn.move is None:
        checking.forget(turn, report)
