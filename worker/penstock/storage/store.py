"""The port of checkpoint storage. Adapters: memory, local (`file://`), s3 (the only door to boto3).

Synchronous and safe to call from several threads. Paths are relative to the store's root, with
forward slashes, without a leading one. Every adapter passes tests/contract/test_store.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from penstock.core.errors import Corrupt, Rejected


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One listed object; `modified_ms` is the store's clock, not ours."""

    path: str
    length: int
    modified_ms: int


@dataclass(frozen=True, slots=True)
class Stored:
    """What an upload wrote: bytes and the CRC-32 of the content."""

    length: int
    crc32: int


def check_path(path: str) -> None:
    """Refuse what is no object's path: absolute, or with an empty, `.` or `..` part.

    Paths also come out of manifests, and none may lead out of the root.
    """
    if not {"", ".", ".."}.isdisjoint(path.split("/")):
        raise Rejected(f"not an object's path: {path!r}", where="storage")


def missing(where: str) -> Corrupt:
    """An object that a manifest or log entry names is not there."""
    return Corrupt(
        "an object that should be there is missing",
        where=where,
        fix="put it back, or restore an older snapshot: penstock snapshots lists them",
    )


class Store(Protocol):
    """Objects by path.

    Every method may raise:
        Retryable: the store did not answer, or answered that it is busy; the outcome of a write is
            then unknown.
        Rejected: it cannot work as it is set up (no such bucket, credentials refused, not
            writable, disk full), in a sentence that says what to do.
    """

    @property
    def url(self) -> str:
        """Of the root, as a person would write it, without a slash at the end."""
        ...

    def put(self, path: str, data: bytes) -> None:
        """Create or replace an object, atomically and durably."""
        ...

    def put_if_absent(self, path: str, data: bytes) -> bool:
        """Create an object; False when there is one already. Atomic, durable.

        Of several callers one at most is told True. False may mean the caller's own write, when its
        answer was lost and it was sent again beneath: read back and compare before concluding that
        another was first.
        """
        ...

    def get(self, path: str) -> bytes | None:
        """The whole object; None when there is none."""
        ...

    def length(self, path: str) -> int | None:
        """The object's length in bytes; None when there is none."""
        ...

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """All objects whose path begins with prefix, sorted by path; sees every earlier write.

        The prefix is of characters, not of folders: `chk-1` finds `chk-10/…` too. Errors may come
        while it is iterated.
        """
        ...

    def delete(self, paths: Iterable[str]) -> None:
        """Delete objects; one that is not there is no error.

        The first is gone before any other goes: it may be what names them.
        """
        ...

    def upload(self, path: str, file: Path) -> Stored:
        """Store a file's content under a name never used before, with its checksum made in passing."""
        ...

    def download(self, path: str, file: Path) -> Stored:
        """Fetch an object into a new file, which a power cut may take away.

        Raises:
            Corrupt: there is no such object.
        """
        ...
