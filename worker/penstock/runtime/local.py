"""`penstock run`: a job's coordinator and workers as processes on this machine.

This process plays the kubelet: it starts them, starts again whichever dies, and ends them all when
the job's log has ended. It decides nothing about the job; what it wants it orders over REST.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import socket
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import IO

from penstock.checkpoint.log import recovery_point
from penstock.core.errors import Corrupt, PenstockError, Rejected
from penstock.core.log import Entry
from penstock.runtime.coordinator_config import restart_strategy, storage_urls
from penstock.runtime.job_storage import JobStorage, is_url
from penstock.runtime.local_client import HOST, LocalClient, error_in
from penstock.runtime.local_processes import Death, LocalProcesses, environment
from penstock.runtime.registry import Registration, RunningJob, register
from penstock.runtime.snapshot_files import read_newest_entry, whole_snapshot
from penstock.runtime.warm import COORDINATOR_MODULE, WORKER_MODULE, WarmProcess
from penstock.spec.orders import (
    CancelOrder,
    JobPhase,
    JobStatus,
    Origin,
    RequestPhase,
    RequestStatus,
    StartOrder,
    StopOrder,
)
from penstock.spec.parts.snapshots import Restore
from penstock.spec.streamjob import StreamJob
from penstock.storage.files import os_errors_translated
from penstock.storage.location import check_writable, open_store

COORDINATOR = "coordinator"
REST_PORT = 8081
STATE_FOLDER = "state"

_PORTS_TRIED = 100
_POLL_S = 0.1
_READY_POLL_S = 0.02
_CANCEL_PATIENCE_S = 10.0
_FINAL_CODES = {2, 4, 5}
"""Exit codes that another start would only repeat: Rejected, Corrupt, stood down."""


class EndedAs(StrEnum):
    """How a run on this machine ended."""

    FINISHED = "finished"
    ALREADY_FINISHED = "already finished"
    STOPPED = "stopped"
    CANCELLED = "cancelled"
    FAILED = "failed"


_OF_PHASE = {
    JobPhase.FINISHED: EndedAs.FINISHED,
    JobPhase.STOPPED: EndedAs.STOPPED,
    JobPhase.CANCELLED: EndedAs.CANCELLED,
    JobPhase.FAILED: EndedAs.FAILED,
}


@dataclass(frozen=True, slots=True)
class LocalRunConfig:
    """What to run. `manifest` is the effective one, with parameters, parallelism and storage of the
    command line applied; storage left out becomes `state/…` below `folder`, the manifest's.

    `source` is the manifest as the person named it. `rest_port` None is 8081, or the next free one.
    `stderr` takes the processes' log, by default this one's; `log` is `plain` or `json`.
    """

    manifest: StreamJob
    folder: Path
    source: str
    restore: str | None = None
    rest_port: int | None = None
    log: str = "plain"
    stderr: IO[bytes] | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """How the run ended. `goes_on_from` is the folder of the snapshot that the next run starts from,
    `savepoint` that of a stop's, `ended_ago_ms` is for a job that had finished already."""

    ended: EndedAs
    status: JobStatus
    elapsed_ms: int
    goes_on_from: str | None = None
    savepoint: str | None = None
    ended_ago_ms: int | None = None


@dataclass(slots=True)
class _Run:
    """The state of one call of `LocalRun.run`."""

    processes: LocalProcesses
    ports_file: Path
    port: int
    rest_port: int
    token: str
    client: LocalClient
    id: str = field(default_factory=lambda: secrets.token_hex(6))
    started_s: float = field(default_factory=time.monotonic)
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    broken: PenstockError | None = None
    savepoint: str | None = None
    status: JobStatus | None = None
    is_given_up: bool = False
    """Somebody who asked for a stop does not wait for output that cannot be committed yet."""


class LocalRun:
    """One run of one job on this machine. Processes in `warm` are taken instead of new ones."""

    def __init__(self, config: LocalRunConfig, warm: Iterable[WarmProcess] = ()) -> None:
        self._config = config
        self._warm = list(warm)
        self.manifest = with_local_storage(config.manifest)
        self.job = self.manifest.job_id()
        self.folder = config.folder.absolute()
        self.workdir = self.folder / STATE_FOLDER / "local" / self.job
        self._run: _Run | None = None
        self._begun = asyncio.Event()

    @property
    def url(self) -> str | None:
        """The coordinator's REST and page; None before `run`."""
        return None if self._run is None else f"http://localhost:{self._run.rest_port}"

    async def run(self, on_status: Callable[[JobStatus], None] | None = None) -> Outcome:
        """Run the job to its end. `on_status` is called about ten times a second.

        Raises:
            Rejected: it runs here already, or cannot be started, in a sentence that says what to do.
            Corrupt: what it should go on from is damaged, or output that it had prepared is gone.
            PenstockError: somebody ended it before all of its output could be committed.
        """
        storage = self.manifest.spec.checkpoints.storage or ""
        with register(self.job, f"{self.folder}:{storage}") as registration:
            await asyncio.to_thread(self._look_at_the_log)
            self._run = run = self._begin()
            self._begun.set()
            try:
                await self._start_processes(run)
                await self._wait_until_ready(run)
                self._publish(registration, run)
                return await self._lead(run, on_status or (lambda _: None))
            finally:
                await run.processes.end()

    async def stop_with_savepoint(self, *, drain: bool = False) -> RequestStatus:
        """Stop the job; `run` then returns. What became of the request.

        Raises:
            Rejected: it was refused; the job runs on.
        """
        await self._begun.wait()
        begun = self._run
        if begun is not None and begun.status and begun.status.phase is JobPhase.ENDING:
            begun.is_given_up = True
            raise Rejected(
                "the job ends already",
                where=self.url,
                fix="nothing: what cannot be committed now is committed by the next run",
            )
        run = await self._running()
        order = StopOrder(request_id=f"stop-{run.id}", drain=drain)
        answer = await run.client.order("stop", order)
        if answer.phase is RequestPhase.FAILED:
            raise Rejected(
                f"the job was not stopped: {answer.error}",
                where=self.url,
                fix="it runs on; try again, or cancel it",
            )
        run.savepoint = answer.path
        return answer

    async def cancel(self) -> None:
        """End the job without a savepoint, at the latest after ten seconds; `run` then returns."""
        run = self._run
        if run is None:
            return
        order = CancelOrder(request_id=f"cancel-{run.id}")
        try:
            await asyncio.wait_for(self._cancel(run, order), _CANCEL_PATIENCE_S)
        except (PenstockError, TimeoutError):
            # Without an answer the processes end all the same; the log then says that the job runs.
            pass
        finally:
            run.cancelled.set()

    # ── the life of a run ───────────────────────────────────────────────────────────────────────

    def _look_at_the_log(self) -> None:
        """Refuse here what the coordinator would refuse, or wait for: before there are many processes.

        Raises:
            PenstockError: the storage cannot be read or written, there are more workers than the job
                has key groups, or the snapshot it goes on from is damaged.
        """
        parallelism = self.manifest.spec.parallelism
        storage, entry = self._newest_entry()
        for store in (storage.checkpoints, storage.savepoints):
            check_writable(store)
        restore = self._config.restore or self.manifest.spec.restore.from_
        point = None if entry is None else recovery_point(entry)
        if entry is None or point is None or restore.lower() != "latest":
            return
        limit = entry.attempt.max_parallelism
        if parallelism > limit:
            raise Rejected(
                f"parallelism {parallelism} is above the job's max parallelism, which is {limit}",
                where=f"the newest snapshot of {self.job}",
                fix=f"give at most {limit}; key groups are fixed for the job's life",
            )
        if self.manifest.spec.restore.allow_older:
            return  # the coordinator takes an older one
        older = [ref for ref in entry.retained if ref.id < point.id]
        whole_snapshot(storage, point, sorted(older, key=lambda ref: -ref.id))

    def _begin(self) -> _Run:
        ports_file = self.workdir / "ports.json"
        with os_errors_translated(self.workdir):
            self.workdir.mkdir(parents=True, exist_ok=True)
            ports_file.unlink(missing_ok=True)
            (self.workdir / "manifest.json").write_text(json.dumps(self.manifest.document()))
        token = secrets.token_urlsafe(24)

        def gave_up(death: Death) -> None:
            told = error_in(ports_file) if death.name == COORDINATOR else None
            run.broken = told or self._why(death)

        rest_port = _free_port(self._config.rest_port)
        run = _Run(
            processes=LocalProcesses(
                self.folder,
                environment(token, self.folder),
                is_final=lambda _, code: code in _FINAL_CODES,
                gave_up=gave_up,
                strategy=restart_strategy(self.manifest.spec.restart),
                stderr=self._config.stderr,
                warm=self._warm,
            ),
            ports_file=ports_file,
            port=_free_port(0),
            rest_port=rest_port,
            token=token,
            client=LocalClient(rest_port, token, broken=lambda: run.broken),
        )
        return run

    def _why(self, death: Death) -> PenstockError:
        """What is told of a process that is not started again, with the last that it said."""
        where = "\n".join(death.lines) or str(self.workdir)
        if death.code in _FINAL_CODES:
            return Rejected(f"{death.name} {death.how}", where=where, fix="its last lines say why")
        times = "" if death.at_once == 1 else f", {death.at_once} times in a row"
        return PenstockError(
            f"{death.name} {death.how} as soon as it was started{times}",
            where=where,
            fix="correct what its last lines tell and run the job again: it goes on from its newest "
            "checkpoint; how often it is tried is spec.restart's",
        )

    async def _start_processes(self, run: _Run) -> None:
        manifest = ("--manifest", str(self.workdir / "manifest.json"))
        workers = (
            run.processes.keep(
                f"worker {i}",
                WORKER_MODULE,
                *("--worker", str(i)),
                *("--coordinator", f"{HOST}:{run.port}"),
                *manifest,
                *("--workdir", str(self.workdir / f"worker-{i}")),
            )
            for i in range(self.manifest.spec.parallelism)
        )
        await run.processes.keep(
            COORDINATOR,
            COORDINATOR_MODULE,
            *manifest,
            *("--port", str(run.port)),
            *("--rest-port", str(run.rest_port)),
            *("--ports-file", str(run.ports_file)),
            *("--revision", self._revision(run)),
            *("--log", self._config.log),
        )
        for worker in workers:
            await worker

    def _revision(self, run: _Run) -> str:
        """Another one for each run: a coordinator goes on by itself only within the same run, and
        at its beginning waits to be told what to restore."""
        return f"local-{run.id}"

    async def _wait_until_ready(self, run: _Run) -> None:
        while not run.ports_file.exists():
            if run.broken is not None:
                raise run.broken
            if run.cancelled.is_set():
                return
            await asyncio.sleep(_READY_POLL_S)
        if error := error_in(run.ports_file):
            raise error

    def _publish(self, registration: Registration, run: _Run) -> None:
        registration.publish(
            RunningJob(
                name=self.manifest.metadata.name,
                pid=os.getpid(),
                url=f"http://localhost:{run.rest_port}",
                token=run.token,
                storage=self.manifest.spec.checkpoints.storage or "",
                manifest=self._config.source,
                started_ms=time.time_ns() // 1_000_000,
            )
        )

    async def _lead(self, run: _Run, on_status: Callable[[JobStatus], None]) -> Outcome:
        before = await run.client.status()
        started = asyncio.create_task(self._start(run, before))
        try:
            while not run.cancelled.is_set():
                if run.broken is not None:
                    raise run.broken
                # An end that was seen before the answer to the start is that of the run before.
                is_answered = started.done()
                if is_answered:
                    started.result()
                status = run.status = await run.client.status()
                on_status(status)
                if error := _uncommitted(status, is_given_up=run.is_given_up):
                    raise error
                if is_answered and status.phase.is_end:
                    break
                await asyncio.sleep(_POLL_S)
        finally:
            started.cancel()
        status = run.status or before
        if run.cancelled.is_set() and not status.phase.is_end:
            if error := _uncommitted(status, is_given_up=True):
                raise error
            return await self._outcome(run, status, EndedAs.CANCELLED)
        if status.log_seq == before.log_seq:
            return await self._outcome(run, status, EndedAs.ALREADY_FINISHED)
        return await self._outcome(run, status, _OF_PHASE[status.phase])

    async def _start(self, run: _Run, before: JobStatus) -> None:
        spec = self.manifest.spec
        origin, restore = Origin.LOG, spec.restore
        if self._config.restore is not None:
            origin = Origin.RESTORE
            restore = Restore.model_validate(
                {**restore.model_dump(by_alias=True, mode="json"), "from": self._config.restore}
            )
        order = StartOrder(
            request_id=f"start-{run.id}",
            after=before.log_seq,
            revision=self._revision(run),
            origin=origin,
            parallelism=spec.parallelism,
            max_parallelism=spec.max_parallelism,
            restore=restore,
        )
        answer = await run.client.order("start", order)
        if answer.phase is RequestPhase.FAILED:
            raise Rejected(answer.error or "the start was refused", where=self.url)
        run.ready.set()

    async def _outcome(self, run: _Run, status: JobStatus, ended: EndedAs) -> Outcome:
        goes_on_from, ended_at_ms = await asyncio.to_thread(self._end_in_the_log)
        last_savepoint = status.last_savepoint
        if ended is EndedAs.STOPPED and run.savepoint is None and last_savepoint is not None:
            run.savepoint = last_savepoint.path
        now_ms = time.time_ns() // 1_000_000
        return Outcome(
            ended=ended,
            status=status,
            elapsed_ms=int((time.monotonic() - run.started_s) * 1000),
            goes_on_from=goes_on_from,
            savepoint=run.savepoint,
            ended_ago_ms=None if ended_at_ms is None else max(0, now_ms - ended_at_ms),
        )

    def _newest_entry(self) -> tuple[JobStorage, Entry | None]:
        checkpoints, savepoints = (
            open_store(url, base=self.folder) for url in storage_urls(self.manifest)
        )
        storage = JobStorage(self.job, checkpoints, savepoints, self.folder)
        return storage, read_newest_entry(storage)

    def _end_in_the_log(self) -> tuple[str | None, int | None]:
        """What the newest entry goes on from, and when it was written if it is an end."""
        storage, entry = self._newest_entry()
        if entry is None:
            return None, None
        point = recovery_point(entry)
        folder = None
        if point is not None:
            url = point.path if is_url(point.path) else f"{storage.checkpoints.url}/{point.path}"
            folder = url.rpartition("/")[0]
        return folder, entry.at_ms if entry.end is not None else None

    # ── the coordinator's REST ──────────────────────────────────────────────────────────────────

    async def _running(self) -> _Run:
        await self._begun.wait()
        assert self._run is not None, "begun"
        await self._run.ready.wait()
        return self._run

    async def _cancel(self, run: _Run, order: CancelOrder) -> None:
        if run.ready.is_set():
            await run.client.order("cancel", order)


def _uncommitted(status: JobStatus, *, is_given_up: bool) -> PenstockError | None:
    """What a run ends with whose last output is not committed: at once where that is gone, since no
    other try would find it; else when nobody waits for the next one."""
    error = status.uncommitted
    if error is None or not (error.damaged or is_given_up):
        return None
    kind = Corrupt if error.damaged else PenstockError
    return kind(
        f"the run has ended, and a part of its output could not be committed: {error.what}",
        where=f"{status.name}, attempt {error.attempt}",
        fix=f"{error.fix or 'mend what it tells'}; then run it again: it commits first what is left",
    )


def with_local_storage(manifest: StreamJob) -> StreamJob:
    """The manifest with checkpoints and savepoints in `state/` where it names no storage."""
    document = manifest.document()
    spec = document["spec"]
    checkpoints = spec.setdefault("checkpoints", {})
    savepoints = spec.setdefault("savepoints", {})
    if checkpoints.get("storage") is None:
        checkpoints["storage"] = f"{STATE_FOLDER}/checkpoints"
        savepoints.setdefault("storage", f"{STATE_FOLDER}/savepoints")
    return StreamJob.model_validate(document)


def _free_port(wanted: int | None) -> int:
    """The port, if it is free; any for 0; for None 8081 or the next free one.

    Raises:
        Rejected: it is taken.
    """
    candidates = range(REST_PORT, REST_PORT + _PORTS_TRIED) if wanted is None else (wanted,)
    for port in candidates:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            bound: int = probe.getsockname()[1]
            return bound
    raise Rejected(
        "no port is free" if wanted is None else f"port {wanted} is taken",
        where="--port",
        fix="choose another one, or leave it out for the next free one",
    )
