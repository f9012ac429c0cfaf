"""What crosses between workers and the coordinator about one subtask's part of a snapshot."""

from __future__ import annotations

from dataclasses import dataclass, field

from penstock.core.descriptors import StateDescriptor
from penstock.core.handles import KeyedHandle, SubtaskSnapshot
from penstock.core.ids import OperatorId
from penstock.core.keygroups import KeyGroupRange

SINK_PENDING = "pending"
"""The list of a sink's state with what it has prepared and not committed."""
OWN_SERIALIZER = "json/1"
"""What operator state of the runtime's own is written in; no author's state is."""


@dataclass(frozen=True, slots=True)
class OperatorPart:
    """One subtask's part of one operator: what is acknowledged, and what the manifest gathers."""

    snapshot: SubtaskSnapshot
    states: tuple[StateDescriptor, ...] = ()
    key_schema: str | None = None


@dataclass(frozen=True, slots=True)
class KeyedSource:
    """Rows of `groups` are to be taken from `handle`; paths in it are relative to `folder`."""

    handle: KeyedHandle
    groups: KeyGroupRange
    folder: str


@dataclass(frozen=True, slots=True)
class OperatorRestore:
    """What one subtask of one operator starts from.

    `local` names the checkpoint whose copy on the worker's own disk may stand in for `keyed`, when
    the range is unchanged. `carried` are states that the code no longer declares; their rows are in
    `keyed` and go into later snapshots unchanged.
    """

    keyed: tuple[KeyedSource, ...] = ()
    lists: dict[str, tuple[bytes, ...]] = field(default_factory=dict)
    states: tuple[StateDescriptor, ...] = ()
    key_schema: str | None = None
    watermark_ms: int | None = None
    local: str | None = None


RestorePlan = dict[OperatorId, dict[int, OperatorRestore]]
"""By operator and subtask index; an absent one starts empty."""
