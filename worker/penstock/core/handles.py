"""Handles: where in the object store each piece of a snapshot lies.

A shared file may be used by several checkpoints and is never changed; a private one belongs to one.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from penstock.core.keygroups import KeyGroupRange


class KeyedFormat(StrEnum):
    """How keyed state is stored; the string is in every manifest: never change one."""

    CANONICAL = "canonical/1"
    ROCKSDB = "rocksdb/1"


@dataclass(frozen=True, slots=True)
class FileHandle:
    """One file. `path` is relative to the job's folder (in a savepoint: to its own), or absolute.

    `local_name` is what a RocksDB directory calls it. `crc32` is over the whole content.
    """

    path: str
    length: int
    crc32: int
    shared: bool = False
    local_name: str | None = None

    def to_json(self) -> dict[str, Any]:
        """As it stands in a manifest."""
        body: dict[str, Any] = {
            "path": self.path,
            "length": self.length,
            "crc32": f"{self.crc32:08x}",
        }
        if self.shared:
            body["shared"] = True
        if self.local_name is not None:
            body["localName"] = self.local_name
        return body

    @classmethod
    def from_json(cls, body: dict[str, Any]) -> FileHandle:
        """The inverse of to_json()."""
        return cls(
            path=body["path"],
            length=body["length"],
            crc32=int(body["crc32"], 16),
            shared=body.get("shared", False),
            local_name=body.get("localName"),
        )


@dataclass(frozen=True, slots=True)
class KeyedHandle:
    """The keyed state of one subtask of one operator.

    Canonical: one stream, in `inline` or as the only file; `offsets[i]` is where the rows of group
    `groups.start + i` begin in it. RocksDB: the files of one database directory; no offsets.
    """

    format: KeyedFormat
    groups: KeyGroupRange
    files: tuple[FileHandle, ...] = ()
    inline: bytes | None = None
    offsets: tuple[int, ...] = ()

    @property
    def size_bytes(self) -> int:
        """Bytes of state, wherever they lie."""
        return sum(f.length for f in self.files) + len(self.inline or b"")

    def to_json(self) -> dict[str, Any]:
        """As it stands in a manifest."""
        body: dict[str, Any] = {
            "format": self.format.value,
            "groups": [self.groups.start, self.groups.stop],
            "files": [f.to_json() for f in self.files],
        }
        if self.inline is not None:
            body["inline"] = base64.b64encode(self.inline).decode()
        if self.offsets:
            body["offsets"] = list(self.offsets)
        return body

    @classmethod
    def from_json(cls, body: dict[str, Any]) -> KeyedHandle:
        """The inverse of to_json()."""
        inline = body.get("inline")
        return cls(
            format=KeyedFormat(body["format"]),
            groups=KeyGroupRange(*body["groups"]),
            files=tuple(FileHandle.from_json(f) for f in body["files"]),
            inline=None if inline is None else base64.b64decode(inline),
            offsets=tuple(body.get("offsets", ())),
        )


@dataclass(frozen=True, slots=True)
class SubtaskSnapshot:
    """What one subtask of one operator gave to a snapshot.

    `lists` is its operator state: each list's elements as encoded bytes, in order, by state name.
    """

    keyed: KeyedHandle | None = None
    lists: dict[str, tuple[bytes, ...]] = field(default_factory=dict)
    watermark_ms: int | None = None

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing in it to restore."""
        return self.keyed is None and not self.lists and self.watermark_ms is None

    def to_json(self) -> dict[str, Any]:
        """As it stands in a manifest."""
        body: dict[str, Any] = {}
        if self.keyed is not None:
            body["keyed"] = self.keyed.to_json()
        if self.lists:
            body["lists"] = {
                name: [base64.b64encode(item).decode() for item in items]
                for name, items in self.lists.items()
            }
        if self.watermark_ms is not None:
            body["watermarkMs"] = self.watermark_ms
        return body

    @classmethod
    def from_json(cls, body: dict[str, Any]) -> SubtaskSnapshot:
        """The inverse of to_json()."""
        keyed = body.get("keyed")
        return cls(
            keyed=None if keyed is None else KeyedHandle.from_json(keyed),
            lists={
                name: tuple(base64.b64decode(item) for item in items)
                for name, items in body.get("lists", {}).items()
            },
            watermark_ms=body.get("watermarkMs"),
        )
