"""A worker's children, as its supervisor sees them: the one at work, and a spare that is kept warm.

A child is started before anybody knows what for, is given one attempt, is heard until it ends, and
ends with SIGKILL: whoever wanted it to end by itself has asked before. One that dies without a word
is spoken for.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from penstock.core.failure import Failure
from penstock.core.ids import AttemptNumber
from penstock.network import frames
from penstock.network.control import ControlSocket
from penstock.network.frames import AnyFrame
from penstock.runtime import pod
from penstock.runtime.pdeathsig import NO_PIPE, PARENT_PIPE_VARIABLE

_GRACE_S = 1.0


class Process(Protocol):
    """What is used of `subprocess.Popen`."""

    @property
    def pid(self) -> int:
        """Its number."""
        ...

    def poll(self) -> int | None:
        """Its exit code, None while it lives."""
        ...

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code, once it has ended.

        Raises:
            subprocess.TimeoutExpired: it has not, for so many seconds.
        """
        ...

    def kill(self) -> None:
        """SIGKILL; nothing when it is gone."""
        ...


@dataclass(slots=True)
class ChildProcess:
    """A started child; `plan` once it has an attempt. `clock_s` only tells how long it was silent."""

    process: Process
    control: ControlSocket
    clock_s: Callable[[], float] = time.monotonic
    plan: frames.Prepare | None = None
    _is_fetching: bool = False
    """Its state is still being downloaded: it has nothing to make progress with."""
    _fetched_bytes: int = 0
    _heard_s: float = 0.0
    _metrics: dict[str, frames.OperatorMetrics] = field(default_factory=dict)
    _has_failed: bool = False

    def take(self, plan: frames.Prepare) -> None:
        """Give it an attempt; it is told by `begin`, when its state lies on this disk."""
        self.plan = plan
        self._is_fetching = True
        self._heard_s = self.clock_s()

    def begin(self, ready: frames.Prepare, fetched_bytes: int) -> None:
        """Everything that it restores is there."""
        self._is_fetching = False
        self._fetched_bytes = fetched_bytes
        self._heard_s = self.clock_s()
        self.control.post(ready)

    @property
    def attempt(self) -> AttemptNumber:
        """Its attempt's number; 0 while it has none."""
        return AttemptNumber(0) if self.plan is None else self.plan.attempt

    def heard(self) -> list[AnyFrame]:
        """What it says to the coordinator, and what it snapshotted."""
        said: list[AnyFrame] = []
        for frame in self.control.receive_ready():
            if isinstance(frame, frames.Ready):
                said.append(msgspec.structs.replace(frame, fetched_bytes=self._fetched_bytes))
            else:
                said.append(frame)
            if isinstance(frame, frames.Heartbeat):
                self._metrics = frame.metrics
            self._has_failed |= isinstance(frame, frames.Failed)
            self._heard_s = self.clock_s()
        return said

    @property
    def has_ended(self) -> bool:
        """Whether nothing more comes from it."""
        return self.control.has_ended

    def last_word(self, name: str) -> frames.Failed | None:
        """What is to be told of its end when it did not tell itself; `name` is what it is called."""
        code = self.process.wait()
        if self.plan is None or self._has_failed:
            return None
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        return frames.Failed(self.plan.attempt, Failure(f"{name} {how}", fix=_of_death(code)))

    def beat(self) -> frames.Heartbeat:
        """How long it has been silent, and what it last counted."""
        now_s = self.clock_s()
        if self._is_fetching:
            self._heard_s = now_s
        age_ms = round((now_s - self._heard_s) * 1000)
        return frames.Heartbeat(self.attempt, age_ms, self._metrics)

    def ask_to_end(self) -> None:
        """Say that its attempt is cancelled, and wait a little."""
        if self.plan is not None and not self.has_ended:
            self.control.post(frames.Cancel(self.plan.attempt))
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(_GRACE_S)

    def end(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self.process.wait()
        self.control.close()


class Children:
    """The child at work, and the spare; `selector` wakes up when one of them says something."""

    def __init__(self, start: Callable[[], ChildProcess], selector: selectors.BaseSelector) -> None:
        self._start = start
        self._selector = selector
        self._spare: ChildProcess | None = None
        self.at_work: ChildProcess | None = None

    @property
    def pids(self) -> set[int]:
        """The processes that are waited for here."""
        return {child.process.pid for child in (self.at_work, self._spare) if child is not None}

    def warm(self) -> None:
        """See to it that there is a spare."""
        if self._spare is None:
            self._spare = self._started()

    def put_to_work(self, plan: frames.Prepare) -> ChildProcess:
        """Give an attempt to the spare, after the end of the former child."""
        assert self.at_work is None, self.at_work
        child, self._spare = self._spare or self._started(), None
        child.take(plan)
        self.at_work = child
        return child

    def is_at(self, attempt: AttemptNumber) -> bool:
        """Whether a child is at work on this attempt."""
        return self.at_work is not None and self.at_work.attempt == attempt

    def end(self, *, ask: bool = False) -> None:
        """End the child at work, if there is one; `ask` gives it a moment to do so itself."""
        child, self.at_work = self.at_work, None
        if child is None:
            return
        if ask:
            child.ask_to_end()
        self._selector.unregister(child.control)
        child.end()

    def drop_dead_spare(self) -> None:
        """Let go of a spare that died while nobody needed it."""
        if self._spare is not None and self._spare.process.poll() is not None:
            self._selector.unregister(self._spare.control)
            self._spare.control.close()
            self._spare = None

    def close(self) -> None:
        """End both."""
        for child in (self.at_work, self._spare):
            if child is not None:
                child.end()
        self.at_work = self._spare = None

    def _started(self) -> ChildProcess:
        child = self._start()
        self._selector.register(child.control, selectors.EVENT_READ)
        return child


def start(arguments: Sequence[str], token: str) -> ChildProcess:
    """A process that runs `penstock.runtime.child` with these arguments, and one for its socket."""
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(
            (
                *(sys.executable, "-m", "penstock.runtime.child"),
                f"--fd={theirs.fileno()}",
                *arguments,
            ),
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            # In a pod the supervisor has no parent to die with, but the child has.
            env={**os.environ, pod.TOKEN_VARIABLE: token, PARENT_PIPE_VARIABLE: NO_PIPE},
        )
    return ChildProcess(process, ControlSocket(ours))


def _of_death(code: int) -> str:
    """Where to look after a child that could not say why it ended."""
    if code == -signal.SIGKILL:
        return "was it killed by hand, or for want of memory? dmesg and the memory limit tell"
    if code < 0:
        return "an extension module crashed; PYTHONFAULTHANDLER=1 prints where"
    return "the job's code, or a library of it, ended the process: look for os._exit"
