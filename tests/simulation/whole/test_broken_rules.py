"""The simulation of the whole notices when a rule is broken, in the operator or in a pod; else it could not be
trusted when it finds nothing."""

from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
from tests.simulation.operator.code import CRASHES_LATE, GOOD
from tests.simulation.operator.test_broken_decisions import rolls_back_past_what_was_written
from tests.simulation.whole.life import Life
from tests.simulation.whole.simulation import Reconcile, Simulation

from penstock.checkpoint import recovery
from penstock.checkpoint.events import LogRead
from penstock.checkpoint.recovery import Recovery
from penstock.spec.orders import Origin, StartOrder
from penstock.testing.simulation.outside import Violation
from penstock_operator.reconcile.effects import Decision, Effect, Send
from penstock_operator.reconcile.job import reconcile
from penstock_operator.reconcile.observed import Observed
from penstock_operator.resources.status import MoveKind

SEEDS = 12


def begins_anew(observed: Observed, now: datetime) -> Decision:
    """A new version starts from nothing, although it was to go on."""
    decision, move = reconcile(observed, now), observed.job.status.move
    if move is None or move.kind is not MoveKind.UPGRADE:
        return decision
    return replace(decision, effects=tuple(map(_from_nothing, decision.effects)))


def _from_nothing(effect: Effect) -> Effect:
    if isinstance(effect, Send) and isinstance(effect.order, StartOrder):
        return Send(effect.order.model_copy(update={"origin": Origin.EMPTY}))
    return effect


def first_violation(decide: Reconcile) -> str | None:
    outcomes = (Simulation(seed, decide).run() for seed in range(SEEDS))
    return next((o.violation for o in outcomes if o.violation), None)


def test_a_version_that_begins_anew_is_noticed():
    assert first_violation(begins_anew) is not None


def test_a_rollback_past_what_was_written_is_noticed(tmp_path: Path):
    life = Life(0, tmp_path, rolls_back_past_what_was_written)
    life.sim.person.spec["checkpoints"]["retained"] = 10
    life.wish(upgrade={"mode": "Savepoint", "holdCommits": False})
    life.rests()
    life.checkpoints(2)
    life.wish(image=f"{CRASHES_LATE}:2")
    with pytest.raises(Violation, match="it will be written again"):
        life.rests(at_most_s=900)


def test_a_coordinator_that_recovers_with_other_code_than_ran_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    recovery_of_its_own = recovery.recovery

    def of_any_revision(read: LogRead, *, owner: str, revision: str, adopt: bool) -> Recovery:
        ran = read.newest.attempt.revision if read.newest else revision
        return recovery_of_its_own(read, owner=owner, revision=ran, adopt=adopt)

    monkeypatch.setattr(recovery, "recovery", of_any_revision)
    life = Life(0, tmp_path)
    life.leave_in_a_hold()
    life.wish(image=f"{GOOD}:3")
    with pytest.raises(Violation, match="another revision goes on from what a hold withholds"):
        life.rests(at_most_s=900)
