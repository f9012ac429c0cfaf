"""Entries of the job's log: the only fence, and the whole small truth about a job.

Every decision that must not be taken twice competes for the same next number. Each entry repeats
everything, so a recovery reads the newest and nothing else. What to do about an entry is decided in
`penstock.checkpoint.log`; this file only says what one is, and its bytes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from penstock.core import checksums
from penstock.core.errors import Corrupt
from penstock.core.ids import AttemptNumber, CheckpointId

LOG_FORMAT = "penstock-log/2"
_WITHOUT_CHECKSUM = "penstock-log/1"
"""Still read, never written."""


class EntryKind(StrEnum):
    """What happened; the string is on disk: never change one. `dropped`: a savepoint is deleted."""

    OPENED = "opened"
    COMPLETED = "completed"
    DROPPED = "dropped"
    RELEASED = "released"
    ENDED = "ended"
    SETTINGS = "settings"


class EndKind(StrEnum):
    """Why a run ended; the string is on disk: never change one."""

    FINISHED = "finished"
    STOPPED = "stopped"
    CANCELLED = "cancelled"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class SnapshotRef:
    """A snapshot by number and path of its `_metadata`; `digest` is the SHA-256 of that object.

    The path is relative to the checkpoints' root, or absolute for what lies elsewhere.
    """

    id: CheckpointId
    path: str
    digest: str


@dataclass(frozen=True, slots=True)
class Attempt:
    """One execution of the job.

    `placement[i]` is the worker that runs subtask i of the operators of full parallelism.
    `restored_from` is None for a job that starts empty. No checkpoint below `next_checkpoint` will
    be taken by it.
    """

    number: AttemptNumber
    revision: str
    parallelism: int
    max_parallelism: int
    placement: tuple[int, ...]
    next_checkpoint: CheckpointId
    restored_from: SnapshotRef | None = None


@dataclass(frozen=True, slots=True)
class Hold:
    """Sinks pre-commit but do not commit above `after` until `stable` checkpoints completed."""

    from_: SnapshotRef
    after: CheckpointId
    stable: int


@dataclass(frozen=True, slots=True)
class End:
    """How a run ended; `committed` once no sink has anything left to commit.

    `savepoint` is the folder that gets `go_on_from`'s manifest as its own after this entry.
    `deletes`: once all is committed no checkpoint is kept, as a cancel was told.
    """

    kind: EndKind
    go_on_from: SnapshotRef | None = None
    committed: bool = False
    savepoint: str | None = None
    reason: str | None = None
    deletes: bool = False


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry; `nonce` is its writer's, `job_nonce` that of the log's first entry."""

    seq: int
    nonce: str
    at_ms: int
    kind: EntryKind
    owner: str
    job_nonce: str
    attempt: Attempt
    request_id: str | None = None
    retained: tuple[SnapshotRef, ...] = ()
    dropping: tuple[SnapshotRef, ...] = ()
    hold: Hold | None = None
    end: End | None = None
    settings: dict[str, Any] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """The content of the entry's object."""
        body: dict[str, Any] = {
            "format": LOG_FORMAT,
            "seq": self.seq,
            "nonce": self.nonce,
            "atMs": self.at_ms,
            "kind": self.kind.value,
            "owner": self.owner,
            "jobNonce": self.job_nonce,
            "requestId": self.request_id,
            "attempt": {
                "number": self.attempt.number,
                "revision": self.attempt.revision,
                "parallelism": self.attempt.parallelism,
                "maxParallelism": self.attempt.max_parallelism,
                "placement": list(self.attempt.placement),
                "nextCheckpoint": self.attempt.next_checkpoint,
                "restoredFrom": _ref_json(self.attempt.restored_from),
            },
            "retained": [_ref_json(r) for r in self.retained],
            "dropping": [_ref_json(r) for r in self.dropping],
            "hold": None
            if self.hold is None
            else {
                "from": _ref_json(self.hold.from_),
                "after": self.hold.after,
                "stable": self.hold.stable,
            },
            "end": None
            if self.end is None
            else {
                "kind": self.end.kind.value,
                "goOnFrom": _ref_json(self.end.go_on_from),
                "committed": self.end.committed,
                "savepoint": self.end.savepoint,
                "reason": self.end.reason,
                **({"deletes": True} if self.end.deletes else {}),
            },
            "settings": self.settings,
        }
        body["sha256"] = checksums.of_document(body)
        return json.dumps(body, indent=1, ensure_ascii=False).encode()

    @classmethod
    def from_bytes(cls, data: bytes, *, path: str) -> Entry:
        """Read an entry; `path` is for the error only.

        Raises:
            Corrupt: not an entry, of a later format, or damaged.
        """
        try:
            body = json.loads(data)
            if body["format"] not in (LOG_FORMAT, _WITHOUT_CHECKSUM):
                raise Corrupt(
                    f"the job's log has format {body['format']}, this Penstock reads {LOG_FORMAT}",
                    where=path,
                    fix="run the job with the version of Penstock that wrote it, or a later one",
                )
            if not _is_whole(body):
                raise Corrupt(
                    "an entry of the job's log is damaged: its checksum does not fit its content",
                    where=path,
                    fix=_INSTEAD,
                )
            attempt, hold, end = body["attempt"], body["hold"], body["end"]
            return cls(
                seq=body["seq"],
                nonce=body["nonce"],
                at_ms=body["atMs"],
                kind=EntryKind(body["kind"]),
                owner=body["owner"],
                job_nonce=body["jobNonce"],
                request_id=body["requestId"],
                attempt=Attempt(
                    number=AttemptNumber(attempt["number"]),
                    revision=attempt["revision"],
                    parallelism=attempt["parallelism"],
                    max_parallelism=attempt["maxParallelism"],
                    placement=tuple(attempt["placement"]),
                    next_checkpoint=CheckpointId(attempt["nextCheckpoint"]),
                    restored_from=_ref(attempt["restoredFrom"]),
                ),
                retained=tuple(_some_ref(r) for r in body["retained"]),
                dropping=tuple(_some_ref(r) for r in body["dropping"]),
                hold=None
                if hold is None
                else Hold(_some_ref(hold["from"]), CheckpointId(hold["after"]), hold["stable"]),
                end=None
                if end is None
                else End(
                    kind=EndKind(end["kind"]),
                    go_on_from=_ref(end["goOnFrom"]),
                    committed=end["committed"],
                    savepoint=end["savepoint"],
                    reason=end["reason"],
                    deletes=end.get("deletes", False),
                ),
                settings=body["settings"],
            )
        except (ValueError, KeyError, TypeError, AttributeError) as e:
            raise Corrupt(
                "an entry of the job's log cannot be read: it is not what Penstock writes",
                where=path,
                fix=_INSTEAD,
            ) from e


_INSTEAD = (
    "nothing was changed; put the object back from a backup, or go on from a savepoint in another "
    "storage: penstock run … --storage URL --restore SAVEPOINT"
)


def _is_whole(body: dict[str, Any]) -> bool:
    """Whether an entry says what was written; a former one has no checksum to tell it by."""
    stated = body.pop("sha256", None)
    if body["format"] == _WITHOUT_CHECKSUM:
        return stated is None
    return bool(stated == checksums.of_document(body))


def _ref_json(ref: SnapshotRef | None) -> dict[str, Any] | None:
    return None if ref is None else {"id": ref.id, "path": ref.path, "digest": ref.digest}


def _ref(body: dict[str, Any] | None) -> SnapshotRef | None:
    return None if body is None else _some_ref(body)


def _some_ref(body: dict[str, Any]) -> SnapshotRef:
    return SnapshotRef(CheckpointId(body["id"]), body["path"], body["digest"])
