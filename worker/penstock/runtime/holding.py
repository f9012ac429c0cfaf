"""A fail point, for tests alone: a coordinator that stands still between winning an entry of its log
and everything that follows from it, until somebody kills it.

`PENSTOCK_HOLD_AT` names the kind of entry. It is met where an entry of that kind follows one of
another: who comes after a killed one finds the entry in the log, and goes on from there.
"""

from __future__ import annotations

import os
import time
from typing import Any, NoReturn

from penstock.checkpoint import events
from penstock.checkpoint.coordinator import JobCoordinator
from penstock.checkpoint.effects import Effect
from penstock.core.errors import Rejected
from penstock.core.log import EntryKind
from penstock.runtime import pod
from penstock.runtime.logs import get_logger

HOLD_AT_VARIABLE = "PENSTOCK_HOLD_AT"
_LONG_S = 3600.0

log = get_logger()


def coordinator_class() -> type[JobCoordinator]:
    """What decides in this process."""
    return HeldCoordinator if os.environ.get(HOLD_AT_VARIABLE) else JobCoordinator


class HeldCoordinator(JobCoordinator):
    """A coordinator's decisions, up to that entry."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self._held_at = _kind(os.environ[HOLD_AT_VARIABLE])
        self._last: EntryKind | None = None

    def handle(self, event: events.Event) -> list[Effect]:
        """See JobCoordinator."""
        if isinstance(event, events.LogRead) and event.newest is not None:
            self._last = event.newest.kind
        if isinstance(event, events.EntryWon):
            before, self._last = self._last, event.entry.kind
            if event.entry.kind is self._held_at and before is not self._held_at:
                _hold(event.entry.seq, self._held_at)
        return super().handle(event)


def _kind(text: str) -> EntryKind:
    try:
        return EntryKind(text)
    except ValueError as e:
        raise Rejected(
            f"{text!r} is no kind of entry",
            where=f"environment variable {HOLD_AT_VARIABLE}",
            fix=f"set it to one of {', '.join(EntryKind)}, or leave it out",
        ) from e


def _hold(seq: int, kind: EntryKind) -> NoReturn:
    log.warning("held", seq=seq, kind=kind.value)
    # The loop stands still: nothing is answered, and no heartbeat sent.
    pod.end_at_sigterm()
    while True:
        time.sleep(_LONG_S)
