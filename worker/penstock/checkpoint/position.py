"""Where one job's coordinator stands: its phase, the newest entry it knows, who is there, what time it is.

The parts of the coordinator share it. Only here a phase is changed and an entry is sent to compete for
its number, so that there is never more than one on its way.
"""

from __future__ import annotations

from typing import TypedDict

from penstock.checkpoint import effects as do
from penstock.checkpoint.opening import Opening
from penstock.checkpoint.outbox import Outbox
from penstock.checkpoint.phases import MOVES, Phase
from penstock.checkpoint.settings import Identity
from penstock.core.ids import WorkerId
from penstock.core.log import Entry


class Stamp(TypedDict):
    """What every entry has of its writer."""

    nonce: str
    at_ms: int


class Position:
    """`opening` is the attempt that is to be opened as soon as its workers are there."""

    def __init__(self, identity: Identity, outbox: Outbox) -> None:
        self.identity = identity
        self.phase = Phase.READING
        self.entry: Entry | None = None
        self.appending: Entry | None = None
        self.opening: Opening | None = None
        self.workers: dict[WorkerId, tuple[str, ...]] = {}
        self.now_ms = 0
        self.retry_at_ms = 0
        self._out = outbox
        self._nonces = 0

    @property
    def newest(self) -> Entry:
        """The newest entry, where there must be one."""
        assert self.entry is not None, self.phase
        return self.entry

    def move(self, phase: Phase) -> None:
        """Go to another phase."""
        assert phase in MOVES[self.phase], (self.phase, phase)
        self.phase = phase

    def stamp(self) -> Stamp:
        """For the next entry: a nonce that no other has, and the time."""
        self._nonces += 1
        return {"nonce": f"{self.identity.incarnation}-{self._nonces}", "at_ms": self.now_ms}

    def append(self, entry: Entry) -> None:
        """Compete for the next number; until the outcome is known nothing else is decided."""
        assert self.appending is None, (self.appending, entry)
        self.appending = entry
        self._out.do(do.Append(entry))

    def won(self, entry: Entry) -> None:
        """The entry stands."""
        self.appending = None
        self.entry = entry

    def read_log(self) -> None:
        """Look again at what the store has."""
        self.move(Phase.READING)
        self._out.do(do.ReadLog())

    def back_off(self, delay_ms: int) -> None:
        """Wait before the log is read again."""
        self.retry_at_ms = self.now_ms + delay_ms
        self.move(Phase.BACKING_OFF)

    def stand_down(self, reason: str) -> None:
        """Another coordinator has the job."""
        self.phase = Phase.STOOD_DOWN
        self._out.do(do.StandDown(reason))
