"""A coordinator's process as a pod runs it: the production core, shell, order desk and status, on the
simulation's loop, store and connections.

Simulated are only the edges: requests to the store come one by one and late, control connections are
links to simulated workers, and the clock is the world's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from tests.simulation.operator.cluster import EPOCH
from tests.simulation.whole.loop import VirtualLoop
from tests.simulation.whole.storage import job_storage

from penstock.checkpoint import effects, events, log, recovery
from penstock.checkpoint.coordinator import JobCoordinator
from penstock.checkpoint.log import StoreAnswer, StoreRequest
from penstock.checkpoint.settings import CheckpointSettings, Identity
from penstock.core.errors import PenstockError
from penstock.core.ids import WorkerId
from penstock.runtime.coordinator_config import checkpoint_settings
from penstock.runtime.coordinator_shell import Shell, StoodDown
from penstock.runtime.coordinator_workers import WorkerLimits
from penstock.runtime.job_status import job_status
from penstock.runtime.order_desk import LogIsBeingRead, OrderDesk
from penstock.runtime.program import Program, sinks_without_transactions
from penstock.spec.live import with_live
from penstock.spec.orders import JobStatus, Order, RequestStatus
from penstock.state.schemas import is_readable
from penstock.testing.simulation.job import JOB
from penstock.testing.simulation.store import SAVEPOINTS, SimulatedStore, drive
from penstock.testing.simulation.worker import Worker
from penstock.testing.simulation.world import Link, World

T = TypeVar("T")

TICK_S = 0.5
OWNER = "cluster/ns/job"
_EPOCH_MS = int(EPOCH.timestamp() * 1000)


@dataclass(slots=True, eq=False)
class Connection:
    """Between one worker and one coordinator; `ended` is called once, on the worker's side."""

    process: CoordinatorProcess
    worker: Worker
    to_worker: Link
    to_coordinator: Link
    ended: Callable[[], None]


class Connections:
    """In the place of `runtime.coordinator_workers.Workers`: what the core wants goes over links."""

    def __init__(self, limits: WorkerLimits) -> None:
        self.limits = limits
        self.by_id: dict[WorkerId, Connection] = {}

    @property
    def connected(self) -> list[WorkerId]:
        """The workers that are registered now."""
        return sorted(self.by_id)

    def check(self) -> None:
        """Connections tell by themselves when they end."""

    def close(self) -> None:
        """They end with the process."""

    def send(self, effect: effects.Effect) -> None:
        """Tell all of them."""
        for connection in list(self.by_id.values()):
            connection.to_worker.send(effect)

    prepare = run = trigger = abort = resume = completed = cancel = send


class SteppingShell(Shell):
    """The production shell, but for requests of the log, of which each takes its time."""

    def __init__(self, process: CoordinatorProcess, core: JobCoordinator, program: Program) -> None:
        super().__init__(
            core,
            process.storage,
            lambda _: Connections(_limits(program, {})),  # type: ignore[arg-type, return-value]
            partial(_limits, program),
            process.clock,  # type: ignore[arg-type]
        )
        self._process = process

    async def _tick(self) -> None:
        while True:
            self.emit(events.Tick(self._process.clock.now_ms()))
            await asyncio.sleep(TICK_S)

    def _execute(self, effect: effects.Effect) -> None:
        process = self._process
        match effect:
            case effects.Tell(kind=kind, fields=fields):
                self.view.saw_effect(effect, process.clock.now_ms())
                process.note(f"{kind} {fields}")
            case effects.Answer(request_id, ok, detail):
                process.note(f"answers {request_id}: {ok} {detail}")
                super()._execute(effect)
            case effects.JobOver():
                self.view.saw_effect(effect, process.clock.now_ms())
                process.note("the job is over")
            case _:
                super()._execute(effect)

    async def _read_log(self) -> None:
        self.emit(await self._process.driven(recovery.read_job(JOB)))

    async def _append(self, effect: effects.Append) -> None:
        match await self._process.driven(log.append(JOB, effect.entry)):
            case log.Won(entry=entry):
                self._process.won(entry)
                self.emit(events.EntryWon(entry))
            case log.Lost(newest=newest):
                self.emit(events.EntryLost(newest))


class _Clock:
    """The time of day, by which the cluster's objects are dated, too."""

    def __init__(self, world: World) -> None:
        self._world = world

    def now_ms(self) -> int:
        return _EPOCH_MS + self._world.now_ms


class CoordinatorProcess:
    """One process, from its start to its end; `name` is unique to it. Nothing of it outlives it."""

    def __init__(
        self,
        world: World,
        store: SimulatedStore,
        program: Program,
        *,
        name: str,
        revision: str,
        won: Callable[[Any], None],
    ) -> None:
        self.name = name
        self.revision = revision
        self.clock = _Clock(world)
        self.storage = job_storage(store)
        self.stood_down = False
        self.is_alive = True
        self.won = won
        self._world = world
        self._store = store
        self._program = program
        self._loop = VirtualLoop(world, lambda: store.faults)
        self._loop.within(self._begin)

    def _begin(self) -> None:
        program = self._program
        self.core = JobCoordinator(
            Identity(
                job=JOB,
                owner=OWNER,
                revision=self.revision,
                incarnation=self.name,
                savepoints_url=SAVEPOINTS,
                adopt=program.manifest.spec.restore.adopt,
            ),
            program.graph,
            self._settings({}),
            is_readable=is_readable,
            read_settings=self._settings,
        )
        self._shell = SteppingShell(self, self.core, program)
        self._desk = OrderDesk(self._shell, self.storage, program)
        self._holds_not = sinks_without_transactions(program)
        self.note("starts")
        for part in (self._shell._tick(), self._shell._turn()):
            self._loop.create_task(part).add_done_callback(lambda task: task.result())
        self._shell._over.add_done_callback(self._on_over)

    # ── its life ────────────────────────────────────────────────────────────────────────────────

    @property
    def is_listening(self) -> bool:
        """Whether anybody is answered at all."""
        return self.is_alive and not self._loop.is_paused

    @property
    def has_read_log(self) -> bool:
        """What its readiness says."""
        return self.is_listening and self._desk.has_read_log

    def note(self, text: str) -> None:
        """Add a line to the trace."""
        self._world.note(f"{self.name}: {text}")

    def pause(self, duration_ms: int) -> None:
        """Stand still, as on a node that freezes."""
        self._loop.pause(duration_ms)

    def die(self) -> None:
        """End at once; what it asked the store to do may still happen, and its connections end."""
        if not self.is_alive:
            return
        self.is_alive = False
        self._loop.die()
        for connection in self.connections():
            self.disconnect(connection)

    def _on_over(self, over: asyncio.Future[StoodDown]) -> None:
        error = over.exception()
        if error is None:
            self.note(f"stands down: {over.result().reason}")
            self.stood_down = True
        elif isinstance(error, PenstockError):
            self.note(f"ends: {error.what}")
        else:
            raise error
        self.die()

    # ── REST ────────────────────────────────────────────────────────────────────────────────────

    def status(self) -> JobStatus:
        """What `GET status` answers, after its way through JSON. Raises LogIsBeingRead."""
        if not self._desk.has_read_log:
            raise LogIsBeingRead
        view = self._shell.view
        told = job_status(
            view,
            job=JOB,
            graph=self._program.graph,
            revision=self.revision,
            parallelism=self._program.manifest.spec.parallelism,
            workers=self._shell.workers.connected,
            requests=self._desk.statuses(),
            holds_not=self._holds_not,
            checkpoints_url=self.storage.checkpoints.url,
            savepoints_url=self.storage.savepoints.url,
            settings_in_force=self._settings(view.live),
            now_ms=self.clock.now_ms(),
        )
        return JobStatus.model_validate_json(told.model_dump_json())

    def post(self, order: Order, answer: Callable[[PenstockError | None], None]) -> None:
        """An order arrives; `answer` gets its refusal or None, unless the process ends first."""

        async def take() -> RequestStatus:
            return await self._desk.take(order, wait_s=0)  # type: ignore[arg-type]

        def tell(task: asyncio.Task[RequestStatus]) -> None:
            error = task.exception()
            if error is not None and not isinstance(error, PenstockError):
                raise error
            answer(error)

        def begin() -> None:
            self.note(f"ordered {order}")
            self._loop.create_task(take()).add_done_callback(tell)

        self._loop.guard(begin)

    # ── the store ───────────────────────────────────────────────────────────────────────────────

    def driven(self, steps: Generator[StoreRequest, StoreAnswer, T]) -> asyncio.Future[T]:
        """The outcome of one of the log's protocols."""
        future: asyncio.Future[T] = self._loop.create_future()
        drive(self._store, self._world, steps, future.set_result, self._loop.guard)
        return future

    # ── workers ─────────────────────────────────────────────────────────────────────────────────

    @property
    def _connections(self) -> Connections:
        found: Any = self._shell.workers
        assert isinstance(found, Connections), found
        return found

    def connections(self) -> list[Connection]:
        """Those of the workers that it counts as connected."""
        return list(self._connections.by_id.values())

    def connect(self, worker: Worker, ended: Callable[[], None]) -> Connection | None:
        """A worker registers; refused while an older one of its number counts as connected."""
        if not self.is_listening or worker.id in self._connections.by_id:
            return None
        world = self._world

        def arrive(event: object) -> None:
            assert isinstance(event, events.Event), event
            self._loop.guard(lambda: self._shell.emit(event))

        connection = Connection(
            self,
            worker,
            to_worker=Link(world, worker.on_control, delay_ms=40),
            to_coordinator=Link(world, arrive, delay_ms=40),
            ended=ended,
        )
        self._connections.by_id[worker.id] = connection
        worker.tell = connection.to_coordinator.send
        arrive(events.WorkerJoined(worker.id, worker.copies))
        return connection

    def disconnect(self, connection: Connection) -> None:
        """One side is gone, or the network between them; the coordinator learns of it after a while."""
        if not connection.to_worker.is_open:
            return
        connection.to_worker.close()
        connection.to_coordinator.close()
        connection.worker.tell = lambda _: None
        connection.ended()
        lost = partial(self._loop.guard, partial(self._lost, connection))
        self._world.soon(lost, at_most_ms=2_000)

    def _lost(self, connection: Connection) -> None:
        id = connection.worker.id
        if self._connections.by_id.get(id) is connection:
            del self._connections.by_id[id]
            self._shell.emit(events.WorkerLeft(id, "its connection ended"))

    # ── what its manifest says ──────────────────────────────────────────────────────────────────

    def _settings(self, live: Mapping[str, Any]) -> CheckpointSettings:
        return checkpoint_settings(with_live(self._program.manifest, live))


def _limits(program: Program, live: Mapping[str, Any]) -> WorkerLimits:
    worker = with_live(program.manifest, live).spec.worker
    return WorkerLimits(worker.heartbeat_timeout_ms, worker.progress_timeout_ms)
