"""A limit of records per second."""

from __future__ import annotations

from collections.abc import Callable

from penstock.core.errors import Rejected

_BURST_S = 1.0


class Rate:
    """Allows one subtask its share of a rate. What it did not use is kept for a second at most.

    A rate of None allows everything.
    """

    def __init__(
        self, per_second: float | None, *, parallelism: int, now_ms: Callable[[], int]
    ) -> None:
        self._per_ms = None if per_second is None else per_second / parallelism / 1000
        self._now_ms = now_ms
        self._at_ms = now_ms()
        self._credit = 0.0

    def allowed(self, limit: int) -> int:
        """How many of `limit` records may be read now."""
        if self._per_ms is None:
            return limit
        now_ms = self._now_ms()
        most = max(1.0, self._per_ms * 1000 * _BURST_S)
        earned = max(0, now_ms - self._at_ms) * self._per_ms
        self._credit = min(most, self._credit + earned)
        self._at_ms = now_ms
        return min(limit, int(self._credit))

    def took(self, count: int) -> None:
        """Tell how many were read."""
        self._credit -= count


def check_rate(per_second: float | None, where: str) -> None:
    """Refuse what is no rate."""
    if per_second is not None and not per_second > 0:
        raise Rejected(
            f"per_second must be above 0, not {per_second}",
            where=where,
            fix="give a number, or leave it out for no limit",
        )
