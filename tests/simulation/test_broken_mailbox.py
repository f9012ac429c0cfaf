"""The simulator runs the production mailbox: what is broken in it is noticed."""

from collections.abc import Callable

import pytest

from penstock.core.ids import CheckpointId
from penstock.core.records import Element
from penstock.runtime.endpoints import SinkStage
from penstock.runtime.exchange import Exchange
from penstock.runtime.task import Task
from penstock.testing.simulation.simulation import Simulation

SEEDS = 100


def holds_nothing_back(patch: pytest.MonkeyPatch) -> None:
    """Records that come after one channel's barrier are counted before the others' came."""
    patch.setattr(Task, "_block", lambda self: None)


def lets_barriers_overtake(patch: pytest.MonkeyPatch) -> None:
    """Records that wait in an exchange are sent after the barrier."""

    def control(self: Exchange, element: Element) -> None:
        for output in self.outputs:
            output.send(element)

    take = Task._take

    def without_flush(self: Task, checkpoint: CheckpointId | None) -> bool:
        with pytest.MonkeyPatch.context() as inside:
            inside.setattr(self, "flush", lambda: None)
            return take(self, checkpoint)

    patch.setattr(Exchange, "control", control)
    patch.setattr(Task, "_take", without_flush)


def commits_too_much(patch: pytest.MonkeyPatch) -> None:
    """Transactions of checkpoints that are not complete are committed with older ones."""
    commit = SinkStage.commit
    patch.setattr(SinkStage, "commit", lambda self, checkpoint: commit(self, checkpoint + 1_000))


def never_reads_on(patch: pytest.MonkeyPatch) -> None:
    """Sources that stood still for a stop stay so when it fails."""
    patch.setattr(Task, "resume", lambda self, checkpoint: None)


@pytest.mark.parametrize(
    "broken",
    [holds_nothing_back, lets_barriers_overtake, commits_too_much, never_reads_on],
    ids=lambda f: f.__name__,
)
def test_a_broken_mailbox_is_noticed(
    monkeypatch: pytest.MonkeyPatch, broken: Callable[[pytest.MonkeyPatch], None]
) -> None:
    broken(monkeypatch)
    outcomes = (Simulation(seed).run() for seed in range(SEEDS))
    assert next((o.violation for o in outcomes if o.violation), None) is not None
