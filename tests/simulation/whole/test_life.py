"""One job from its first day to its last, nothing failing: what people ask for comes about, and the output
is exact at every step."""

from pathlib import Path

import pytest
from tests.simulation.operator.code import CRASHES, DIES, GOOD, INCOMPATIBLE
from tests.simulation.whole.life import Life
from tests.simulation.whole.simulation import CALM_SEEDS

from penstock.testing.simulation.job import JOB, SINKS
from penstock_operator.resources.names import ANNOTATION_RESTART
from penstock_operator.resources.status import Phase

SEEDS = range(0, 3 * CALM_SEEDS, CALM_SEEDS)


@pytest.fixture(params=SEEDS)
def life(request: pytest.FixtureRequest, tmp_path: Path) -> Life:
    return Life(request.param, tmp_path)


def test_a_job_lives_from_apply_to_delete_and_its_output_is_exact(life: Life):
    sim = life.sim
    life.wish()
    life.rests()
    life.checkpoints(3)
    life.wish(parallelism=3)
    life.rests()
    life.checkpoints(2)
    life.wish(image=f"{GOOD}:2")
    life.rests()
    assert sim.truth.newest is not None
    assert sim.truth.newest.hold is None
    life.wish(desiredState="Suspended")
    life.rests()
    suspended = life.shown
    assert sim.truth.newest.end is not None
    life.wish(desiredState="Running")
    life.rests()
    life.comes("output", lambda: life.shown > suspended)
    sim.person.delete()
    life.is_gone()
    end = sim.truth.newest.end
    assert end is not None
    assert end.go_on_from is not None
    assert [len(sim.outside.visible(sink)) for sink in SINKS] == [end.go_on_from.position] * 2
    assert sim.oracles.unnamed() == []
    assert end.savepoint in sim.truth.savepoints


def test_what_was_deleted_goes_on_where_it_was_when_it_is_applied_again(life: Life):
    sim = life.sim
    life.wish()
    life.rests()
    life.checkpoints(2)
    sim.person.delete()
    life.is_gone()
    shown = life.shown
    assert shown > 0
    life.wish()
    life.rests()
    life.comes("output", lambda: life.shown > shown)
    assert sim.oracles.rewinds == 0


def test_a_version_that_raises_is_rolled_back_and_nothing_is_written_twice(life: Life):
    sim = life.sim
    life.wish()
    life.rests()
    life.checkpoints(2)
    shown = life.shown
    life.wish(image=f"{CRASHES}:2")
    life.rests(at_most_s=900)
    assert sim.cluster.job is not None
    assert sim.cluster.job.status.failed_revision is not None
    assert sim.cluster.job.status.phase is Phase.RUNNING
    life.comes("output", lambda: life.shown > shown)
    assert any("entry" not in line and " in a hold" in line for line in sim.world.trace)


def test_a_version_that_cannot_read_the_state_never_stops_the_one_that_runs(life: Life):
    sim = life.sim
    life.wish()
    life.rests()
    life.checkpoints(1)
    life.wish(image=f"{INCOMPATIBLE}:2")
    life.rests()
    assert sim.truth.newest is not None
    assert sim.truth.newest.attempt == 1
    assert life.condition("StateCompatible") == "False"


@pytest.mark.parametrize("image", [f"{GOOD}:1", f"{GOOD}:2", f"{GOOD}:3"])
def test_a_job_that_was_deleted_in_a_hold_goes_on_and_writes_nothing_twice(life: Life, image: str):
    life.leave_in_a_hold()
    shown = life.shown
    life.wish(image=image)
    life.rests(at_most_s=900)
    life.comes("output", lambda: life.shown > shown)
    assert life.sim.oracles.rewinds == 0


def test_a_mistake_in_the_spec_does_not_bring_an_older_deletion_policy_back(life: Life):
    """What was recorded with the revision said Delete; since then somebody wanted the state kept."""
    sim = life.sim
    life.wish(deletion={"policy": "Delete", "timeout": "3m"})
    life.rests()
    life.checkpoints(2)
    life.wish(deletion={"policy": "Savepoint", "timeout": "3m"})
    life.rests()
    sim.person._make_a_mistake()
    life.comes("the mistake is told", lambda: life.condition("SpecValid") == "False")
    sim.person.delete()
    life.is_gone()
    assert sim.truth.newest is not None
    end = sim.truth.newest.end
    assert end is not None
    assert end.savepoint in sim.truth.savepoints
    assert end.go_on_from is not None


def test_a_job_that_is_applied_with_a_mistake_at_first_runs_when_that_is_corrected(life: Life):
    """Its `jobId` is not known before its spec can be read."""
    sim = life.sim
    life.wish(entrypoint="no such thing")
    life.comes("the mistake is told", lambda: life.condition("SpecValid") == "False")
    life.wish(entrypoint="words:job")
    life.rests()
    assert sim.cluster.job is not None
    assert sim.cluster.job.status.job_id == JOB


def test_a_mistake_in_the_spec_during_a_restart_does_not_bring_an_older_restore_back(life: Life):
    """What was recorded with the revision named one savepoint; since then another one was obeyed."""
    sim = life.sim
    life.wish()
    life.rests()
    first, second = life.savepoint(), life.savepoint()
    life.wish(image=f"{GOOD}:2", restore={"from": first, "allowOlder": True})
    life.rests()
    life.wish(restore={"from": second, "allowOlder": True})
    life.rests()
    life.checkpoints(3)
    rewinds = sim.oracles.rewinds
    assert sim.truth.newest is not None
    attempt = sim.truth.newest.attempt
    sim.person.annotate(ANNOTATION_RESTART, "r1")
    life.comes("the stop", lambda: life.step == "Stopping")
    sim.person._make_a_mistake()
    life.comes("the restart", lambda: life.attempt > attempt)
    assert sim.oracles.rewinds == rewinds


def test_a_start_that_waits_for_workers_which_cannot_run_gives_way_to_a_version_that_can(
    life: Life,
):
    """What was deleted left no end in the log: to take the start back is to end that run."""
    life.wish(deletion={"policy": "Retain"})
    life.rests()
    life.checkpoints(2)
    life.sim.person.delete()
    life.is_gone()
    life.wish(image=f"{DIES}:2")
    life.comes("the order", lambda: life.asks("start"))
    life.wish(image=f"{GOOD}:3")
    life.rests()
