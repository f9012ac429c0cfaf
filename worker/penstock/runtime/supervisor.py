"""The supervisor: a worker's process that lives longer than any attempt.

It holds the control connection and the local copies, starts a child for each attempt and ends it,
and moves files up and down on threads. It never runs the author's code. A spare child is kept warm,
so that a recovery does not wait for Python to start. Asked to end, it lets a checkpoint under way
finish. No child outlives it.
"""

from __future__ import annotations

import contextlib
import os
import queue
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import msgspec

from penstock.core import paths
from penstock.core.errors import Corrupt, PenstockError, Rejected, Retryable
from penstock.core.failure import Failure
from penstock.core.handles import KeyedFormat
from penstock.core.ids import AttemptNumber, CheckpointId, OperatorId, WorkerId
from penstock.core.snapshots import OperatorRestore
from penstock.network import frames
from penstock.network.control import ControlSocket, connect
from penstock.network.frames import AnyFrame
from penstock.runtime import pod, termination
from penstock.runtime.backends import folder_in
from penstock.runtime.job_storage import JobStorage, storage_of
from penstock.runtime.logs import configure_logging, get_logger
from penstock.runtime.orphans import reap_orphans
from penstock.runtime.pairing import Pairing
from penstock.runtime.pdeathsig import NO_PIPE, PARENT_PIPE_VARIABLE, die_with_parent
from penstock.runtime.transfers import Aborted, LocalCopies, Upload, Uploader, bring
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
_GRACE_S = 1.0


@dataclass(slots=True)
class _Child:
    """A started child; `plan` once it has an attempt."""

    process: subprocess.Popen[bytes]
    control: ControlSocket
    plan: frames.Prepare | None = None
    is_fetching: bool = False
    """Its state is still being downloaded: it has nothing to make progress with."""
    fetched_bytes: int = 0
    heard_s: float = field(default_factory=time.monotonic)
    metrics: dict[str, frames.OperatorMetrics] = field(default_factory=dict)
    has_failed: bool = False

    def end(self) -> None:
        """SIGKILL: whoever asked before has waited."""
        self.process.kill()
        self.process.wait()
        self.control.close()


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
        self._threads = ThreadPoolExecutor(_TRANSFER_THREADS, thread_name_prefix="transfer")
        self._done: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._wake_out, self._wake_in = socket.socketpair()
        self._wake_in.setblocking(False)
        self._selector.register(self._wake_in, selectors.EVENT_READ)
        self._coordinator: ControlSocket | None = None
        self._spare: _Child | None = None
        self._child: _Child | None = None
        self._uploader: Uploader | None = None
        self._pairing = Pairing()
        self._uploads: list[Upload] = []
        self._checkpoint: CheckpointId | None = None
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
                self._spare = self._spare or self._start()
                self._connect()
                self._serve()
                if self._leaves_by_s is None:
                    # Nobody may go on without: another attempt may be opened elsewhere.
                    self._end_child()
                    log.warning("coordinator lost", worker=self._config.worker)
        except _Leaves:
            pass
        finally:
            self._close()

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
            self._reap()
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
                self._reap()
            silent_s = time.monotonic() - self._heard_coordinator_s
            if silent_s > self._spec.worker.heartbeat_timeout_ms / 1000:
                # Its machine may be gone without a word, and another one lead the job.
                log.warning("coordinator silent", silent_s=round(silent_s))
                return

    def _may_leave(self) -> bool:
        if self._leaves_by_s is None:
            return False
        return self._checkpoint is None or time.monotonic() >= self._leaves_by_s

    def _reap(self) -> None:
        own = (self._child, self._spare)
        reap_orphans({child.process.pid for child in own if child is not None})

    def _close(self) -> None:
        """End both children; uploads end with this process."""
        for child in (self._child, self._spare):
            if child is not None:
                child.end()
        self._child = self._spare = None

    def _tell(self, frame: AnyFrame) -> None:
        if self._coordinator is not None:
            self._coordinator.post(frame)

    def _beside(self, work: Callable[..., None], *args: Any) -> None:
        """Run this on a thread. An error that it does not expect ends the process: kept back in
        the future, it would leave an attempt or a checkpoint waiting for ever."""
        self._threads.submit(work, *args).add_done_callback(lambda done: self._later(done.result))

    def _later(self, done: Callable[[], None]) -> None:
        """From a thread: run this on the main one."""
        self._done.put(done)
        self._wake_out.send(b"!")

    def _beat(self) -> None:
        child = self._child
        if child is None or child.plan is None:
            self._tell(frames.Heartbeat(AttemptNumber(0), 0))
            return
        if child.is_fetching:
            child.heard_s = time.monotonic()
        age_ms = round((time.monotonic() - child.heard_s) * 1000)
        self._tell(frames.Heartbeat(child.plan.attempt, age_ms, child.metrics))

    # ── what the coordinator orders ──────────────────────────────────────────────────────────────

    def _ordered(self, frame: AnyFrame) -> None:
        match frame:
            case frames.Prepare():
                self._prepare(frame)
            case frames.Cancel(attempt=attempt):
                if self._child is not None and self._attempt() <= attempt:
                    self._end_child(ask=True)
            case frames.Trigger(attempt=attempt):
                if self._is_live(attempt):
                    self._checkpoint = frame.checkpoint
                    self._begin_uploads(self._pairing.triggered(frame))
                    self._pass_on(frame)
            case frames.Aborted(attempt=attempt):
                if self._is_live(attempt):
                    self._give_up(frame.checkpoint)
                    self._pass_on(frame)
            case frames.Completed(attempt=attempt):
                # Also of an attempt that has no use for this worker: its copies are of older ones.
                self._copies.drop_before(frame.checkpoint)
                if self._is_live(attempt):
                    self._completed(frame.checkpoint)
                    self._pass_on(frame)
            case frames.Run(attempt=attempt) | frames.Resume(attempt=attempt):
                if self._is_live(attempt):
                    self._pass_on(frame)
            case frames.Heartbeat():
                pass
            case _:
                log.warning("unexpected frame", frame=type(frame).__name__)

    def _attempt(self) -> AttemptNumber:
        plan = None if self._child is None else self._child.plan
        return AttemptNumber(0) if plan is None else plan.attempt

    def _is_live(self, attempt: AttemptNumber) -> bool:
        return self._child is not None and self._attempt() == attempt

    def _pass_on(self, frame: AnyFrame) -> None:
        assert self._child is not None
        self._child.control.post(frame)

    def _prepare(self, plan: frames.Prepare) -> None:
        self._end_child()
        for folder in self._work_folders():
            for old in folder.glob("attempt-*"):
                shutil.rmtree(old, ignore_errors=True)
        self._uploader = Uploader(
            self._storage,
            plan.attempt,
            max_parallelism=plan.max_parallelism,
            is_incremental=self._spec.state.rocksdb.incremental,
            keeps_in_manifest=self._spec.state.backend == "Memory",
        )
        self._pairing = Pairing()
        self._child = child = self._spare or self._start()
        self._spare = None
        child.plan = plan
        child.is_fetching = True
        self._beside(self._fetch_all, plan, self._uploader)

    def _work_folders(self) -> list[Path]:
        """Where children keep working state: databases may lie in directories of their own."""
        workdir = self._config.workdir
        named = self._spec.state.rocksdb.local_directories
        return [workdir, *(folder_in(Path(d), self._storage.job, workdir) for d in named)]

    def _fetch_all(self, plan: frames.Prepare, uploader: Uploader) -> None:
        folder = self._config.workdir / f"attempt-{plan.attempt}" / "fetched"
        try:
            copies = self._copies if self._keeps_copies else None
            brought = bring(self._storage, copies, plan.restore, folder)
        except (PenstockError, OSError) as e:
            reason = _as_ours(e)
            self._later(lambda: self._fetch_failed(plan, reason))
            return
        for operator, by_subtask in plan.restore.items():
            for index, restore in by_subtask.items():
                self._know_base(uploader, restore, operator, index)
        ready = msgspec.structs.replace(plan, fetched=brought.paths)
        self._later(lambda: self._fetched(plan, ready, brought.fetched_bytes))

    def _fetched(self, plan: frames.Prepare, ready: frames.Prepare, fetched_bytes: int) -> None:
        # An attempt may be prepared twice: to run, and when it was ended to commit only.
        if self._child is not None and self._child.plan is plan:
            self._child.is_fetching = False
            self._child.fetched_bytes = fetched_bytes
            self._child.heard_s = time.monotonic()
            self._pass_on(ready)

    @staticmethod
    def _know_base(
        uploader: Uploader, restore: OperatorRestore, operator: OperatorId, index: int
    ) -> None:
        """A database that goes on from a checkpoint of this job keeps its files' names."""
        n = None if restore.local is None else paths.checkpoint_of(restore.local)
        if n is not None and len(restore.keyed) == 1:
            handle = restore.keyed[0].handle
            if handle.format is KeyedFormat.ROCKSDB:
                uploader.knows(n, operator, index, handle)

    def _fetch_failed(self, plan: frames.Prepare, error: PenstockError) -> None:
        if self._child is not None and self._child.plan is plan:
            self._tell(
                frames.Failed(
                    plan.attempt,
                    Failure(
                        what=_sentence(error),
                        fix=error.fix,
                        fatal=isinstance(error, Rejected | Corrupt),
                        damaged=isinstance(error, Corrupt),
                    ),
                )
            )

    # ── checkpoints ──────────────────────────────────────────────────────────────────────────────

    def _snapshotted(self, frame: frames.Snapshotted) -> None:
        self._begin_uploads(self._pairing.snapshotted(frame))

    def _begin_uploads(self, pairs: Iterable[tuple[frames.Snapshotted, frames.Trigger]]) -> None:
        assert self._uploader is not None
        for part, trigger in pairs:
            upload = Upload(part, trigger)
            self._uploads.append(upload)
            self._beside(self._upload, self._uploader, upload)
        for part in self._pairing.take_stale():
            _remove_all(part.copies.values())

    def _upload(self, uploader: Uploader, upload: Upload) -> None:
        outcome: frames.Acked | PenstockError | Aborted
        try:
            outcome = uploader.run(upload)
        except Aborted as e:
            outcome = e
        except (PenstockError, OSError) as e:
            outcome = _as_ours(e)
        self._later(lambda: self._uploaded(upload, outcome))

    def _uploaded(self, upload: Upload, outcome: frames.Acked | PenstockError | Aborted) -> None:
        self._uploads.remove(upload)
        part = upload.snapshotted
        if isinstance(outcome, frames.Acked) and not upload.is_aborted:
            self._tell(outcome)
            if self._keeps_copies and upload.trigger.savepoint is None:
                self._copies.keep(outcome, part.copies)
                return
        else:
            self._delete(upload)
            if isinstance(outcome, PenstockError):
                reason = _sentence(outcome)
                self._tell(frames.Declined(part.attempt, part.checkpoint, part.subtask, reason))
        _remove_all(part.copies.values())

    def _give_up(self, checkpoint: CheckpointId) -> None:
        self._over(checkpoint)
        for upload in self._uploads:
            if upload.snapshotted.checkpoint == checkpoint:
                upload.is_aborted = True

    def _delete(self, upload: Upload) -> None:
        files, is_savepoint = list(upload.files), upload.trigger.savepoint is not None
        store = self._storage.savepoints if is_savepoint else self._storage.checkpoints
        self._beside(_delete_files, store.delete, files)

    def _completed(self, checkpoint: CheckpointId) -> None:
        assert self._uploader is not None
        self._uploader.forget_before(checkpoint)
        self._over(checkpoint)

    def _over(self, checkpoint: CheckpointId) -> None:
        if self._checkpoint is not None and self._checkpoint <= checkpoint:
            self._checkpoint = None
        self._pairing.over(checkpoint)
        self._begin_uploads(())

    # ── children ─────────────────────────────────────────────────────────────────────────────────

    def _start(self) -> _Child:
        config = self._config
        ours, theirs = socket.socketpair()
        command = [
            *(sys.executable, "-m", "penstock.runtime.child"),
            f"--fd={theirs.fileno()}",
            f"--manifest={config.manifest}",
            f"--folder={config.folder}",
            f"--job={self._storage.job}",
            f"--worker={config.worker}",
            f"--workdir={config.workdir}",
            f"--host={config.host}",
        ]
        if config.address is not None:
            command.append(f"--address={config.address}")
        process = subprocess.Popen(
            command,
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            # In a pod the supervisor has no parent to die with, but the child has.
            env={
                **os.environ,
                pod.TOKEN_VARIABLE: config.token,
                PARENT_PIPE_VARIABLE: NO_PIPE,
            },
        )
        theirs.close()
        control = ControlSocket(ours)
        self._selector.register(control, selectors.EVENT_READ)
        return _Child(process, control)

    def _end_child(self, *, ask: bool = False) -> None:
        child, self._child = self._child, None
        self._checkpoint = None
        if child is None:
            return
        for upload in self._uploads:
            upload.is_aborted = True
        if ask and child.plan is not None and not child.control.has_ended:
            child.control.post(frames.Cancel(child.plan.attempt))
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.process.wait(_GRACE_S)
        self._selector.unregister(child.control)
        child.end()
        if self._leaves_by_s is None:
            self._spare = self._spare or self._start()

    def _hear_child(self) -> None:
        if self._spare is not None and self._spare.process.poll() is not None:
            self._selector.unregister(self._spare.control)
            self._spare.control.close()
            self._spare = None
        child = self._child
        if child is None:
            return
        for frame in child.control.receive_ready():
            match frame:
                case frames.Heartbeat(metrics=metrics):
                    child.metrics = metrics
                    self._tell(frame)
                case frames.Ready():
                    self._tell(msgspec.structs.replace(frame, fetched_bytes=child.fetched_bytes))
                case frames.Snapshotted():
                    self._snapshotted(frame)
                case frames.Failed():
                    child.has_failed = True
                    self._tell(frame)
                case _:
                    self._tell(frame)
            child.heard_s = time.monotonic()
        if child.control.has_ended:
            self._child_ended(child)

    def _child_ended(self, child: _Child) -> None:
        code = child.process.wait()
        plan, told = child.plan, child.has_failed
        self._end_child()
        if plan is not None and not told:
            how = f"killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
            what = f"the child of worker {self._config.worker} was {how}"
            self._tell(frames.Failed(plan.attempt, Failure(what, fix=_of_death(code))))


def _of_death(code: int) -> str:
    """Where to look after a child that could not say why it ended."""
    if code == -signal.SIGKILL:
        return "was it killed by hand, or for want of memory? dmesg and the memory limit tell"
    if code < 0:
        return "an extension module crashed; PYTHONFAULTHANDLER=1 prints where"
    return "the job's code, or a library of it, ended the process: look for os._exit"


def _as_ours(error: PenstockError | OSError) -> PenstockError:
    return error if isinstance(error, PenstockError) else Retryable(f"the worker's disk: {error}")


def _sentence(error: PenstockError) -> str:
    return error.what if error.where is None else f"{error.what} ({error.where})"


def _delete_files(delete: Callable[[list[str]], None], files: list[str]) -> None:
    try:
        delete(files)
    except PenstockError as e:
        # They are named after this attempt: a sweep of the store finds what is left here.
        log.warning("files of an aborted checkpoint are left", error=e.what, files=len(files))


def _remove_all(copies: Iterable[str]) -> None:
    for path in map(Path, copies):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


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
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    exit_at_once(main())
