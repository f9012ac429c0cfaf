"""Processes that import while nobody knows yet what they will be told.

Importing takes most of the time from `penstock run` to the first record. So the coordinator and a
worker are started before the command line has read the manifest: `python -m penstock.runtime.warm
MODULE` imports a module, waits on its standard input, a socket, for one `Told`, and then is what
`python -m MODULE ARGUMENTS` in that folder and environment would have been. One that is told nothing
ends with whoever started it.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import json
import os
import runpy
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from penstock.runtime.pdeathsig import PARENT_PIPE_VARIABLE

COORDINATOR_MODULE = "penstock.runtime.coordinator"
WORKER_MODULE = "penstock.runtime.supervisor"

_STDIN, _STDERR = 0, 2
_CHUNK_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class Told:
    """What a warm process learns at last: its command line, folder and environment."""

    arguments: Sequence[str]
    folder: str
    environment: Mapping[str, str]


class WarmProcess:
    """A process that imports `module`. Once told it is waited for as asyncio's processes are."""

    def __init__(self, module: str) -> None:
        self.module = module
        self._ended: asyncio.Future[int] | None = None
        self._socket, theirs = socket.socketpair()
        with theirs:
            # In a session of its own, as what `LocalProcesses` starts: Ctrl-C is the parent's alone.
            # -P: nothing is imported from the folder where the command line happens to be.
            self._process = subprocess.Popen(
                (sys.executable, "-P", "-m", "penstock.runtime.warm", module),
                stdin=theirs.fileno(),
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Also the number of its session."""
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """None while it lives, or while nobody has waited for it."""
        return self._process.returncode

    def tell(self, told: Told, *, parent_pipe: int, stderr: int) -> None:
        """Let it begin; to be called once, with a loop running.

        Raises:
            OSError: it is gone.
        """
        descriptors = [parent_pipe, stderr]
        with self._socket:
            # Descriptors travel with the first byte.
            socket.send_fds(self._socket, [b"\n"], descriptors)
            self._socket.sendall(json.dumps(asdict(told)).encode())
        loop = asyncio.get_running_loop()
        self._ended = ended = loop.create_future()

        def wait() -> None:
            code = self._process.wait()
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(ended.set_result, code)

        threading.Thread(target=wait, name=f"wait-{self.pid}", daemon=True).start()

    async def wait(self) -> int:
        """Its exit code, once it has ended."""
        assert self._ended is not None, "told"
        return await asyncio.shield(self._ended)

    def drop(self) -> None:
        """End it, unless it was told: then it is somebody else's."""
        if self._ended is None:
            self._socket.close()
            self._process.kill()
            self._process.wait()


@contextlib.contextmanager
def warmed(*modules: str) -> Iterator[list[WarmProcess]]:
    """One process for each module; those that nobody told anything end with the block."""
    processes = [WarmProcess(module) for module in modules]
    try:
        yield processes
    finally:
        for process in processes:
            process.drop()


def _listen() -> Told | None:
    """Wait for what the parent says, and put the descriptors it sends in place; None: it is gone."""
    with socket.socket(fileno=os.dup(_STDIN)) as parent:
        begun, descriptors, _, _ = socket.recv_fds(parent, 1, 2)
        if not begun:
            return None
        chunks = list(iter(lambda: parent.recv(_CHUNK_BYTES), b""))
    pipe, stderr = descriptors
    with Path(os.devnull).open("rb") as nothing:
        os.dup2(nothing.fileno(), _STDIN)
    os.dup2(stderr, _STDERR)
    os.close(stderr)
    told = Told(**json.loads(b"".join(chunks)))
    return Told(told.arguments, told.folder, {**told.environment, PARENT_PIPE_VARIABLE: str(pipe)})


def main() -> None:
    """Entry point: `python -m penstock.runtime.warm MODULE`, started by `WarmProcess` only."""
    name = sys.argv[1]
    importlib.import_module(name)
    told = _listen()
    if told is None:
        return
    os.chdir(told.folder)
    os.environ.update(told.environment)
    sys.path.insert(0, str(Path.cwd()))
    sys.argv = [name, *told.arguments]
    # All that it imports is there; the module itself runs once more, now as the main one.
    del sys.modules[name]
    runpy.run_module(name, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
