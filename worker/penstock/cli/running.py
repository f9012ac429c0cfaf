"""What `penstock run` does: one job on this machine, from its manifest to its last words."""

from __future__ import annotations

import asyncio
import contextlib
import shlex
import signal
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from penstock.cli import endings, numbers
from penstock.cli.effective import effective
from penstock.cli.errors import EXIT_CANCELLED, EXIT_DAMAGED, EXIT_FAILED
from penstock.cli.job import Job, build, load, max_parallelism, overrides
from penstock.cli.live import Display, LiveBlock, PlainLines
from penstock.cli.output import print_json
from penstock.core.errors import PenstockError, Rejected
from penstock.dataflow.connector import Sink
from penstock.dataflow.stream import Environment
from penstock.runtime.backends import BUILT_IN, backend_factory
from penstock.runtime.clock import Clock
from penstock.runtime.local import EndedAs, LocalRun, LocalRunConfig, Outcome
from penstock.runtime.logs import configure_logging
from penstock.runtime.warm import WarmProcess
from penstock.spec.orders import JobStatus
from penstock.spec.parts.snapshots import BUILT_IN_BACKENDS
from penstock.spec.without_effect import set_without_effect


def run(
    target: str,
    *,
    parameters: Sequence[str] = (),
    parallelism: int | None = None,
    restore: str | None = None,
    log: str | None = None,
    port: int | None = None,
    storage: str | None = None,
    form: str | None = None,
    warm: Iterable[WarmProcess] = (),
) -> int:
    """Run a job to its end, or until Ctrl-C; the exit code. Processes in `warm` are used first.

    Raises:
        PenstockError: it could not be started, or not led to an end.
    """
    if restore == "":
        raise Rejected(
            "nothing is named to restore from",
            where="--restore",
            fix="write latest, none, a path or a time, or leave it out",
        )
    job = load(target, parameters)
    environment = build(job)  # what is wrong with it is told before anything starts
    if (backend := job.manifest.spec.state.backend) not in BUILT_IN:
        backend_factory(backend)
    manifest, replaced = effective(
        job, parameters=overrides(parameters), parallelism=parallelism, storage=storage
    )
    if replaced:
        click.echo(replaced, err=True)
    for field_path, instead in set_without_effect(manifest):
        click.echo(f"{field_path} has no effect yet: {instead}", err=True)
    style = log or ("live" if sys.stderr.isatty() else "plain")
    clock = Clock()
    local: LocalRun | None = None
    display: Display
    if style == "live":
        display = LiveBlock(
            url=lambda: local.url if local else None,
            backend=_backend(job),
            now_ms=clock.now_ms,
        )
    else:
        display = PlainLines(clock.now_ms)
    config = LocalRunConfig(
        manifest=manifest,
        folder=job.bound.folder,
        source=target,
        restore=restore,
        rest_port=port,
        log="json" if style == "json" else "plain",
        stderr=display.log,
    )
    local = LocalRun(config, warm)
    command = again(job, parameters, parallelism, storage)
    configure_logging(config.log, job=local.job, stream=display.stream)
    session = _Session(
        local, display, job, command, _results(job, environment), as_json=form == "json"
    )
    return asyncio.run(session.run())


def again(job: Job, parameters: Sequence[str], parallelism: int | None, storage: str | None) -> str:
    """The command line that goes on with this job: where it restores from is not part of it."""
    words = ["penstock", "run", job.target]
    for text in parameters:
        words += ["-p", text]
    if parallelism is not None:
        words += ["-n", str(parallelism)]
    if storage is not None:
        words += ["--storage", storage]
    return shlex.join(words)


def _backend(job: Job) -> str:
    name = job.manifest.spec.state.backend
    return name if name in BUILT_IN_BACKENDS else name.partition(":")[2]


@dataclass(slots=True)
class _Session:
    """One run with its Ctrl-C: the first stops with a savepoint, the second cancels."""

    local: LocalRun
    display: Display
    job: Job
    again: str
    results: Sequence[Path]
    as_json: bool
    presses: int = 0
    asked_s: float = 0.0
    refused: PenstockError | None = None
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._pressed)
        try:
            with self.display:
                outcome = await self.local.run(on_status=self._update)
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)
            if self.presses:  # whoever presses once more does not want a torn last sentence
                signal.signal(signal.SIGINT, signal.SIG_IGN)
            for task in self.tasks:
                task.cancel()
            await asyncio.gather(*self.tasks, return_exceptions=True)
        return self._told(outcome)

    def _update(self, status: JobStatus) -> None:
        self.display.update(status)

    def _pressed(self) -> None:
        self.presses += 1
        if self.presses == 1:
            self.asked_s = time.monotonic()
            self.display.say("Stopping with a savepoint (Ctrl-C again to cancel without) …")
            self.tasks.append(asyncio.create_task(self._stop()))
        elif self.presses == 2:
            self.display.say("Cancelling …")
            self.tasks.append(asyncio.create_task(self.local.cancel()))

    async def _stop(self) -> None:
        try:
            await self.local.stop_with_savepoint()
        except PenstockError as e:
            if self.presses == 1:
                self.display.say(f"{e.what}; the job runs on (Ctrl-C again to cancel)")

    def _told(self, outcome: Outcome) -> int:
        """Print how it ended, results on stdout; the exit code, whether anybody reads or not."""
        with contextlib.suppress(BrokenPipeError):
            if self.as_json:
                print_json(_as_json(outcome))
            else:
                self._say_the_end(outcome)
        if outcome.ended is EndedAs.FAILED:
            error = outcome.status.last_error
            return EXIT_DAMAGED if error is not None and error.damaged else EXIT_FAILED
        return EXIT_CANCELLED if outcome.ended is EndedAs.CANCELLED and self.presses else 0

    def _say_the_end(self, outcome: Outcome) -> None:
        ran = endings.Ran(
            status=outcome.status,
            again=self.again,
            elapsed_ms=outcome.elapsed_ms,
            results=self.results,
            snapshot=outcome.goes_on_from,
        )
        match outcome.ended:
            case EndedAs.FINISHED:
                click.echo(endings.finished(ran), nl=False)
            case EndedAs.ALREADY_FINISHED:
                click.echo(endings.already_finished(ran, ago_ms=outcome.ended_ago_ms), nl=False)
            case EndedAs.STOPPED:
                took = int((time.monotonic() - self.asked_s) * 1000) if self.presses else None
                limit = outcome.status.max_parallelism or max_parallelism(self.job.manifest, 1)
                last = outcome.status.last_savepoint
                savepoint = outcome.savepoint or (last.path if last else None)
                text = endings.stopped(ran, savepoint=savepoint, max_parallelism=limit)
                done = "" if took is None else f" in {numbers.duration(took)}"
                click.echo(f"Stopped with a savepoint{done}.\n\n{text}", nl=False)
            case EndedAs.CANCELLED:
                click.echo(endings.cancelled(ran), nl=False)
            case EndedAs.FAILED:
                click.echo(endings.failed(ran), err=True, nl=False)


def _as_json(outcome: Outcome) -> dict[str, Any]:
    return {
        "ended": outcome.ended.value,
        "elapsedMs": outcome.elapsed_ms,
        "goesOnFrom": outcome.goes_on_from,
        "savepoint": outcome.savepoint,
        "status": outcome.status.model_dump(mode="json", by_alias=True),
    }


def _results(job: Job, environment: Environment) -> list[Path]:
    """The folders on this machine that the job's sinks write to."""
    found = []
    for node in environment.nodes():
        path = getattr(node.runs, "path", None)
        if isinstance(node.runs, Sink) and isinstance(path, str) and "://" not in path:
            found.append(job.bound.folder / path)
    return found
