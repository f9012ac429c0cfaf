"""The canonical stream: one subtask's keyed state in bytes that are the same from every backend.

Ordered by key group, table and row, so that any range of groups is one stretch of the file. Byte by
byte in docs/reference/canonical-stream.md; a golden file holds it still.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import msgspec
from msgspec import msgpack

from penstock.core.errors import Corrupt, Retryable
from penstock.core.handles import KeyedFormat
from penstock.core.keygroups import KeyGroupRange
from penstock.core.rows import group_width
from penstock.state.backend import CopiedOut, LocalPart

MAGIC = b"PNSTKEY\x01"
BLOCK_ROWS = 512
BLOCK_BYTES = 1 << 20
"""A block ends with the row that brings it to either."""

Rows = Sequence[tuple[bytes, bytes]]

_HEADER = struct.Struct(">8sHHH")  # magic, first group, group after the last, number of tables
_NAME = struct.Struct(">H")
_BLOCK = struct.Struct(">HI")  # index of the table, length of the msgpack array that follows
_GROUP_END = b"\xff\xff"

_encode = msgpack.Encoder().encode
_decode = msgpack.Decoder(list[bytes]).decode


def write(
    file: BinaryIO,
    *,
    groups: KeyGroupRange,
    max_parallelism: int,
    tables: Sequence[str],
    rows_of: Callable[[str, bytes], Iterable[tuple[bytes, bytes]]],
) -> tuple[int, ...]:
    """Write a stream and return the offset of each group.

    `rows_of(table, group)` gives the sorted rows of a table in a group, named by its bytes in a row.
    """
    width = group_width(max_parallelism)
    names = sorted(tables)
    position = file.write(_HEADER.pack(MAGIC, groups.start, groups.stop, len(names)))
    for name in names:
        encoded = name.encode()
        position += file.write(_NAME.pack(len(encoded)) + encoded)
    offsets = []
    for group in groups:
        offsets.append(position)
        prefix = group.to_bytes(width, "big")
        for index, name in enumerate(names):
            for block in _blocks(rows_of(name, prefix)):
                position += file.write(_BLOCK.pack(index, len(block)) + block)
        position += file.write(_GROUP_END)
    return tuple(offsets)


def write_file(
    path: Path,
    *,
    groups: KeyGroupRange,
    max_parallelism: int,
    tables: Sequence[str],
    rows_of: Callable[[str, bytes], Iterable[tuple[bytes, bytes]]],
) -> CopiedOut:
    """Write a stream to a new file; see `write`.

    Raises:
        FileExistsError: the file is not new.
        Retryable: the disk is full, or refuses.
    """
    try:
        with path.open("xb") as file:
            offsets = write(
                file,
                groups=groups,
                max_parallelism=max_parallelism,
                tables=tables,
                rows_of=rows_of,
            )
    except FileExistsError:
        raise
    except OSError as e:
        raise Retryable(
            f"state cannot be written: {e.strerror}",
            where=str(path),
            fix="free space, or give the volume more of it",
        ) from e
    return CopiedOut(KeyedFormat.CANONICAL, path, offsets)


def _blocks(rows: Iterable[tuple[bytes, bytes]]) -> Iterator[bytes]:
    rows = iter(rows)
    held: list[tuple[bytes, bytes]] = []
    while True:
        held += islice(rows, BLOCK_ROWS - len(held))
        if not held:
            return
        flat = [part for row in held for part in row]
        if sum(map(len, flat)) < BLOCK_BYTES:
            held = []
        else:
            count = _rows_in_block(held)
            flat, held = flat[: 2 * count], held[count:]
        yield _encode(flat)


def _rows_in_block(rows: Rows) -> int:
    size = 0
    for count, (row, value) in enumerate(rows, 1):
        size += len(row) + len(value)
        if size >= BLOCK_BYTES:
            return count
    return len(rows)


class Stream:
    """An open stream: its tables, and the rows of the groups that are wanted from it."""

    def __init__(self, file: BinaryIO, part: LocalPart) -> None:
        self._file = file
        self._part = part
        try:
            magic, start, stop, count = _HEADER.unpack(self._exactly(_HEADER.size))
            if magic != MAGIC:
                raise self._corrupt(f"it begins with {magic.hex()}")
            self.tables = [
                self._exactly(_NAME.unpack(self._exactly(_NAME.size))[0]).decode()
                for _ in range(count)
            ]
        except UnicodeDecodeError as e:
            raise self._corrupt("a table's name is not text") from e
        if KeyGroupRange(start, stop) != part.covers:
            raise self._corrupt(f"it holds the groups [{start}, {stop})")

    def blocks(self, groups: KeyGroupRange) -> Iterator[tuple[str, Rows]]:
        """Blocks of rows, each with its table, of the groups that are in `groups` and wanted.

        Ordered by group, table and row.

        Raises:
            Corrupt: the bytes are not a canonical stream of these groups.
        """
        wanted = self._part.groups.intersection(groups)
        if not wanted:
            return
        offsets, covers = self._part.offsets, self._part.covers
        if len(offsets) != len(covers) or wanted.start < covers.start or wanted.stop > covers.stop:
            raise self._corrupt(f"{len(offsets)} offsets do not lead to the groups {wanted}")
        self._file.seek(offsets[wanted.start - covers.start])
        for _ in wanted:
            yield from self._group()

    def _group(self) -> Iterator[tuple[str, Rows]]:
        while (index := self._exactly(2)) != _GROUP_END:
            table, length = _BLOCK.unpack(index + self._exactly(_BLOCK.size - 2))
            try:
                flat = iter(_decode(self._exactly(length)))
                rows = list(zip(flat, flat, strict=True))
                name = self.tables[table]
            except (msgspec.MsgspecError, IndexError, ValueError) as e:
                raise self._corrupt(f"a block is damaged: {e}") from e
            yield name, rows

    def _exactly(self, size: int) -> bytes:
        data = self._file.read(size)
        if len(data) != size:
            raise self._corrupt("it ends too early")
        return data

    def _corrupt(self, why: str) -> Corrupt:
        where = "inline state" if self._part.path is None else str(self._part.path)
        return Corrupt(f"not the canonical stream of {self._part.covers}: {why}", where=where)


@contextmanager
def opened(part: LocalPart) -> Iterator[Stream]:
    """The stream of a canonical part, from its file or its inline bytes."""
    assert part.format is KeyedFormat.CANONICAL, part.format
    if part.inline is not None:
        yield Stream(io.BytesIO(part.inline), part)
        return
    assert part.path is not None, part
    with part.path.open("rb") as file:
        yield Stream(file, part)


def from_rocks(
    directory: Path, groups: KeyGroupRange, file: Path, *, max_parallelism: int
) -> CopiedOut:
    """Write the canonical stream of a RocksDB directory to a new file.

    The directory is left as it is. Needs no more memory than a block of rows for each table.

    Raises:
        Corrupt: the directory is not a database, or a damaged one.
        Retryable: the disk is full.
    """
    # Only who has such a directory loads RocksDB.
    from penstock.state.rocks import opened_for_reading

    with opened_for_reading(directory, scratch=file.parent) as stored:
        return write_file(
            file,
            groups=groups,
            max_parallelism=max_parallelism,
            tables=stored.tables(),
            rows_of=stored.scan,
        )
