"""Part files in a folder of this machine: written in its hidden `.pending`, committed by a rename."""

from __future__ import annotations

import os
from collections.abc import Collection
from errno import ENOTDIR
from pathlib import Path

from penstock.connectors.parts import Part, PartNames, PendingFile, vanished
from penstock.core.errors import Corrupt
from penstock.storage.files import os_errors_translated

PENDING = ".pending"


class LocalTarget:
    """A folder, which the first part makes. `named` is how the author wrote it."""

    def __init__(self, named: str, base: Path) -> None:
        self._named = named
        self._folder = base / Path(named).expanduser()
        self._pending = self._folder / PENDING

    def begin(self, name: str) -> Part:
        """See Target."""
        with os_errors_translated(self._pending):
            _make_folders(self._pending)
        return _LocalPart(self._named, self._pending / name)

    def commit(self, pending: PendingFile) -> None:
        """See Target."""
        source, target = self._pending / pending.name, self._folder / pending.name
        with os_errors_translated(target):
            try:
                length = source.stat().st_size
                if length != pending.length:
                    raise Corrupt(
                        f"a prepared file has {length:,} bytes instead of {pending.length:,}",
                        where=str(source),
                        fix="restore an older snapshot",
                    )
                source.rename(target)
            except FileNotFoundError as e:
                if not target.exists():
                    raise vanished(str(target)) from e
            # Also when it was there before: the commit that was cut short may not have come so far.
            _sync(self._folder)

    def remove_leftovers(self, names: PartNames, keep: Collection[PendingFile]) -> None:
        """See Target."""
        kept = {pending.name for pending in keep}
        with os_errors_translated(self._pending):
            if not self._pending.is_dir():
                if self._folder.exists() and not self._folder.is_dir():
                    # Told here, at the start: no record is to blame.
                    raise NotADirectoryError(ENOTDIR, "Not a folder", str(self._folder))
                return
            for file in list(self._pending.iterdir()):
                if names.is_leftover(file.name) and file.name not in kept:
                    file.unlink(missing_ok=True)


class _LocalPart:
    def __init__(self, folder: str, path: Path) -> None:
        self._folder = folder
        self._path = path
        self._length = 0
        with os_errors_translated(path):
            self._file = path.open("xb", buffering=0)

    def write(self, data: bytes) -> None:
        rest = memoryview(data)
        with os_errors_translated(self._path):
            while rest:  # without a buffer a write may be a short one
                rest = rest[self._file.write(rest) :]
        self._length += len(data)

    def prepare(self) -> PendingFile:
        with os_errors_translated(self._path):
            os.fsync(self._file.fileno())
            self._file.close()
            _sync(self._path.parent)
        return PendingFile(self._folder, self._path.name, self._length)

    def discard(self) -> None:
        self._file.close()
        with os_errors_translated(self._path):
            self._path.unlink(missing_ok=True)


def _make_folders(folder: Path) -> None:
    """Make a folder and those above it, durably."""
    missing = []
    while not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
    for one in reversed(missing):
        one.mkdir(exist_ok=True)
        _sync(one.parent)


def _sync(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
