"""The job that is simulated: what it reads, keeps and writes, and how its bytes look.

    lines (source) ─ hash ─▶ counts (keyed) ─ forward ─▶ out (sink, chained)
          └───────── rebalance ─▶ audit (sink of parallelism 1)

Every input record ends in both sinks exactly once, whatever the channels' order; the state of a key
is the count and the sum of its records.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from penstock.core import keygroups
from penstock.core.ids import JobId, OperatorId
from penstock.core.keys import decode_key, encode_key, key_length
from penstock.core.manifest import Manifest
from penstock.core.rows import PLAIN, group_width
from penstock.core.snapshots import SINK_PENDING
from penstock.dataflow.connector import Reader, Sink, SinkContext, Source, SourceContext, Writer
from penstock.dataflow.functions import Context, KeyedFunction, SupportsProcess
from penstock.dataflow.nodes import SOURCE_POSITION
from penstock.dataflow.states import ValueState
from penstock.dataflow.stream import Environment
from penstock.state.plain import plain_value
from penstock.state.serializers import MSGPACK

JOB = JobId("sim")
LINES, COUNTS, OUT, AUDIT = (OperatorId(name) for name in ("lines", "counts", "out", "audit"))
SINKS = (OUT, AUDIT)
MAX_PARALLELISM = 8

Groups = dict[int, dict[int, tuple[int, int]]]
"""Keyed state: by key group and key, (count, sum)."""

Rows = dict[int, dict[str, list[tuple[bytes, bytes]]]]
"""The same as it is stored: by key group and table, rows and their values."""


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
        return keygroups.key_group(encode_key(self.key), max_parallelism=MAX_PARALLELISM)


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


class Lines(Source[Record]):
    """The input; `open` makes the reader of one subtask."""

    def __init__(self, open: Callable[[SourceContext], Reader[Record]]) -> None:
        self._open = open

    def open(self, ctx: SourceContext) -> Reader[Record]:
        """See Source."""
        return self._open(ctx)


class Written(Sink[Record]):
    """The output; `open` makes the writer of one subtask."""

    def __init__(self, open: Callable[[SinkContext], Writer[Record]]) -> None:
        self._open = open

    def open(self, ctx: SinkContext) -> Writer[Record]:
        """See Sink."""
        return self._open(ctx)


class Counts(KeyedFunction):
    """Counts the records of each key, adds them up, and gives them on."""

    tally = ValueState(tuple[int, int], default=(0, 0))

    def process(self, record: Record, ctx: Context[int]) -> Iterator[Record]:
        """One record of a key."""
        seen, total = self.tally.value
        self.tally.value = seen + 1, total + record.offset
        yield record


def _key(record: Record) -> int:
    return record.key


def environment(
    read: Callable[[SourceContext], Reader[Record]],
    write: Callable[[SinkContext], Writer[Record]],
    counts: Callable[[], SupportsProcess[int, Record, Record]] = Counts,
) -> Environment:
    """The job as its author builds it; `counts` may be another version of what keeps the state."""
    env = Environment(JOB)
    lines = env.source(Lines(read), uid=LINES)
    lines.key_by(_key).process(counts(), uid=COUNTS).sink(Written(write), uid=OUT)
    lines.rebalance().sink(Written(write), uid=AUDIT, parallelism=1)
    return env


def _unopened(_: object) -> object:
    raise AssertionError("only the graph is looked at")


GRAPH = environment(_unopened, _unopened).graph()  # type: ignore[arg-type]


def encode_offset(split: int, offset: int) -> bytes:
    """An element of the source's state."""
    return json.dumps([split, offset]).encode()


def decode_offset(element: bytes) -> tuple[int, int]:
    """Split and offset."""
    split, offset = json.loads(element)
    return split, offset


def encode_rows(rows: Rows) -> bytes:
    """Stored keyed state as a file's content."""
    return json.dumps(
        {
            group: {table: [(r.hex(), v.hex()) for r, v in of] for table, of in tables.items()}
            for group, tables in sorted(rows.items())
        }
    ).encode()


def decode_rows(data: bytes) -> Rows:
    """The inverse of encode_rows()."""
    return {
        int(group): {
            table: [(bytes.fromhex(r), bytes.fromhex(v)) for r, v in of]
            for table, of in tables.items()
        }
        for group, tables in json.loads(data).items()
    }


def decode_groups(data: bytes) -> Groups:
    """What a file of keyed state says, by key."""
    width = group_width(MAX_PARALLELISM)
    found: Groups = {}
    for group, tables in decode_rows(data).items():
        found[group] = {}
        for row, value in tables.get("tally", ()):
            key = decode_key(row[width : key_length(row, width)])
            assert isinstance(key, int), key
            found[group][key] = _tally(value)
    return found


def _tally(value: bytes) -> tuple[int, int]:
    seen, total = plain_value(value.removeprefix(PLAIN), MSGPACK)
    return seen, total


def offsets_of(manifest: Manifest) -> dict[int, int]:
    """How far each split was read in a snapshot."""
    return dict(
        decode_offset(element)
        for subtask in manifest.operators[LINES].subtasks
        for element in subtask.lists.get(SOURCE_POSITION, ())
    )


def pending_of(manifest: Manifest) -> list[tuple[str, int]]:
    """The transactions that a snapshot counts on, with their checkpoints."""
    return [
        (item["transaction"], item["checkpoint"])
        for sink in SINKS
        for subtask in manifest.operators[sink].subtasks
        for item in map(json.loads, subtask.lists.get(SINK_PENDING, ()))
    ]
