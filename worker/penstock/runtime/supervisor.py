"""The supervisor: a worker's process that lives longer than any attempt.

It holds the control connection and the local copies, starts a child for each attempt and ends it,
and moves files up and down on threads. It never runs the author's code. A spare child is kept warm,
so that a recovery does not wait for Python to start.
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
from argparse import ArgumentParser
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from penstock.core import paths
from penstock.core.errors import Corrupt, PenstockError, Rejected, Retryable
from penstock.core.failure import Failure
from penstock.core.handles import KeyedFormat
from penstock.core.ids import AttemptNumber, CheckpointId, JobId, OperatorId, WorkerId
from penstock.core.snapshots import OperatorRestore
from penstock.network import frames
from penstock.network.control import ControlSocket, connect
from penstock.network.frames import AnyFrame
from penstock.runtime.backends import folder_in
from penstock.runtime.coordinator_config import storage_urls
from penstock.runtime.job_storage import JobStorage
from penstock.runtime.logs import configure_logging, get_logger
from penstock.runtime.pairing import Pairing
from penstock.runtime.pdeathsig import die_with_parent
from penstock.runtime.transfers import Aborted, LocalCopies, Upload, Uploader, fetch
from penstock.spec.loading import load_manifest
from penstock.spec.streamjob import StreamJob
from penstock.storage.location import open_store

log = get_logger()

HEARTBEAT_S = 1.0
_CONNECT_S = 60.0
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
    """What a worker's process is told when it starts."""

    worker: WorkerId
    coordinator: tuple[str, int]
    manifest: Path
    folder: Path
    workdir: Path
    host: str
    token: str


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

    def run(self) -> None:
        """Serve the coordinator, again after every lost connection, until this process is ended.

        Raises:
            PenstockError: the coordinator refuses this worker, or is not reached for a minute.
        """
        while True:
            # The child gets warm while the coordinator, which often starts at the same time, does.
            self._spare = self._spare or self._start()
            self._connect()
            self._serve()
            # Without a coordinator nobody may go on: another attempt may be opened elsewhere.
            self._end_child()
            log.warning("coordinator lost", worker=self._config.worker)

    # ── the loop ─────────────────────────────────────────────────────────────────────────────────

    def _connect(self) -> None:
        config = self._config
        self._coordinator = connect(
            config.coordinator,
            config.token.encode(),
            config.worker,
            self._copies.listed() if self._keeps_copies else (),
            os.getpid(),
            time.monotonic() + _CONNECT_S,
        )
        self._selector.register(self._coordinator, selectors.EVENT_READ)

    def _serve(self) -> None:
        coordinator = self._coordinator
        assert coordinator is not None
        beat_s = 0.0
        while not coordinator.has_ended:
            writing = selectors.EVENT_WRITE if coordinator.has_unsent else 0
            self._selector.modify(coordinator, selectors.EVENT_READ | writing)
            self._selector.select(max(0.0, beat_s + HEARTBEAT_S - time.monotonic()))
            coordinator.flush()
            for frame in coordinator.receive_ready():
                self._ordered(frame)
            self._hear_child()
            with contextlib.suppress(BlockingIOError):
                self._wake_in.recv(4096)
            while not self._done.empty():
                self._done.get()()
            if time.monotonic() - beat_s >= HEARTBEAT_S:
                beat_s = time.monotonic()
                self._beat()
        self._selector.unregister(coordinator)
        coordinator.close()

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
                    self._begin_uploads(self._pairing.triggered(frame))
                    self._pass_on(frame)
            case frames.Aborted(attempt=attempt):
                if self._is_live(attempt):
                    self._give_up(frame.checkpoint)
                    self._pass_on(frame)
            case frames.Completed(attempt=attempt):
                if self._is_live(attempt):
                    self._completed(frame.checkpoint)
                    self._pass_on(frame)
            case frames.Run(attempt=attempt) | frames.Resume(attempt=attempt):
                if self._is_live(attempt):
                    self._pass_on(frame)
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
            fetched: dict[OperatorId, dict[int, tuple[str, ...]]] = {}
            for operator, by_subtask in plan.restore.items():
                for index, restore in by_subtask.items():
                    copy = self._copies.find(restore, operator, index)
                    into = folder / f"{operator}-{index}"
                    fetched.setdefault(operator, {})[index] = (
                        (str(copy),)
                        if copy is not None
                        else tuple(
                            fetch(self._storage, source, into / str(i))
                            for i, source in enumerate(restore.keyed)
                        )
                    )
                    self._know_base(uploader, restore, operator, index)
        except (PenstockError, OSError) as e:
            reason = _as_ours(e)
            self._later(lambda: self._fetch_failed(plan, reason))
            return
        ready = msgspec.structs.replace(plan, fetched=fetched)
        self._later(lambda: self._fetched(plan, ready))

    def _fetched(self, plan: frames.Prepare, ready: frames.Prepare) -> None:
        # An attempt may be prepared twice: to run, and when it was ended to commit only.
        if self._child is not None and self._child.plan is plan:
            self._child.is_fetching = False
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
        self._copies.drop_before(checkpoint)
        self._over(checkpoint)

    def _over(self, checkpoint: CheckpointId) -> None:
        self._pairing.over(checkpoint)
        self._begin_uploads(())

    # ── children ─────────────────────────────────────────────────────────────────────────────────

    def _start(self) -> _Child:
        config = self._config
        ours, theirs = socket.socketpair()
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "penstock.runtime.child",
                f"--fd={theirs.fileno()}",
                f"--manifest={config.manifest}",
                f"--folder={config.folder}",
                f"--job={self._storage.job}",
                f"--worker={config.worker}",
                f"--workdir={config.workdir}",
                f"--host={config.host}",
            ],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
        )
        theirs.close()
        control = ControlSocket(ours)
        self._selector.register(control, selectors.EVENT_READ)
        return _Child(process, control)

    def _end_child(self, *, ask: bool = False) -> None:
        child, self._child = self._child, None
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


def main() -> None:
    """Entry point of a worker's process; the token is in the environment."""
    parser = ArgumentParser(prog="penstock worker")
    parser.add_argument("--worker", type=int, required=True)
    parser.add_argument("--coordinator", required=True, metavar="HOST:PORT")
    parser.add_argument("--manifest", type=Path, required=True)
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--host", default="127.0.0.1", help="to listen on; 0.0.0.0 in a pod")
    flags = parser.parse_args()
    die_with_parent()
    loaded = load_manifest(flags.manifest)
    configure_logging("plain", job=loaded.job.metadata.name)
    host, _, port = flags.coordinator.rpartition(":")
    folder = Path(os.environ.get("PENSTOCK_FOLDER") or loaded.folder)
    checkpoints_url, savepoints_url = storage_urls(loaded.job)
    storage = JobStorage(
        job=JobId(loaded.job.job_id(namespace=os.environ.get("PENSTOCK_NAMESPACE"))),
        checkpoints=open_store(checkpoints_url, base=folder),
        savepoints=open_store(savepoints_url, base=folder),
        base=folder,
    )
    config = SupervisorConfig(
        worker=WorkerId(flags.worker),
        coordinator=(host, int(port)),
        manifest=flags.manifest,
        folder=folder,
        workdir=flags.workdir,
        host=flags.host,
        token=os.environ["PENSTOCK_TOKEN"],
    )
    flags.workdir.mkdir(parents=True, exist_ok=True)
    try:
        Supervisor(config, loaded.job, storage).run()
    except PenstockError as e:
        log.error("worker ends", error=e.what, where=e.where)
        sys.exit(e.exit_code)


if __name__ == "__main__":
    main()
