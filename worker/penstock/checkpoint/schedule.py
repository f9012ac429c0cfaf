"""When to take which checkpoint: orders before the clock, the important before the rest."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from penstock.checkpoint.settings import CheckpointSettings

QUEUE_MAX = 16


class Demand(IntEnum):
    """Why a checkpoint is taken; a greater one goes first."""

    PERIODIC = 0
    ORDERED = 1
    FINAL = 2
    SAVEPOINT = 3
    BEHIND = 4
    """The checkpoint behind a savepoint, without which the savepoint does not count."""
    STOP = 5


@dataclass(frozen=True, slots=True)
class Wanted:
    """One checkpoint to be taken; `request_id` says who asked, `drain` belongs to a stop."""

    demand: Demand
    request_id: str | None = None
    drain: bool = False

    @property
    def to_savepoint(self) -> bool:
        """Whether its files go to a savepoint's folder."""
        return self.demand in (Demand.SAVEPOINT, Demand.STOP)


class Schedule:
    """The queue and the clock of one job; it outlives attempts, so that orders are not lost."""

    def __init__(self, settings: CheckpointSettings) -> None:
        self._settings = settings
        self._queue: list[Wanted] = []
        self._last_start_ms = 0
        self._last_end_ms = 0

    def order(self, wanted: Wanted) -> Wanted | None:
        """Queue an order. When there are too many, the least important is dropped and returned."""
        if wanted not in self._queue:
            self._queue.append(wanted)
        if len(self._queue) <= QUEUE_MAX:
            return None
        dropped = min(reversed(self._queue), key=lambda w: w.demand)
        self._queue.remove(dropped)
        return dropped

    def next(
        self, now_ms: int, *, holds: bool, savepoint_waits: bool, is_final: bool
    ) -> Wanted | None:
        """What to take now.

        `holds`: commits are held, so savepoints wait. `savepoint_waits`: one is taken and needs a
        completed checkpoint behind it. `is_final`: all input was read to its end.
        """
        candidates = [
            wanted
            for wanted in self._queue
            if wanted.demand is not Demand.SAVEPOINT or not (holds or savepoint_waits)
        ]
        if savepoint_waits:
            candidates.append(Wanted(Demand.FINAL if is_final else Demand.BEHIND))
        elif is_final:
            candidates.append(Wanted(Demand.FINAL))
        elif self._is_due(now_ms):
            candidates.append(Wanted(Demand.PERIODIC))
        return max(candidates, key=lambda w: w.demand, default=None)

    def started(self, wanted: Wanted, now_ms: int) -> None:
        """A checkpoint was triggered."""
        if wanted in self._queue:
            self._queue.remove(wanted)
        self._last_start_ms = now_ms

    def ended(self, now_ms: int) -> None:
        """The pending checkpoint completed or failed."""
        self._last_end_ms = now_ms

    def attempt_started(self, now_ms: int) -> None:
        """Records flow: the interval begins."""
        self._last_start_ms = self._last_end_ms = now_ms

    def clear(self) -> list[Wanted]:
        """The job ends: everything still queued, which nobody will take."""
        queued, self._queue = self._queue, []
        return queued

    def _is_due(self, now_ms: int) -> bool:
        settings = self._settings
        return (
            settings.interval_ms > 0
            and now_ms - self._last_start_ms >= settings.interval_ms
            and now_ms - self._last_end_ms >= settings.min_pause_ms
        )
