"""The simulated process of a coordinator: it carries out effects and hands in what comes of them.

It can be paused (everything waits for it, nothing is lost) and it can die.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

from penstock.checkpoint import effects as do
from penstock.checkpoint import events as told
from penstock.checkpoint import log, recovery
from penstock.checkpoint.coordinator import JobCoordinator
from penstock.checkpoint.log import StoreAnswer, Unknown
from penstock.checkpoint.phases import Phase
from penstock.checkpoint.settings import CheckpointSettings, Identity
from penstock.core.ids import CheckpointId, WorkerId
from penstock.core.log import Entry
from penstock.testing.simulation.job import GRAPH, JOB
from penstock.testing.simulation.store import SAVEPOINTS, Delete, drive
from penstock.testing.simulation.worker import Worker
from penstock.testing.simulation.world import Link

if TYPE_CHECKING:
    from penstock.testing.simulation.simulation import Simulation

TICK_MS = 100
T = TypeVar("T")


@dataclass(slots=True)
class Connection:
    """Between one worker and one coordinator."""

    shell: Shell
    worker: Worker
    to_worker: Link
    to_coordinator: Link

    def close(self) -> None:
        """Lose what is on its way, both ways."""
        self.to_worker.close()
        self.to_coordinator.close()


class Shell:
    """One coordinator process; `name` is unique to it."""

    def __init__(
        self, sim: Simulation, name: str, revision: str, settings: CheckpointSettings
    ) -> None:
        self.sim = sim
        self.name = name
        self.revision = revision
        self.is_alive = True
        self.is_paused = False
        self.answers: dict[str, do.Answer] = {}
        self.connections: dict[WorkerId, Connection] = {}
        self.job = JobCoordinator(
            Identity(JOB, "sim", revision, incarnation=name, savepoints_url=SAVEPOINTS),
            GRAPH,
            settings,
            read_settings=lambda live: replace(settings, interval_ms=live["interval"]),
        )
        self._backlog: deque[Callable[[], None]] = deque()

    def start(self) -> None:
        """Begin."""
        for effect in self.job.start():
            self.execute(effect)
        self._tick()

    def guard(self, act: Callable[[], None]) -> None:
        """Do it now, when it wakes up, or never."""
        if not self.is_alive:
            return
        if self.is_paused:
            self._backlog.append(act)
        else:
            act()

    def pause(self, duration_ms: int) -> None:
        """Stand still for some time."""
        self.is_paused = True
        self.sim.world.after(duration_ms, self._wake)

    def die(self) -> None:
        """End at once; what it asked the store to do may still happen."""
        self.is_alive = False
        self.connections.clear()
        self.sim.died(self)

    def take(self, event: told.Event) -> None:
        """Something happened."""
        if not self.is_alive:
            return
        before = self.job.phase
        if isinstance(event, told.EntryWon):
            self.sim.oracles.check_won(event.entry)
        for effect in self.job.handle(event):
            if self.is_alive:
                self.execute(effect)
        if self.job.phase is not before:
            self.sim.world.note(f"{self.name}: {before} → {self.job.phase}")

    def connected(self, connection: Connection) -> None:
        """A worker registered."""
        worker = connection.worker
        self.connections[worker.id] = connection
        self.take(told.WorkerJoined(worker.id, worker.copies))

    def lost(self, connection: Connection) -> None:
        """A connection ended."""
        if self.connections.get(connection.worker.id) is connection:
            del self.connections[connection.worker.id]
            self.take(told.WorkerLeft(connection.worker.id, "its connection ended"))

    def execute(self, effect: do.Effect) -> None:
        """Carry out one effect."""
        match effect:
            case do.ReadLog():
                self.drive(recovery.read_job(JOB), self.take)
            case do.Append(entry):
                self.append(entry)
            case do.WriteManifest(path, manifest) if self.sim.vain_stops.refuses(manifest):
                reason = f"the store refuses {path}"
                refused = told.ManifestRefused(manifest.checkpoint, reason, is_taken=False)
                self.sim.world.soon(lambda: self.guard(lambda: self.take(refused)), at_most_ms=50)
            case do.WriteManifest(path, manifest):
                data = manifest.to_bytes()
                self.drive(
                    log.create(path, data),
                    lambda there: self.take(_written(manifest.checkpoint, data, there)),
                )
            case do.PublishSavepoint(request_id, path, manifest):
                self.drive(
                    log.create(f"{SAVEPOINTS}/{path}", manifest.to_bytes()),
                    lambda _: self.take(told.SavepointPublished(request_id)),
                )
            case do.DeleteSnapshot(snapshot, files):
                self.delete(files, lambda: self.take(told.SnapshotDeleted(snapshot)))
            case do.DeleteFiles(files, savepoints):
                root = SAVEPOINTS + "/" if savepoints else ""
                self.delete(tuple(root + path for path in files), lambda: None)
            case do.DisposeSavepoint(request_id, files):
                paths = tuple(f"{SAVEPOINTS}/{path}" for path in files)
                self.delete(paths, lambda: self.take(told.SavepointDisposed(request_id)))
            case do.ApplySettings(live):
                self.sim.world.note(f"{self.name}: settings {live}")
            case do.Answer(request_id, ok, detail):
                self.sim.world.note(f"{self.name}: answers {request_id}: {ok} {detail}")
                self.answers[request_id] = effect
                if ok and request_id.startswith("rescale"):
                    self.sim.oracles.check_rescaled(request_id)
            case do.StandDown(reason):
                self.sim.world.note(f"{self.name}: stands down: {reason}")
                self.die()
            case do.Tell(kind, fields):
                self.sim.world.note(f"{self.name}: {kind} {fields}")
            case do.JobOver():
                pass
            case _:
                for connection in self.connections.values():
                    connection.to_worker.send(effect)

    def append(self, entry: Entry) -> None:
        """Compete for an entry's number."""

        def done(outcome: log.Won | log.Lost) -> None:
            if isinstance(outcome, log.Won):
                self.take(told.EntryWon(outcome.entry))
            else:
                self.take(told.EntryLost(outcome.newest))

        self.drive(log.append(JOB, entry), done)

    def drive(
        self,
        steps: Generator[log.StoreRequest, StoreAnswer, T],
        done: Callable[[T], None],
    ) -> None:
        """Run one of the log's protocols; now and then it dies in the middle of one."""
        if self.sim.crashes_now():
            self.sim.world.note(f"{self.name}: dies before a request")
            self.sim.world.after(0, self.die)
        drive(self.sim.store, self.sim.world, steps, done, self.guard)

    def delete(self, paths: tuple[str, ...], done: Callable[[], None]) -> None:
        """Delete, again until the store says that it is done."""

        def reply(answer: StoreAnswer) -> None:
            if isinstance(answer, Unknown):
                self.delete(paths, done)
            else:
                done()

        self.sim.store.request(Delete(paths), lambda a: self.guard(lambda: reply(a)))

    def _tick(self) -> None:
        if not self.is_alive:
            return
        if not self.is_paused:
            self.take(told.Tick(self.sim.world.now_ms))
        self.sim.world.after(TICK_MS, self._tick)

    def _wake(self) -> None:
        self.is_paused = False
        if self.is_alive:
            self.sim.world.note(f"{self.name}: wakes up")
        while self._backlog and not self.is_paused:
            self.guard(self._backlog.popleft())

    @property
    def is_idle(self) -> bool:
        """Whether it waits for an order."""
        return self.job.phase in (Phase.WAITING, Phase.ENDED)


def _written(checkpoint: int, mine: bytes, there: bytes) -> told.Event:
    n = CheckpointId(checkpoint)
    if there == mine:
        return told.ManifestWritten(n, hashlib.sha256(mine).hexdigest())
    return told.ManifestRefused(n, "another attempt's stands there", is_taken=True)
