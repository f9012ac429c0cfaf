"""The RocksDB backend: one column family a table, no write-ahead log; the only door to rocksdict.

Durability is the checkpoint's, so nothing is synced but by `copy_out`, which flushes and hard-links.
A directory that is read from is never opened itself: opening writes into it, even for reading only.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from rocksdict import (
    AccessType,
    BlockBasedOptions,
    Cache,
    Checkpoint,
    ColumnFamily,
    DBCompressionType,
    IngestExternalFileOptions,
    Options,
    Rdict,
    RdictIter,
    ReadOptions,
    SstFileWriter,
    WriteBatch,
    WriteBufferManager,
    WriteOptions,
)

from penstock.core.errors import Corrupt, PenstockError, Rejected, Retryable
from penstock.core.handles import KeyedFormat
from penstock.core.keygroups import KeyGroupRange
from penstock.core.rows import group_bounds, group_width
from penstock.state import parts as stored_parts
from penstock.state.backend import CopiedOut, LocalPart

DEFAULT_MEMORY_BYTES = 256 << 20
BATCH_ROWS = 500
"""More rows in one write hold the interpreter for too long."""

_FAMILY = "t-"
"""Before a table's name, since RocksDB keeps a column family `default` of its own."""

_INGEST_FILE_BYTES = 256 << 20


def open_rocks(
    folder: Path, *, groups: KeyGroupRange, max_parallelism: int, options: dict[str, Any]
) -> RocksBackend:
    """The factory behind `state.backend: RocksDB`.

    Options: `memory_bytes`, the budget of block cache and write buffers together, shared by all
    backends of the process that name the same number.

    Raises:
        Rejected: the folder has a database already, or an option is unknown.
    """
    unknown = options.keys() - {"memory_bytes"}
    if unknown:
        raise Rejected(
            f"RocksDB has no option {', '.join(sorted(unknown))}",
            where="state.backend",
            fix="memory_bytes is all there is",
        )
    return RocksBackend(
        folder,
        groups=groups,
        max_parallelism=max_parallelism,
        memory_bytes=options.get("memory_bytes", DEFAULT_MEMORY_BYTES),
    )


class RocksBackend:
    """Keyed state in a local RocksDB; see `penstock.state.backend.KeyedBackend`."""

    def __init__(
        self,
        folder: Path,
        *,
        groups: KeyGroupRange,
        max_parallelism: int,
        memory_bytes: int = DEFAULT_MEMORY_BYTES,
    ) -> None:
        self._folder = folder
        self._path = folder / "db"
        self._groups = groups
        self._max_parallelism = max_parallelism
        self._options = _options(memory_bytes)
        self._write_options = WriteOptions()
        self._write_options.disable_wal = True  # type: ignore[assignment,method-assign]  # a property
        if self._path.exists():
            raise Rejected(
                "there is a database already where a new one was asked for",
                where=str(self._path),
                fix="give every attempt a folder of its own",
            )
        with _translated(self._path):
            folder.mkdir(parents=True, exist_ok=True)
            self._open()

    def _open(self) -> None:
        self._db, self._tables = _opened(self._path, self._options, AccessType.read_write())
        self._handles: dict[str, ColumnFamily] = {}
        for table, family in self._tables.items():
            self._adopt(table, family)

    def _adopt(self, table: str, family: Rdict) -> None:
        family.set_write_options(self._write_options)
        self._tables[table] = family
        self._handles[table] = self._db.get_column_family_handle(_FAMILY + table)

    def open_table(self, table: str) -> None:
        """Make sure that a table exists."""
        if table not in self._tables:
            with _translated(self._path):
                self._adopt(table, self._db.create_column_family(_FAMILY + table, self._options))

    def tables(self) -> Sequence[str]:
        """The tables there are, by name."""
        return sorted(self._tables)

    def get_many(self, table: str, rows: Sequence[bytes]) -> list[bytes | None]:
        """The values of rows, in their order; None where there is none."""
        try:
            return self._tables[table].get(list(rows)) if rows else []  # type: ignore[return-value]
        except Exception as e:
            raise _translation(e, self._path) from e

    def write(self, table: str, changes: Sequence[tuple[bytes, bytes | None]]) -> None:
        """Put values, delete rows whose value is None."""
        handle = self._handles[table]
        try:
            for start in range(0, len(changes), BATCH_ROWS):
                batch = WriteBatch(raw_mode=True)
                batch.set_default_column_family(handle)
                put, delete = batch.put, batch.delete
                for row, value in changes[start : start + BATCH_ROWS]:
                    if value is None:
                        delete(row)
                    else:
                        put(row, value)
                self._db.write(batch, self._write_options)
        except Exception as e:
            raise _translation(e, self._path) from e

    def scan(self, table: str, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """The rows that begin with prefix, and their values, sorted; as of the call."""
        return _scan(self._tables[table], prefix, self._path)

    def last(self, table: str, prefix: bytes) -> bytes | None:
        """The greatest row that begins with prefix."""
        with _translated(self._path):
            bounds = _bounded(prefix)
            rows = self._tables[table].iter(bounds)
            rows.seek_to_last()
            rows.status()
            row: bytes | None = rows.key() if rows.valid() else None
        return row if row is not None and row.startswith(prefix) else None

    def delete_prefix(self, table: str, prefix: bytes) -> None:
        """Delete all rows that begin with prefix."""
        # Deleting a range leaves a mark that every later read must consult; few rows go one by one.
        first: list[tuple[bytes, bytes | None]] = []
        for row, _ in self.scan(table, prefix):
            first.append((row, None))
            if len(first) == BATCH_ROWS:
                with _translated(self._path):
                    self._tables[table].delete_range(prefix, _after(prefix), self._write_options)
                return
        if first:
            self.write(table, first)

    def drop_table(self, table: str) -> None:
        """Delete a table with all its rows."""
        del self._tables[table], self._handles[table]
        with _translated(self._path):
            self._db.drop_column_family(_FAMILY + table)

    def copy_out(self, path: Path) -> CopiedOut:
        """Flush, and hard-link everything to a new directory.

        Flushing first matters: it lets go of the interpreter, `create_checkpoint` does not.
        """
        if path.exists():
            raise FileExistsError(path)
        with _translated(path):
            for family in self._tables.values():
                family.flush(True)
            Checkpoint(self._db).create_checkpoint(str(path))
        return CopiedOut(KeyedFormat.ROCKSDB, path)

    def restore(self, parts: Iterable[LocalPart]) -> None:
        """Fill an empty backend; called once, before any other method.

        The RocksDB part with the most to give becomes the database, by hard links; what is wanted
        of the others is written to sorted files that the database takes in whole.
        """
        wanted = [part for part in parts if part.groups.intersection(self._groups)]
        base = max(
            (part for part in wanted if part.format is KeyedFormat.ROCKSDB),
            key=lambda part: _weight(part, self._groups),
            default=None,
        )
        with _translated(self._path):
            if base is not None:
                assert base.path is not None, base
                self._db.close()
                shutil.rmtree(self._path)
                _link(base.path, self._path)
                self._open()
                self._trim(base.groups.intersection(self._groups))
            for part in wanted:
                if part is not base:
                    self._ingest(part)

    def _trim(self, groups: KeyGroupRange) -> None:
        width = group_width(self._max_parallelism)
        for outside in (
            KeyGroupRange(0, groups.start),
            KeyGroupRange(groups.stop, self._max_parallelism),
        ):
            if outside:
                begin, end = group_bounds(outside.start, outside.stop, width=width)
                for family in self._tables.values():
                    family.delete_range(begin, end, self._write_options)

    def _ingest(self, part: LocalPart) -> None:
        scratch = Path(tempfile.mkdtemp(dir=self._folder))
        try:
            with stored_parts.opened(
                part, self._groups, max_parallelism=self._max_parallelism, scratch=scratch
            ) as stored:
                for table in stored.tables:
                    self.open_table(table)
                files = _SortedFiles(scratch, self._options)
                for table, rows in stored.blocks:
                    files.add(table, rows)
                move = IngestExternalFileOptions()
                move.set_move_files(True)
                for table, paths in files.finished().items():
                    self._tables[table].ingest_external_file(paths, move)
        finally:
            shutil.rmtree(scratch)

    def size_bytes(self) -> int:
        """About how many bytes lie in files and write buffers."""
        with _translated(self._path):
            return sum(
                family.property_int_value(name) or 0
                for family in self._tables.values()
                for name in ("rocksdb.live-sst-files-size", "rocksdb.cur-size-all-mem-tables")
            )

    def close(self) -> None:
        """Close the database; its directory may be removed afterwards."""
        self._handles.clear()
        self._tables.clear()
        with _translated(self._path):
            self._db.close()


class StoredTables:
    """The tables of a database that is open for reading only."""

    def __init__(self, path: Path, tables: dict[str, Rdict]) -> None:
        self._path = path
        self._tables = tables

    def tables(self) -> Sequence[str]:
        """The tables there are, by name."""
        return sorted(self._tables)

    def scan(self, table: str, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """The rows that begin with prefix, and their values, sorted."""
        return _scan(self._tables[table], prefix, self._path)


@contextmanager
def opened_for_reading(directory: Path, *, scratch: Path) -> Iterator[StoredTables]:
    """The tables of a RocksDB directory, which is left as it is; `scratch` is a folder for links.

    Raises:
        Corrupt: the directory is not a database, or a damaged one.
    """
    links = Path(tempfile.mkdtemp(dir=scratch))
    try:
        with _translated(directory):
            _link(directory, links / "db")
            db, tables = _opened(
                links / "db", _options(DEFAULT_MEMORY_BYTES), AccessType.read_only(False)
            )
        try:
            yield StoredTables(directory, tables)
        finally:
            tables.clear()
            db.close()
    finally:
        shutil.rmtree(links)


class _SortedFiles:
    """Files for RocksDB to take in whole: per table, rows given in ascending order."""

    def __init__(self, folder: Path, options: Options) -> None:
        self._folder = folder
        self._options = options
        self._writers: dict[str, SstFileWriter] = {}
        self._paths: dict[str, list[str]] = {}

    def add(self, table: str, rows: Iterable[tuple[bytes, bytes]]) -> None:
        writer = self._writers.get(table)
        for row, value in rows:
            if writer is None:
                writer = self._begin(table)
            writer[row] = value
        if writer is not None and writer.file_size() >= _INGEST_FILE_BYTES:
            self._writers.pop(table).finish()

    def _begin(self, table: str) -> SstFileWriter:
        writer = self._writers[table] = SstFileWriter(self._options)
        count = sum(map(len, self._paths.values()))
        path = str(self._folder / f"{count}.sst")
        self._paths.setdefault(table, []).append(path)
        writer.open(path)
        return writer

    def finished(self) -> dict[str, list[str]]:
        for writer in self._writers.values():
            writer.finish()
        return self._paths


def _options(memory_bytes: int) -> Options:
    block_cache, write_buffers = _memory(memory_bytes)
    tables = BlockBasedOptions()
    tables.set_block_cache(block_cache)
    tables.set_bloom_filter(10, block_based=False)
    tables.set_cache_index_and_filter_blocks(True)
    tables.set_pin_l0_filter_and_index_blocks_in_cache(True)
    tables.set_format_version(5)
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    options.create_missing_column_families(True)
    options.set_block_based_table_factory(tables)
    options.set_write_buffer_manager(write_buffers)
    options.set_compression_type(DBCompressionType.lz4())
    options.set_level_compaction_dynamic_level_bytes(True)
    options.set_max_background_jobs(2)
    options.set_keep_log_file_num(1)
    options.set_max_log_file_size(1 << 20)
    options.set_stats_dump_period_sec(0)
    options.set_stats_persist_period_sec(0)
    return options


@cache
def _memory(memory_bytes: int) -> tuple[Cache, WriteBufferManager]:
    """One block cache for the whole process; the write buffers are taken from it, half at most."""
    block_cache = Cache(memory_bytes)
    return block_cache, WriteBufferManager.new_write_buffer_manager_with_cache(
        memory_bytes // 2, False, block_cache
    )


def _opened(path: Path, options: Options, access: AccessType) -> tuple[Rdict, dict[str, Rdict]]:
    """A database and its tables by name."""
    families = Rdict.list_cf(str(path)) if (path / "CURRENT").exists() else []
    db = Rdict(str(path), options, dict.fromkeys(families, options), access)
    names = [name for name in families if name.startswith(_FAMILY)]
    return db, {name.removeprefix(_FAMILY): db.get_column_family(name) for name in names}


def _link(source: Path, target: Path) -> None:
    """A directory with the same database: table files by hard link, what RocksDB rewrites copied."""
    target.mkdir()
    for file in source.iterdir():
        if file.suffix == ".sst":
            try:
                os.link(file, target / file.name)
            except OSError:  # another file system, or one without hard links
                shutil.copyfile(file, target / file.name)
        elif file.name != "LOCK" and not file.name.startswith("LOG"):
            shutil.copyfile(file, target / file.name)


def _weight(part: LocalPart, groups: KeyGroupRange) -> float:
    """About how many bytes of a part are wanted."""
    assert part.path is not None, part
    size = sum(file.stat().st_size for file in part.path.iterdir())
    return size * len(part.groups.intersection(groups)) / len(part.covers)


def _after(prefix: bytes) -> bytes:
    """The least bytes above all that begin with prefix; it begins with a key group, never all FF."""
    kept = prefix.rstrip(b"\xff")
    return kept[:-1] + bytes([kept[-1] + 1])


def _bounded(prefix: bytes) -> ReadOptions:
    """Reading no further than prefix.

    The bound lives in these options, not in the iterator: who iterates must hold on to them.
    """
    options = ReadOptions()
    options.set_iterate_upper_bound(_after(prefix))
    return options


def _scan(family: Rdict, prefix: bytes, path: Path) -> Iterator[tuple[bytes, bytes]]:
    with _translated(path):
        bounds = _bounded(prefix)
        rows = family.iter(bounds)
        rows.seek(prefix)
    return _walk(rows, bounds, path)


def _walk(rows: RdictIter, bounds: ReadOptions, path: Path) -> Iterator[tuple[bytes, bytes]]:
    # `Rdict.items` would be a little faster, but at a damaged block it ends in silence.
    valid, key, value, advance = rows.valid, rows.key, rows.value, rows.next
    while valid():
        yield key(), value()
        advance()
    with _translated(path):
        rows.status()
    del bounds  # held until here; see _bounded


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except PenstockError:
        raise
    except Exception as e:
        raise _translation(e, path) from e


def _translation(error: Exception, path: Path) -> Exception:
    """RocksDB's errors, which are all plain exceptions, by what they say."""
    text = str(error)
    if text.startswith("Corruption") or "CURRENT: No such file" in text:
        return Corrupt(f"the local database is damaged: {text}", where=str(path))
    if "No space left" in text or "Disk quota exceeded" in text:
        return Retryable(
            "the disk is full", where=str(path), fix="free space, or give the volume more of it"
        )
    if isinstance(error, OSError) or text.startswith("IO error"):
        return Retryable(f"the local database cannot be used: {text}", where=str(path))
    return error
