"""What cannot be taken back is done only when the stored status says that it is intended."""

from __future__ import annotations

from datetime import timedelta

from tests.simulation.operator.cluster import Cluster, StreamJobObject
from tests.simulation.operator.store import Violation

from penstock.spec.orders import CancelOrder, Order, RescaleOrder, StartOrder, StopOrder
from penstock_operator.reconcile import effects as do
from penstock_operator.reconcile.effects import Effect
from penstock_operator.resources.names import ANNOTATION_DELETION
from penstock_operator.resources.status import Move, MoveKind, Phase, Step, StreamJobStatus

_AT_REST = (Phase.SUSPENDED, Phase.FINISHED, Phase.FAILED)
_CUTS_OFF = (MoveKind.ROLLBACK, MoveKind.DELETE)
"""What failed is not waited for; a deletion has a time-out of its own, and a person's force."""
_PATIENCE_MIN = timedelta(seconds=60)
_LETS_GO = (MoveKind.SUSPEND, MoveKind.DELETE)


def check_intention(
    cluster: Cluster, job: StreamJobObject, status: StreamJobStatus, effect: Effect
) -> None:
    """`status` is what the API server stored last. Raises Violation."""
    move = status.move
    match effect:
        case do.Send(order=order):
            _check_order(order, move)
        case do.EnsureCoordinator(revision=revision):
            _check_template(revision, cluster.deployment and cluster.deployment.revision, status)
            _check_run(cluster, job, move, revision)
        case do.EnsureWorkers(revision=revision, replicas=replicas):
            live = cluster.stateful_set
            _check_template(revision, live and live.revision, status)
            is_scaled_in = live is not None and replicas < live.replicas and move is None
            is_allowed = status.phase in _AT_REST or replicas == status.parallelism
            if is_scaled_in and not is_allowed:
                _violated(effect, "workers are taken away")
        case do.RemoveCoordinator():
            _check_run(cluster, job, move, None)
            is_let_go = move is not None and move.kind in _LETS_GO
            entry = cluster.store.newest
            is_over = entry is None or (entry.end is not None and entry.end.committed)
            if not (is_let_go or is_over or status.phase is Phase.SUSPENDED):
                _violated(effect, f"in phase {status.phase}, {move}")
        case do.DeletePods(pods=pods):
            going = [p for p in cluster.pods.values() if (p.name, p.uid) in pods]
            roles = {p.role for p in going if p.is_running or not cluster.lacks_volume(p)}
            if move is None and roles & {"worker", "coordinator"}:
                _violated(effect, "nothing is being done")
        case do.DeleteClaims(names=names):
            _check_claims(cluster, job, names)
        case do.RunDisposal(path=None):
            if move is None or (move.kind, move.step) != (MoveKind.DELETE, Step.DISPOSING):
                _violated(effect, str(move))
        case do.SetFinalizer(present=False):
            is_releasing = move is not None and move.step is Step.RELEASING
            is_forced = ANNOTATION_DELETION in job.annotations
            if job.deleted_at is not None and not (is_releasing or is_forced):
                _violated(effect, str(move))
        case _:
            pass


def _check_order(order: Order, move: Move | None) -> None:
    if not isinstance(order, StartOrder | StopOrder | CancelOrder | RescaleOrder):
        return
    if move is None or not order.request_id.startswith(move.id):
        _violated(order, f"the move is {move and move.id}")


def _check_template(revision: str, live: str | None, status: StreamJobStatus) -> None:
    if live is None or live == revision:
        return
    move = status.move
    if status.revision != revision and (move is None or move.to_revision != revision):
        _violated(revision, f"in place of {live}; {move}")


def _check_run(
    cluster: Cluster, job: StreamJobObject, move: Move | None, revision: str | None
) -> None:
    """A run is ended by its coordinator, which may be a while in coming: it is not cut off at once.

    `revision` is of the coordinator that follows, None for none.
    """
    live, entry = cluster.deployment, cluster.store.newest
    if live is None or live.revision == revision or entry is None or move is None:
        return
    is_open = entry.end is None and entry.revision == live.revision
    uid, opened_at = cluster.opened or (None, cluster.now)
    was_open = uid == job.uid and opened_at < move.started_at
    is_early = cluster.now - move.started_at < _PATIENCE_MIN and move.kind not in _CUTS_OFF
    if is_open and was_open and is_early and not cluster.was_taken_apart:
        _violated(
            revision or "no coordinator",
            f"attempt {entry.attempt} of {live.revision} is open; {move}",
        )


def _check_claims(cluster: Cluster, job: StreamJobObject, names: tuple[str, ...]) -> None:
    going = {c.ordinal for c in cluster.claims.values() if c.name in names}
    spec, _, _ = cluster.read(job.spec)
    if spec is not None and spec.worker.volume.when_scaled_down == "Retain":
        _violated(names, "the volumes were to stay")
    entry = cluster.store.newest
    runs = entry.parallelism if entry is not None and entry.end is None else 0
    if used := sorted(o for o in going if o < runs):
        _violated(names, f"workers {used} use them")


def _violated(what: object, why: str) -> None:
    raise Violation(f"{what} without an intention that was written before: {why}")
