"""Sources for tests: records of a list, and a pace that all sources of a job share."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from penstock.dataflow.connector import (
    END,
    IDLE,
    Quiet,
    Reader,
    Source,
    SourceContext,
    SourceState,
)


class Pace:
    """How many records may be read at a time, and when all workers die."""

    def __init__(self, records: int, crash_after: Sequence[int]) -> None:
        self.read = 0
        # Some hundred polls: enough checkpoints in between, however few records there are.
        self._at_once = max(1, records // 200)
        self._crashes = sorted(crash_after)

    @property
    def is_crash_due(self) -> bool:
        """Whether as many records were read as the next crash waits for."""
        return bool(self._crashes) and self.read >= self._crashes[0]

    @property
    def crashes_left(self) -> Sequence[int]:
        """The crashes that have not come."""
        return self._crashes

    def crashed(self) -> None:
        """The crash that was due has happened."""
        del self._crashes[0]

    def allowed(self) -> int:
        """How many records a poll may give now."""
        if not self._crashes:
            return self._at_once
        return min(self._at_once, self._crashes[0] - self.read)


class Paced(Source[Any]):
    """Another source, read at the job's pace."""

    def __init__(self, source: Source[Any], pace: Pace) -> None:
        self._source = source
        self._pace = pace
        self.replayable = source.replayable
        self.split_schema = source.split_schema
        self.record_type = source.record_type

    def open(self, ctx: SourceContext) -> Reader[Any]:
        """See Source."""
        return _PacedReader(self._source.open(ctx), self._pace)

    @property
    def label(self) -> str:
        """See Source."""
        return self._source.label


class _PacedReader(Reader[Any]):
    def __init__(self, reader: Reader[Any], pace: Pace) -> None:
        self._reader = reader
        self._pace = pace

    def restore(self, state: SourceState) -> None:
        """See Reader."""
        self._reader.restore(state)

    def poll(self, limit: int) -> Sequence[Any] | Quiet:
        """See Reader."""
        allowed = min(limit, self._pace.allowed())
        if allowed < 1:
            return IDLE
        polled = self._reader.poll(allowed)
        if not isinstance(polled, Quiet):
            self._pace.read += len(polled)
        return polled

    def snapshot(self) -> SourceState:
        """See Reader."""
        return self._reader.snapshot()

    def unread(self) -> bool:
        """See Reader."""
        return self._reader.unread()

    def position(self, index: int) -> str:
        """See Reader."""
        return self._reader.position(index)

    def close(self) -> None:
        """See Reader."""
        self._reader.close()


class Listed(Source[Any]):
    """The records of a list. Subtask i of n reads every n-th from record i on."""

    split_schema = "ListSplit v1"

    def __init__(self, uid: str, records: Sequence[Any], *, replayable: bool = True) -> None:
        self._uid = uid
        self._records = records
        self.replayable = replayable

    def open(self, ctx: SourceContext) -> Reader[Any]:
        """See Source."""
        return _ListReader(self._uid, self._records, ctx.subtask, ctx.parallelism)


class _ListReader(Reader[Any]):
    """A split is the index of its next record and the step from there; they end in turn."""

    def __init__(self, uid: str, records: Sequence[Any], first: int, step: int) -> None:
        self._uid = uid
        self._records = records
        self._splits = [(first, step)]
        self._polled: range = range(0)

    def restore(self, state: SourceState) -> None:
        """See Reader."""
        self._splits = [(s["next"], s["step"]) for s in map(json.loads, state.splits)]

    def poll(self, limit: int) -> Sequence[Any] | Quiet:
        """See Reader."""
        for i, (at, step) in enumerate(self._splits):
            self._polled = range(at, len(self._records), step)[:limit]
            if self._polled:
                self._splits[i] = (self._polled[-1] + step, step)
                return [self._records[at] for at in self._polled]
        return END

    def snapshot(self) -> SourceState:
        """See Reader."""
        items = [{"next": at, "step": step} for at, step in self._splits]
        return SourceState(splits=[json.dumps(item).encode() for item in items])

    def unread(self) -> bool:
        """See Reader."""
        return any(at < len(self._records) for at, _ in self._splits)

    def position(self, index: int) -> str:
        """See Reader."""
        return f"record {self._polled[index]} of the test's {self._uid}"

    def close(self) -> None:
        """See Reader."""
