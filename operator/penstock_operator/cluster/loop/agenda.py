"""When each job is looked at next: one turn at a time per job, sooner when something happened, later
and later while turns fail. Pure: time comes in, threads are `queue`'s.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Generic, TypeVar

Key = TypeVar("Key")

SETTLE_S = 0.1
"""Events come in bunches; so long they are waited for."""
BACKOFF_MAX_S = 30.0
_JITTER = 0.1


@dataclass(slots=True)
class _Entry:
    due_s: float | None
    is_running: bool = False
    is_stale: bool = False
    """Something happened while its turn ran."""
    failures: int = 0
    not_before_s: float = 0.0


class Agenda(Generic[Key]):
    """`random` gives numbers from 0 to 1: look-agains are spread by a tenth, so that jobs which were
    started together do not stay together."""

    def __init__(self, random: Callable[[], float]) -> None:
        self._random = random
        self._entries: dict[Key, _Entry] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, key: Key, now_s: float) -> None:
        """Something happened to it. While its turns fail it still waits a second at least."""
        entry = self._entries.setdefault(key, _Entry(None))
        if entry.is_running:
            entry.is_stale = True
            return
        due_s = max(now_s + SETTLE_S, entry.not_before_s)
        entry.due_s = due_s if entry.due_s is None else min(entry.due_s, due_s)

    def take(self, now_s: float) -> Key | None:
        """The job whose turn is most overdue; None when none is due."""
        key = min(self._waiting(), key=self._due_s, default=None)
        if key is None or self._due_s(key) > now_s:
            return None
        entry = self._entries[key]
        entry.is_running, entry.is_stale, entry.due_s = True, False, None
        return key

    def next_due_s(self) -> float | None:
        """When the next turn is due, None while nothing waits."""
        return min((self._due_s(key) for key in self._waiting()), default=None)

    def done(self, key: Key, now_s: float, look_again: timedelta | None) -> None:
        """Its turn ended. None: it is gone, and forgotten unless something happened meanwhile."""
        entry = self._entries[key]
        entry.is_running, entry.failures, entry.not_before_s = False, 0, 0.0
        if entry.is_stale:
            entry.due_s = now_s + SETTLE_S
        elif look_again is None:
            del self._entries[key]
        else:
            entry.due_s = now_s + self._spread(look_again.total_seconds())

    def failed(self, key: Key, now_s: float) -> float:
        """Its turn failed; the seconds until the next one."""
        entry = self._entries[key]
        entry.is_running = False
        entry.failures += 1
        delay_s = self._spread(min(BACKOFF_MAX_S, 2.0 ** (entry.failures - 1)))
        entry.due_s = now_s + min(delay_s, BACKOFF_MAX_S)
        entry.not_before_s = now_s + min(1.0, delay_s)
        return delay_s

    def _waiting(self) -> list[Key]:
        return [key for key, e in self._entries.items() if e.due_s is not None]

    def _due_s(self, key: Key) -> float:
        due_s = self._entries[key].due_s
        assert due_s is not None, key
        return due_s

    def _spread(self, seconds: float) -> float:
        return seconds * (1 + _JITTER * (2 * self._random() - 1))
