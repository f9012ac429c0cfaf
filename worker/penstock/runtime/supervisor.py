"""The supervisor: a worker's process that lives longer than any attempt.

It holds the control connection and the local copies, has a child for each attempt (`children`), and
moves files up (`uploads`) and down on threads. It never runs the author's code. A spare child is kept
warm, so that a recovery does not wait for Python to start. Asked to end, it lets a checkpoint under
way finish. No child outlives it.
"""

from __future__ import annotations

import contextlib
import os
import queue
import selectors
import shutil
import signal
import socket
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn, TypeVar

import msgspec

from penstock.core.errors import PenstockError, Retryable
from penstock.core.ids import AttemptNumber, WorkerId
from penstock.network import frames
from penstock.network.control import ControlSocket, connect
from penstock.network.frames import AnyFrame
from penstock.runtime import pod, termination
from penstock.runtime.backends import folder_in
from penstock.runtime.children import ChildProcess, Children, start
from penstock.runtime.failures import failure_of, is_for_good
from penstock.runtime.job_storage import JobStorage, storage_of
from penstock.runtime.logs import configure_logging, get_logger
from penstock.runtime.orphans import reap_orphans
from penstock.runtime.pdeathsig import die_with_parent
from penstock.runtime.transfers import Brought, LocalCopies, Uploader, bring
from penstock.runtime.uploads import Uploads, ours
from penstock.spec.loading import load_manifest
from penstock.spec.streamjob import StreamJob
from penstock.storage.files import os_errors_translated

log = get_logger()

HEARTBEAT_S = 1.0
REGISTERED = "registered"
"""A file on the worker's disk: it is there while the coordinator knows this worker."""

_CONNECT_S = 60.0
_CONNECT_PAUSE_MAX_S = 5.0
_LEAVE_S = 20.0
_TRANSFER_THREADS = 4

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class SupervisorConfig:
    """What a worker's process is told when it starts.

    `workdir` is its own, also by name: local directories may be shared with other workers. `host` is
    what it listens on, `address` what others reach it by (None: as the coordinator sees it).
    `is_patient`: it waits for its coordinator without end. `disk` is where it marks that it is
    registered, by default its own folder.
    """

    worker: WorkerId
    coordinator: tuple[str, int]
    manifest: Path
    folder: Path
    workdir: Path
    host: str
    token: str
    address: str | None = None
    is_patient: bool = False
    disk: Path | None = None

    @property
    def registered(self) -> Path:
        """The mark that the coordinator knows this worker."""
        return (self.disk or self.workdir) / REGISTERED


class _Leaves(Exception):
    """Asked to end while there was nothing to finish."""


class Supervisor:
    """One worker. All methods run on the main thread, but for what is given to `_threads`."""

    def __init__(self, config: SupervisorConfig, manifest: StreamJob, storage: JobStorage) -> None:
        self._config = config
        self._spec = manifest.spec
        self._storage = storage
        self._copies = LocalCopies(config.workdir / "copies", storage.job)
        self._keeps_copies = manifest.spec.state.local_recovery
        self._selector = selectors.DefaultSelector()
        self._children = Children(self._start, self._selector)
        self._uploads = Uploads(
            storage,
            self._copies if self._keeps_copies else None,
            tell=self._tell,
            beside=self._beside,
        )
        self._threads = ThreadPoolExecutor(_TRANSFER_THREADS, thread_name_prefix="transfer")
        self._done: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._wake_out, self._wake_in = socket.socketpair()
        self._wake_in.setblocking(False)
        self._selector.register(self._wake_in, selectors.EVENT_READ)
        self._coordinator: ControlSocket | None = None
        self._heard_coordinator_s = 0.0
        self._is_serving = False
        self._leaves_by_s: float | None = None

    def run(self) -> None:
        """Serve the coordinator, again after every lost connection, until asked to leave.

        Raises:
            PenstockError: the coordinator refuses this worker; or is not reached for a minute, when
                this worker is not patient.
        """
        try:
            while self._leaves_by_s is None:
                # The child gets warm while the coordinator, which often starts with it, does.
                self._children.warm()
                self._connect()
                self._serve()
                if self._leaves_by_s is None:
                    # Nobody may go on without: another attempt may be opened elsewhere.
                    self._end_child()
                    log.warning("coordinator lost", worker=self._config.worker)
        except _Leaves:
            pass
        finally:
            # Uploads end with this process.
            self._children.close()

    def leave(self) -> None:
        """End soon: at once, or when the checkpoint under way is over, if that does not take long.

        Called from a signal's handler, on the main thread.
        """
        if self._leaves_by_s is not None:
            return
        self._leaves_by_s = time.monotonic() + _LEAVE_S
        if not self._is_serving:
            raise _Leaves
        self._wake_out.send(b"!")

    # ── the loop ─────────────────────────────────────────────────────────────────────────────────

    def _connect(self) -> None:
        config = self._config
        while True:
            try:
                self._coordinator = connect(
                    config.coordinator,
                    config.token.encode(),
                    config.worker,
                    self._copies.listed() if self._keeps_copies else (),
                    os.getpid(),
                    time.monotonic() + _CONNECT_S,
                    pause_max_s=_CONNECT_PAUSE_MAX_S if config.is_patient else None,
                )
                break
            except Retryable as e:
                if not config.is_patient:
                    raise
                log.warning("waiting for the coordinator", error=e.what, where=e.where)
            reap_orphans(self._children.pids)
        self._selector.register(self._coordinator, selectors.EVENT_READ)

    def _serve(self) -> None:
        coordinator = self._coordinator
        assert coordinator is not None
        registered = self._config.registered
        with contextlib.suppress(OSError):  # a full disk is told where it hurts
            registered.touch()
        self._heard_coordinator_s = time.monotonic()
        self._is_serving = True
        try:
            self._serve_until_lost(coordinator)
        finally:
            self._is_serving = False
            registered.unlink(missing_ok=True)
            self._selector.unregister(coordinator)
            coordinator.close()

    def _serve_until_lost(self, coordinator: ControlSocket) -> None:
        beat_s = 0.0
        while not coordinator.has_ended and not self._may_leave():
            writing = selectors.EVENT_WRITE if coordinator.has_unsent else 0
            self._selector.modify(coordinator, selectors.EVENT_READ | writing)
            self._selector.select(max(0.0, beat_s + HEARTBEAT_S - time.monotonic()))
            coordinator.flush()
            for frame in coordinator.receive_ready():
                self._heard_coordinator_s = time.monotonic()
                self._ordered(frame)
            self._hear_child()
            with contextlib.suppress(BlockingIOError):
                self._wake_in.recv(4096)
            while not self._done.empty():
                self._done.get()()
            if time.monotonic() - beat_s >= HEARTBEAT_S:
                beat_s = time.monotonic()
                self._beat()
                reap_orphans(self._children.pids)
            silent_s = time.monotonic() - self._heard_coordinator_s
            if silent_s > self._spec.worker.heartbeat_timeout_ms / 1000:
                # Its machine may be gone without a word, and another one lead the job.
                log.warning("coordinator silent", silent_s=round(silent_s))
                return

    def _may_leave(self) -> bool:
        if self._leaves_by_s is None:
            return False
        return not self._uploads.is_awaited or time.monotonic() >= self._leaves_by_s

    def _tell(self, frame: AnyFrame) -> None:
        if self._coordinator is not None:
            self._coordinator.post(frame)

    def _beside(self, work: Callable[[], T], then: Callable[[T], None]) -> None:
        """See `uploads.Beside`. An error that the work does not expect ends the process: kept back,
        it would leave an attempt or a checkpoint waiting for ever."""
        self._threads.submit(work).add_done_callback(
            lambda done: self._later(lambda: then(done.result()))
        )

    def _later(self, act: Callable[[], None]) -> None:
        """From a thread: do this on the main one."""
        self._done.put(act)
        self._wake_out.send(b"!")

    def _beat(self) -> None:
        child = self._children.at_work
        self._tell(frames.Heartbeat(AttemptNumber(0), 0) if child is None else child.beat())

    # ── what the coordinator orders ──────────────────────────────────────────────────────────────

    def _ordered(self, frame: AnyFrame) -> None:
        child = self._children.at_work
        match frame:
            case frames.Prepare():
                self._prepare(frame)
            case frames.Cancel(attempt=attempt):
                if child is not None and child.attempt <= attempt:
                    self._end_child(ask=True)
            case frames.Trigger(attempt=attempt):
                if self._children.is_at(attempt):
                    self._uploads.triggered(frame)
                    self._pass_on(frame)
            case frames.Aborted(attempt=attempt):
                if self._children.is_at(attempt):
                    self._uploads.aborted(frame.checkpoint)
                    self._pass_on(frame)
            case frames.Completed(attempt=attempt):
                # Also of an attempt that has no use for this worker: its copies are of older ones.
                self._copies.drop_before(frame.checkpoint)
                if self._children.is_at(attempt):
                    self._uploads.completed(frame.checkpoint)
                    self._pass_on(frame)
            case frames.Run(attempt=attempt) | frames.Resume(attempt=attempt):
                if self._children.is_at(attempt):
                    self._pass_on(frame)
            case frames.Heartbeat():
                pass
            case _:
                log.warning("unexpected frame", frame=type(frame).__name__)

    def _pass_on(self, frame: AnyFrame) -> None:
        assert self._children.at_work is not None
        self._children.at_work.control.post(frame)

    def _prepare(self, plan: frames.Prepare) -> None:
        self._end_child()
        for folder in self._work_folders():
            for old in folder.glob("attempt-*"):
                shutil.rmtree(old, ignore_errors=True)
        self._uploads.begin(
            Uploader(
                self._storage,
                plan.attempt,
                max_parallelism=plan.max_parallelism,
                is_incremental=self._spec.state.rocksdb.incremental,
                keeps_in_manifest=self._spec.state.backend == "Memory",
            )
        )
        child = self._children.put_to_work(plan)
        self._beside(
            lambda: self._fetch_all(plan), lambda fetched: self._fetched(child, plan, fetched)
        )

    def _work_folders(self) -> list[Path]:
        """Where children keep working state: databases may lie in directories of their own."""
        workdir = self._config.workdir
        named = self._spec.state.rocksdb.local_directories
        return [workdir, *(folder_in(Path(d), self._storage.job, workdir) for d in named)]

    def _fetch_all(self, plan: frames.Prepare) -> Brought | PenstockError:
        folder = self._config.workdir / f"attempt-{plan.attempt}" / "fetched"
        try:
            copies = self._copies if self._keeps_copies else None
            return bring(self._storage, copies, plan.restore, folder)
        except (PenstockError, OSError) as e:
            return ours(e)

    def _fetched(
        self, child: ChildProcess, plan: frames.Prepare, fetched: Brought | PenstockError
    ) -> None:
        # An attempt may be prepared twice: to run, and when it was ended to commit only.
        if child is not self._children.at_work:
            return
        if isinstance(fetched, Brought):
            self._uploads.restored(plan.restore)
            ready = msgspec.structs.replace(plan, fetched=fetched.paths)
            child.begin(ready, fetched.fetched_bytes)
            return
        failure = replace(failure_of(fetched, self._config.folder), fatal=is_for_good(fetched))
        self._tell(frames.Failed(plan.attempt, failure))

    # ── children ─────────────────────────────────────────────────────────────────────────────────

    def _start(self) -> ChildProcess:
        config = self._config
        arguments = [
            f"--manifest={config.manifest}",
            f"--folder={config.folder}",
            f"--job={self._storage.job}",
            f"--worker={config.worker}",
            f"--workdir={config.workdir}",
            f"--host={config.host}",
        ]
        if config.address is not None:
            arguments.append(f"--address={config.address}")
        return start(arguments, config.token)

    def _end_child(self, *, ask: bool = False) -> None:
        self._uploads.end()
        self._children.end(ask=ask)
        if self._leaves_by_s is None:
            self._children.warm()

    def _hear_child(self) -> None:
        self._children.drop_dead_spare()
        child = self._children.at_work
        if child is None:
            return
        for frame in child.heard():
            if isinstance(frame, frames.Snapshotted):
                self._uploads.snapshotted(frame)
            else:
                self._tell(frame)
        if child.has_ended:
            last_word = child.last_word(f"the child of worker {self._config.worker}")
            self._end_child()
            if last_word is not None:
                self._tell(last_word)


def main(arguments: Sequence[str] | None = None) -> int:
    """A worker's process; its exit code."""
    die_with_parent()
    pod.end_at_sigterm()
    parser = ArgumentParser(prog="penstock worker")
    parser.add_argument(
        "--worker", type=int, help="its ordinal; in a pod the host's name ends with it"
    )
    parser.add_argument("--coordinator", metavar="HOST:PORT", help="in a pod PENSTOCK_COORDINATOR")
    parser.add_argument("--manifest", type=Path, help="left out: this is a pod")
    parser.add_argument("--workdir", type=Path, help="in a pod its volume")
    parser.add_argument("--host", help="to listen on; in a pod everywhere, else 127.0.0.1")
    flags = parser.parse_args(arguments)
    if flags.manifest is not None and flags.workdir is None:
        parser.error("--manifest needs --workdir")
    try:
        _supervisor(flags).run()
    except _Leaves:  # before it had begun
        return 0
    except PenstockError as e:
        termination.tell(e)
        return e.exit_code
    except Exception as e:
        termination.leave(termination.error_body(termination.unexpected(e)))
        raise
    return 0


def _supervisor(flags: Namespace) -> Supervisor:
    """The supervisor of a process with these flags, which leaves when it is asked to end."""
    around = pod.surroundings(flags.manifest, host=flags.host)
    configure_logging(around.log)
    if around.is_pod:
        os.chdir(pod.job_folder())
    loaded = load_manifest(around.manifest)
    configure_logging(around.log, job=loaded.job.metadata.name)
    named = os.environ.get(pod.FOLDER_VARIABLE)
    folder = Path.cwd() if around.is_pod else Path(named or loaded.folder)
    storage = storage_of(loaded.job, folder)
    host_name = socket.gethostname()
    worker = pod.ordinal(host_name) if flags.worker is None else WorkerId(flags.worker)
    config = SupervisorConfig(
        worker=worker,
        coordinator=pod.coordinator_address(flags.coordinator),
        manifest=around.manifest,
        folder=folder,
        workdir=flags.workdir or pod.volume() / f"worker-{worker}",
        disk=flags.workdir or pod.volume(),
        host=around.host,
        token=pod.token(),
        address=around.address,
        is_patient=around.is_pod,
    )
    with os_errors_translated(config.workdir):
        config.workdir.mkdir(parents=True, exist_ok=True)
        config.registered.unlink(missing_ok=True)
    supervisor = Supervisor(config, loaded.job, storage)
    signal.signal(signal.SIGTERM, lambda *_: supervisor.leave())
    return supervisor


def exit_at_once(code: int) -> NoReturn:
    """End the process without waiting for threads that wait for a store."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):  # nobody reads any more
            stream.flush()
    os._exit(code)


if __name__ == "__main__":
    exit_at_once(main())
