"""Restart strategies: after a failure, how long to wait, or that it is over.

Exponential delay is for faults of the world. A record of the author's that fails at the same place
again and again is a fault of the job: the third time ends it, whichever the strategy.
"""

from __future__ import annotations

from penstock.checkpoint.settings import ExponentialDelay, FailureRate, FixedDelay, RestartStrategy
from penstock.core.failure import Failure

SAME_RECORD_MAX = 3


class Restarts:
    """The failures of a job so far, as one coordinator saw them."""

    def __init__(self, strategy: RestartStrategy) -> None:
        self._strategy = strategy
        self._times_ms: list[int] = []
        self._delay_ms = 0
        self._same: tuple[str | None, ...] | None = None
        self._same_count = 0

    def apply(self, strategy: RestartStrategy) -> None:
        """Another strategy is in force; what failed so far still counts."""
        self._strategy = strategy

    @property
    def count(self) -> int:
        """Failures so far."""
        return len(self._times_ms)

    def failed(self, failure: Failure, now_ms: int) -> int | None:
        """Delay in milliseconds before the next attempt; None ends the job."""
        last_ms = self._times_ms[-1] if self._times_ms else None
        self._times_ms.append(now_ms)
        if failure.fatal or self._is_poison(failure):
            return None
        match self._strategy:
            case ExponentialDelay(initial_ms, max_ms, reset_after_ms):
                is_calm = last_ms is None or now_ms - last_ms >= reset_after_ms + self._delay_ms
                self._delay_ms = initial_ms if is_calm else min(2 * self._delay_ms, max_ms)
                return self._delay_ms
            case FixedDelay(delay_ms, attempts):
                return delay_ms if attempts is None or self.count <= attempts else None
            case FailureRate(delay_ms, failures, window_ms):
                recent = sum(1 for at in self._times_ms if now_ms - at < window_ms)
                return delay_ms if recent <= failures else None
            case _:
                return None

    def _is_poison(self, failure: Failure) -> bool:
        if failure.position is None and failure.record is None:
            return False
        # Behind a channel nobody knows where a record came from: there it is told by what it is.
        what = (failure.position,) if failure.position else (failure.key, failure.record)
        place = failure.operator, *what
        self._same_count = self._same_count + 1 if place == self._same else 1
        self._same = place
        return self._same_count >= SAME_RECORD_MAX
