"""One seed: a person, a cluster, an operator that dies now and then, and what must be true of it all.

For a quarter of an hour everything goes wrong that can; then a last wish is told, nothing fails any
more, and all must come to rest as the spec says.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import datetime

from tests.simulation.operator.cluster import Cluster, StreamJobObject
from tests.simulation.operator.operator_process import OperatorProcess
from tests.simulation.operator.oracles import Oracles
from tests.simulation.operator.person import Person
from tests.simulation.operator.store import Store, Violation
from tests.simulation.seeds import Outcome

from penstock_operator.reconcile.effects import Decision
from penstock_operator.reconcile.job import reconcile
from penstock_operator.reconcile.observed import Observed
from penstock_operator.resources.status import StreamJobStatus

Reconcile = Callable[[Observed, datetime], Decision]
COMMAND = "python -m tests.simulation.operator"
TROUBLE_S = 900
DEADLINE_S = 5400
QUIET_S = 130
CALM_SEEDS = 8


class Simulation:
    """Every eighth seed is calm: people do what they do, and nothing fails.

    `reconcile` and `process` may be ones that break a rule, to see that it is noticed.
    """

    def __init__(
        self,
        seed: int,
        reconcile: Reconcile = reconcile,
        process: type[OperatorProcess] = OperatorProcess,
    ) -> None:
        self.seed = seed
        self.now = 0
        self.trace: list[str] = []
        self._rng = rng = random.Random(seed)
        is_calm = seed % CALM_SEEDS == 0
        input_length = rng.randrange(50, 1500) if rng.random() < 0.1 else None
        self._store = Store(self.note)
        self._cluster = Cluster(rng, self._store, input_length=input_length, note=self.note)
        self._operator = process(self._cluster, rng, reconcile)
        self._person = Person(self._cluster, rng)
        self._store.allows_rewind = self._person.allows_rewind
        self._oracles = Oracles(self._cluster, self._person, self._operator, input_length)
        self._store.watch.append(self._oracles.on_entry)
        self._faults = 0.0 if is_calm else rng.choice((0.0, 0.02, 0.1))
        self._kills = 0.0 if is_calm else rng.choice((0.0, 0.01, 0.05))
        self._troubles = 0.0 if is_calm else rng.choice((0.0, 0.01, 0.03))
        self._wishes = rng.choice((0.005, 0.01, 0.03))
        self._steps = rng.choice((1, 4, 16))

    def note(self, text: str) -> None:
        """Add a line to the trace."""
        self.trace.append(f"{self.now:>5} {text}")

    def run(self) -> Outcome:
        """Until all is quiet, or something is wrong."""
        violation = None
        try:
            self._live()
        except AssertionError as e:
            violation = str(e) or repr(e)
        return Outcome(self.seed, violation, tuple(self.trace), self.now)

    def _live(self) -> None:
        self._person.apply()
        while self.now < TROUBLE_S:
            self._tick(is_troubled=True)
        self._cluster.trouble = self._operator.faults = 0.0
        self._cluster.slowness = min(self._cluster.slowness, 0.5)
        wish = self._person.last_wish()
        self.note(f"── last wish: {wish}")
        if wish == "delete":
            self._person.delete()
        elif wish == "namespace":
            self._cluster.is_namespace_terminating = True
            self._person.delete()
        self._come_to_rest(wish)

    def _come_to_rest(self, wish: str) -> None:
        rests_since, why = None, ""
        while self.now < DEADLINE_S:
            self._tick(is_troubled=False)
            if self._cluster.job is None and wish not in ("delete", "namespace"):
                self._person.apply()  # it was on its way out, and is wanted
            why = self._oracles.unrest(wish)
            if why:
                rests_since = None
            elif rests_since is None:
                rests_since = self.now
                self._oracles.rest_began()
            elif self.now - rests_since >= QUIET_S:
                self._oracles.check_rest(QUIET_S)
                return
        raise Violation(f"no rest after {wish}: {why}")

    def _tick(self, *, is_troubled: bool) -> None:
        self.now += 1
        rng = self._rng
        if is_troubled:
            self._operator.faults = self._faults
            self._cluster.trouble = self._faults
            if rng.random() < self._wishes:
                self._person.act()
            if rng.random() < self._troubles:
                self._trouble()
        self._operator.tick()
        steps = rng.randrange(1, self._steps + 1)
        before = rng.randrange(steps + 1)
        for step in range(steps):
            if step == before:
                self._cluster.tick()
            self._operator.step()
            if is_troubled and rng.random() < self._kills / 4:
                self._operator.kill()
        if before >= steps:
            self._cluster.tick()
        self._oracles.check_now()

    def _trouble(self) -> None:
        cluster, rng = self._cluster, self._rng
        coordinators, workers = cluster.of_role("coordinator"), cluster.of_role("worker")
        match rng.randrange(11):
            case 0 | 1 if coordinators:
                self.note("the coordinator's process is killed")
                cluster.kill_process(rng.choice(coordinators))
            case 2 if coordinators:
                self.note("the coordinator's pod is evicted")
                cluster.delete_pod(rng.choice(coordinators).name)
            case 3 | 4 if workers:
                self.note("a worker is evicted")
                cluster.delete_pod(rng.choice(workers).name)
            case 5 if workers:
                pod = rng.choice(workers)
                self.note(f"the volume of {pod.name} is lost")
                for claim in cluster.claims.values():
                    claim.is_deleting |= claim.ordinal == pod.ordinal
                if rng.random() < 0.7:  # one that runs keeps it until it goes itself
                    cluster.delete_pod(pod.name, force=True)
            case 6 if cluster.stateful_set is not None:
                self.note("somebody deletes the StatefulSet")
                cluster.stateful_set = None
                cluster.changed()
            case 7 if cluster.deployment is not None:
                self.note("somebody deletes the Deployment")
                cluster.deployment, cluster.was_taken_apart = None, True
                cluster.changed()
            case 8:
                self.note("tags are moved")
                cluster.tags_moved += 1
            case 9 | 10 if cluster.job is not None:
                self._lose_status(cluster.job)
                for pod in coordinators if rng.random() < 0.5 else ():
                    cluster.delete_pod(pod.name)
            case _:
                pass

    def _lose_status(self, job: StreamJobObject) -> None:
        """All of it, or one field: somebody edited the subresource, or a backup brought it back."""
        lost = self._rng.choice(sorted(StreamJobStatus.model_fields))
        if self._rng.random() < 0.5:
            self.note("the status is lost")
            job.status = StreamJobStatus()
        else:
            self.note(f"of the status {lost} is lost")
            empty = getattr(StreamJobStatus(), lost)
            job.status = job.status.model_copy(update={lost: empty})
        self._person.requests.add(f"receipts lost {self.now}")  # annotations stand
        job.version += 1
        self._cluster.changed()
