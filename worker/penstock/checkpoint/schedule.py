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
    RESCALE = 2
    """The next attempt begins from it at another parallelism."""
    FINAL = 3
    SAVEPOINT = 4
    BEHIND = 5
    """The checkpoint behind a savepoint, without which the savepoint does not count."""
    STOP = 6


@dataclass(frozen=True, slots=True)
class Wanted:
    """One checkpoint to be taken; `request_id` says who asked, `drain` belongs to a stop and
    `parallelism`, the wanted one, to a change of it."""

    demand: Demand
    request_id: str | None = None
    drain: bool = False
    parallelism: int = 0

    @property
    def to_savepoint(self) -> bool:
        """Whether its files go to a savepoint's folder."""
        return self.demand in (Demand.SAVEPOINT, Demand.STOP)

    @property
    def lets_nothing_follow(self) -> bool:
        """Whether no record is processed after its barrier."""
        return self.demand in (Demand.STOP, Demand.RESCALE)


class Schedule:
    """The queue and the clock of one job; it outlives attempts, so that orders are not lost."""

    def __init__(self, settings: CheckpointSettings) -> None:
        self._settings = settings
        self._queue: list[Wanted] = []
        self._last_start_ms = 0
        self._last_end_ms = 0

    def apply(self, settings: CheckpointSettings) -> None:
        """Other settings are in force."""
        self._settings = settings

    def queued(self, demand: Demand) -> list[Wanted]:
        """What was ordered for this reason and not begun."""
        return [wanted for wanted in self._queue if wanted.demand is demand]

    def withdraw(self, wanted: Wanted) -> None:
        """An order is not to be carried out any more."""
        self._queue.remove(wanted)

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
        self,
        now_ms: int,
        *,
        holds: bool,
        savepoint_waits: bool,
        is_final: bool,
        is_awaited: bool,
    ) -> Wanted | None:
        """What to take now.

        `holds`: commits are held, so savepoints wait. `savepoint_waits`: one is taken and needs a
        completed checkpoint behind it. `is_final`: all input was read to its end. `is_awaited`: a
        completed one makes firm what could still be taken back, so none waits for the clock.
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
        elif is_awaited or self._is_due(now_ms):
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
