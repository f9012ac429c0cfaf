"""One job's coordinator as a process: `penstock coordinator` in a pod, elsewhere with `--manifest …`.

Wires the pure core to stores, workers and REST. It keeps nothing that the store does not have:
killed at any time, it comes back from the newest log entry alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import signal
import sys
from collections.abc import Awaitable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from aiohttp import web

from penstock.checkpoint.settings import CheckpointSettings, Identity
from penstock.core.errors import PenstockError, Rejected, Retryable
from penstock.runtime import pod, termination
from penstock.runtime.clock import Clock
from penstock.runtime.coordinator_config import (
    CoordinatorConfig,
    Flags,
    checkpoint_settings,
    config_of,
)
from penstock.runtime.coordinator_shell import Shell
from penstock.runtime.coordinator_workers import WorkerLimits, Workers
from penstock.runtime.flink_rest import FlinkRest
from penstock.runtime.holding import coordinator_class
from penstock.runtime.job_status import job_status
from penstock.runtime.job_storage import JobStorage
from penstock.runtime.logs import configure_logging, get_logger
from penstock.runtime.order_desk import OrderDesk
from penstock.runtime.page import render
from penstock.runtime.pdeathsig import die_with_parent
from penstock.runtime.program import Program, load_program, sinks_without_transactions
from penstock.runtime.rest import make_app
from penstock.spec.live import with_live
from penstock.spec.orders import JobStatus
from penstock.state.schemas import is_readable
from penstock.storage.location import check_writable, open_store

log = get_logger()

T = TypeVar("T")

_SHUTDOWN_S = 1.0


class HasStoodDown(Rejected):
    """Another coordinator has the job; starting this one again would take it back."""

    exit_code = 5


async def run_coordinator(config: CoordinatorConfig, program: Program) -> None:
    """Lead the job until SIGTERM.

    Raises:
        HasStoodDown: another coordinator has the job, or another owner.
        PenstockError: the store cannot be used, the job's log is damaged, or a port is taken.
    """
    service = _Service(config, program)
    loop = asyncio.get_running_loop()
    me = asyncio.current_task()
    assert me is not None, "called inside a task"
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, me.cancel)
    try:
        raise await service.run()
    except asyncio.CancelledError:
        return
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


class _Service:
    """The parts of one coordinator, put together."""

    def __init__(self, config: CoordinatorConfig, program: Program) -> None:
        self._config = config
        self._program = program
        self._clock = Clock()
        checkpoints = open_store(config.checkpoints_url, base=config.folder)
        savepoints = open_store(config.savepoints_url, base=config.folder)
        self._storage = JobStorage(config.job, checkpoints, savepoints, config.folder)
        identity = Identity(
            job=config.job,
            owner=config.owner,
            revision=config.revision,
            incarnation=secrets.token_hex(8),
            savepoints_url=savepoints.url,
            adopt=config.adopt,
        )
        core = coordinator_class()(
            identity,
            program.graph,
            self._settings({}),
            is_readable=is_readable,
            read_settings=self._settings,
        )
        self._shell = Shell(core, self._storage, self._workers, self._limits, self._clock)
        self._desk = OrderDesk(self._shell, self._storage, program)
        self._holds_not = sinks_without_transactions(program)

    async def run(self) -> HasStoodDown:
        config, shell = self._config, self._shell
        control = await _listening(shell.workers.serve(config.host, config.port), config.port)
        runner = web.AppRunner(self._app(), access_log=None, shutdown_timeout=_SHUTDOWN_S)
        await runner.setup()
        try:
            site = web.TCPSite(runner, config.rest_host, config.rest_port)
            await _listening(site.start(), config.rest_port)
            await shell.in_thread(self._check_stores)
            announce = asyncio.create_task(self._announce(control, runner))
            stood_down = await shell.run()
            announce.cancel()
        finally:
            control.close()
            await runner.cleanup()
        return HasStoodDown(
            f"this coordinator stands down: {stood_down.reason}",
            where=f"{self._storage.checkpoints.url}/{config.job}, as {config.owner}",
            fix="look where else this job runs; to take over what another owner left, set "
            "spec.restore.adopt: true; nothing was changed here",
        )

    def _check_stores(self) -> None:
        """Refuse stores that cannot be written, or would not keep one coordinator from another."""
        for store in (self._storage.checkpoints, self._storage.savepoints):
            try:
                check_writable(store)
            except Retryable as e:
                log.warning("store", error=e.what, where=e.where)

    def _settings(self, live: Mapping[str, Any]) -> CheckpointSettings:
        return checkpoint_settings(with_live(self._program.manifest, live))

    def _limits(self, live: Mapping[str, Any]) -> WorkerLimits:
        worker = with_live(self._program.manifest, live).spec.worker
        return WorkerLimits(worker.heartbeat_timeout_ms, worker.progress_timeout_ms)

    def _workers(self, shell: Shell) -> Workers:
        return Workers(
            token=self._config.token.encode(),
            limits=self._limits({}),
            graph=self._program.graph,
            emit=shell.emit,
            heard=lambda worker, beat: shell.view.heard(worker, beat, self._clock.now_ms()),
            now_ms=self._clock.now_ms,
        )

    def _app(self) -> web.Application:
        view, now_ms = self._shell.view, self._clock.now_ms
        return make_app(
            token=self._config.token,
            desk=self._desk,
            status=self._status,
            metrics=self._metrics,
            page=lambda: render(self._status(), view, now_ms=now_ms()),
            flink=FlinkRest(
                job=self._config.job,
                view=view,
                desk=self._desk,
                status=self._status,
                now_ms=now_ms,
                checkpoints_url=self._storage.checkpoints.url,
                savepoints_url=self._storage.savepoints.url,
            ),
        )

    def _metrics(self) -> tuple[bytes, str]:
        from penstock.runtime.metrics import metrics_page  # nobody asks while a job starts

        return metrics_page(self._shell.view, self._status(), now_ms=self._clock.now_ms())

    def _status(self) -> JobStatus:
        return job_status(
            self._shell.view,
            job=self._config.job,
            graph=self._program.graph,
            revision=self._config.revision,
            parallelism=self._program.manifest.spec.parallelism,
            workers=self._shell.workers.connected,
            requests=self._desk.statuses(),
            holds_not=self._holds_not,
            checkpoints_url=self._storage.checkpoints.url,
            savepoints_url=self._storage.savepoints.url,
            settings_in_force=self._settings(self._shell.view.live),
            now_ms=self._clock.now_ms(),
        )

    async def _announce(self, control: asyncio.Server, runner: web.AppRunner) -> None:
        await self._shell.has_read_log.wait()
        port = control.sockets[0].getsockname()[1]
        rest_port = runner.addresses[0][1]
        log.info("coordinator ready", port=port, rest_port=rest_port, owner=self._config.owner)
        if self._config.ports_file is not None:
            write_whole(self._config.ports_file, {"port": port, "restPort": rest_port})


async def _listening(starting: Awaitable[T], port: int) -> T:
    try:
        return await starting
    except OSError as e:
        raise Rejected(
            f"port {port} cannot be listened on: {e.strerror or e}",
            where="coordinator",
            fix="choose another port, or end what uses it",
        ) from e


def write_whole(path: Path, body: dict[str, Any]) -> None:
    """Replace a small JSON file at once: readers find the old one or the new."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.write_text(json.dumps(body))
    unfinished.replace(path)


def tell_end(error: PenstockError, ports_file: Path | None) -> None:
    """Tell whoever started this process why it ends: a person, Kubernetes, `penstock run`."""
    termination.tell(error)
    if ports_file is not None:
        with contextlib.suppress(OSError):
            write_whole(ports_file, {"error": termination.error_body(error)})


def main(arguments: Sequence[str] | None = None) -> int:
    """The process; its exit code."""
    die_with_parent()
    pod.end_at_sigterm()
    flags = Flags.parse(arguments)
    configure_logging(flags.log or "plain")
    try:
        around = pod.surroundings(flags.manifest, host=flags.host)
        style = flags.log or around.log
        configure_logging(style)
        if around.is_pod:
            os.chdir(pod.job_folder())
        folder = Path.cwd()
        program = load_program(around.manifest, folder)
        config = config_of(flags, around, program.manifest, folder)
        configure_logging(style, job=config.job)
        asyncio.run(run_coordinator(config, program))
    except PenstockError as e:
        tell_end(e, flags.ports_file)
        return e.exit_code
    except Exception as e:
        termination.leave(termination.error_body(termination.unexpected(e)))
        raise
    return 0


if __name__ == "__main__":
    sys.exit(main())
