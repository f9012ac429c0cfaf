"""What is known of a job whose status is empty: one that was never written, or one that was lost.

ControllerRevisions and workloads tell which templates are applied. Whether the job ever ran, and how it
stands, only its log tells, through a coordinator that has read it: until then `status.attempt` is None,
which is not 0, and nothing but a coordinator is put in place.
"""

from __future__ import annotations

from penstock.spec.orders import JobStatus, restore_id_of
from penstock.spec.streamjob import DesiredState
from penstock_operator.reconcile import facts
from penstock_operator.reconcile.moves import starting
from penstock_operator.reconcile.observed import Observed
from penstock_operator.reconcile.turn import Turn


def see(turn: Turn) -> None:
    """Take over what the world tells and the status does not."""
    observed, c = turn.observed, turn.coordinator
    if turn.status.attempt is None and (_is_new(observed) or (c is not None and c.attempt == 0)):
        turn.update(attempt=0)
    if turn.status.revision is None:
        turn.update(revision=_applied(turn))
    if turn.status.restore_id is None and turn.move is None and c is not None and c.attempt > 0:
        turn.update(restore_id=_obeyed(turn, c))


def is_needed(turn: Turn) -> bool:
    """Whether a coordinator has to tell what the log says before the job can be run."""
    spec = turn.spec
    is_wanted = spec is not None and spec.desired_state is DesiredState.RUNNING
    return turn.status.attempt is None and is_wanted


def keep(turn: Turn) -> None:
    """A coordinator that reads the log; workers stay as they are."""
    starting.ensure_coordinator(turn, turn.job.status.revision)
    turn.wait("the coordinator tells what the job's log says")


def was_replacing(turn: Turn) -> bool:
    """Whether the status was lost after another version's run had ended: its coordinator has gone, and
    the one that answers is of the version that was to follow."""
    c = turn.coordinator
    return (
        c is not None
        and turn.job.status.attempt is None
        and c.attempt > 0
        and c.revision != turn.status.revision
        and not facts.is_active(c)
    )


def _is_new(observed: Observed) -> bool:
    """Whether nothing was ever made for this object: a revision is recorded before all else."""
    return not (
        observed.revisions
        or observed.coordinator_workload
        or observed.worker_workload
        or observed.coordinator_pods
        or observed.worker_pods
    )


def _applied(turn: Turn) -> str | None:
    workload = turn.observed.coordinator_workload or turn.observed.worker_workload
    if workload is not None:
        return workload.revision
    if turn.status.attempt is not None:
        return None
    newest = max(turn.observed.revisions, key=lambda r: r.number, default=None)
    return newest.id if newest is not None else None


def _obeyed(turn: Turn, c: JobStatus) -> str | None:
    """Identity of the `spec.restore` that the log's newest opening obeyed, as the status has it."""
    spec = turn.spec
    if spec is None:
        return None
    wanted = starting.resolved(turn, spec)
    if wanted is None or starting.is_latest(wanted) or restore_id_of(wanted) == c.restore_id:
        return restore_id_of(spec.restore)
    return c.restore_id
