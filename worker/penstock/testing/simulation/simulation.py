"""One simulated run: everybody in it, what goes wrong, what is ordered, and how it ends."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from penstock.checkpoint import events as told
from penstock.checkpoint.origin import Origin
from penstock.checkpoint.phases import Phase
from penstock.checkpoint.settings import CheckpointSettings, ExponentialDelay, OnCancellation
from penstock.core.chains import Chain
from penstock.core.ids import AttemptNumber, ChannelId, SubtaskId, WorkerId
from penstock.core.log import End, EndKind, Entry
from penstock.core.manifest import Manifest
from penstock.core.paths import METADATA
from penstock.runtime.program import Program
from penstock.spec.streamjob import StreamJob
from penstock.testing.simulation.job import GRAPH, JOB, Input, environment
from penstock.testing.simulation.oracles import Oracles
from penstock.testing.simulation.outside import Outside, Violation
from penstock.testing.simulation.shell import Connection, Shell
from penstock.testing.simulation.stops import VainStops
from penstock.testing.simulation.store import SAVEPOINTS, SimulatedStore
from penstock.testing.simulation.tasks import Channel, LinesReader, OutsideWriter
from penstock.testing.simulation.worker import Worker
from penstock.testing.simulation.world import Link, World

WORKERS = 4
TROUBLE_MS = 30_000
DEADLINE_MS = 900_000
SETTLE_MS = 45_000
CALM_SEEDS = 8
EVENTFUL_SEEDS = 3
VAIN_SEEDS = 5
_MANIFEST = StreamJob.model_validate(
    {
        "apiVersion": "penstock.dev/v1alpha1",
        "kind": "StreamJob",
        "metadata": {"name": JOB},
        "spec": {"entrypoint": "sim:job", "state": {"backend": "FileSystem"}},
    }
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one seed gave; `violation` is None when all held."""

    seed: int
    violation: str | None
    digest: str
    trace: tuple[str, ...]


class Simulation:
    """A job, its processes and its troubles. Every eighth seed is calm: nothing fails. Every third is
    eventful: there is more to read, and more is ordered, upgrades with holds above all. In every fifth
    stops are ordered that cannot succeed.

    `shell` may be a subclass that breaks a rule, to see that it is noticed.
    """

    def __init__(self, seed: int, *, shell: type[Shell] = Shell) -> None:
        self.seed = seed
        self.world = World(seed)
        rng = self.world.rng
        self.is_calm = seed % CALM_SEEDS == 0
        self.folder = Path()
        self.store = SimulatedStore(self.world)
        self.outside = Outside(self.world)
        self.is_eventful = seed % EVENTFUL_SEEDS == 1
        has_vain_stops = seed % VAIN_SEEDS == 2
        most = 150 if self.is_eventful or has_vain_stops else 50
        self.input = Input(tuple(rng.randrange(0, most) for _ in range(rng.randrange(2, 5))))
        self.oracles = Oracles(self.world, self.store, self.outside, self.input)
        self.speed = rng.choice((0.03, 0.1, 0.3))
        self.declines = 0.0
        self.turns_ms = (5, 60)
        self.shells: list[Shell] = []
        self.workers = [Worker(self, WorkerId(i)) for i in range(WORKERS)]
        self.vain_stops = VainStops(self, 2 if has_vain_stops else 0)
        self._shell = shell
        self._settings = CheckpointSettings(
            interval_ms=rng.choice((300, 1_000, 3_000)),
            min_pause_ms=rng.choice((0, 500)),
            timeout_ms=rng.choice((600, 2_000, 10_000)),
            tolerable_failures=rng.choice((0, 2)),
            retained=rng.choice((1, 3)),
            log_entries=rng.choice((1, 3, 100)),
            on_cancellation=rng.choice(tuple(OnCancellation)),
            restart=ExponentialDelay(200, 3_000),
        )
        self._channels: dict[tuple[AttemptNumber, ChannelId], Channel] = {}
        self._connections: dict[WorkerId, Connection] = {}
        self._names = 0
        self._uuids = 0
        self._parallelism = rng.randrange(1, WORKERS + 1)
        self._orders = self._starts = 0
        self._revision = 1
        self._upgrades = rng.randrange(3, 6) if self.is_eventful else rng.randrange(3)
        self._stops = 0 if self.is_calm and rng.random() < 0.5 else rng.randrange(3)
        self._stops += 3 * self.is_eventful

    def run(self) -> Outcome:
        """Until the job has finished and everything is quiet, or something is wrong."""
        with tempfile.TemporaryDirectory(prefix="penstock-simulation-") as folder:
            self.folder = Path(folder)
            return self._run()

    def _run(self) -> Outcome:
        violation: str | None = None
        try:
            self._begin()
            if not self.world.run(until=self._is_over, deadline_ms=DEADLINE_MS):
                raise Violation(f"not finished after {self.world.now_ms} ms")
            self.world.run(until=lambda: False, deadline_ms=self.world.now_ms + SETTLE_MS)
            self.oracles.check_end(no_orphans=self.is_calm)
        except AssertionError as e:
            violation = str(e) or repr(e)
        return Outcome(self.seed, violation, self.world.digest, tuple(self.world.trace))

    # ── who is there ────────────────────────────────────────────────────────────────────────────

    @property
    def is_troubled(self) -> bool:
        """Whether things still go wrong."""
        return not self.is_calm and self.world.now_ms < TROUBLE_MS

    def crashes_now(self) -> bool:
        """Whether a coordinator dies at this request of its own."""
        return self.is_troubled and self.world.chance(0.01)

    def uuid(self) -> str:
        """Never the same twice."""
        self._uuids += 1
        return f"{self._uuids:06}"

    def program(self) -> Program:
        """The job as one child has it; each calls it for itself."""
        world = self.world
        built = environment(
            lambda ctx: LinesReader(ctx, self.input, world, lambda: self.speed),
            lambda ctx: OutsideWriter(ctx, self.outside, world, lambda: self.store.faults),
        )
        return Program(_MANIFEST, self.folder, built, GRAPH)

    def channel(self, attempt: AttemptNumber, name: ChannelId) -> Channel:
        """One channel of an attempt, the same for both its ends."""
        key = attempt, name
        if key not in self._channels:
            self._channels[key] = Channel(self.world, name)
        return self._channels[key]

    def close_channels(self, attempt: AttemptNumber, subtasks: dict[SubtaskId, Chain]) -> None:
        """A child died: its channels are lost, and its peers notice after a while."""
        for key, channel in self._channels.items():
            if key[0] == attempt and _touches(key[1], subtasks):
                channel.close()
        for worker in self.workers:
            child = worker.child
            if child is not None and child.is_alive and child.attempt == attempt:
                self.world.soon(partial(child.fail, "a channel was lost"), at_most_ms=1_000)

    # ── connections ─────────────────────────────────────────────────────────────────────────────

    def disconnected(self, connection: Connection) -> None:
        """One side is gone, or the network between them; the worker looks for a coordinator."""
        connection.close()
        worker = connection.worker
        shells = [s for s in self.shells if s.connections.get(worker.id) is connection]
        for shell in shells:
            self.world.soon(partial(shell.guard, partial(shell.lost, connection)), at_most_ms=2_000)
        if self._connections.get(worker.id) is connection:
            del self._connections[worker.id]
            worker.tell = lambda _: None

    def died(self, shell: Shell) -> None:
        """A coordinator is gone, and its connections with it."""
        for connection in list(self._connections.values()):
            if connection.shell is shell:
                self.disconnected(connection)

    def _connect(self) -> None:
        """Workers without a connection register with some coordinator, mostly the latest."""
        alive = [s for s in self.shells if s.is_alive]
        for worker in self.workers:
            if worker.id in self._connections or not alive or not self.world.chance(0.5):
                continue
            shell = alive[-1] if self.world.chance(0.8) else self.world.rng.choice(alive)
            self._register(worker, shell)
        self.world.after(200, self._connect)

    def _register(self, worker: Worker, shell: Shell) -> None:
        def arrive(event: object) -> None:
            assert isinstance(event, told.Event), event
            shell.guard(lambda: shell.take(event))

        doubles = 0.0 if self.is_calm else 0.05
        connection = Connection(
            shell,
            worker,
            to_worker=Link(self.world, worker.on_control, delay_ms=40, doubles=doubles),
            to_coordinator=Link(self.world, arrive, delay_ms=40, doubles=doubles),
        )
        self._connections[worker.id] = connection
        worker.tell = connection.to_coordinator.send
        shell.guard(lambda: shell.connected(connection))

    def _start_coordinator(self) -> None:
        self._names += 1
        shell = self._shell(self, f"C{self._names}", str(self._revision), self._settings)
        self.shells.append(shell)
        self.world.note(f"{shell.name} starts")
        shell.start()

    # ── what happens to it ──────────────────────────────────────────────────────────────────────

    def _begin(self) -> None:
        if not self.is_calm:
            self.store.faults = self.world.rng.choice((0.0, 0.02, 0.1))
            self.store.slow = self.world.rng.choice((0.0, 0.05, 0.2))
            self.declines = self.world.rng.choice((0.0, 0.03))
            self.world.after(TROUBLE_MS, self._calm_down)
            self.world.after(1_000, self._trouble)
        self._start_coordinator()
        self._keep_one()
        self._connect()
        self._order()
        self.vain_stops.begin()

    def _calm_down(self) -> None:
        self.store.faults = self.store.slow = self.declines = 0.0
        self.speed = max(self.speed, 0.3)
        self.world.note("trouble ends")

    def _keep_one(self) -> None:
        """The platform starts a coordinator when there is none, and ends one too many at last."""
        alive = [s for s in self.shells if s.is_alive]
        if not any(s.revision == str(self._revision) for s in alive):
            self._start_coordinator()
        elif len(alive) > 1 and not self.is_troubled and not any(s.is_paused for s in alive):
            self.world.note(f"{alive[0].name} is one too many")
            alive[0].die()
        self.world.after(1_500, self._keep_one)

    def _trouble(self) -> None:
        if not self.is_troubled:
            return
        rng, world = self.world.rng, self.world
        worker = rng.choice(self.workers)
        alive = [s for s in self.shells if s.is_alive]
        match rng.randrange(14):
            case 0:
                world.note(f"worker {worker.id} crashes")
                worker.crash()
                if worker.id in self._connections:
                    self.disconnected(self._connections[worker.id])
            case 1 if worker.child is not None:
                world.note(f"the child of worker {worker.id} breaks")
                worker.child.fail("the author's code raised")
            case 2 if worker.id in self._connections:
                world.note(f"worker {worker.id} loses its connection")
                self.disconnected(self._connections[worker.id])
            case 3 if alive:
                world.note(f"{alive[-1].name} dies")
                alive[-1].die()
            case 4 | 5 if alive:
                self._pause(rng.choice(alive), is_twin_started=rng.random() < 0.7)
            case 6 if len(alive) < 3:
                self._start_coordinator()
            case _:
                pass
        world.after(rng.randrange(200, 3_000), self._trouble)

    def _pause(self, shell: Shell, *, is_twin_started: bool) -> None:
        """Stand still for seconds; meanwhile a second one may be started, whom workers turn to."""
        self.world.note(f"{shell.name} pauses")
        shell.pause(self.world.rng.randrange(500, 15_000))
        if is_twin_started:
            self._start_coordinator()
            for worker in self.workers:
                connection = self._connections.get(worker.id)
                if connection is not None and self.world.chance(0.8):
                    self.world.soon(partial(self.disconnected, connection), at_most_ms=3_000)

    # ── orders ──────────────────────────────────────────────────────────────────────────────────

    def _order(self) -> None:
        """A person who wants the job to run to its end, with some wishes on the way."""
        alive = [s for s in self.shells if s.is_alive and not s.is_paused]
        if alive and not self.vain_stops.are_watched:
            self._order_from(self.world.rng.choice(alive))
        self.world.after(self.world.rng.randrange(200, 1_500), self._order)

    def _order_from(self, shell: Shell) -> None:
        entry, rng = shell.job.entry, self.world.rng
        if shell.is_idle:
            if entry is not None and entry.end is not None and self._is_last(entry.end):
                return
            if shell.job.phase is Phase.ENDED and self._upgrades and rng.random() < 0.3:
                self._change_revision()
            elif shell.revision == str(self._revision):
                self._order_start(shell, entry)
            return
        if shell.job.phase not in (Phase.RUNNING, Phase.BACKING_OFF, Phase.DEPLOYING):
            return
        self._orders += 1
        number = self._orders
        wish = rng.randrange(25 if self.is_eventful else 50)
        if wish < 3:
            self.send(shell, told.SavepointOrdered(f"savepoint-{number}"))
        elif wish == 3:
            self.send(shell, told.CheckpointOrdered(f"checkpoint-{number}"))
        elif wish in (4, 5) and self._stops:
            self._stops -= 1
            self.send(shell, told.StopOrdered(f"stop-{number}"))
        elif wish in (6, 7) and self._stops and not (self.is_calm and _is_uploading(shell)):
            self._stops -= 1
            retain = rng.choice((None, True, True, True, False))
            self.send(shell, told.CancelOrdered(f"cancel-{number}", retain))
        elif wish in (8, 9, 10):
            target = rng.randrange(1, WORKERS + 2)
            self.send(shell, told.RescaleOrdered(f"rescale-{number}", target))
        elif wish == 11:
            live = {"interval": rng.choice((200, 700, 2_000))}
            self.send(shell, told.SettingsOrdered(f"settings-{number}", live))
        elif wish == 12:
            self._order_disposal(shell, number)
        elif wish in (13, 14) and self._upgrades and not self.is_calm:
            self._change_revision()

    def _order_start(self, shell: Shell, entry: Entry | None) -> None:
        """Mostly from the log; where a hold stands, also back to before it, or forth in it."""
        rng = self.world.rng
        if rng.random() < 0.3:
            self._parallelism = rng.randrange(1, WORKERS + 1)
        seq = entry.seq if entry else 0
        goes_back = entry is not None and rng.random() < (0.4 if entry.hold else 0.25)
        self._starts += 1
        self.send(
            shell,
            told.StartOrdered(
                f"start-{seq}-{self._starts}",
                after=seq,
                revision=shell.revision,
                parallelism=self._parallelism,
                max_parallelism=8,
                origin=Origin.HOLD if goes_back else Origin.LOG,
                hold_stable=rng.choice((2, 4) if self.is_eventful else (None, None, 2)),
            ),
        )

    def _order_disposal(self, shell: Shell, number: int) -> None:
        """One of the savepoints that stand is not wanted any more."""
        paths = sorted(
            path
            for path in self.store.objects
            if path.startswith(SAVEPOINTS) and path.endswith(METADATA)
        )
        if paths:
            path = self.world.rng.choice(paths)
            manifest = Manifest.from_bytes(self.store.objects[path], path=path)
            folder = path.removeprefix(SAVEPOINTS + "/").removesuffix("/" + METADATA)
            self.send(shell, told.DisposeOrdered(f"dispose-{number}", folder, manifest))

    def _change_revision(self) -> None:
        """Other code is to run: coordinators of the old one are ended, but for one that is paused."""
        self._revision += 1
        self._upgrades -= 1
        self.world.note(f"revision {self._revision}")
        for shell in self.shells:
            if shell.is_alive and not shell.is_paused:
                shell.die()
        self._start_coordinator()

    def send(self, shell: Shell, order: told.Event) -> None:
        """Order something, sometimes twice."""
        self.world.note(f"ordered from {shell.name}: {_short(order)}")
        shell.take(order)
        if self.world.chance(0.3):
            self.world.soon(lambda: shell.guard(lambda: shell.take(order)), at_most_ms=3_000)

    def _is_over(self) -> bool:
        newest = self.oracles.newest
        end = newest.end if newest else None
        is_quiet = self.is_calm or self.world.now_ms > TROUBLE_MS
        return is_quiet and end is not None and end.committed and self._is_last(end)

    def _is_last(self, end: End) -> bool:
        """Whether nobody starts it again: after a cancel that deletes all, it would begin anew."""
        return end.kind is EndKind.FINISHED or end.deletes


def _is_uploading(shell: Shell) -> bool:
    """Whether a cancel would leave behind what a worker has uploaded and not told."""
    return shell.job.run is not None and shell.job.run.pending is not None


def _short(order: told.Event) -> str:
    return str(replace(order, manifest=None) if isinstance(order, told.DisposeOrdered) else order)


def _touches(name: ChannelId, subtasks: dict[SubtaskId, Chain]) -> bool:
    edge = GRAPH.edges[name.edge]
    return any(
        (edge.target == chain.head and name.target == subtask.index)
        or (edge.source in chain.operators and name.source == subtask.index)
        for subtask, chain in subtasks.items()
    )
