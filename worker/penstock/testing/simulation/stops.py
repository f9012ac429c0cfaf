"""Stops that cannot succeed, and what must come of them: the job gets on with its input.

In the middle of each a write is refused: parts of its savepoint, or its manifest when all parts are
there and no record follows any more. In calm times nothing else is ordered until it is clear what
came of it, by what completed checkpoints say was read.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from penstock.checkpoint import events as told
from penstock.checkpoint import log
from penstock.checkpoint.phases import Phase
from penstock.core.log import SnapshotRef
from penstock.core.manifest import Manifest
from penstock.testing.simulation import job
from penstock.testing.simulation.outside import Violation
from penstock.testing.simulation.shell import Shell

if TYPE_CHECKING:
    from penstock.testing.simulation.simulation import Simulation

PATIENCE_MS = 60_000
_LOOK_MS = 50
_NAME = "vain-stop"


@dataclass(slots=True)
class _Watched:
    """One that was ordered in calm times; `read` is how far each checkpoint after it got, `newest` the
    last of these, and before them that on which it was ordered."""

    shell: Shell
    request_id: str
    until_ms: int
    newest: SnapshotRef | None
    read: list[int] = field(default_factory=list)

    @property
    def goes_on(self) -> bool:
        """Whether something was read after the first of them."""
        return self.read[-1:] > self.read[:1]


class VainStops:
    """`times` of them in one run; with none, the run is what it would be without this."""

    def __init__(self, sim: Simulation, times: int) -> None:
        self._sim = sim
        self._left = times
        self._ordered = 0
        self._rng = sim.world.another_rng("vain stops")
        self._watched: _Watched | None = None

    @property
    def are_watched(self) -> bool:
        """Whether nothing else is to be ordered now."""
        return self._watched is not None

    def begin(self) -> None:
        """From now on."""
        if self._left:
            self._sim.world.after(_LOOK_MS, self._look)

    def refuses(self, manifest: Manifest) -> bool:
        """Whether the store takes every manifest but this one."""
        return (manifest.request_id or "").startswith(_NAME)

    def _look(self) -> None:
        if self._watched is not None:
            self._check(self._watched)
        elif self._rng.random() < 0.02:
            self._order()
        if self._left or self._watched is not None:
            self._sim.world.after(_LOOK_MS, self._look)

    def _order(self) -> None:
        """From the only coordinator, when nothing is under way that would be refused as well."""
        sim = self._sim
        alive = [shell for shell in sim.shells if shell.is_alive]
        run = alive[0].job.run if len(alive) == 1 else None
        if run is None or run.pending is not None or run.taken is not None:
            return
        shell = alive[0]
        is_last = self._left == 1
        if shell.is_paused or shell.job.phase is not Phase.RUNNING or (sim.is_troubled and is_last):
            return
        self._left -= 1
        self._ordered += 1
        order = told.StopOrdered(f"{_NAME}-{self._ordered}")
        if not sim.is_troubled:
            until_ms = sim.world.now_ms + PATIENCE_MS
            self._watched = _Watched(shell, order.request_id, until_ms, self._newest())
            sim.declines = self._rng.choice((0.0, 1.0))
        sim.send(shell, order)

    def _check(self, watched: _Watched) -> None:
        sim, entry = self._sim, self._sim.oracles.newest
        assert entry is not None, watched
        answer = watched.shell.answers.get(watched.request_id)
        if answer is not None or not watched.shell.is_alive:
            sim.declines = 0.0
        if answer is not None and answer.ok:
            raise Violation(f"{watched.request_id} is answered as done, and its savepoint is none")
        if not watched.shell.is_alive or entry.end is not None:
            self._watched = None
            return
        point = self._newest()
        if answer is not None and point is not None and point != watched.newest:
            watched.newest = point
            watched.read.append(sum(job.offsets_of(sim.oracles.manifest(point)).values()))
        if watched.goes_on:
            sim.world.note(f"{watched.request_id} failed, and the job goes on")
            self._watched = None
        elif sim.world.now_ms > watched.until_ms:
            raise Violation(f"{PATIENCE_MS} ms after {watched.request_id} nothing more is read")

    def _newest(self) -> SnapshotRef | None:
        """What the job would go on from now."""
        entry = self._sim.oracles.newest
        return log.recovery_point(entry) if entry else None
