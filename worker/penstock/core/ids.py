"""Small identities with a type each, so that a swapped argument is found by the type checker."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NewType

JobId = NewType("JobId", str)
"""A DNS label (dots allowed) of at most 63 characters; the job's folder in the object store."""

OperatorId = NewType("OperatorId", str)
"""An operator's uid; of operators without one, a name made from the graph (`flat_map-2`)."""

WorkerId = NewType("WorkerId", int)
"""The worker's ordinal: of its pod, or of its process on a laptop."""

CheckpointId = NewType("CheckpointId", int)
AttemptNumber = NewType("AttemptNumber", int)

_UID = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


def is_uid(text: str) -> bool:
    """Whether text may be an operator's uid: it becomes part of file names, metrics and URLs."""
    return _UID.fullmatch(text) is not None


@dataclass(frozen=True, slots=True, order=True)
class SubtaskId:
    """One parallel instance of an operator, `0 <= index < parallelism`.

    Where operators are chained, the head's id stands for the whole chain.
    """

    operator: OperatorId
    index: int

    def __str__(self) -> str:
        return f"{self.operator}/{self.index}"

    @classmethod
    def parse(cls, text: str) -> SubtaskId:
        """The inverse of str()."""
        operator, _, index = text.rpartition("/")
        return cls(OperatorId(operator), int(index))


@dataclass(frozen=True, slots=True, order=True)
class ChannelId:
    """An ordered connection from one subtask to another, along one edge of the graph."""

    edge: int
    source: int
    target: int

    def __str__(self) -> str:
        return f"{self.edge}:{self.source}>{self.target}"
