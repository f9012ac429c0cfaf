"""The port of keyed state backends: sorted rows of bytes in named tables, cut by key groups.

A backend holds what one subtask of one operator owns. In front of it stands a write-back cache of
objects (`penstock.state.keyed`), so a backend is read when a key is first seen and written at
barriers and when the cache is full, always in batches. Rows are made by `penstock.core.rows`, their
first bytes are the key group. Adapters: `heap`, `rocks`; both pass tests/contract/test_backend.py.

A factory of backends is named in the manifest as `package.module:attribute`; the built-in ones use
the same door.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from penstock.core.handles import KeyedFormat
from penstock.core.keygroups import KeyGroupRange


@dataclass(frozen=True, slots=True)
class LocalPart:
    """Stored keyed state on the local disk, of which the rows of `groups` are wanted.

    Canonical: `path` is a file (or `inline` its content) that covers `covers`, with the offset of
    each of its groups. RocksDB: `path` is a directory; it is left as it is.
    """

    format: KeyedFormat
    covers: KeyGroupRange
    groups: KeyGroupRange
    path: Path | None = None
    inline: bytes | None = None
    offsets: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class CopiedOut:
    """What `copy_out` made at `path`: a directory (RocksDB) or a canonical file with its offsets."""

    format: KeyedFormat
    path: Path
    offsets: tuple[int, ...] = ()


class KeyedBackend(Protocol):
    """Rows of one subtask of one operator. Used by one thread, but for `copy_out`."""

    def open_table(self, table: str) -> None:
        """Make sure that a table exists (a state's rows)."""
        ...

    def tables(self) -> Sequence[str]:
        """The tables there are, by name; restored ones that nobody opened too."""
        ...

    def get_many(self, table: str, rows: Sequence[bytes]) -> list[bytes | None]:
        """The values of rows, in their order; None where there is none."""
        ...

    def write(self, table: str, changes: Sequence[tuple[bytes, bytes | None]]) -> None:
        """Put values, delete rows whose value is None; at most some hundred rows a call."""
        ...

    def scan(self, table: str, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """The rows that begin with prefix, and their values, sorted; as of the call.

        The prefix is a key group, or a whole key with its namespace (`core.rows.row_prefix`).
        """
        ...

    def last(self, table: str, prefix: bytes) -> bytes | None:
        """The greatest row that begins with prefix (a whole key with its namespace)."""
        ...

    def delete_prefix(self, table: str, prefix: bytes) -> None:
        """Delete all rows that begin with prefix (a whole key with its namespace)."""
        ...

    def drop_table(self, table: str) -> None:
        """Delete a table with all its rows."""
        ...

    def copy_out(self, path: Path) -> CopiedOut:
        """Write everything that was written so far to a new path, durable enough to be uploaded.

        May be called from another thread than the one that reads; nothing is written meanwhile.
        RocksDB flushes and hard-links, which is fast and does not hold the interpreter.

        Raises:
            FileExistsError: the path is not new.
            Retryable: the disk is full, or refuses.
        """
        ...

    def restore(self, parts: Iterable[LocalPart]) -> None:
        """Fill an empty backend; called once, before any other method.

        Parts hold different groups, in any format. Those on the disk are left as they are.
        """
        ...

    def size_bytes(self) -> int:
        """About how much is stored."""
        ...

    def close(self) -> None:
        """Give up all resources; local files may be removed afterwards."""
        ...


class BackendFactory(Protocol):
    """What `state.backend` names."""

    def __call__(
        self, folder: Path, *, groups: KeyGroupRange, max_parallelism: int, options: dict[str, Any]
    ) -> KeyedBackend:
        """An empty backend for these key groups, with its files under folder."""
        ...
