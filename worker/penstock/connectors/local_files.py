"""Files on this machine, found by a pattern."""

from __future__ import annotations

import glob
import os
import stat
from collections.abc import Iterable, Iterator
from itertools import takewhile
from pathlib import Path
from typing import IO

from penstock.connectors.places import Found, Stream
from penstock.core.errors import Rejected
from penstock.storage.files import os_errors_translated

_HIDDEN = (".", "_")


class LocalFiles:
    """The files that a pattern below `folder` matches.

    A folder stands for all files below it, at any depth, but those whose name, or whose folder's
    name, begins with a dot or an underscore.
    """

    def __init__(self, pattern: str, folder: Path) -> None:
        self._pattern = str(Path(pattern).expanduser()) if pattern.startswith("~") else pattern
        self._folder = folder

    def __str__(self) -> str:
        if Path(self._pattern).is_absolute():
            return self._pattern
        return f"{self._pattern} in {self._folder.absolute()}"

    def find(self) -> list[Found]:
        """See Place. Paths are as the pattern gives them: relative ones stay relative."""
        with os_errors_translated(self._folder):
            found = {path: self._length(path) for path in self._paths()}
        return [Found(path, length) for path, length in sorted(found.items()) if length is not None]

    def open(self, file: Found, offset: int) -> Stream:
        """See Place."""
        path = self._folder / file.path
        with os_errors_translated(path):
            try:
                opened = path.open("rb", buffering=0)  # blocks are big enough as they are
                length = os.fstat(opened.fileno()).st_size
            except (FileNotFoundError, NotADirectoryError) as e:
                raise Rejected(
                    "the file is gone, but has not been read to its end",
                    where=str(path),
                    fix="put it back as it was, or start without the snapshot",
                ) from e
            if length < file.length:
                opened.close()
                raise Rejected(
                    f"the file has {length:,} bytes, but had {file.length:,} when it was found",
                    where=str(path),
                    fix="put the former content back; files that are read must not change",
                )
            opened.seek(offset)
        return _Bounded(opened, path, file.length - offset)

    def _paths(self) -> Iterator[str]:
        # A name that is there is taken as it is, also one with a bracket in it.
        exists = (self._folder / self._pattern).exists()
        matches = (
            [self._pattern]
            if exists
            else self._without_circles(
                glob.iglob(self._pattern, root_dir=self._folder, recursive=True)  # noqa: PTH207 – it leaves hidden files out
            )
        )
        for match in matches:
            if (self._folder / match).is_dir():
                yield from _below(self._folder, match)
            else:
                yield match

    def _without_circles(self, matches: Iterable[str]) -> Iterator[str]:
        """`**` follows links, also one that leads back to a folder above it, time and again."""
        fixed = len(
            list(takewhile(lambda part: not glob.has_magic(part), Path(self._pattern).parts))
        )
        goes_back: dict[Path, bool] = {}
        for match in matches:
            path = Path(match)
            folder = path if (self._folder / path).is_dir() else path.parent
            if folder not in goes_back:
                way = [f for f in (folder, *folder.parents) if len(f.parts) >= fixed]
                goes_back[folder] = len({(self._folder / f).resolve() for f in way}) < len(way)
            if not goes_back[folder]:
                yield match

    def _length(self, path: str) -> int | None:
        try:
            about = (self._folder / path).stat()
        except FileNotFoundError:
            return None  # renamed or removed since it was listed
        if not stat.S_ISREG(about.st_mode):
            raise Rejected(
                "no regular file: a pipe or device cannot be read again",
                where=str(self._folder / path),
                fix="write it to a file first, or read it with sources.Socket",
            )
        return about.st_size


class _Bounded:
    """A file up to the length it had when it was found: read again it gives the same bytes."""

    def __init__(self, file: IO[bytes], path: Path, length: int) -> None:
        self._file = file
        self._path = path
        self._remaining = length

    def read(self, size: int, /) -> bytes:
        with os_errors_translated(self._path):
            block = self._file.read(min(size, max(0, self._remaining)))
        if not block and self._remaining > 0:
            raise Rejected(
                "the file became shorter while it was read",
                where=str(self._path),
                fix="put the former content back; files that are read must not change",
            )
        self._remaining -= len(block)
        return block

    def close(self) -> None:
        self._file.close()


def _below(root: Path, folder: str) -> Iterator[str]:
    base = root / folder
    for at, folders, names in os.walk(base, onerror=_raise):
        folders[:] = [name for name in folders if not name.startswith(_HIDDEN)]
        for name in names:
            if not name.startswith(_HIDDEN):
                inside = Path(at).relative_to(base) / name
                yield str(Path(folder) / inside)


def _raise(error: OSError) -> None:
    """A folder that cannot be listed is no empty folder."""
    raise error
