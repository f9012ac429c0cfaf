"""The job that is simulated: what it reads, keeps and writes, and how its bytes look.

    lines (source) ─ hash ─▶ counts (keyed) ─ forward ─▶ out (sink, chained)
          └───────── rebalance ─▶ audit (sink of parallelism 1)

Every input record ends in both sinks exactly once, whatever the channels' order; the state of a key
is the count and the sum of its records.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from penstock.core import keygroups
from penstock.core.descriptors import StateDescriptor, StateKind
from penstock.core.graph import Edge, Exchange, JobGraph, Operator
from penstock.core.ids import JobId, OperatorId
from penstock.core.manifest import Manifest

JOB = JobId("sim")
LINES, COUNTS, OUT, AUDIT = (OperatorId(name) for name in ("lines", "counts", "out", "audit"))
SINKS = (OUT, AUDIT)
MAX_PARALLELISM = 8
OFFSETS = StateDescriptor("offsets", StateKind.SPLIT_LIST, "json/1", "offset")
PENDING = StateDescriptor("pending", StateKind.SPLIT_LIST, "json/1", "transaction")
COUNT = StateDescriptor("count", StateKind.VALUE, "json/1", "count")

GRAPH = JobGraph(
    name="sim",
    operators=(
        Operator(LINES, "source", uid=True, states=(OFFSETS,)),
        Operator(COUNTS, "process", uid=True, key="key", key_schema="int", states=(COUNT,)),
        Operator(OUT, "sink", uid=True, states=(PENDING,)),
        Operator(AUDIT, "sink", uid=True, parallelism=1, states=(PENDING,)),
    ),
    edges=(
        Edge(LINES, COUNTS, Exchange.HASH),
        Edge(COUNTS, OUT, Exchange.FORWARD),
        Edge(LINES, AUDIT, Exchange.REBALANCE),
    ),
)

Groups = dict[int, dict[int, tuple[int, int]]]
"""Keyed state: by key group and key, (count, sum)."""


@dataclass(frozen=True, slots=True, order=True)
class Record:
    """Record `offset` of a split."""

    split: int
    offset: int

    @property
    def key(self) -> int:
        """Few keys, so that splits meet in them."""
        return (self.split + self.offset * self.offset) % 13

    @property
    def group(self) -> int:
        """The key group of its key."""
        return keygroups.key_group(str(self.key).encode(), max_parallelism=MAX_PARALLELISM)


@dataclass(frozen=True, slots=True)
class Input:
    """`splits[i]` records in split i."""

    splits: tuple[int, ...]

    def records(self) -> list[Record]:
        """All of them."""
        return self.prefix(dict(enumerate(self.splits)))

    def prefix(self, offsets: Mapping[int, int]) -> list[Record]:
        """Those before the given offset of each split."""
        return [Record(split, i) for split, stop in offsets.items() for i in range(stop)]


def count(groups: Groups, records: Iterable[Record]) -> None:
    """What the keyed operator does with records."""
    for record in records:
        keys = groups.setdefault(record.group, {})
        seen, total = keys.get(record.key, (0, 0))
        keys[record.key] = seen + 1, total + record.offset


def encode_offset(split: int, offset: int) -> bytes:
    """An element of the source's state."""
    return json.dumps([split, offset]).encode()


def encode_pending(name: str, checkpoint: int) -> bytes:
    """An element of a sink's state."""
    return json.dumps([name, checkpoint]).encode()


def decode_pair(element: bytes) -> tuple[int, int]:
    """Split and offset."""
    split, offset = json.loads(element)
    return split, offset


def decode_pending(element: bytes) -> tuple[str, int]:
    """Transaction and checkpoint."""
    name, checkpoint = json.loads(element)
    return name, checkpoint


def encode_groups(groups: Groups) -> bytes:
    """Keyed state as a file's content."""
    return json.dumps(
        {g: {k: list(v) for k, v in sorted(keys.items())} for g, keys in sorted(groups.items())}
    ).encode()


def decode_groups(data: bytes) -> Groups:
    """The inverse of encode_groups()."""
    return {
        int(g): {int(k): (v[0], v[1]) for k, v in keys.items()}
        for g, keys in json.loads(data).items()
    }


def offsets_of(manifest: Manifest) -> dict[int, int]:
    """How far each split was read in a snapshot."""
    return dict(
        decode_pair(element)
        for subtask in manifest.operators[LINES].subtasks
        for element in subtask.lists.get(OFFSETS.name, ())
    )


def pending_of(manifest: Manifest) -> list[tuple[str, int]]:
    """The transactions that a snapshot counts on."""
    return [
        decode_pending(element)
        for sink in SINKS
        for subtask in manifest.operators[sink].subtasks
        for element in subtask.lists.get(PENDING.name, ())
    ]
