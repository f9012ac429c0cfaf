"""One file being read line by line: what is left of it is a split, and part of snapshots."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from penstock.connectors import lines
from penstock.connectors.gzipped import Gunzipped
from penstock.connectors.places import Found, Place, Stream
from penstock.core.errors import Corrupt, Rejected
from penstock.dataflow.connector import END, IDLE, Quiet

SCHEMA = "FileSplit v1"

BLOCK_BYTES = 256 << 10
_LINE_BYTES_MAX = 64 << 20


@dataclass(frozen=True, slots=True)
class FileSplit:
    """A file from some line on.

    `offset` counts the bytes, `line` the lines before it, both of the unpacked file. `length` and
    `version` are the file's, as it was found. `header` is its first record where the format has one.
    """

    path: str
    length: int
    version: str = ""
    offset: int = 0
    line: int = 0
    header: str | None = None

    def encode(self) -> bytes:
        """As readable JSON."""
        return json.dumps(asdict(self)).encode()

    @property
    def is_packed(self) -> bool:
        """Whether the file is gzip, which can only be read from its beginning."""
        return self.path.endswith(".gz")

    @property
    def unread_bytes(self) -> int:
        """How much of the file must be read, as it lies there."""
        return self.length if self.is_packed else max(0, self.length - self.offset)

    @classmethod
    def decode(cls, data: bytes) -> FileSplit:
        """The inverse of encode."""
        try:
            return cls(**json.loads(data))
        except (ValueError, TypeError) as e:
            raise Corrupt(f"not a split of a file: {data!r}", where="state of a source") from e


class SplitReader:
    """Records of one split, a block at a time; knows at each record where the file would go on."""

    def __init__(self, place: Place, split: FileSplit, format: Any) -> None:
        self._split = split
        """Where the block that is held begins."""
        self._format = format
        self._stream: Stream | None = None
        self._place = place
        self._pieces: list[bytes] = []
        """Bytes after the block that is held, without a whole record."""
        self._block = b""
        self._after_block = split
        self._decoded = lines.Decoded((), (), ())
        self._taken = 0
        self._batch: Sequence[int] = ()
        if split.header is not None:
            self._use_header(split.header.encode(errors="surrogateescape"))

    def take(self, limit: int) -> Sequence[Any] | Quiet:
        """Up to `limit` records; IDLE while they are on their way; END after the last.

        Raises:
            Rejected: the next line is none of the format, or the file has changed.
        """
        while self._taken == len(self._decoded.records):
            if (error := self._decoded.error) is not None:
                where = self._where(self._decoded.bad_line or 0)
                raise lines.undecodable(self._format, error, where) from error
            if (nothing := self._read()) is not None:
                return nothing
        start, self._taken = self._taken, min(self._taken + limit, len(self._decoded.records))
        self._batch = self._decoded.lines[start : self._taken]
        if self._taken - start == len(self._decoded.records):
            return self._decoded.records
        return self._decoded.records[start : self._taken]

    def rest(self) -> FileSplit:
        """The split from the next record on."""
        if self._taken == len(self._decoded.records) and self._decoded.error is None:
            return self._after_block
        line = self._decoded.ends[self._taken - 1] if self._taken else 0
        left = self._block.split(b"\n", line)[line]
        return replace(
            self._split,
            offset=self._split.offset + len(self._block) - len(left),
            line=self._split.line + line,
        )

    @property
    def unread_bytes(self) -> int:
        """How much of the file is still to be read, as it lies there; a plain file's block counts
        until all its records are taken."""
        if isinstance(self._stream, Gunzipped):
            return max(0, self._split.length - self._stream.packed_taken)
        is_taken = self._taken == len(self._decoded.records)
        return (self._after_block if is_taken else self._split).unread_bytes

    def position(self, index: int) -> str:
        """Where record `index` of what was taken last came from."""
        return self._where(self._batch[index])

    def close(self) -> None:
        """Give up the file."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def _where(self, line_of_block: int) -> str:
        return f"{self._split.path}, line {self._split.line + line_of_block + 1:,}"

    def _read(self) -> Quiet | None:
        """Hold the next block, or say that there is none now, or none any more."""
        if self._stream is None:
            self._stream = self._open()
        while True:
            piece = self._stream.read(BLOCK_BYTES)
            if piece is None:
                return IDLE
            if not piece:
                return self._hold_last()
            cut = piece.rfind(b"\n")
            if cut >= 0:
                block = b"".join([*self._pieces, piece[:cut]])
                self._pieces = [piece[cut + 1 :]] if cut + 1 < len(piece) else []
                if self._hold(block, is_last=False):
                    return None
            else:
                self._pieces.append(piece)
            if sum(map(len, self._pieces)) > _LINE_BYTES_MAX:
                raise Rejected(
                    f"no line break in {_LINE_BYTES_MAX >> 20} MiB",
                    where=f"{self._split.path}, line {self._after_block.line + 1:,}",
                    fix="is it a file of lines? name the files to read by a narrower pattern",
                )

    def _hold_last(self) -> Quiet | None:
        block, self._pieces = b"".join(self._pieces), []
        if not block:
            return END
        self._hold(block, is_last=True)
        return None

    def _hold(self, block: bytes, *, is_last: bool) -> bool:
        """Decode a block of lines; only the last one of a file has no line break after it. Whether a
        record ends in it; what begins one that does not waits for more."""
        if self._after_block.header is None and getattr(self._format, "header", False):
            count = lines.first_record(self._format, block, is_last=is_last)
            if count is None:
                self._put_back(block)
                return False
            first, block = _after(block, count)
            self._use_header(first)
            header = first.decode(errors="surrogateescape")
            begin = replace(self._after_block, header=header)
            self._after_block = _behind(begin, first, has_break=bool(block) or not is_last)
            if not block:
                return True
            block = block[1:]
        decoded = lines.decode_part(self._format, block, is_last=is_last)
        if decoded.unfinished is not None:
            block, rest = _after(block, decoded.unfinished)
            self._put_back(rest.removeprefix(b"\n"))
            if not decoded.unfinished:
                return False
        self._split, self._block = self._after_block, block
        self._after_block = _behind(self._split, block, has_break=not is_last)
        self._decoded, self._taken = decoded, 0
        return True

    def _put_back(self, block: bytes) -> None:
        """Lines that are to be decoded with those after them."""
        self._pieces.insert(0, block + b"\n")

    def _use_header(self, header: bytes) -> None:
        try:
            self._format = self._format.with_header(header)
        except ValueError as e:
            raise lines.undecodable(self._format, e, f"{self._split.path}, line 1") from e

    def _open(self) -> Stream:
        split = self._after_block
        file = Found(split.path, split.length, split.version)
        if split.is_packed:
            return Gunzipped(self._place.open(file, 0), skip=split.offset, where=split.path)
        return self._place.open(file, split.offset)


def _behind(split: FileSplit, block: bytes, *, has_break: bool) -> FileSplit:
    """The split after some of its lines; what ends a file may lack its line break."""
    return replace(
        split,
        offset=split.offset + len(block) + has_break,
        line=split.line + block.count(b"\n") + 1,
    )


def _after(block: bytes, count: int) -> tuple[bytes, bytes]:
    """The first lines of a block, and the rest with the line break before it."""
    end = -1
    for _ in range(count):
        end = block.find(b"\n", end + 1)
        if end < 0:
            return block, b""
    return block[: max(end, 0)], block[max(end, 0) :]
