"""The source `Files`: lines of files in a folder or a bucket, each exactly once.

Every file is one split. Which subtask takes a new file depends on its name alone, so subtasks need
not talk to each other; a split that was begun goes wherever a restore puts it. A file that was
found is known for ever: it is read once, up to the length it had then.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import deque
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, TypeVar, overload

from penstock.connectors import split
from penstock.connectors.local_files import LocalFiles
from penstock.connectors.places import Place
from penstock.connectors.rate import Rate, check_rate
from penstock.connectors.split import FileSplit, SplitReader
from penstock.core.errors import Rejected
from penstock.dataflow.connector import (
    END,
    IDLE,
    Backlog,
    HasBacklog,
    Quiet,
    Reader,
    Source,
    SourceContext,
    SourceState,
)
from penstock.formats import Reads, Text

T_co = TypeVar("T_co", covariant=True)


class Files(Source[T_co]):
    """Records of files, a line each; replayable.

    `pattern` is a path, a pattern with `*`, `?`, `[…]` and `**`, or a folder, which stands for all
    files below it but those whose name, or whose folder's name, begins with `.` or `_`. Relative
    ones are below the manifest's folder. `s3://bucket/key` with the same patterns means objects.
    Names that end in `.gz` are unpacked.

    Without `watch` the files that are there at the start are read, and then the source ends. With
    it, new files are looked for at that interval, for ever; they must appear whole, by a rename.
    `per_second` limits the records of all subtasks together.
    """

    split_schema = split.SCHEMA

    @overload
    def __init__(
        self: Files[str],
        pattern: str,
        *,
        watch: timedelta | None = None,
        per_second: float | None = None,
    ) -> None: ...
    @overload
    def __init__(
        self,
        pattern: str,
        format: Reads[T_co],
        *,
        watch: timedelta | None = None,
        per_second: float | None = None,
    ) -> None: ...
    def __init__(
        self,
        pattern: str,
        format: Reads[Any] | None = None,
        *,
        watch: timedelta | None = None,
        per_second: float | None = None,
    ) -> None:
        if not pattern:
            raise Rejected("no file is named", where="sources.Files", fix="give a path or pattern")
        if "://" in pattern and not pattern.startswith("s3://"):
            raise Rejected(
                f"{pattern!r} is no place of files",
                where="sources.Files",
                fix="give a path, a pattern, or s3://bucket/key",
            )
        if watch is not None and watch <= timedelta(0):
            raise Rejected(
                f"watch must be above 0, not {watch}", where=f"sources.Files({pattern!r})"
            )
        check_rate(per_second, f"sources.Files({pattern!r})")
        self._pattern = pattern
        self._format: Any = Text() if format is None else format
        self._watch_ms = None if watch is None else max(1, watch // timedelta(milliseconds=1))
        self._per_second = per_second
        self.record_type = getattr(self._format, "record_type", None)

    def open(self, ctx: SourceContext) -> Reader[T_co]:
        """See Source."""
        rate = Rate(self._per_second, parallelism=ctx.parallelism, now_ms=ctx.now_ms)
        return FilesReader(self._place(ctx), self._format, ctx, watch_ms=self._watch_ms, rate=rate)

    @property
    def label(self) -> str:
        """See Source."""
        format = "" if isinstance(self._format, Text) else f", {self._format!r}"
        return f'Files("{self._pattern}"{format})'

    def _place(self, ctx: SourceContext) -> Place:
        if self._pattern.startswith("s3://"):
            from penstock.connectors.s3_files import S3Files  # boto3 takes half a second to import

            return S3Files(self._pattern)
        return LocalFiles(self._pattern, ctx.folder)


class FilesReader(Reader[Any], HasBacklog):
    """One subtask of `Files`: its splits one after the other, by name."""

    def __init__(
        self, place: Place, format: Any, ctx: SourceContext, *, watch_ms: int | None, rate: Rate
    ) -> None:
        self._place = place
        self._format = format
        self._ctx = ctx
        self._watch_ms = watch_ms
        self._rate = rate
        self._known: set[str] = set()
        self._waiting: deque[FileSplit] = deque()
        self._waiting_bytes = 0
        self._reading: SplitReader | None = None
        self._read_last: SplitReader | None = None
        self._look_at_ms: int | None = ctx.now_ms()
        """When to look for files next; None: never again."""

    def restore(self, state: SourceState) -> None:
        """See Reader."""
        self._known.update(json.loads(item) for item in state.known)
        found = [FileSplit.decode(item) for item in state.splits]
        for one in sorted(found, key=lambda one: (one.path, one.offset)):
            self._wait(one)

    def poll(self, limit: int) -> Sequence[Any] | Quiet:
        """See Reader."""
        allowed = self._rate.allowed(limit)
        if allowed < 1:
            return IDLE
        while (reading := self._next()) is not None:
            taken = reading.take(allowed)
            if not isinstance(taken, Quiet):
                self._read_last = reading
                self._rate.took(len(taken))
                return taken
            if taken is IDLE:
                return IDLE
            reading.close()
            self._reading = None
        return END if self._look_at_ms is None else IDLE

    def snapshot(self) -> SourceState:
        """See Reader."""
        splits = list(self._waiting)
        if self._reading is not None:
            splits.insert(0, self._reading.rest())
        # A restore gave everyone all of them: if each kept all, they would multiply.
        known = sorted(path for path in self._known if self._is_mine(path))
        return SourceState(
            splits=[one.encode() for one in splits],
            known=[json.dumps(path).encode() for path in known],
        )

    def unread(self) -> bool:
        """See Reader."""
        if self._reading is not None or self._waiting:
            return True
        return any(
            file.path not in self._known and self._is_mine(file.path) for file in self._place.find()
        )

    def backlog(self) -> Backlog | None:
        """See HasBacklog. None as long as no file is known."""
        if not self._known:
            return None
        reading = self._reading
        if reading is None:
            return Backlog(len(self._waiting), self._waiting_bytes)
        return Backlog(len(self._waiting) + 1, self._waiting_bytes + reading.unread_bytes)

    def position(self, index: int) -> str:
        """See Reader."""
        assert self._read_last is not None, "nothing was read yet"
        return self._read_last.position(index)

    def close(self) -> None:
        """See Reader."""
        if self._reading is not None:
            self._reading.close()
            self._reading = None

    def _next(self) -> SplitReader | None:
        if self._reading is None:
            if not self._waiting:
                self._look()
            if self._waiting:
                split = self._waiting.popleft()
                self._waiting_bytes -= split.unread_bytes
                self._reading = SplitReader(self._place, split, self._format)
        return self._reading

    def _wait(self, split: FileSplit) -> None:
        self._waiting.append(split)
        self._waiting_bytes += split.unread_bytes

    def _look(self) -> None:
        """Add new files, if it is time to look for them."""
        now_ms = self._ctx.now_ms()
        if self._look_at_ms is None or now_ms < self._look_at_ms:
            return
        self._look_at_ms = None if self._watch_ms is None else now_ms + self._watch_ms
        files = self._place.find()
        if not files and not self._known and self._watch_ms is None:
            raise Rejected(
                f"no file matches {self._place}",
                where=f"source {self._ctx.uid}",
                fix="correct the path, or say watch= to wait for files",
            )
        for file in files:
            if file.path not in self._known and self._is_mine(file.path):
                self._known.add(file.path)
                self._wait(FileSplit(file.path, file.length, file.version))

    def _is_mine(self, path: str) -> bool:
        # No CRC: its low bits are the same for 0.log, 1.log … 7.log, so one of two subtasks had all.
        digest = hashlib.sha256(os.fsencode(path)).digest()
        return int.from_bytes(digest[:8]) % self._ctx.parallelism == self._ctx.subtask
