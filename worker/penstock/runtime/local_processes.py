"""The processes of a job on this machine: started, started again when they die, ended together.

One that had its time and dies is started again at once. Of one that falls at once the job's restart
strategy says how long to wait, and when it is enough.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Protocol

from penstock.checkpoint.restart import Restarts
from penstock.checkpoint.settings import ExponentialDelay, RestartStrategy
from penstock.core.failure import Failure
from penstock.runtime.last_lines import LastLines
from penstock.runtime.logs import get_logger
from penstock.runtime.pdeathsig import PARENT_PIPE_VARIABLE
from penstock.runtime.warm import Told, WarmProcess

log = get_logger()

_CALM_S = 5.0
_PAUSE_S = 0.1
_GRACE_S = 2.0


class _Process(Protocol):
    """A started process: asyncio's own, or one that was warm."""

    @property
    def pid(self) -> int: ...
    @property
    def returncode(self) -> int | None: ...
    async def wait(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Death:
    """The end of a process that is not started again. `at_once`: so many in a row fell at once;
    `lines` are the last that it said."""

    name: str
    code: int
    at_once: int
    lines: tuple[str, ...]

    @property
    def how(self) -> str:
        """The end of a sentence that begins with its name."""
        killed = f"was killed by signal {-self.code}"
        return killed if self.code < 0 else f"ended with exit code {self.code}"


@dataclass(slots=True)
class _Kept:
    """One process of many in a row; `restarts` are those since one had its time."""

    name: str
    module: str
    arguments: Sequence[str]
    restarts: Restarts
    process: _Process | None = None
    said: LastLines | None = None
    started_s: float = 0.0


@dataclass(slots=True)
class LocalProcesses:
    """Keeps processes alive until `end`.

    Each has a session of its own, so that only this process sees Ctrl-C, and dies with this one.
    `is_final(name, code)` says of an exit that it shall not be repaired, `strategy` how often one that
    falls at once is started again; `gave_up` is then called. Those in `warm` are taken first, each
    once.
    """

    folder: Path
    environment: dict[str, str]
    is_final: Callable[[str, int], bool]
    gave_up: Callable[[Death], None]
    strategy: RestartStrategy = field(default_factory=ExponentialDelay)
    stderr: IO[bytes] | None = None
    warm: list[WarmProcess] = field(default_factory=list)
    restarts: int = 0
    _kept: list[_Kept] = field(default_factory=list)
    _keepers: list[asyncio.Task[None]] = field(default_factory=list)
    _pipe: tuple[int, int] = field(default_factory=os.pipe)

    async def keep(self, name: str, module: str, *arguments: str) -> None:
        """Start `python -m module arguments`, and start it again whenever it dies."""
        kept = _Kept(name, module, arguments, Restarts(self.strategy))
        await self._start(kept)
        self._kept.append(kept)
        self._keepers.append(asyncio.create_task(self._keep_alive(kept)))

    def pids(self) -> dict[str, int]:
        """The processes that live now, by name."""
        return {
            kept.name: kept.process.pid
            for kept in self._kept
            if kept.process is not None and kept.process.returncode is None
        }

    async def end(self) -> None:
        """End all: asked first, then killed, with whatever they started."""
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        # Workers before the coordinator, whose loss they would warn about.
        kept = reversed(self._kept)
        living = [k.process for k in kept if k.process and k.process.returncode is None]
        for process in living:
            _signal(process, signal.SIGTERM)
        waits = [asyncio.create_task(process.wait()) for process in living]
        if waits:
            await asyncio.wait(waits, timeout=_GRACE_S)
        for process in living:
            _signal(process, signal.SIGKILL)
        await asyncio.gather(*waits)
        for one in self._kept:
            await asyncio.to_thread(_last_lines, one)
        for descriptor in self._pipe:
            os.close(descriptor)

    async def _start(self, kept: _Kept) -> None:
        kept.said = said = LastLines(self.stderr)
        # In the main thread: the kernel's signal at the parent's death follows the thread that forks.
        kept.process = self._warm_one(kept, said.end) or await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", kept.module, *kept.arguments),
            cwd=self.folder,
            env={**self.environment, PARENT_PIPE_VARIABLE: str(self._pipe[0])},
            stdin=asyncio.subprocess.DEVNULL,
            stderr=said.end,
            pass_fds=(self._pipe[0],),
            start_new_session=True,
        )
        said.begun()
        kept.started_s = time.monotonic()

    def _warm_one(self, kept: _Kept, stderr: int) -> WarmProcess | None:
        """A process that has imported this module already, and now begins."""
        found = next((warm for warm in self.warm if warm.module == kept.module), None)
        if found is None:
            return None
        self.warm.remove(found)
        told = Told(kept.arguments, str(self.folder), self.environment)
        try:
            found.tell(told, parent_pipe=self._pipe[0], stderr=stderr)
        except OSError:
            found.drop()
            return None
        return found

    async def _keep_alive(self, kept: _Kept) -> None:
        while True:
            assert kept.process is not None, kept
            code = await kept.process.wait()
            _signal(kept.process, signal.SIGKILL)  # what it started, a worker's child
            lines = await asyncio.to_thread(_last_lines, kept)
            pause_s = self._pause_s(kept, code)
            if pause_s is None:
                self.gave_up(Death(kept.name, code, kept.restarts.count, lines))
                return
            log.warning(
                "process died",
                process=kept.name,
                exit=code,
                again_in_s=round(pause_s, 1),
                said=lines[-1] if lines else None,
            )
            await asyncio.sleep(pause_s)
            self.restarts += 1
            await self._start(kept)

    def _pause_s(self, kept: _Kept, code: int) -> float | None:
        """How long to wait before it is started again; None: it is not."""
        if self.is_final(kept.name, code):
            return None
        now_s = time.monotonic()
        if _has_had_its_time(now_s - kept.started_s):
            kept.restarts = Restarts(self.strategy)
            return _PAUSE_S
        delay_ms = kept.restarts.failed(Failure(f"{kept.name} fell at once"), round(now_s * 1000))
        return None if delay_ms is None else delay_ms / 1000


def _has_had_its_time(lived_s: float) -> bool:
    return lived_s > _CALM_S


def _last_lines(kept: _Kept) -> tuple[str, ...]:
    return () if kept.said is None else kept.said.lines()


def _signal(process: _Process, number: int) -> None:
    """To the whole session of a process; one that is gone is no error."""
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        return


def environment(token: str, folder: Path) -> dict[str, str]:
    """What coordinator and workers inherit; module paths stay right in another working directory."""
    paths = [str(Path(p).absolute()) for p in os.environ.get("PYTHONPATH", "").split(":") if p]
    found = {**os.environ, "PENSTOCK_TOKEN": token, "PENSTOCK_FOLDER": str(folder)}
    if paths:
        found["PYTHONPATH"] = ":".join(paths)
    return found
