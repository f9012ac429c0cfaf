"""The heap backend: rows in dicts, one per table and key group.

What it copies out is the canonical stream, group by group, so that the interpreter is never held
for longer than sorting one group takes.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from penstock.core.keygroups import KeyGroupRange
from penstock.core.rows import group_width, prefix_length
from penstock.state import canonical
from penstock.state import parts as stored_parts
from penstock.state.backend import CopiedOut, LocalPart


def open_heap(
    folder: Path,
    *,
    groups: KeyGroupRange,
    max_parallelism: int,
    options: dict[str, Any],
) -> HeapBackend:
    """The factory behind `state.backend`: Memory and FileSystem keep their working state here."""
    return HeapBackend(folder, groups=groups, max_parallelism=max_parallelism)


class HeapBackend:
    """Keyed state in memory; see `penstock.state.backend.KeyedBackend`."""

    def __init__(self, folder: Path, *, groups: KeyGroupRange, max_parallelism: int) -> None:
        self._folder = folder
        self._groups = groups
        self._max_parallelism = max_parallelism
        self._width = group_width(max_parallelism)
        self._tables: dict[str, dict[bytes, _Group]] = {}

    def open_table(self, table: str) -> None:
        """Make sure that a table exists."""
        self._tables.setdefault(table, {})

    def tables(self) -> Sequence[str]:
        """The tables there are, by name."""
        return sorted(self._tables)

    def get_many(self, table: str, rows: Sequence[bytes]) -> list[bytes | None]:
        """The values of rows, in their order; None where there is none."""
        width, groups = self._width, self._tables[table]
        return [
            None if (group := groups.get(row[:width])) is None else group.rows.get(row)
            for row in rows
        ]

    def write(self, table: str, changes: Sequence[tuple[bytes, bytes | None]]) -> None:
        """Put values, delete rows whose value is None."""
        width, groups = self._width, self._tables[table]
        for row, value in changes:
            group = groups.get(row[:width])
            if group is None:
                group = groups[row[:width]] = _Group(width)
            if group.keys is not None:
                group.write_indexed(row, value)
            elif value is None:
                group.rows.pop(row, None)
            else:
                group.rows[row] = value

    def scan(self, table: str, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """The rows that begin with prefix, and their values, sorted; as of the call."""
        group = self._tables[table].get(prefix[: self._width])
        if group is None:
            return iter(())
        rows = sorted(group.rows) if len(prefix) == self._width else group.under(prefix)
        return iter([(row, group.rows[row]) for row in rows])

    def last(self, table: str, prefix: bytes) -> bytes | None:
        """The greatest row that begins with prefix."""
        group = self._tables[table].get(prefix[: self._width])
        if group is None:
            return None
        rows = sorted(group.rows) if len(prefix) == self._width else group.under(prefix)
        return rows[-1] if rows else None

    def delete_prefix(self, table: str, prefix: bytes) -> None:
        """Delete all rows that begin with prefix."""
        groups = self._tables[table]
        if len(prefix) == self._width:
            groups.pop(prefix, None)
        elif (group := groups.get(prefix[: self._width])) is not None:
            group.delete_under(prefix)

    def drop_table(self, table: str) -> None:
        """Delete a table with all its rows."""
        del self._tables[table]

    def copy_out(self, path: Path) -> CopiedOut:
        """Write everything to a new file, as the canonical stream."""
        return canonical.write_file(
            path,
            groups=self._groups,
            max_parallelism=self._max_parallelism,
            tables=self.tables(),
            rows_of=self._sorted_rows,
        )

    def _sorted_rows(self, table: str, prefix: bytes) -> Iterable[tuple[bytes, bytes]]:
        group = self._tables[table].get(prefix)
        return () if group is None else sorted(group.rows.items())

    def restore(self, parts: Iterable[LocalPart]) -> None:
        """Fill an empty backend; called once, before any other method."""
        for part in parts:
            with stored_parts.opened(
                part, self._groups, max_parallelism=self._max_parallelism, scratch=self._folder
            ) as stored:
                for table in stored.tables:
                    self.open_table(table)
                for table, rows in stored.blocks:
                    self.write(table, list(rows))

    def size_bytes(self) -> int:
        """About how many bytes of rows and values are stored, by one row of each key group.

        Asked at every heartbeat, so it must not look at all of them.
        """
        total = 0
        for table in self._tables.values():
            for group in table.values():
                for row, value in islice(group.rows.items(), 1):
                    total += len(group.rows) * (len(row) + len(value))
        return total

    def close(self) -> None:
        """Let go of all rows."""
        self._tables = {}


class _Group:
    """The rows of one table in one key group.

    `keys` says which rows a key with its namespace has, sorted. It is made when a key is first
    scanned and kept up from then on: states of single values never are, and never pay for it.
    """

    __slots__ = ("keys", "rows", "width")

    def __init__(self, width: int) -> None:
        self.rows: dict[bytes, bytes] = {}
        self.keys: dict[bytes, list[bytes]] | None = None
        self.width = width

    def under(self, prefix: bytes) -> list[bytes]:
        """The rows of a whole key with its namespace, sorted."""
        return self._index().get(prefix, [])

    def write_indexed(self, row: bytes, value: bytes | None) -> None:
        if value is not None:
            if row not in self.rows:
                key = row[: prefix_length(row, width=self.width)]
                insort(self._index().setdefault(key, []), row)
            self.rows[row] = value
        elif self.rows.pop(row, None) is not None:
            key = row[: prefix_length(row, width=self.width)]
            rows = self._index()[key]
            del rows[bisect_left(rows, row)]
            if not rows:
                del self._index()[key]

    def delete_under(self, prefix: bytes) -> None:
        for row in self._index().pop(prefix, ()):
            del self.rows[row]

    def _index(self) -> dict[bytes, list[bytes]]:
        if self.keys is None:
            self.keys = {}
            for row in sorted(self.rows):
                key = row[: prefix_length(row, width=self.width)]
                self.keys.setdefault(key, []).append(row)
        return self.keys
