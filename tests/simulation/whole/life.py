"""A simulation that is told what to do, step by step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.simulation.operator.code import GOOD
from tests.simulation.whole.simulation import Reconcile, Simulation

from penstock.spec.orders import RequestPhase
from penstock_operator.reconcile.job import reconcile


class Life:
    """A simulation that is told what to do; `sim` is in it."""

    def __init__(self, seed: int, folder: Path, decide: Reconcile = reconcile) -> None:
        self.sim = Simulation(seed, decide)
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

    def savepoint(self) -> str:
        """Ask for one, wait for it and for more output; its path."""
        before = set(self.sim.truth.savepoints)
        self.sim.person._create_savepoint()
        self.rests()
        (made,) = self.sim.truth.savepoints.keys() - before
        self.checkpoints(3)
        return made

    def leave_in_a_hold(self) -> None:
        """Upgrade, and delete the StreamJob, without an end of the run, while commits are held."""
        self.wish(deletion={"policy": "Retain"})
        self.rests()
        self.checkpoints(2)
        self.wish(image=f"{GOOD}:2", upgrade={"stableAfter": {"checkpoints": 6}})
        self.comes("a hold", lambda: self.holds)
        self.checkpoints(2)
        assert self.holds
        self.sim.person.delete()
        self.is_gone()

    def is_gone(self) -> None:
        """Wait until nothing is left of the StreamJob."""
        sim = self.sim
        self.comes("the end", lambda: sim.cluster.job is None and not [*sim.cluster.leftovers()])

    def condition(self, type: str) -> str | None:
        """What the status says of it."""
        job = self.sim.cluster.job
        assert job is not None, type
        return next((c.status for c in job.status.conditions if c.type == type), None)

    def asks(self, kind: str) -> bool:
        """Whether an order of that kind is being carried out."""
        leader = self.sim.cluster.answering()
        requests = leader.status().requests if leader is not None else ()
        return any((r.kind, r.phase) == (kind, RequestPhase.RUNNING) for r in requests)

    @property
    def step(self) -> str | None:
        """Of the move that is under way."""
        job = self.sim.cluster.job
        return job.status.move.step if job is not None and job.status.move is not None else None

    @property
    def attempt(self) -> int:
        """The newest."""
        entry = self.sim.truth.newest
        return entry.attempt if entry else 0

    @property
    def holds(self) -> bool:
        """Whether commits are held."""
        entry = self.sim.truth.newest
        return entry is not None and entry.hold is not None

    @property
    def seq(self) -> int:
        entry = self.sim.truth.newest
        return entry.seq if entry else 0

    @property
    def shown(self) -> int:
        """How many records a reader of the first sink sees."""
        return self.sim.truth.output.stop
