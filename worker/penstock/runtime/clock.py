"""The clock that the doing half hands to the deciding one."""

from __future__ import annotations

import time

# Counts the time a laptop slept, which CLOCK_MONOTONIC does not.
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class Clock:
    """Milliseconds since 1970 that never go back: the time of day at the start, and what passed."""

    def __init__(self) -> None:
        self._offset_ns = time.time_ns() - time.clock_gettime_ns(_CLOCK)

    def now_ms(self) -> int:
        """Milliseconds since 1970."""
        return (self._offset_ns + time.clock_gettime_ns(_CLOCK)) // 1_000_000
