"""Threads that take jobs' turns from the agenda. What raises is logged and tried again; nothing that a
turn does ends a thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Generic

from penstock.core.errors import PenstockError
from penstock_operator.cluster.log import Log
from penstock_operator.cluster.loop.agenda import Agenda, Key

_IDLE_S = 5.0


class WorkQueue(Generic[Key]):
    """`turn` gives the time until the next look, None when the job is gone. `add` may be called from
    any thread, and from an event loop: it never waits long."""

    def __init__(
        self,
        agenda: Agenda[Key],
        turn: Callable[[Key], timedelta | None],
        *,
        threads: int,
        log: Log,
    ) -> None:
        self._agenda = agenda
        self._turn = turn
        self._log = log
        self._changed = threading.Condition()
        self._is_stopping = False
        self._beat_s = time.monotonic()
        self._threads = [
            threading.Thread(target=self._work, name=f"reconcile-{n}", daemon=True)
            for n in range(threads)
        ]

    def start(self) -> None:
        """Begin taking turns."""
        for thread in self._threads:
            thread.start()

    def stop(self, timeout_s: float) -> None:
        """Turns under way end, no other begins."""
        with self._changed:
            self._is_stopping = True
            self._changed.notify_all()
        end_s = time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(0.0, end_s - time.monotonic()))

    def add(self, key: Key) -> None:
        """Something happened to this job."""
        with self._changed:
            self._agenda.add(key, time.monotonic())
            self._changed.notify()

    def age_s(self) -> float:
        """Time since a thread last came round."""
        return time.monotonic() - self._beat_s

    def __len__(self) -> int:
        return len(self._agenda)

    def _work(self) -> None:
        while (key := self._next()) is not None:
            try:
                look_again = self._turn(key)
            except Exception as e:  # noqa: BLE001  one job's error is no other's
                with self._changed:
                    delay_s = round(self._agenda.failed(key, time.monotonic()), 1)
                    self._changed.notify()
                self._tell(key, e, delay_s)
            else:
                with self._changed:
                    self._agenda.done(key, time.monotonic(), look_again)
                    self._changed.notify()

    def _tell(self, key: Key, error: Exception, delay_s: float) -> None:
        """An error on purpose says all in its words; any other is a mistake of ours."""
        if isinstance(error, PenstockError):
            told = {"error": error.what, "where": error.where, "fix": error.fix}
            self._log.warning("turn failed", job=str(key), again_in_s=delay_s, **told)
        else:
            self._log.error("turn failed", job=str(key), again_in_s=delay_s, exc_info=error)

    def _next(self) -> Key | None:
        """Waits for a turn that is due; None when stopping."""
        with self._changed:
            while not self._is_stopping:
                now_s = self._beat_s = time.monotonic()
                if (key := self._agenda.take(now_s)) is not None:
                    return key
                due_s = self._agenda.next_due_s()
                wait_s = _IDLE_S if due_s is None else min(_IDLE_S, due_s - now_s)
                self._changed.wait(wait_s)
        return None
