"""Checkpoint storage in a folder (`file://`): of a laptop, or a file system mounted everywhere.

An object is written under a temporary name, made durable, and only then given its own: by a hard
link that refuses to replace (`put_if_absent`), or by a rename that replaces. So a reader sees all
of it or nothing. Temporary names live in one folder below the root, which no listing shows.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from penstock.core.errors import Rejected, Retryable
from penstock.storage.files import copy, new_file, os_errors_translated
from penstock.storage.store import ObjectInfo, Stored, check_path, missing

_TEMPORARY = ".penstock-tmp"
_ABANDONED_AFTER_NS = 24 * 3600 * 10**9
_PLACING_TRIES = 100
_NO_HARD_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


class LocalStore:
    """A `Store` in a folder, which the first write makes."""

    def __init__(self, root: Path) -> None:
        self._root = root.expanduser().absolute()
        self._swept = False

    @property
    def url(self) -> str:
        """`file://` and the absolute path of the folder."""
        return f"file://{self._root}"

    def put(self, path: str, data: bytes) -> None:
        """See Store."""
        self._write(path, io.BytesIO(data), os.replace)

    def put_if_absent(self, path: str, data: bytes) -> bool:
        """See Store."""
        target = self._target(path)
        with os_errors_translated(target):
            if not target.exists():
                with contextlib.suppress(_TakenError):
                    self._write(path, io.BytesIO(data), _link)
                    return True
            # Who is refused goes by what stands there: that too must survive a power cut.
            self._sync(target.parent)
        return False

    def get(self, path: str) -> bytes | None:
        """See Store."""
        target = self._target(path)
        with os_errors_translated(target):
            try:
                return target.read_bytes()
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                return None

    def length(self, path: str) -> int | None:
        """See Store."""
        target = self._target(path)
        with os_errors_translated(target):
            return target.stat().st_size if target.is_file() else None

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """See Store."""
        with os_errors_translated(self._root):
            return iter(sorted(_files(self._root, "", prefix), key=lambda found: found.path))

    def delete(self, paths: Iterable[str]) -> None:
        """See Store. Folders left empty go too."""
        left = set()
        for path in paths:
            target = self._target(path)
            with os_errors_translated(target):
                with contextlib.suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError):
                    target.unlink()
                left.add(self._prune(target.parent))
        for folder in left:
            with os_errors_translated(folder):
                self._sync(folder)

    def upload(self, path: str, file: Path) -> Stored:
        """See Store. A copy, not a link: the original may lie on a disk that dies with the pod."""
        with os_errors_translated(file), file.open("rb") as source:
            return self._write(path, source, os.replace)

    def download(self, path: str, file: Path) -> Stored:
        """See Store."""
        source = self._target(path)
        with os_errors_translated(file):
            try:
                opened = source.open("rb")
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as e:
                raise missing(str(source)) from e
            with opened, new_file(file, durable=False) as target:
                return copy(opened, target)

    def _target(self, path: str) -> Path:
        check_path(path)
        if _TEMPORARY in path.split("/"):
            raise Rejected(f"{_TEMPORARY} is taken for unfinished files", where=path)
        return self._root / path

    def _write(self, path: str, content: BinaryIO, place: Callable[[Path, Path], None]) -> Stored:
        target = self._target(path)
        with os_errors_translated(target):
            temporary = self._temporary_folder() / uuid.uuid4().hex
            try:
                with new_file(temporary) as file:
                    stored = copy(content, file)
                self._place(temporary, target, place)
            finally:
                temporary.unlink(missing_ok=True)
        return stored

    def _place(self, temporary: Path, target: Path, place: Callable[[Path, Path], None]) -> None:
        for _ in range(_PLACING_TRIES):
            try:
                _make_folders(target.parent)
                place(temporary, target)
            except FileNotFoundError:  # a delete pruned the folder between the two calls
                continue
            self._sync(target.parent)
            return
        raise Retryable("the folder vanishes again and again", where=str(target.parent))

    def _temporary_folder(self) -> Path:
        folder = self._root / _TEMPORARY
        _make_folders(folder)
        if not self._swept:
            self._swept = True
            _remove_abandoned(folder)
        return folder

    def _prune(self, folder: Path) -> Path:
        """Remove empty folders upwards; the first one that stays, the root at the latest."""
        while folder != self._root:
            try:
                folder.rmdir()
            except FileNotFoundError:
                pass
            except OSError:
                break  # not empty, or not ours to remove
            folder = folder.parent
        return folder

    def _sync(self, folder: Path) -> None:
        """Make the names in a folder durable, and those of the folders on the way from the root."""
        while True:
            with contextlib.suppress(FileNotFoundError):
                descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
                try:
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)
            if folder == self._root:
                return
            folder = folder.parent


class _TakenError(Exception):
    """The name exists already."""


def _link(temporary: Path, target: Path) -> None:
    try:
        os.link(temporary, target)
    except FileExistsError as e:
        raise _TakenError from e
    except OSError as e:
        if e.errno in _NO_HARD_LINKS:
            raise Rejected(
                "this file system has no hard links, so no object can be created only if absent",
                where=str(target),
                fix="choose a folder on another file system, or an s3:// URL",
            ) from e
        raise


def _make_folders(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as e:
        if not os.path.lexists(folder):  # a delete pruned it after it was found to be there
            raise FileNotFoundError(errno.ENOENT, "the folder vanished", str(folder)) from e
        raise NotADirectoryError(errno.ENOTDIR, "a file is in the way", str(folder)) from e


def _files(folder: Path, name: str, prefix: str) -> Iterator[ObjectInfo]:
    """Objects under a folder whose path, beginning with `name`, begins with prefix; unsorted."""
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            path = name + entry.name
            if entry.is_dir():
                inside = path + "/"
                may_match = inside.startswith(prefix) or prefix.startswith(inside)
                if may_match and entry.name != _TEMPORARY:
                    yield from _files(folder / entry.name, inside, prefix)
            elif path.startswith(prefix):
                with contextlib.suppress(FileNotFoundError):
                    stat = entry.stat()
                    yield ObjectInfo(path, stat.st_size, stat.st_mtime_ns // 10**6)


def _remove_abandoned(folder: Path) -> None:
    """Remove what killed processes left: untouched for a day, by the file system's own clock."""
    probe = folder / uuid.uuid4().hex
    probe.touch()
    now_ns = probe.stat().st_mtime_ns
    probe.unlink()
    for file in folder.iterdir():
        with contextlib.suppress(OSError):
            if now_ns - file.stat().st_mtime_ns > _ABANDONED_AFTER_NS:
                file.unlink()
