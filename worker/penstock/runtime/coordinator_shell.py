"""The coordinator's doing half: feeds events to the core, and carries out its effects in order.

Decides nothing. What the core must never know is here: sockets, threads, stores, the clock. Each
effect has one plain case; what takes time runs beside the loop and comes back as an event.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from penstock.checkpoint import effects, events, log, recovery
from penstock.checkpoint.coordinator import JobCoordinator
from penstock.core import paths
from penstock.core.errors import PenstockError, Rejected, Retryable
from penstock.core.failure import Failure
from penstock.core.manifest import Manifest
from penstock.runtime.clock import Clock
from penstock.runtime.coordinator_workers import WorkerLimits, Workers
from penstock.runtime.job_storage import JobStorage, put_manifest
from penstock.runtime.job_view import JobView
from penstock.runtime.logs import get_logger

logger = get_logger()

T = TypeVar("T")
Order: TypeAlias = (
    events.StartOrdered
    | events.SavepointOrdered
    | events.CheckpointOrdered
    | events.StopOrdered
    | events.CancelOrdered
    | events.RescaleOrdered
    | events.SettingsOrdered
    | events.DisposeOrdered
)

TICK_S = 0.05
_WARNINGS = frozenset({"failed", "checkpoint failed", "damaged", "refused"})
_STORE_THREADS = 8
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 5.0


@dataclass(frozen=True, slots=True)
class StoodDown:
    """Another coordinator has the job."""

    reason: str


class Shell:
    """One job's coordinator while its process lives. All methods belong to the loop's thread."""

    def __init__(
        self,
        core: JobCoordinator,
        storage: JobStorage,
        make_workers: Callable[[Shell], Workers],
        limits_of: Callable[[Mapping[str, Any]], WorkerLimits],
        clock: Clock,
    ) -> None:
        """`limits_of` says what live settings mean for workers."""
        self._core = core
        self._limits_of = limits_of
        self._storage = storage
        self._clock = clock
        self.view = JobView(started_ms=clock.now_ms())
        self.workers = make_workers(self)
        self._events: asyncio.Queue[events.Event] = asyncio.Queue()
        self._answers: dict[str, effects.Answer] = {}
        self._asked: dict[str, asyncio.Future[effects.Answer]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._threads = ThreadPoolExecutor(_STORE_THREADS, thread_name_prefix="store")
        self._closing = threading.Event()
        loop = asyncio.get_running_loop()
        self._over: asyncio.Future[StoodDown] = loop.create_future()
        self.has_read_log = asyncio.Event()
        self._has_written = False

    # ── what others call ────────────────────────────────────────────────────────────────────────

    def emit(self, event: events.Event) -> None:
        """Take a fact, to be told to the core in its turn."""
        self._events.put_nowait(event)

    def answer(self, request_id: str) -> effects.Answer | None:
        """The outcome of an order, once there is one."""
        return self._answers.get(request_id)

    async def order(self, order: Order) -> effects.Answer:
        """The outcome of an order; one that was given before is not carried out again."""
        known = self._answers.get(order.request_id)
        if known is not None:
            return known
        asked = self._asked.get(order.request_id)
        if asked is None:
            asked = asyncio.get_running_loop().create_future()
            self._asked[order.request_id] = asked
            self.emit(order)
        return await asyncio.shield(asked)

    async def in_thread(self, call: Callable[[], T]) -> T:
        """The result of a blocking call of a store."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)

    async def published_savepoint(self, request_id: str) -> Manifest | None:
        """The manifest of the savepoint that this request made, if it stands there already."""
        path = paths.savepoint_folder(self._storage.job, request_id) + paths.METADATA
        data = await self.in_thread(lambda: self._storage.savepoints.get(path))
        return None if data is None else Manifest.from_bytes(data, path=path)

    async def run(self) -> StoodDown:
        """Work until another coordinator has the job, or until cancelled.

        Raises:
            PenstockError: the store cannot be used, or the job's log cannot be read.
        """
        loops = {asyncio.create_task(self._tick()), asyncio.create_task(self._turn())}
        ends: set[asyncio.Future[Any]] = {*loops, self._over}
        try:
            done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            for ended in done:
                ended.result()
            return self._over.result()
        finally:
            await self._close(loops)

    # ── the two loops ───────────────────────────────────────────────────────────────────────────

    async def _tick(self) -> None:
        while True:
            self.workers.check()
            self.emit(events.Tick(self._clock.now_ms()))
            await asyncio.sleep(TICK_S)

    async def _turn(self) -> None:
        for effect in self._core.start():
            self._execute(effect)
        while True:
            event = await self._events.get()
            self.view.saw_event(event, self._clock.now_ms())
            for effect in self._core.handle(event):
                self._execute(effect)
            if isinstance(event, events.LogRead):
                self.has_read_log.set()

    async def _close(self, loops: set[asyncio.Task[None]]) -> None:
        self._closing.set()
        for task in (*loops, *self._tasks):
            task.cancel()
        await asyncio.gather(*loops, *self._tasks, return_exceptions=True)
        self.workers.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    # ── effects ─────────────────────────────────────────────────────────────────────────────────

    def _execute(self, effect: effects.Effect) -> None:
        self.view.saw_effect(effect, self._clock.now_ms())
        match effect:
            case effects.ReadLog():
                self._begin(self._read_log())
            case effects.Append(entry=entry):
                self._has_written = True
                self._begin(self._append(effect))
            case effects.WriteManifest():
                self._begin(self._write_manifest(effect))
            case effects.PublishSavepoint():
                self._begin(self._publish(effect))
            case effects.DeleteSnapshot():
                self._begin(self._delete_snapshot(effect))
            case effects.DeleteFiles():
                self._begin(self._delete_files(effect))
            case effects.DisposeSavepoint():
                self._begin(self._dispose(effect))
            case effects.ApplySettings(live=live):
                self.workers.limits = self._limits_of(live)
            case effects.Prepare():
                self.workers.prepare(effect)
            case effects.Run():
                self.workers.run(effect)
            case effects.Trigger():
                self.workers.trigger(effect)
            case effects.Abort():
                self.workers.abort(effect)
            case effects.Resume():
                self.workers.resume(effect)
            case effects.NotifyCompleted():
                self.workers.completed(effect)
            case effects.CancelWorkers():
                self.workers.cancel(effect)
            case effects.Answer():
                self._answers[effect.request_id] = effect
                if asked := self._asked.pop(effect.request_id, None):
                    asked.set_result(effect)
            case effects.Tell(kind=kind, fields=fields):
                _say(kind, fields)
            case effects.JobOver(entry=entry):
                assert entry.end is not None, entry
                if self._has_written:  # else it was over before
                    logger.info("job over", end=entry.end.kind.value, reason=entry.end.reason)
            case effects.StandDown(reason=reason):
                if not self._over.done():
                    self._over.set_result(StoodDown(reason))

    async def _read_log(self) -> None:
        def read() -> events.LogRead:
            return self._storage.run(
                recovery.read_job(self._storage.job), wait=self._patience(Retryable)
            )

        self.emit(await self.in_thread(read))

    async def _append(self, effect: effects.Append) -> None:
        def put() -> log.Won | log.Lost:
            # A full disk or a withdrawn permission may be mended: until then the outcome is unknown.
            return self._storage.run(
                log.append(self._storage.job, effect.entry),
                wait=self._patience(Retryable, Rejected),
            )

        match await self.in_thread(put):
            case log.Won(entry=entry):
                self.emit(events.EntryWon(entry))
            case log.Lost(newest=newest):
                self.emit(events.EntryLost(newest))

    async def _write_manifest(self, effect: effects.WriteManifest) -> None:
        checkpoint = effect.manifest.checkpoint
        try:
            digest = await self._until_done(
                lambda: put_manifest(self._storage.checkpoints, effect.path, effect.manifest),
                Retryable,
            )
        except Rejected as e:
            self.emit(events.ManifestRefused(checkpoint, e.what, is_taken=False))
            return
        if digest is None:
            reason = f"another attempt's manifest stands at {effect.path}"
            self.emit(events.ManifestRefused(checkpoint, reason, is_taken=True))
        else:
            self.emit(events.ManifestWritten(checkpoint, digest))

    async def _publish(self, effect: effects.PublishSavepoint) -> None:
        store, data = self._storage.savepoints, effect.manifest.to_bytes()
        await self._until_done(lambda: store.put_if_absent(effect.path, data), Retryable, Rejected)
        self.emit(events.SavepointPublished(effect.request_id))

    async def _delete_snapshot(self, effect: effects.DeleteSnapshot) -> None:
        store = self._storage.checkpoints
        await self._until_done(lambda: store.delete(effect.paths), Retryable, Rejected)
        self.emit(events.SnapshotDeleted(effect.snapshot))

    async def _dispose(self, effect: effects.DisposeSavepoint) -> None:
        store = self._storage.savepoints
        await self._until_done(lambda: store.delete(effect.paths), Retryable, Rejected)
        self.emit(events.SavepointDisposed(effect.request_id))

    async def _delete_files(self, effect: effects.DeleteFiles) -> None:
        store = self._storage.savepoints if effect.savepoints else self._storage.checkpoints
        await self._until_done(lambda: store.delete(effect.paths), Retryable, Rejected)

    # ── beside the loop ─────────────────────────────────────────────────────────────────────────

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) and not self._over.done():
            self._over.set_exception(error)

    async def _until_done(self, call: Callable[[], T], *patient: type[PenstockError]) -> T:
        """The call's result, tried again without end after errors of these kinds, holding no
        thread in between."""
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                return await self.in_thread(call)
            except patient as e:
                logger.warning("store", error=e.what, where=e.where, retry_s=pause_s)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def _patience(self, *kinds: type[PenstockError]) -> Callable[[PenstockError], bool]:
        """Waits after errors of these kinds, each time a little longer; ends when this process does.

        What is tried again was perhaps done already: no put is ever given up while this lives.
        """
        pause_s = _FIRST_PAUSE_S

        def wait(error: PenstockError) -> bool:
            nonlocal pause_s
            if not isinstance(error, kinds):
                return False
            logger.warning("store", error=error.what, where=error.where, retry_s=pause_s)
            if self._closing.wait(pause_s):
                return False
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
            return True

        return wait


def _say(kind: str, fields: dict[str, Any]) -> None:
    """A line of the log; a failure in it is told by its parts."""
    told = dict(fields)
    failure = told.pop("failure", None)
    if isinstance(failure, Failure):
        told |= {
            "error": failure.what,
            "operator": failure.operator,
            "subtask": failure.subtask,
            "position": failure.position,
        }
    say = logger.warning if kind in _WARNINGS else logger.info
    say(kind, **{name: value for name, value in told.items() if value is not None})
