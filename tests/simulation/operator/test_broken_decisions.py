"""The simulation notices when a rule of the decisions is broken; else it could not be trusted when it
finds nothing."""

from collections.abc import Generator
from dataclasses import replace
from datetime import datetime

import pytest
from tests.simulation.operator.operator_process import OperatorProcess
from tests.simulation.operator.simulation import Reconcile, Simulation

from penstock.spec.orders import Origin, StartOrder
from penstock.spec.parts.snapshots import Restore
from penstock_operator.reconcile.effects import (
    Decision,
    DeleteClaims,
    EnsureWorkers,
    Send,
    SetFinalizer,
)
from penstock_operator.reconcile.job import reconcile
from penstock_operator.reconcile.observed import Observed
from penstock_operator.resources.status import MoveKind, Step

SEEDS = 100


class ActsBeforeItWrites(OperatorProcess):
    """Does what follows from an intention while only it knows of it; writes it down afterwards."""

    def _take_turn(self) -> Generator[None, None, None]:
        seen = self.observe()
        job = self.cluster.job
        if seen is None or job is None:
            yield from super()._take_turn()
            return
        version = job.version
        intended = self.reconcile(seen, self.cluster.now)
        seen_later = replace(seen, job=replace(seen.job, status=intended.status))
        for effect in self.reconcile(seen_later, self.cluster.now).effects:
            if self.cluster.job is job:
                self._carry_out(seen, effect, job.status)
                yield
        if intended.status != seen.job.status:
            self._write_status(seen, intended, version)
        self._due = self._now + 1


def changes_templates_before_the_stop(observed: Observed, now: datetime) -> Decision:
    decision, move = reconcile(observed, now), observed.job.status.move
    workers = observed.worker_workload
    if move is None or (move.kind, move.step) != (MoveKind.UPGRADE, Step.STOPPING) or not workers:
        return decision
    assert move.to_revision is not None
    early = EnsureWorkers(move.to_revision, workers.replicas)
    return replace(decision, effects=(*decision.effects, early))


def rolls_back_past_what_was_written(observed: Observed, now: datetime) -> Decision:
    """Always to the snapshot before the upgrade, also when the version that failed has committed;
    without a hold all do."""
    decision, move = reconcile(observed, now), observed.job.status.move
    if move is None or move.kind not in (MoveKind.UPGRADE, MoveKind.ROLLBACK):
        return decision
    changed: dict[str, object] = {"hold": None}
    if move.kind is MoveKind.ROLLBACK:
        back = Restore.model_validate({"from": move.snapshot or "None", "allowOlder": True})
        changed = {"origin": Origin.LOG, "restore": back}
    effects = tuple(
        Send(effect.order.model_copy(update=changed))
        if isinstance(effect, Send) and isinstance(effect.order, StartOrder)
        else effect
        for effect in decision.effects
    )
    return replace(decision, effects=effects)


def drops_volumes_while_they_are_used(observed: Observed, now: datetime) -> Decision:
    decision, spec = reconcile(observed, now), observed.job.spec
    if spec is None or observed.job.status.move is None:
        return decision
    surplus = tuple(c.name for c in observed.claims if c.ordinal >= spec.parallelism)
    early = (DeleteClaims(surplus),) if surplus else ()
    return replace(decision, effects=(*decision.effects, *early))


def lets_the_object_go_at_once(observed: Observed, now: datetime) -> Decision:
    decision = reconcile(observed, now)
    if observed.job.deleted_at is None:
        return decision
    return replace(decision, effects=(SetFinalizer(False),))


def forgets_its_move(observed: Observed, now: datetime) -> Decision:
    """What is written down is not what was done: a view alone."""
    decision = reconcile(observed, now)
    if decision.status.move is None or decision.status.move.step is not Step.REPLACING:
        return decision
    return replace(decision, status=decision.status.model_copy(update={"move": None}))


def first_violation(decide: Reconcile, process: type[OperatorProcess]) -> str | None:
    outcomes = (Simulation(seed, decide, process).run() for seed in range(SEEDS))
    return next((o.violation for o in outcomes if o.violation), None)


@pytest.mark.parametrize(
    "broken",
    [
        changes_templates_before_the_stop,
        rolls_back_past_what_was_written,
        drops_volumes_while_they_are_used,
        lets_the_object_go_at_once,
        forgets_its_move,
    ],
    ids=lambda decide: decide.__name__,
)
def test_a_broken_decision_is_noticed(broken: Reconcile):
    assert first_violation(broken, OperatorProcess) is not None


def test_deeds_before_their_intention_are_noticed():
    assert first_violation(reconcile, ActsBeforeItWrites) is not None
