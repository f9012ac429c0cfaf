"""The port between a sink of files and where they come to lie, and how the files are named.

A part is written where readers do not see it, prepared (durable, still not seen) and committed.
Adapters: local_parts, s3_parts.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Protocol

from penstock.core.errors import Corrupt

SCHEMA = "PendingFile v1"

_NAME = re.compile(r"part-(\d{5,})-(\d{5,})-(\d{6,})-([0-9a-f]{8})-[0-9a-f]{8}(\.[a-z.]+)?")


@dataclass(frozen=True, slots=True)
class PartNames:
    """Names of the files of one subtask of one attempt; they sort by time and are never used twice.

    `part-<subtask>-<attempt>-<counter>-<sink>-<writer>.<suffix>`; the last two are hashes: of the job
    and the sink's uid, and of all that makes this writer unlike any other.
    """

    subtask: int
    attempt: int
    sink: str
    writer: str
    suffix: str

    @classmethod
    def of(cls, transaction: str, *, subtask: int, attempt: int, suffix: str) -> PartNames:
        """Made from any transaction's name, `<job>/<uid>/…`, which is unique for ever."""
        job, uid, _ = transaction.split("/", 2)
        return cls(subtask, attempt, _hash(f"{job}/{uid}"), _hash(transaction), suffix)

    def name(self, counter: int) -> str:
        """The name of this writer's file number `counter`."""
        return (
            f"part-{self.subtask:05}-{self.attempt:05}-{counter:06}"
            f"-{self.sink}-{self.writer}{self.suffix}"
        )

    def is_leftover(self, name: str) -> bool:
        """Whether it is a file of this sink, any subtask, from an attempt before this one."""
        found = _NAME.fullmatch(name)
        return found is not None and found[4] == self.sink and int(found[2]) < self.attempt


@dataclass(frozen=True, slots=True)
class PendingFile:
    """A prepared part: all that any subtask of any later attempt needs to commit it.

    `folder` is where it will be seen, as the author wrote it. `upload` and `etags` are those of a
    multipart upload.
    """

    folder: str
    name: str
    length: int
    upload: str = ""
    etags: tuple[str, ...] = ()

    def encode(self) -> bytes:
        """As readable JSON."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def decode(cls, data: bytes) -> PendingFile:
        """The inverse of encode."""
        try:
            fields = json.loads(data)
            return cls(**{**fields, "etags": tuple(fields["etags"])})
        except (ValueError, TypeError, KeyError) as e:
            raise Corrupt(f"not a pending file: {data!r}", where="state of a sink") from e


class Part(Protocol):
    """A file being written."""

    def write(self, data: bytes) -> None:
        """Add bytes."""
        ...

    def prepare(self) -> PendingFile:
        """Make it durable; nothing can be added any more."""
        ...

    def discard(self) -> None:
        """Throw it away; called instead of prepare."""
        ...


class Target(Protocol):
    """A folder where parts come to lie."""

    def begin(self, name: str) -> Part:
        """A new part that nobody sees yet."""
        ...

    def commit(self, pending: PendingFile) -> None:
        """Let readers see a prepared part; doing it again changes nothing.

        Raises:
            Corrupt: it is neither pending nor committed.
        """
        ...

    def remove_leftovers(self, names: PartNames, keep: Collection[PendingFile]) -> None:
        """Remove parts of older attempts that are not committed and not to be kept."""
        ...


def vanished(where: str) -> Corrupt:
    """The error for a part that is neither pending nor committed."""
    return Corrupt(
        "a file that was prepared is neither pending nor committed",
        where=where,
        fix="if a reader took it away after it was committed, put an empty file of this name there; "
        "else its records are lost: put the empty file there, then restore an older snapshot",
    )


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]
