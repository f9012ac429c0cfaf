"""Where a coordinator stands, and where it may go from there."""

from __future__ import annotations

from enum import StrEnum


class Phase(StrEnum):
    """Position of one job's coordinator."""

    BACKING_OFF = "backing off"
    READING = "reading"
    WAITING = "waiting"
    GATHERING = "gathering"
    OPENING = "opening"
    DEPLOYING = "deploying"
    RUNNING = "running"
    STOPPING = "stopping"
    RESCALING = "rescaling"
    ENDING = "ending"
    ENDED = "ended"
    STOOD_DOWN = "stood down"


_P = Phase
MOVES: dict[Phase, frozenset[Phase]] = {
    # between attempts
    _P.BACKING_OFF: frozenset({_P.READING, _P.ENDING}),
    _P.READING: frozenset({_P.WAITING, _P.GATHERING, _P.ENDING, _P.ENDED}),
    _P.WAITING: frozenset({_P.READING}),
    # an attempt: its workers are there, its entry is won, all restored, records flow
    _P.GATHERING: frozenset({_P.OPENING, _P.WAITING, _P.ENDING}),
    _P.OPENING: frozenset({_P.DEPLOYING}),
    _P.DEPLOYING: frozenset({_P.RUNNING, _P.BACKING_OFF, _P.ENDING}),
    _P.RUNNING: frozenset({_P.STOPPING, _P.RESCALING, _P.BACKING_OFF, _P.ENDING}),
    _P.STOPPING: frozenset({_P.RUNNING, _P.RESCALING, _P.BACKING_OFF, _P.ENDING}),
    # the checkpoint behind whose barrier the next attempt begins at another parallelism
    _P.RESCALING: frozenset({_P.RUNNING, _P.STOPPING, _P.OPENING, _P.BACKING_OFF, _P.ENDING}),
    # the end stands in the log; sinks commit what is left
    _P.ENDING: frozenset({_P.ENDED, _P.BACKING_OFF}),
    _P.ENDED: frozenset({_P.READING, _P.ENDING}),
}
"""Every phase may also become `STOOD_DOWN`, which is final."""

WITH_CHILDREN = frozenset({_P.DEPLOYING, _P.RUNNING, _P.STOPPING, _P.RESCALING, _P.ENDING})
"""Phases in which workers' children belong to the current attempt."""
