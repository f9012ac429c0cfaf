"""One seed of the whole: a person, a cluster, an operator, and in the pods the production coordinator and
the production mailboxes, over one store and one clock.

For some minutes everything goes wrong that can; then a last wish is told, nothing fails any more, and
all must come to rest as the spec says. At every entry of the log the output is counted.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from tests.simulation.operator.cluster import PodObject
from tests.simulation.operator.oracles import Oracles
from tests.simulation.operator.person import Person
from tests.simulation.operator.store import Entry as ToldEntry
from tests.simulation.seeds import Outcome
from tests.simulation.whole.cluster import WholeCluster
from tests.simulation.whole.operator_process import WholeOperatorProcess
from tests.simulation.whole.oracles import JobOracles
from tests.simulation.whole.programs import Programs
from tests.simulation.whole.truth import Truth

from penstock.testing.simulation.job import JOB, MAX_PARALLELISM, Input
from penstock.testing.simulation.outside import Outside, Violation
from penstock.testing.simulation.store import SimulatedStore
from penstock.testing.simulation.world import World
from penstock_operator.reconcile.effects import Decision
from penstock_operator.reconcile.job import reconcile
from penstock_operator.reconcile.observed import Observed
from penstock_operator.resources.status import StreamJobStatus

Reconcile = Callable[[Observed, datetime], Decision]
COMMAND = "python -m tests.simulation.whole"
TROUBLE_S = 400
DEADLINE_S = 3_600
QUIET_S = 70
CALM_SEEDS = 8
ENDLESS = 10**9


class PersonOfAJob(Person):
    """Writes the spec of the job that is simulated."""

    def __init__(self, cluster: WholeCluster, rng: Any) -> None:
        super().__init__(cluster, rng)
        self.spec |= {
            "jobId": JOB,
            "maxParallelism": MAX_PARALLELISM,
            "state": {"backend": "FileSystem"},
        }

    def act(self) -> None:
        """As there, and more often a restore of what there is."""
        job = self.cluster.job
        if job is not None and job.deleted_at is None and self.rng.random() < 0.1:
            self._wish_restore()
            self.apply()
        else:
            super().act()

    def _wish_restore(self) -> None:
        """As there, or a checkpoint that the log keeps."""
        newest = self.cluster.store.newest
        if newest is not None and newest.retained and self.rng.random() < 0.3:
            path = self.rng.choice(newest.retained).path
            self.spec["restore"] = {"from": path, "allowOlder": True}
        else:
            super()._wish_restore()


class WholeOracles(Oracles):
    """Those of the operator's simulation that are about what people see."""

    def on_entry(self, entry: ToldEntry) -> None:
        """Remember what a stop publishes; output is the job's oracles'."""
        if entry.end is not None and entry.end.savepoint is not None:
            self._stops.add(entry.end.savepoint)
        if entry.end is not None and entry.end.committed:
            self.rest_began()  # a run that finishes in the middle of a rest writes its last records

    def _known_snapshots(self) -> set[str]:
        """Checkpoints, too, as long as the log keeps them."""
        newest = self._cluster.store.newest
        kept = newest.retained if newest is not None else ()
        return super()._known_snapshots() | {snapshot.path for snapshot in kept}


class Simulation:
    """Every eighth seed is calm: people do what they do, and nothing fails.

    `reconcile` and `process` may be ones that break a rule, to see that it is noticed.
    """

    def __init__(
        self,
        seed: int,
        reconcile: Reconcile = reconcile,
        process: type[WholeOperatorProcess] = WholeOperatorProcess,
    ) -> None:
        self.seed = seed
        self.world = world = World(seed)
        self.rng = rng = world.rng
        self.is_calm = seed % CALM_SEEDS == 0
        splits = rng.randrange(1, 4)
        length = rng.randrange(20, 150) if rng.random() < 0.1 else None
        self.input = Input((length or ENDLESS,) * splits)
        self.store = SimulatedStore(world)
        self.outside = Outside(world)
        self.oracles = JobOracles(world, self.store, self.outside, self.input)
        self.truth = Truth(self.store, self.outside)
        self.operator: WholeOperatorProcess
        self.cluster: WholeCluster
        self._speed = rng.choice((0.05, 0.1, 0.2))
        self._reconcile = reconcile
        self._process = process
        self._length = None if length is None else length * splits
        self._faults = 0.0 if self.is_calm else rng.choice((0.0, 0.02, 0.1))
        self._kills = 0.0 if self.is_calm else rng.choice((0.0, 0.01, 0.05))
        self._troubles = 0.0 if self.is_calm else rng.choice((0.0, 0.02, 0.05))
        self._wishes = rng.choice((0.01, 0.02, 0.04))
        self._steps = rng.choice((1, 4, 16))
        self._is_troubled = False
        self._second = 0

    def run(self) -> Outcome:
        """Until all is quiet, or something is wrong."""
        violation = None
        with tempfile.TemporaryDirectory(prefix="penstock-simulation-") as folder:
            try:
                self.build(Path(folder))
                self._live()
            except AssertionError as e:
                violation = str(e) or repr(e)
        return Outcome(self.seed, violation, tuple(self.world.trace), self.second)

    def build(self, folder: Path) -> None:
        """Everybody in it; nothing has happened."""
        programs = Programs(self.world, self.store, self.outside, self.input, folder, self._speed)
        self.cluster = cluster = WholeCluster(
            self.world, self.store, self.truth, programs, self.oracles, folder
        )
        cluster.slowness = self.rng.choice((0.2, 0.4, 0.7))
        self.operator = self._process(cluster, self.rng, self._reconcile)
        self.person = person = PersonOfAJob(cluster, self.rng)
        self.oracles.allows_rewind = lambda entry: person.allows_rewind(self.truth.told(entry))
        self.rest = WholeOracles(cluster, person, self.operator, self._length)
        self.truth.watch.append(self.rest.on_entry)
        self._tick()

    @property
    def second(self) -> int:
        """Seconds since the beginning."""
        return self.world.now_ms // 1000

    # ── time ────────────────────────────────────────────────────────────────────────────────────

    def until(self, fact: Callable[[], bool], *, at_most_s: int) -> bool:
        """Let time pass until it is so, looked at once a second; False when it never was."""
        for _ in range(at_most_s):
            if fact():
                return True
            self._let_pass_until((self.second + 1) * 1000)
        return fact()

    def _let_pass_until(self, at_ms: int) -> None:
        self.world.run(until=lambda: self.world.now_ms >= at_ms, deadline_ms=at_ms + 1_000)

    def _tick(self) -> None:
        """A second of the cluster, with the operator's steps at moments in it."""
        world, rng = self.world, self.rng
        world.after(1000, self._tick)
        self.operator.tick()
        steps = rng.randrange(1, self._steps + 1)
        for step in range(steps):
            world.after(1000 * step // steps, self._operator_step)
        world.after(rng.randrange(1000), self.cluster.tick)
        world.after(999, self.rest.check_now)

    def _operator_step(self) -> None:
        self.operator.step()
        if self._is_troubled and self.rng.random() < self._kills / 4:
            self.operator.kill()

    # ── a life ──────────────────────────────────────────────────────────────────────────────────

    def _live(self) -> None:
        self.person.apply()
        self._begin_trouble()
        while self.second < TROUBLE_S:
            self._let_pass_until((self.second + 1) * 1000)
            if self.rng.random() < self._wishes:
                self.person.act()
            if self.rng.random() < self._troubles:
                self._trouble()
        self._end_trouble()
        wish = self.person.last_wish()
        self.world.note(f"── last wish: {wish}")
        if wish == "delete":
            self.person.delete()
        elif wish == "namespace":
            self.cluster.is_namespace_terminating = True
            self.person.delete()
        self._come_to_rest(wish)

    def _begin_trouble(self) -> None:
        self._is_troubled = True
        self.operator.faults = self._faults
        self.cluster.trouble = self._faults
        self.store.faults = self._faults / 4
        self.store.slow = self._faults / 2
        self.cluster.ground.declines = self._faults / 2

    def _end_trouble(self) -> None:
        self._is_troubled = False
        self.operator.faults = self.cluster.trouble = 0.0
        self.store.faults = self.store.slow = self.cluster.ground.declines = 0.0
        self.cluster.slowness = min(self.cluster.slowness, 0.5)

    def _trouble(self) -> None:
        cluster, rng = self.cluster, self.rng
        coordinators, workers = cluster.of_role("coordinator"), cluster.of_role("worker")
        match rng.randrange(15):
            case 0 | 1 if coordinators:
                self.world.note("the coordinator's process is killed")
                cluster.kill_process(rng.choice(coordinators))
            case 2 if coordinators:
                self.world.note("the coordinator's pod is evicted")
                cluster.delete_pod(rng.choice(coordinators).name)
            case 3 | 4 if coordinators:
                cluster.pause(rng.choice(coordinators), rng.randrange(1_000, 40_000))
            case 5 if coordinators:
                cluster.lose_node(rng.choice(coordinators))
            case 6 if workers:
                self.world.note("a worker is evicted")
                cluster.delete_pod(rng.choice(workers).name)
            case 7 if workers:
                cluster.kill_worker(rng.choice(workers))
            case 8 if workers:
                cluster.lose_connection(rng.choice(workers))
            case 9 if workers:
                cluster.lose_node(rng.choice(workers))
            case 10 if workers:
                cluster.raise_once(rng.choice(workers))
            case 11 if workers:
                self._lose_volume(rng.choice(workers))
            case 12 if cluster.stateful_set is not None:
                self.world.note("somebody deletes the StatefulSet")
                cluster.stateful_set = None
                cluster.changed()
            case 13 if cluster.deployment is not None:
                self.world.note("somebody deletes the Deployment")
                cluster.deployment, cluster.was_taken_apart = None, True
                cluster.changed()
            case 14 if cluster.job is not None:
                self.world.note("the status is lost")
                self.person.requests.add(f"receipts lost {self.second}")  # annotations stand
                cluster.job.status = StreamJobStatus()
                cluster.job.version += 1
                cluster.changed()
            case _:
                pass

    def _lose_volume(self, pod: PodObject) -> None:
        self.world.note(f"the volume of {pod.name} is lost")
        for claim in self.cluster.claims.values():
            claim.is_deleting |= claim.ordinal == pod.ordinal
        self.cluster.delete_pod(pod.name, force=True)

    def _come_to_rest(self, wish: str) -> None:
        rests_since, why, is_tidy = None, "", False
        while self.second < DEADLINE_S:
            self._let_pass_until((self.second + 1) * 1000)
            if self.cluster.job is None and wish not in ("delete", "namespace"):
                self.person.apply()  # it was on its way out, and is wanted
            why = self.rest.unrest(wish)
            is_tidy = is_tidy or not self.oracles.unnamed()
            if why:
                rests_since = None
            elif rests_since is None:
                rests_since, is_tidy = self.second, False
                self.rest.rest_began()
            elif self.second - rests_since >= QUIET_S:
                self.rest.check_rest(QUIET_S)
                self.oracles.check_store(is_tidy=is_tidy or not self.is_calm)
                return
        raise Violation(f"no rest after {wish}: {why}")
