"""The port between a source of files and where the files lie. Adapters: local_files, s3_objects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Found:
    """A file that a pattern matches: its name there, its length in bytes, and what tells it from
    another that would be put in its place (empty where nothing does)."""

    path: str
    length: int
    version: str = ""


class Stream(Protocol):
    """The bytes of a file from some point on."""

    def read(self, size: int, /) -> bytes | None:
        """Up to `size` bytes; empty at the end; None while they are still on their way."""
        ...

    def close(self) -> None:
        """Give up the file or connection."""
        ...


class Place(Protocol):
    """Where the files of one pattern lie."""

    def find(self) -> list[Found]:
        """The files that match now, sorted by path."""
        ...

    def open(self, file: Found, offset: int) -> Stream:
        """The first `file.length` bytes of that file, without the first `offset`.

        Raises:
            Rejected: it is gone, or another file is in its place.
        """
        ...

    def __str__(self) -> str:
        """The pattern and where it is looked for, for messages."""
        ...
