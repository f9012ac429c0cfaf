"""Brings a checkpoint's trigger and the parts that a child snapshotted together.

Barriers from other workers may overtake the coordinator's trigger, and only the trigger knows what
an upload may build on and where it goes. A part that comes after its checkpoint was given up, or
was completed, is for nobody.
"""

from __future__ import annotations

from penstock.core.ids import CheckpointId
from penstock.network.frames import Snapshotted, Trigger


class Pairing:
    """Triggers and parts of one attempt."""

    def __init__(self) -> None:
        self._triggers: dict[CheckpointId, Trigger] = {}
        self._early: list[Snapshotted] = []
        self._past = CheckpointId(0)
        self._stale: list[Snapshotted] = []

    def triggered(self, trigger: Trigger) -> list[tuple[Snapshotted, Trigger]]:
        """A trigger came; the parts that waited for it."""
        self._triggers[trigger.checkpoint] = trigger
        early, self._early = self._early, []
        return [pair for part in early for pair in self.snapshotted(part)]

    def snapshotted(self, part: Snapshotted) -> list[tuple[Snapshotted, Trigger]]:
        """A part came; it alone with its trigger, or nothing for now."""
        trigger = self._triggers.get(part.checkpoint)
        if trigger is not None:
            return [(part, trigger)]
        (self._early if part.checkpoint > self._past else self._stale).append(part)
        return []

    def over(self, checkpoint: CheckpointId) -> None:
        """A checkpoint was given up or completed, and so is every older one."""
        self._past = max(self._past, checkpoint)
        for old in [n for n in self._triggers if n <= checkpoint]:
            del self._triggers[old]
        self._stale += [part for part in self._early if part.checkpoint <= checkpoint]
        self._early = [part for part in self._early if part.checkpoint > checkpoint]

    def take_stale(self) -> list[Snapshotted]:
        """The parts that nobody wants, once."""
        stale, self._stale = self._stale, []
        return stale
