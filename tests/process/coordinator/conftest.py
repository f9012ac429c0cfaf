"""A coordinator process with its real store and sockets, and workers that speak the real frames but
run no job."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import penstock
from penstock.core import paths
from penstock.core.errors import PenstockError
from penstock.core.handles import FileHandle, KeyedFormat, KeyedHandle, SubtaskSnapshot
from penstock.core.ids import JobId, WorkerId
from penstock.core.keygroups import owned_range
from penstock.core.log import Entry
from penstock.core.snapshots import OperatorPart
from penstock.network import frames
from penstock.network.control import connect
from penstock.runtime.job_storage import JobStorage
from penstock.runtime.snapshot_files import read_newest_entry
from penstock.storage.local import LocalStore

TOKEN = "correct horse"
_WHERE_PENSTOCK_IS = str(Path(penstock.__file__).parents[1])
JOB = JobId("counting")

_JOB = """
from penstock import formats, sinks, sources

def job(env):
    lines = env.source(sources.Files("input.txt"), uid="lines")
    counts = lines.key_by(lambda line: line).count(uid="counts")
    counts.sink(sinks.Files("out/", formats.Json()), uid="out")
"""

_MANIFEST = """
apiVersion: penstock.dev/v1alpha1
kind: StreamJob
metadata: {{name: counting}}
spec:
  entrypoint: counting_job:job
  checkpoints: {{storage: state/checkpoints, interval: {interval}, retained: 2}}
  savepoints: {{storage: state/savepoints}}
  restart: {{strategy: FixedDelay, delay: 50ms}}
  worker: {{heartbeatTimeout: 2s, progressTimeout: 2s}}
"""


def wait_for(fact: Callable[[], Any], what: str, *, within_s: float = 20.0) -> Any:
    """The first true value of `fact`; fails when there is none in time."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if value := fact():
            return value
        time.sleep(0.02)
    pytest.fail(f"not within {within_s} s: {what}")


@dataclass
class ScriptedWorker:
    """Answers as a worker would, and remembers what it was told.

    Each part of a checkpoint is one small file that it uploads. `stalls`: it acknowledges nothing.
    `stuck_ms`: the age of progress that its heartbeats tell. `mute`: it sends no heartbeats.
    """

    ordinal: int
    folder: Path
    stalls: bool = False
    stuck_ms: int = 0
    mute: bool = False
    told: list[frames.AnyFrame] = field(default_factory=list)
    committed: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._port = 0
        self._socket = None
        self._leaving = threading.Event()
        self._thread = threading.Thread(target=self._live, daemon=True)

    def join(self, port: int) -> None:
        self._port = port
        self._thread.start()

    def moved_to(self, port: int) -> None:
        """Where to connect once the connection has ended."""
        self._port = port

    def leave(self) -> None:
        self._leaving.set()
        if self._socket is not None:
            self._socket.close()
        self._thread.join(5)

    def of(self, kind: type) -> list[Any]:
        return [frame for frame in self.told if isinstance(frame, kind)]

    def _live(self) -> None:
        while not self._leaving.is_set():
            try:
                self._socket = connect(
                    ("127.0.0.1", self._port),
                    TOKEN.encode(),
                    WorkerId(self.ordinal),
                    (),
                    os.getpid(),
                    time.monotonic() + 1,
                )
            except PenstockError:
                continue  # not there yet, or it refuses us for now: a worker tries again
            self._serve(self._socket)

    def _serve(self, connection: Any) -> None:
        attempt, subtasks = 0, ()
        while not self._leaving.is_set():
            try:
                frame = connection.receive(0.1)
            except TimeoutError:
                beat = frames.Heartbeat(attempt, self.stuck_ms, self._metrics(subtasks))
                if not self.mute:
                    connection.send(beat)
                continue
            except (OSError, ValueError):
                return  # closed under it by `leave`
            if frame is None:
                return
            self.told.append(frame)
            match frame:
                case frames.Prepare():
                    attempt, subtasks = frame.attempt, frame.subtasks
                    connection.send(frames.Ready(attempt, ("127.0.0.1", 1000 + self.ordinal)))
                    if frame.committed is not None:
                        self._commit(connection, attempt, frame.committed)
                case frames.Trigger() if not self.stalls:
                    for subtask in subtasks:
                        connection.send(self._acked(frame, subtask))
                case frames.Completed() if frame.commit:
                    self._commit(connection, attempt, frame.checkpoint)
                case _:
                    pass

    def finish(self, prepared: frames.Prepare) -> None:
        for subtask in prepared.subtasks:
            self._socket.send(frames.Finished(prepared.attempt, subtask))

    def fail(self, failed: frames.Failed) -> None:
        self._socket.send(failed)

    def _commit(self, connection: Any, attempt: int, checkpoint: int) -> None:
        self.committed.append(checkpoint)
        connection.send(frames.Committed(attempt, checkpoint))

    def _metrics(self, subtasks: tuple) -> dict[str, frames.OperatorMetrics]:
        return {
            str(s): frames.OperatorMetrics(records_in=7, records_out=5, busy_ms=10)
            for s in subtasks
        }

    def _acked(self, trigger: frames.Trigger, subtask: Any) -> frames.Acked:
        nonce, data = uuid.uuid4().hex[:8], b"state"
        if trigger.savepoint:
            store = LocalStore(self.folder / "state/savepoints")
            name = f"{trigger.attempt}-{trigger.checkpoint}-{subtask.operator}-{nonce}"
            path, shown = trigger.savepoint + name, name
        else:
            store = LocalStore(self.folder / "state/checkpoints")
            path = paths.private_file(JOB, trigger.attempt, trigger.checkpoint, subtask, nonce)
            shown = paths.relative_to_job(JOB, path)
        store.put(path, data)
        prepared = self.of(frames.Prepare)[-1]
        groups = owned_range(
            subtask.index,
            parallelism=prepared.parallelism,
            max_parallelism=prepared.max_parallelism,
        )
        handle = KeyedHandle(KeyedFormat.CANONICAL, groups, (FileHandle(shown, len(data), 0),))
        parts = {"counts": OperatorPart(SubtaskSnapshot(keyed=handle))}
        return frames.Acked(
            attempt=trigger.attempt,
            checkpoint=trigger.checkpoint,
            subtask=subtask,
            parts=parts if subtask.operator == "counts" else {},
            files=(path,),
            bytes_new=len(data),
        )


@dataclass
class CoordinatorProcess:
    """One process after another that coordinates the same job."""

    folder: Path
    revision: str = "r1"
    owner: str = "local/test"

    def __post_init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None
        self.port = self.rest_port = 0

    def launch(self) -> Path:
        ports = self.folder / "ports.json"
        ports.unlink(missing_ok=True)
        with (self.folder / "coordinator.log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "penstock.runtime.coordinator"),
                    *("--manifest", "streamjob.yaml", "--port", "0", "--rest-port", "0"),
                    *("--ports-file", str(ports), "--revision", self.revision),
                    *("--owner", self.owner),
                ],
                cwd=self.folder,
                env={**os.environ, "PENSTOCK_TOKEN": TOKEN, "PYTHONPATH": _WHERE_PENSTOCK_IS},
                stderr=log,
            )
        return ports

    def start(self) -> None:
        ports = self.launch()
        wait_for(lambda: ports.exists() or self.process.poll() is not None, "ports file")
        found = json.loads(ports.read_text()) if ports.exists() else {}
        assert "port" in found, self.log
        self.port, self.rest_port = found["port"], found["restPort"]

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)

    @property
    def log(self) -> str:
        return (self.folder / "coordinator.log").read_text()

    def get(self, path: str) -> Any:
        return self.call("GET", path)[1]

    def post(self, path: str, body: dict[str, Any], **call: Any) -> tuple[int, Any]:
        return self.call("POST", path, body, **call)

    def call(
        self, method: str, path: str, body: dict[str, Any] | None = None, token: str | None = TOKEN
    ) -> tuple[int, Any]:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.rest_port}{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={} if token is None else {"Authorization": f"Bearer {token}"},
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                status, text = response.status, response.read()
        except urllib.error.HTTPError as e:
            status, text = e.code, e.read()
        try:
            return status, json.loads(text)
        except ValueError:
            return status, text.decode()

    def order_start(self, request_id: str = "start-1", **fields: Any) -> tuple[int, Any]:
        body = {
            "requestId": request_id,
            "after": self.status()["logSeq"],
            "revision": self.revision,
            "parallelism": 1,
            **fields,
        }
        return self.post("/penstock/v1/start?wait=20", body)

    def status(self) -> dict[str, Any]:
        return self.get("/penstock/v1/status")

    def wait_for_phase(self, phase: str) -> dict[str, Any]:
        return wait_for(
            lambda: (s := self.status())["phase"] == phase and s, f"phase {phase}: {self.log}"
        )

    def newest_entry(self) -> Entry:
        entry = read_newest_entry(self.storage)
        assert entry is not None
        return entry

    @property
    def storage(self) -> JobStorage:
        return JobStorage(
            JOB,
            LocalStore(self.folder / "state/checkpoints"),
            LocalStore(self.folder / "state/savepoints"),
            self.folder,
        )


@pytest.fixture
def job_folder(tmp_path: Path) -> Path:
    (tmp_path / "counting_job.py").write_text(_JOB)
    (tmp_path / "input.txt").write_text("a\nb\na\n")
    (tmp_path / "streamjob.yaml").write_text(_MANIFEST.format(interval="100ms"))
    return tmp_path


@pytest.fixture
def seldom(job_folder: Path) -> None:
    """Checkpoints only when ordered."""
    (job_folder / "streamjob.yaml").write_text(_MANIFEST.format(interval="1h"))


@pytest.fixture
def narrow(job_folder: Path) -> None:
    """The manifest has a max parallelism of its own."""
    text = _MANIFEST.format(interval="1h") + "  maxParallelism: 32\n"
    (job_folder / "streamjob.yaml").write_text(text)


@pytest.fixture
def coordinator(job_folder: Path) -> Iterator[CoordinatorProcess]:
    process = CoordinatorProcess(job_folder)
    process.start()
    yield process
    if process.process is not None and process.process.poll() is None:
        process.kill()


@pytest.fixture
def worker(coordinator: CoordinatorProcess, job_folder: Path) -> Iterator[ScriptedWorker]:
    scripted = ScriptedWorker(0, job_folder)
    scripted.join(coordinator.port)
    yield scripted
    scripted.leave()


@pytest.fixture
def wait() -> Callable[..., Any]:
    return wait_for
