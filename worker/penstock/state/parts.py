"""Parts of a snapshot on the local disk, whatever their format, as blocks of rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from penstock.core.handles import KeyedFormat
from penstock.core.keygroups import KeyGroupRange
from penstock.core.rows import group_width
from penstock.state import canonical
from penstock.state.backend import LocalPart


@dataclass(frozen=True, slots=True)
class OpenPart:
    """The tables of a part, and its wanted rows: blocks of one table each, its rows ascending."""

    tables: Sequence[str]
    blocks: Iterator[tuple[str, Iterable[tuple[bytes, bytes]]]]


@contextmanager
def opened(
    part: LocalPart, groups: KeyGroupRange, *, max_parallelism: int, scratch: Path
) -> Iterator[OpenPart]:
    """A part's rows of those groups that are wanted of it; `scratch` is a folder for links.

    Raises:
        Corrupt: the bytes are not what the part says.
    """
    if part.format is KeyedFormat.CANONICAL:
        with canonical.opened(part) as stream:
            yield OpenPart(stream.tables, stream.blocks(groups))
        return
    # Only who has a RocksDB directory loads RocksDB.
    from penstock.state.rocks import opened_for_reading

    assert part.path is not None, part
    width = group_width(max_parallelism)
    wanted = part.groups.intersection(groups)
    with opened_for_reading(part.path, scratch=scratch) as stored:
        yield OpenPart(
            stored.tables(),
            (
                (table, stored.scan(table, group.to_bytes(width, "big")))
                for table in stored.tables()
                for group in wanted
            ),
        )
