"""Rows of keyed state as they are stored, one subtask's handle after the other.

Files are fetched into a temporary folder while they are read, one handle at a time.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from penstock.core.errors import Corrupt
from penstock.core.handles import FileHandle, KeyedFormat, KeyedHandle
from penstock.core.keygroups import KeyGroupRange
from penstock.core.rows import group_width
from penstock.state import canonical
from penstock.state.backend import LocalPart
from penstock.storage.location import open_store
from penstock.storage.store import Store

Rows = Iterable[tuple[bytes, bytes]]
_ROWS = "rows"


class StoredRows(Protocol):
    """The rows of one handle."""

    @property
    def tables(self) -> list[str]:
        """The states that have rows, by name; perhaps some that have none."""
        ...

    def blocks(self, groups: KeyGroupRange) -> Iterator[tuple[str, Rows]]:
        """Rows with their state, ordered by key group, state and row; several blocks of one state
        and group may follow each other."""
        ...


@dataclass(frozen=True, slots=True)
class Files:
    """Where the files of a snapshot lie: `folder` is what relative paths in its manifest start from."""

    store: Store
    folder: str

    def locate(self, handle: FileHandle) -> tuple[Store, str]:
        """The store of a file and its path there."""
        if "://" not in handle.path:
            return self.store, f"{self.folder}{handle.path}"
        folder, _, name = handle.path.rpartition("/")
        return open_store(folder), name

    def fetch(self, handle: FileHandle, target: Path) -> None:
        """Download a file.

        Raises:
            Corrupt: it is missing, or not the file that the manifest names.
        """
        store, path = self.locate(handle)
        stored = store.download(path, target)
        if (stored.length, stored.crc32) != (handle.length, handle.crc32):
            raise Corrupt(
                f"a file of the snapshot is damaged: {stored.length} bytes with checksum "
                f"{stored.crc32:08x}, not {handle.length} with {handle.crc32:08x}",
                where=f"{store.url}/{path}",
                fix="restore an older snapshot: penstock snapshots lists them",
            )


@contextmanager
def opened(handle: KeyedHandle, files: Files, *, max_parallelism: int) -> Iterator[StoredRows]:
    """The rows of one subtask's keyed state, while the block runs.

    Raises:
        Corrupt: what is stored cannot be read.
    """
    if handle.inline is not None:
        with canonical.opened(_part(handle, None)) as stream:
            yield stream
        return
    with tempfile.TemporaryDirectory(prefix="penstock-") as name:
        folder = Path(name) / "files"
        folder.mkdir()
        for file in handle.files:
            files.fetch(file, folder / (file.local_name or _ROWS))
        if handle.format is KeyedFormat.CANONICAL:
            with canonical.opened(_part(handle, folder / _ROWS)) as stream:
                yield stream
        else:
            from penstock.state.rocks import opened_for_reading  # loads RocksDB

            with opened_for_reading(folder, scratch=Path(name)) as stored:
                yield _Database(stored, handle.groups, group_width(max_parallelism))


class _Reader(Protocol):
    """An open RocksDB directory."""

    def tables(self) -> Sequence[str]: ...
    def scan(self, table: str, prefix: bytes) -> Iterable[tuple[bytes, bytes]]: ...


class _Database:
    """A RocksDB directory as StoredRows."""

    def __init__(self, stored: _Reader, covers: KeyGroupRange, width: int) -> None:
        self._stored = stored
        self._covers = covers
        self._width = width
        self.tables = sorted(stored.tables())

    def blocks(self, groups: KeyGroupRange) -> Iterator[tuple[str, Rows]]:
        for group in groups.intersection(self._covers):
            for table in self.tables:
                yield table, self._stored.scan(table, group.to_bytes(self._width, "big"))


def _part(handle: KeyedHandle, path: Path | None) -> LocalPart:
    return LocalPart(
        format=handle.format,
        covers=handle.groups,
        groups=handle.groups,
        path=path,
        inline=handle.inline,
        offsets=handle.offsets,
    )
