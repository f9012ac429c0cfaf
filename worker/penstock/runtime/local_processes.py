"""The processes of a job on this machine: started, started again when they die, ended together."""

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

from penstock.runtime.logs import get_logger
from penstock.runtime.pdeathsig import PARENT_PIPE_VARIABLE
from penstock.runtime.warm import Told, WarmProcess

log = get_logger()

_CALM_S = 5.0
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 5.0
_GRACE_S = 2.0


class _Process(Protocol):
    """A started process: asyncio's own, or one that was warm."""

    @property
    def pid(self) -> int: ...
    @property
    def returncode(self) -> int | None: ...
    async def wait(self) -> int: ...


@dataclass(slots=True)
class _Kept:
    """One process of many in a row. `pause_s` is how long the next restart waits."""

    name: str
    module: str
    arguments: Sequence[str]
    process: _Process | None = None
    started_s: float = 0.0
    pause_s: float = _FIRST_PAUSE_S


@dataclass(slots=True)
class LocalProcesses:
    """Keeps processes alive until `end`.

    Each has a session of its own, so that only this process sees Ctrl-C, and dies with this one.
    `is_final(name, code)` says of an exit that it shall not be repaired, `gave_up` is then called.
    Those in `warm` are taken first, each once.
    """

    folder: Path
    environment: dict[str, str]
    is_final: Callable[[str, int], bool]
    gave_up: Callable[[str, int], None]
    stderr: IO[bytes] | None = None
    warm: list[WarmProcess] = field(default_factory=list)
    restarts: int = 0
    _kept: list[_Kept] = field(default_factory=list)
    _keepers: list[asyncio.Task[None]] = field(default_factory=list)
    _pipe: tuple[int, int] = field(default_factory=os.pipe)

    async def keep(self, name: str, module: str, *arguments: str) -> None:
        """Start `python -m module arguments`, and start it again whenever it dies."""
        kept = _Kept(name, module, arguments)
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
        for descriptor in self._pipe:
            os.close(descriptor)

    async def _start(self, kept: _Kept) -> None:
        # In the main thread: the kernel's signal at the parent's death follows the thread that forks.
        kept.process = self._warm_one(kept) or await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", kept.module, *kept.arguments),
            cwd=self.folder,
            env={**self.environment, PARENT_PIPE_VARIABLE: str(self._pipe[0])},
            stdin=asyncio.subprocess.DEVNULL,
            stderr=self.stderr,
            pass_fds=(self._pipe[0],),
            start_new_session=True,
        )
        kept.started_s = time.monotonic()

    def _warm_one(self, kept: _Kept) -> WarmProcess | None:
        """A process that has imported this module already, and now begins."""
        found = next((warm for warm in self.warm if warm.module == kept.module), None)
        if found is None:
            return None
        self.warm.remove(found)
        told = Told(kept.arguments, str(self.folder), self.environment)
        try:
            found.tell(told, parent_pipe=self._pipe[0], stderr=self.stderr)
        except OSError:
            found.drop()
            return None
        return found

    async def _keep_alive(self, kept: _Kept) -> None:
        while True:
            assert kept.process is not None, kept
            code = await kept.process.wait()
            _signal(kept.process, signal.SIGKILL)  # what it started, a worker's child
            if self.is_final(kept.name, code):
                self.gave_up(kept.name, code)
                return
            if time.monotonic() - kept.started_s > _CALM_S:
                kept.pause_s = _FIRST_PAUSE_S
            log.warning(
                "process died", process=kept.name, exit=code, again_in_s=round(kept.pause_s, 1)
            )
            await asyncio.sleep(kept.pause_s)
            kept.pause_s = min(2 * kept.pause_s, _LONGEST_PAUSE_S)
            self.restarts += 1
            await self._start(kept)


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
