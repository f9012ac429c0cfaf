"""Jobs that run on this machine: one file each, locked while the job runs.

`~/.local/state/penstock/jobs/<hash>.json` (XDG_STATE_HOME), readable by its owner alone, as it
holds the job's token. The lock, not the file, says that a job runs: a file that nobody holds is
what a killed run left behind.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from penstock.core.errors import Rejected

_HASH_DIGITS = 16
_TRIES = 5
_PAUSE_S = 0.02


@dataclass(frozen=True, slots=True)
class RunningJob:
    """One job running here. `url` is its coordinator's REST; `storage` that of its checkpoints."""

    name: str
    pid: int
    url: str
    token: str
    storage: str
    manifest: str
    started_ms: int


class Registration:
    """The lock of one job on this machine; `publish` says how to reach it."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor

    def publish(self, job: RunningJob) -> None:
        """Replace what is told about this job."""
        data = json.dumps(asdict(job), indent=1).encode()
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, data, 0)


def jobs_folder() -> Path:
    """The folder of the registry; it may not exist yet."""
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "penstock" / "jobs"


@contextmanager
def register(name: str, storage: str) -> Iterator[Registration]:
    """Hold the job while the block runs.

    Raises:
        Rejected: the same job, in the same storage, runs on this machine already.
    """
    folder = jobs_folder()
    path = folder / f"{_hash(name, storage)}.json"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = _lock(path)
    except OSError as e:
        raise Rejected(
            f"running jobs cannot be noted: {e.strerror or e}",
            where=str(folder),
            fix="set XDG_STATE_HOME to a folder that you may write",
        ) from e
    # Who lists jobs holds the lock of an abandoned file for a moment.
    for _ in range(_TRIES):
        if descriptor is not None:
            break
        time.sleep(_PAUSE_S)
        descriptor = _lock(path)
    if descriptor is None:
        raise _runs_already(name, path)
    try:
        yield Registration(path, descriptor)
    finally:
        # Removed while still locked: whoever opened it meanwhile finds that its file is gone.
        path.unlink(missing_ok=True)
        os.close(descriptor)


def running_jobs() -> list[RunningJob]:
    """The jobs that run here now, by name. Files of runs that were killed are removed in passing."""
    found = []
    folder = jobs_folder()
    for path in sorted(folder.glob("*.json")) if folder.is_dir() else ():
        descriptor = _lock(path, create=False)
        if descriptor is not None:
            path.unlink(missing_ok=True)
            os.close(descriptor)
        elif (job := _read(path)) is not None:
            found.append(job)
    return sorted(found, key=lambda job: job.name)


def find_job(name: str | None) -> RunningJob:
    """The job of that name running here; without a name, the only one.

    Raises:
        Rejected: none or several fit.
    """
    jobs = running_jobs()
    fitting = [job for job in jobs if name in (None, job.name)]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise Rejected(
            f"{len(fitting)} jobs run on this machine",
            where=", ".join(job.name for job in fitting),
            fix="name the one you mean",
        )
    if name is None or not jobs:
        raise Rejected(
            "no job runs on this machine",
            where=str(jobs_folder()),
            fix="start one with penstock run, or reach another coordinator with -m HOST:PORT",
        )
    raise Rejected(
        f"no job {name} runs on this machine",
        where=str(jobs_folder()),
        fix="running: " + ", ".join(job.name for job in jobs),
    )


def _hash(name: str, storage: str) -> str:
    return hashlib.sha256(f"{name}\n{storage}".encode()).hexdigest()[:_HASH_DIGITS]


def _lock(path: Path, *, create: bool = True) -> int | None:
    """A locked descriptor of the file that has this name; None when another holds it."""
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | (os.O_CREAT if create else 0), 0o600)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        if _is_file_at(descriptor, path):
            return descriptor
        os.close(descriptor)


def _is_file_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _read(path: Path) -> RunningJob | None:
    """None for a job that holds its lock but has not said yet how to reach it."""
    try:
        return RunningJob(**json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


def _runs_already(name: str, path: Path) -> Rejected:
    job = _read(path)
    return Rejected(
        f"{name} runs on this machine already",
        where=f"process {job.pid}, {job.url}" if job else str(path),
        fix=f"look at it with penstock status {name}, or end it with penstock stop {name}",
    )
