"""An event loop of asyncio on the simulation's clock: what coroutines are run by in a pod is here one
event of the world after the other, the same in every run.

It belongs to one process, which may stand still (all that is due waits) and dies (nothing more happens).
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from contextvars import Context
from functools import partial
from typing import Any, TypeVar

from penstock.core.errors import PenstockError, Retryable
from penstock.testing.simulation.world import World

T = TypeVar("T")

BLOCKING_MS = 40
"""A blocking call of a store takes at most so long."""


class VirtualLoop(asyncio.AbstractEventLoop):
    """`faults` is the share of blocking calls whose outcome is not told."""

    def __init__(self, world: World, faults: Callable[[], float]) -> None:
        self._world = world
        self._faults = faults
        self._is_over = False
        self._is_paused = False
        self._backlog: deque[Callable[[], None]] = deque()

    # ── the process that it belongs to ──────────────────────────────────────────────────────────

    @property
    def is_paused(self) -> bool:
        """Whether it stands still."""
        return self._is_paused

    def die(self) -> None:
        """Nothing happens here any more."""
        self._is_over = True
        self._backlog.clear()

    def pause(self, duration_ms: int) -> None:
        """Stand still for some time."""
        self._is_paused = True
        self._world.after(duration_ms, self._wake)

    def guard(self, act: Callable[[], None]) -> None:
        """Do it now, when it wakes up, or never."""
        if self._is_over:
            return
        if self._is_paused:
            self._backlog.append(act)
        else:
            self.within(act)

    def within(self, act: Callable[[], T]) -> T:
        """Call what looks for the loop that runs."""
        asyncio.events._set_running_loop(self)
        try:
            return act()
        finally:
            asyncio.events._set_running_loop(None)

    def _wake(self) -> None:
        self._is_paused = False
        while self._backlog and not self._is_paused:
            self.guard(self._backlog.popleft())

    # ── what asyncio asks of a loop ─────────────────────────────────────────────────────────────

    def time(self) -> float:
        return self._world.now_ms / 1000

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return self._is_over

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(self, coro: Coroutine[Any, Any, T], **named: Any) -> asyncio.Task[T]:  # type: ignore[override]
        return asyncio.Task(coro, loop=self, **named)

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        if not self._is_over:
            self._world.after(0, partial(self._run, handle))
        return handle

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        delay_ms = math.ceil((when - self.time()) * 1000)
        self._world.after(delay_ms, partial(self._run, handle))
        return handle

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """A cancelled one does nothing when its time comes."""

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if error is not None:
            raise error

    def run_in_executor(  # type: ignore[override]
        self, executor: Executor | None, func: Callable[[], T]
    ) -> asyncio.Future[T]:
        """What blocks a thread in a pod happens at one moment here, and is told later still."""
        future: asyncio.Future[T] = self.create_future()
        world = self._world

        def call() -> None:
            is_lost = world.chance(self._faults())
            if is_lost and world.chance(0.5):
                told = partial(future.set_exception, Retryable("the store did not answer"))
            else:
                told = self._outcome(future, func)
                if is_lost:
                    told = partial(future.set_exception, Retryable("no answer of the store"))
            world.soon(partial(self.guard, told), at_most_ms=BLOCKING_MS)

        world.soon(call, at_most_ms=BLOCKING_MS)
        return future

    @staticmethod
    def _outcome(future: asyncio.Future[T], func: Callable[[], T]) -> Callable[[], None]:
        try:
            return partial(future.set_result, func())
        except PenstockError as e:
            return partial(future.set_exception, e)

    def _run(self, handle: asyncio.Handle) -> None:
        if not handle.cancelled():
            self.guard(handle._run)
