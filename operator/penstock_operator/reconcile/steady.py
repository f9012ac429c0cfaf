"""What is kept in place while nothing moves: self-repair, live settings, volumes nobody needs."""

from __future__ import annotations

from penstock.spec.orders import JobPhase, JobStatus, RequestPhase, SettingsOrder
from penstock.spec.parts.pods import WhenScaledDown
from penstock_operator.reconcile import facts
from penstock_operator.reconcile.effects import DeleteClaims, EnsureWorkers, RemoveCoordinator
from penstock_operator.reconcile.moves import starting
from penstock_operator.reconcile.turn import Turn, object_request_id
from penstock_operator.resources.status import Phase

_ENDED = frozenset({Phase.FINISHED, Phase.FAILED})
_OVER = frozenset({JobPhase.FINISHED, JobPhase.FAILED})


def keep(turn: Turn, *, replicas: int | None = None) -> None:
    """Coordinator and workers of the applied revision, as many as run; workers stay as they are while
    nobody has told what the log says."""
    revision = turn.job.status.revision
    if turn.status.attempt is None:
        starting.ensure_coordinator(turn, revision)
    else:
        starting.ensure(turn, revision, workers(turn) if replicas is None else replicas)


def keep_suspended(turn: Turn) -> None:
    """No pods; volumes stay."""
    revision = turn.job.status.revision
    if turn.has_revision(revision) and turn.observed.worker_workload is not None:
        assert revision is not None, turn.status
        turn.do(EnsureWorkers(revision, 0))
    if turn.observed.coordinator_workload is not None:
        turn.do(RemoveCoordinator())


def workers(turn: Turn) -> int:
    """How many run: the attempt's parallelism; none when the run is over.

    None is taken away while no coordinator says how many it needs: one that recovers may go back to
    the parallelism before a change.
    """
    c, status, workload = turn.coordinator, turn.job.status, turn.observed.worker_workload
    if is_over(turn):
        return 0
    if c is not None and facts.is_active(c):
        return c.parallelism
    known = status.parallelism or (turn.spec.parallelism if turn.spec is not None else 0)
    return max(known, workload.replicas if workload is not None else 0)


def is_over(turn: Turn) -> bool:
    """Whether the job has finished or failed; remembered while its coordinator does not answer."""
    c = turn.coordinator
    return turn.job.status.phase in _ENDED if c is None else c.phase in _OVER


def apply_settings(turn: Turn) -> None:
    """Tell the coordinator the live settings, when it has others."""
    c, spec = turn.coordinator, turn.job.spec
    if spec is None or c is None or not facts.is_active(c):
        return
    wanted = starting.settings(spec)
    if wanted == c.settings:
        return
    id = object_request_id(turn.job.uid, "settings", turn.job.generation)
    known = turn.ask(SettingsOrder(request_id=id, settings=wanted))
    if known is not None and known.phase is RequestPhase.FAILED:
        turn.mistakes = (*turn.mistakes, known.error or "the coordinator refused the live settings")


def drop_surplus_claims(turn: Turn) -> bool:
    """Delete volumes of workers that are not wanted any more; whether none is left."""
    c, workload, spec = turn.coordinator, turn.observed.worker_workload, turn.spec
    if spec is None or spec.worker.volume.when_scaled_down is not WhenScaledDown.DELETE:
        return True
    if c is None or workload is None or not has_proven_parallelism(turn, c):
        return False
    if workload.replicas != c.parallelism:
        return False
    if any((pod.ordinal or 0) >= c.parallelism for pod in turn.observed.worker_pods):
        return False
    surplus = [claim for claim in turn.observed.claims if claim.ordinal >= c.parallelism]
    names = tuple(claim.name for claim in surplus if not claim.is_deleting)
    if names:
        turn.do(DeleteClaims(names))
    return not names


def has_proven_parallelism(turn: Turn, c: JobStatus) -> bool:
    """Whether a checkpoint was completed at the parallelism that the status, read back, names."""
    return (
        facts.is_running(c)
        and c.completed_in_attempt >= 1
        and c.parallelism == turn.job.status.parallelism
    )
