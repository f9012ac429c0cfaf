"""One job as real processes in sessions of their own, and someone who restarts whatever dies.

The test plays the cluster: it kills, pauses and replaces processes, gives orders over REST, and reads
what lies in stores and output folders.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Self

import pytest
from tests.process.support_jobs import JOBS

import penstock
from penstock.core.ids import JobId
from penstock.core.log import Entry
from penstock.core.manifest import Manifest
from penstock.runtime.job_storage import JobStorage
from penstock.runtime.snapshot_files import read_newest_entry, read_snapshot
from penstock.snapshots import Snapshot
from penstock.storage.location import open_store

TOKEN = "correct horse"
JOB = JobId("counting")
REVISION = "r1"
WHERE_PENSTOCK_IS = str(Path(penstock.__file__).parents[1])


def wait_for(fact: Callable[[], Any], what: str, *, within_s: float = 30.0) -> Any:
    """The first true value of `fact`; fails when there is none in time."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if value := fact():
            return value
        time.sleep(0.02)
    pytest.fail(f"not within {within_s} s: {what}")


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


@dataclass
class Member:
    """One process of the job: the coordinator, or a worker's supervisor."""

    name: str
    command: list[str]
    process: subprocess.Popen[bytes] | None = None
    is_kept: bool = True
    """Whether it is started again when it dies."""

    @property
    def pid(self) -> int:
        assert self.process is not None, self.name
        return self.process.pid

    def children(self) -> list[int]:
        """The ids of its own children, a worker's: the one that runs the job first."""
        found: list[int] = []
        for task in Path(f"/proc/{self.pid}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                found += [int(pid) for pid in task.read_text().split()]
        return sorted(found)

    def signal(self, number: int) -> None:
        """Send a signal to this process alone, if it is there."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def signal_all(self, number: int) -> None:
        """Send a signal to this process and its children at once."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)


@dataclass
class Settings:
    """What differs from test to test in the manifest; parameters are the entrypoint's."""

    entrypoint: str = "job"
    parameters: dict[str, Any] = field(default_factory=dict)
    storage: str = "state"
    output: str = "out"
    interval: str = "500ms"
    more: str = ""

    def manifest(self) -> str:
        """The manifest as YAML."""
        parameters = json.dumps({**self.parameters, "output": self.output})
        return (
            "apiVersion: penstock.dev/v1alpha1\n"
            "kind: StreamJob\n"
            f"metadata: {{name: {JOB}}}\n"
            "spec:\n"
            f"  entrypoint: counting_job:{self.entrypoint}\n"
            f"  parameters: {parameters}\n"
            f"  savepoints: {{storage: {self.storage}/savepoints}}\n"
            f"{self.more}"
            "  restart: {strategy: FixedDelay, delay: 50ms}\n"
            "  checkpoints:\n"
            f"    storage: {self.storage}/checkpoints\n"
            f"    interval: {self.interval}\n"
            "    tolerableFailures: 1000\n"
        )


class Cluster:
    """The processes of one job. Use as a context manager: at its end none is left."""

    def __init__(self, folder: Path, settings: Settings, *, parallelism: int) -> None:
        self.folder = folder
        self.settings = settings
        self._ports = folder / "ports.json"
        self.parallelism = parallelism
        self.port, self.rest_port = free_port(), free_port()
        self.coordinator = self._coordinator()
        self.workers = [self.worker(i) for i in range(parallelism)]
        self._all: list[Member] = []
        self._closing = threading.Event()
        self._pipe = os.pipe()
        self._keeper = threading.Thread(target=self._keep, daemon=True)
        self._lock = threading.Lock()
        (folder / "counting_job.py").write_text(JOBS)
        (folder / "streamjob.yaml").write_text(settings.manifest())
        self._ports.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        for member in (self.coordinator, *self.workers):
            self.add(member)
        self._keeper.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            print(json.dumps(self.status(), indent=1), self.logs, sep="\n")
        self._closing.set()
        self._keeper.join()
        with self._lock:
            for member in self._all:
                member.signal_all(signal.SIGKILL)
                assert member.process is not None
                member.process.wait(10)
        for end in self._pipe:
            os.close(end)

    # ── processes ────────────────────────────────────────────────────────────────────────────────

    def _coordinator(self) -> Member:
        command = [
            *("penstock.runtime.coordinator", "--manifest", "streamjob.yaml"),
            *("--port", str(self.port), "--rest-port", str(self.rest_port)),
            *("--revision", REVISION, "--owner", "local/test"),
            *("--ports-file", "ports.json"),
        ]
        return Member("coordinator", command)

    def worker(self, ordinal: int, *, workdir: str | None = None) -> Member:
        """A supervisor, not started yet."""
        name = workdir or f"worker-{ordinal}"
        command = [
            *("penstock.runtime.supervisor", "--manifest", "streamjob.yaml"),
            *("--worker", str(ordinal), "--coordinator", f"127.0.0.1:{self.port}"),
            *("--workdir", str(self.folder / "local" / name)),
        ]
        return Member(name, command)

    def add(self, member: Member) -> None:
        """Start a process, and again whenever it dies."""
        with self._lock:
            self._start(member)
            self._all.append(member)

    def environment(self, member: Member) -> dict[str, str]:
        """What a process finds in its environment."""
        return {**os.environ, "PENSTOCK_TOKEN": TOKEN}

    def _start(self, member: Member) -> None:
        environment = {
            **self.environment(member),
            "PYTHONPATH": WHERE_PENSTOCK_IS,
            "PENSTOCK_PARENT_PIPE": str(self._pipe[0]),
        }
        with (self.folder / f"{member.name}.log").open("ab") as log:
            member.process = subprocess.Popen(
                [sys.executable, "-m", *member.command],
                cwd=self.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[self._pipe[0]],
                start_new_session=True,
            )

    def _keep(self) -> None:
        while not self._closing.wait(0.02):
            with self._lock:
                for member in self._all:
                    assert member.process is not None
                    if member.is_kept and member.process.poll() is not None:
                        self._start(member)

    @property
    def logs(self) -> str:
        """The last lines of every process."""
        return "\n".join(
            f"── {path.name}\n" + "\n".join(path.read_text().splitlines()[-40:])
            for path in sorted(self.folder.glob("*.log"))
        )

    # ── orders ───────────────────────────────────────────────────────────────────────────────────

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """What REST answers; None when the coordinator is not there."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.rest_port}/penstock/v1/{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {TOKEN}"},
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                return json.loads(response.read())
        except urllib.error.HTTPError as e:
            return {"httpError": e.code, "body": e.read().decode()}
        except OSError:
            return None

    def status(self) -> dict[str, Any]:
        """The job's status; empty when the coordinator is not there."""
        return self.call("GET", "status") or {}

    def order(self, kind: str, request_id: str, **fields: Any) -> dict[str, Any]:
        """Give an order, again until it is answered; what became of it."""

        def answered() -> Any:
            answer = self.call("POST", f"{kind}?wait=5", {"requestId": request_id, **fields})
            is_known = (
                answer and answer.get("phase") != "Running" and answer.get("httpError") != 503
            )
            return answer if is_known else None

        answer: dict[str, Any] = wait_for(answered, f"{kind} {request_id}")
        return answer

    def start(self, request_id: str = "start", **fields: Any) -> None:
        """Order a start and see that it is obeyed."""
        wait_for(self._ports.exists, "a coordinator that has read the log")
        assert "error" not in json.loads(self._ports.read_text()), self._ports.read_text()
        status = wait_for(self.status, "a coordinator")
        answer = self.order(
            "start",
            request_id,
            after=status["logSeq"],
            revision=REVISION,
            parallelism=self.parallelism,
            **fields,
        )
        assert answer.get("phase") == "Done", answer

    def wait_for_phase(self, phase: str, *, within_s: float = 60.0) -> dict[str, Any]:
        """The status once the job is in that phase."""

        def fact() -> Any:
            status = self.status()
            return status if status.get("phase") == phase else None

        found: dict[str, Any] = wait_for(fact, f"phase {phase}", within_s=within_s)
        return found

    def wait_for_checkpoint(self, *, after: int = 0) -> int:
        """The number of the newest completed checkpoint, once it is above `after`."""

        def fact() -> Any:
            newest = (self.status().get("lastCheckpoint") or {}).get("id", 0)
            return newest if newest > after else None

        found: int = wait_for(fact, f"a checkpoint after {after}")
        return found

    # ── what lies in stores ──────────────────────────────────────────────────────────────────────

    @property
    def storage(self) -> JobStorage:
        """The job's stores."""
        where = self.settings.storage
        return JobStorage(
            JOB,
            open_store(f"{where}/checkpoints", base=self.folder),
            open_store(f"{where}/savepoints", base=self.folder),
            self.folder,
        )

    def newest_entry(self) -> Entry:
        """The newest entry of the job's log."""
        entry = read_newest_entry(self.storage)
        assert entry is not None
        return entry

    def manifests(self) -> list[Manifest]:
        """Those of all checkpoints that the log retains, oldest first."""
        entry, storage = self.newest_entry(), self.storage
        return [read_snapshot(storage, ref).manifest for ref in entry.retained]

    def final_state(self) -> dict[str, int]:
        """The state `seen` by key, in the checkpoint or savepoint that the run ended with."""
        end = self.newest_entry().end
        assert end is not None
        assert end.go_on_from is not None
        found = Snapshot.open(f"{self.storage.checkpoints.url}/{end.go_on_from.path}")
        assert list(found.values("check", "late")) == [], "records of a key came out of order"
        return dict(found.values("check", "seen"))

    def output(self) -> list[str]:
        """All lines of committed files, sorted."""
        store = open_store(self.settings.output, base=self.folder)
        lines: list[str] = []
        for info in store.list(""):
            if not info.path.startswith(".pending/"):
                data = store.get(info.path)
                assert data is not None
                assert data.endswith(b"\n"), f"{info.path} is cut short"
                lines += data.decode().splitlines()
        lines.sort()
        return lines

    def unreferenced(self) -> tuple[set[str], set[str]]:
        """Files below the checkpoints' root that nothing names, and named ones that are missing."""
        storage, entry = self.storage, self.newest_entry()
        wanted: set[str] = set()
        for ref in entry.retained:
            manifest = read_snapshot(storage, ref).manifest
            wanted.add(ref.path)
            wanted |= {f"{JOB}/{file.path}" for file in manifest.files() if "://" not in file.path}
        found = {
            info.path
            for info in storage.checkpoints.list(f"{JOB}/")
            if not info.path.startswith(f"{JOB}/log/")
        }
        return found - wanted, wanted - found


def digest_of(lines: list[str]) -> str:
    """A short name for many lines."""
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def assert_same_lines(found: list[str], wanted: list[str]) -> None:
    """Both sorted; says what is missing and what came more often than it should."""
    if digest_of(found) == digest_of(wanted):
        return
    missing, extra = [], []
    left = iter(_merged(found, wanted))
    for line, is_found, is_wanted in left:
        if is_found > is_wanted:
            extra.append(line)
        elif is_wanted > is_found:
            missing.append(line)
    pytest.fail(
        f"{len(missing):,} lines are missing {missing[:5]}, {len(extra):,} are too many {extra[:5]}"
    )


def _merged(found: list[str], wanted: list[str]) -> Iterator[tuple[str, int, int]]:
    counts: dict[str, list[int]] = {}
    for side, lines in enumerate((found, wanted)):
        for line in lines:
            counts.setdefault(line, [0, 0])[side] += 1
    for line, (there, due) in counts.items():
        yield line, there, due


class Killer:
    """Kills members of a cluster at random moments; the same seed chooses the same ones."""

    def __init__(self, cluster: Cluster, seed: int) -> None:
        self._cluster = cluster
        self._random = Random(seed)
        self.killed: list[str] = []

    def kill(self, times: int) -> None:
        """SIGKILL one process after another: half of them after the job was seen running."""
        random, cluster = self._random, self._cluster
        for _ in range(times):
            if random.random() < 0.6:
                cluster.wait_for_phase("Running")
            self._pause(random.uniform(0.0, 1.0))
            victim = random.choice([*cluster.workers, *cluster.workers, cluster.coordinator])
            children = victim.children()
            if victim is not cluster.coordinator and children and random.random() < 0.6:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(random.choice(children), signal.SIGKILL)
                self.killed.append(f"child of {victim.name}")
            else:
                victim.signal(signal.SIGKILL)
                self.killed.append(victim.name)

    def _pause(self, seconds: float) -> None:
        # Not waiting for a fact: the moment of the next kill is what is random.
        threading.Event().wait(seconds)
