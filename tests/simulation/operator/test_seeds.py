"""The operator's decisions in a world that fails, from seeds: whatever was asked for comes about, no
snapshot is lost, nothing is written twice."""

import pytest
from tests.simulation.operator.simulation import COMMAND, Simulation
from tests.simulation.seeds import failures

SEEDS = 240
BLOCK = 20


@pytest.mark.parametrize("first", range(0, SEEDS, BLOCK))
def test_all_comes_to_rest_as_the_spec_says_whatever_goes_wrong(first: int):
    assert failures(Simulation, range(first, first + BLOCK), command=COMMAND) == []


def test_the_same_seed_gives_the_same_trace():
    assert Simulation(3).run() == Simulation(3).run()
    assert Simulation(3).run().trace != Simulation(4).run().trace


def test_troubles_and_moves_happen():
    trace = "\n".join(line for seed in range(SEEDS // 2) for line in Simulation(seed).run().trace)
    for what in (
        "the operator is killed",
        "no answer to the status",
        "the coordinator's process is killed",
        "a worker is evicted",
        "the volume of",
        "the status is lost",
        "of the status",
        "somebody deletes the StatefulSet",
        "goes with its StatefulSet",
        "event ImageChanged",
        "RollingBack, Rollback",
        "Rescaling, Rescale",
        "Suspending, Suspend",
        "Restoring, Restore",
        "Restarting, Restart",
        "Deleting, Delete",
        "released",
        "savepoint s3",
        "disposed of",
    ):
        assert what in trace, what
