"""The sink `Files`: part files in a folder or a bucket, each record in one of them exactly once.

A file holds the records between two checkpoints, or fewer. Until its checkpoint is complete nobody
sees it. Each file is a transaction of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, TypeVar, overload

from penstock.connectors import lines, parts
from penstock.connectors.local_parts import LocalTarget
from penstock.connectors.parts import Part, PartNames, PendingFile, Target
from penstock.core.errors import Rejected
from penstock.dataflow.connector import Sink, SinkContext, Writer
from penstock.formats import Text, Writes

T_contra = TypeVar("T_contra", contravariant=True)

ROLL_BYTES = 1 << 30


class Files(Sink[T_contra]):
    """Records as files of lines below `path`; exactly-once.

    `path` is a folder, below the manifest's when it is relative, or `s3://bucket/prefix`. At every
    checkpoint each subtask ends its file, `part-<subtask>-<attempt>-<number>-….<suffix>`, which is
    seen when the checkpoint is complete; without records there is no file. It also begins a new one
    after 1 GiB, and after `roll_after`, for jobs whose checkpoints are far apart.
    """

    pending_schema = parts.SCHEMA

    @overload
    def __init__(self: Files[str], path: str, *, roll_after: timedelta | None = None) -> None: ...
    @overload
    def __init__(
        self, path: str, format: Writes[T_contra], *, roll_after: timedelta | None = None
    ) -> None: ...
    def __init__(
        self, path: str, format: Writes[Any] | None = None, *, roll_after: timedelta | None = None
    ) -> None:
        if not path:
            raise Rejected("no folder is named", where="sinks.Files", fix="give a path")
        if "://" in path and not path.startswith("s3://"):
            raise Rejected(
                f"{path!r} is no place for files",
                where="sinks.Files",
                fix="give a folder, or s3://bucket/prefix",
            )
        if roll_after is not None and roll_after <= timedelta(0):
            raise Rejected(
                f"roll_after must be above 0, not {roll_after}", where=f"sinks.Files({path!r})"
            )
        self._path = path
        self._format: Any = Text() if format is None else format
        self._roll_ms = None if roll_after is None else roll_after // timedelta(milliseconds=1)

    def open(self, ctx: SinkContext) -> Writer[T_contra]:
        """See Sink."""
        return FilesWriter(self._path, self._format, ctx, roll_ms=self._roll_ms)

    @property
    def path(self) -> str:
        """The folder or URL, as it was given."""
        return self._path

    @property
    def label(self) -> str:
        """See Sink."""
        format = "" if isinstance(self._format, Text) else f", {self._format!r}"
        return f'Files("{self._path}"{format})'


class FilesWriter(Writer[Any]):
    """One subtask of `Files`: an open part, and those that wait for the next checkpoint."""

    def __init__(self, path: str, format: Any, ctx: SinkContext, *, roll_ms: int | None) -> None:
        self._path = path
        self._encode = lines.block_encoder(format)
        self._header = format.header_line() + b"\n" if getattr(format, "header", False) else b""
        self._ctx = ctx
        self._roll_ms = roll_ms
        self._names = PartNames.of(
            ctx.transaction(0),
            subtask=ctx.subtask,
            attempt=ctx.attempt,
            suffix=getattr(format, "suffix", ""),
        )
        self._targets: dict[str, Target] = {}
        self._counter = 0
        self._part: Part | None = None
        self._part_bytes = 0
        self._part_began_ms = 0
        self._rolled: list[PendingFile] = []

    def write(self, records: Sequence[Any]) -> None:
        """See Writer."""
        if not records:
            return
        data = self._encode(records)
        if self._part is not None and self._is_full():
            self._roll()
        if self._part is None:
            self._part = self._target(self._path).begin(self._names.name(self._counter))
            self._counter += 1
            self._part_bytes = 0
            self._part_began_ms = self._ctx.now_ms()
            data = self._header + data
        self._part.write(data)
        self._part_bytes += len(data)

    def prepare(self, checkpoint: int) -> Sequence[bytes]:
        """See Writer."""
        if self._part is not None:
            self._roll()
        prepared, self._rolled = self._rolled, []
        return [pending.encode() for pending in prepared]

    def commit(self, transaction: bytes) -> None:
        """See Writer. Also of a sink that wrote elsewhere before the job was changed."""
        pending = PendingFile.decode(transaction)
        self._target(pending.folder).commit(pending)

    def abort_except(self, transactions: Sequence[bytes]) -> None:
        """See Writer."""
        keep = [PendingFile.decode(transaction) for transaction in transactions]
        self._target(self._path).remove_leftovers(self._names, keep)

    def close(self) -> None:
        """See Writer."""
        if self._part is not None:
            part, self._part = self._part, None
            part.discard()

    def _is_full(self) -> bool:
        if self._part_bytes >= ROLL_BYTES:
            return True
        return (
            self._roll_ms is not None and self._ctx.now_ms() - self._part_began_ms >= self._roll_ms
        )

    def _roll(self) -> None:
        assert self._part is not None
        part, self._part = self._part, None
        self._rolled.append(part.prepare())

    def _target(self, path: str) -> Target:
        target = self._targets.get(path)
        if target is None:
            if path.startswith("s3://"):
                from penstock.connectors.s3_parts import S3Target  # boto3 takes half a second

                target = S3Target(path)
            else:
                target = LocalTarget(path, self._ctx.folder)
            self._targets[path] = target
        return target
