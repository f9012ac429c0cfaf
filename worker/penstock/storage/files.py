"""What the adapters share about files on this machine: copying with a checksum, and refusals."""

from __future__ import annotations

import errno
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from penstock.core.errors import Denied, PenstockError, Rejected, Retryable
from penstock.storage.store import Stored

BLOCK_BYTES = 1 << 20

_FULL = {errno.ENOSPC, errno.EDQUOT}
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}
_WRONG_NAME = {
    errno.EEXIST,
    errno.EISDIR,
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.ENOTDIR,
    errno.EXDEV,  # a folder below the root is a mount of its own
}


def copy(source: BinaryIO, target: BinaryIO) -> Stored:
    """Copy the rest of one stream into another, block by block, with the checksum in passing."""
    length, crc32 = 0, 0
    while block := source.read(BLOCK_BYTES):
        target.write(block)
        length += len(block)
        crc32 = zlib.crc32(block, crc32)
    return Stored(length, crc32)


@contextmanager
def new_file(path: Path, *, durable: bool = True) -> Iterator[BinaryIO]:
    """A file open for writing: whole (and durable) when the block ends well, gone when it fails.

    What can be fetched again need not be durable: waiting for the disk takes most of the time.
    """
    try:
        with path.open("wb") as file:
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
    except BaseException:
        path.unlink(missing_ok=True)
        raise


@contextmanager
def os_errors_translated(path: Path) -> Iterator[None]:
    """Inside, an OSError becomes Rejected or Retryable; `path` is told when the error names none."""
    try:
        yield
    except OSError as e:
        raise _translated(e, str(e.filename or path)) from e


def _translated(e: OSError, where: str) -> PenstockError:
    reason = e.strerror or str(e)
    if e.errno in _FULL:
        return Denied(
            "the disk is full",
            where=where,
            fix="free some space, or choose storage on another disk",
        )
    if e.errno in _FORBIDDEN:
        return Denied(
            f"not allowed to use this file or folder: {reason}",
            where=where,
            fix=f"let user {os.getuid()} read and write it, or choose another folder",
        )
    if e.errno in _WRONG_NAME:
        return Rejected(
            f"the name cannot be used here: {reason}",
            where=where,
            fix="move what stands in the way, or choose another folder",
        )
    return Retryable(
        f"the file system did not do it: {reason}",
        where=where,
        fix="look at the disk or mount; it is tried again",
    )
