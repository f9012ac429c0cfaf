"""One job from its first day to its last, nothing failing: what people ask for comes about, and the output
is exact at every step."""

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.simulation.operator.code import CRASHES, GOOD, INCOMPATIBLE
from tests.simulation.whole.simulation import CALM_SEEDS, Simulation

from penstock.testing.simulation.job import SINKS
from penstock_operator.resources.status import Phase

SEEDS = range(0, 3 * CALM_SEEDS, CALM_SEEDS)


class Life:
    """A simulation that is told what to do; `sim` is in it."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.sim = Simulation(seed)
        self.sim.build(folder)
        self.sim.person.spec |= {"image": f"{GOOD}:1", "parallelism": 2}
        self.sim.person.spec["deletion"] = {"policy": "Savepoint", "timeout": "3m"}
        self.sim.person.spec["upgrade"] = {"mode": "Savepoint", "holdCommits": True}

    def wish(self, **spec: object) -> None:
        """Apply the StreamJob with these fields changed."""
        self.sim.person.spec |= spec
        self.sim.person.apply()

    def comes(self, what: str, fact: Callable[[], bool], at_most_s: int = 600) -> None:
        """Wait for it."""
        assert self.sim.until(fact, at_most_s=at_most_s), f"{what}: {self.sim.rest.unrest('')}"

    def rests(self, at_most_s: int = 600) -> None:
        """Wait until all is as the spec says, and some checkpoints more."""
        self.comes("rest", lambda: not self.sim.rest.unrest(""), at_most_s)

    def checkpoints(self, count: int) -> None:
        """Wait for so many more."""
        entry = self.sim.truth.newest
        first = entry.seq if entry else 0
        self.comes("checkpoints", lambda: self.seq >= first + count)

    @property
    def seq(self) -> int:
        entry = self.sim.truth.newest
        return entry.seq if entry else 0

    @property
    def shown(self) -> int:
        """How many records a reader of the first sink sees."""
        return self.sim.truth.output.stop


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
    life.comes("the end", lambda: sim.cluster.job is None and not list(sim.cluster.leftovers()))
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
    life.comes("the end", lambda: sim.cluster.job is None and not list(sim.cluster.leftovers()))
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
    assert sim.cluster.job is not None
    conditions = {c.type: c.status for c in sim.cluster.job.status.conditions}
    assert conditions["StateCompatible"] == "False"
