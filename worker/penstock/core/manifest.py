"""The manifest: the list of all handles of one snapshot, the object `_metadata`.

Readable JSON with its format's name, and a checksum over the rest. A manifest alone means nothing
for a checkpoint: it is complete when an entry of the job's log retains it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from penstock.core import checksums
from penstock.core.descriptors import StateDescriptor
from penstock.core.errors import Corrupt
from penstock.core.handles import FileHandle, SubtaskSnapshot
from penstock.core.ids import AttemptNumber, CheckpointId, JobId, OperatorId

MANIFEST_FORMAT = "penstock-manifest/1"


class SnapshotKind(StrEnum):
    """Who owns a snapshot; the string is in every manifest: never change one."""

    CHECKPOINT = "checkpoint"
    SAVEPOINT = "savepoint"


@dataclass(frozen=True, slots=True)
class OperatorSnapshot:
    """One operator's part of a snapshot; `subtasks[i]` is that of subtask i.

    `key_schema` is the type of its keys: declared, else observed; None before the first key.
    """

    parallelism: int
    states: tuple[StateDescriptor, ...] = ()
    key_schema: str | None = None
    subtasks: tuple[SubtaskSnapshot, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As it stands in a manifest."""
        body: dict[str, Any] = {
            "parallelism": self.parallelism,
            "states": [s.to_json() for s in self.states],
            "subtasks": [s.to_json() for s in self.subtasks],
        }
        if self.key_schema is not None:
            body["keySchema"] = self.key_schema
        return body

    @classmethod
    def from_json(cls, body: dict[str, Any]) -> OperatorSnapshot:
        """The inverse of to_json()."""
        return cls(
            parallelism=body["parallelism"],
            states=tuple(StateDescriptor.from_json(s) for s in body["states"]),
            key_schema=body.get("keySchema"),
            subtasks=tuple(SubtaskSnapshot.from_json(s) for s in body["subtasks"]),
        )


@dataclass(frozen=True, slots=True)
class Manifest:
    """Everything needed to restore a job from one snapshot."""

    kind: SnapshotKind
    job: JobId
    attempt: AttemptNumber
    checkpoint: CheckpointId
    at_ms: int
    parallelism: int
    max_parallelism: int
    hash_name: str
    key_format: str
    row_format: str
    operators: dict[OperatorId, OperatorSnapshot] = field(default_factory=dict)
    request_id: str | None = None
    duration_ms: int = 0
    parent: str | None = None
    """What the attempt that took it was restored from."""

    @property
    def size_bytes(self) -> int:
        """Bytes of state named here, those shared with other checkpoints too."""
        return sum(f.length for f in self.files()) + sum(
            len(s.keyed.inline or b"") for s in self.subtasks() if s.keyed
        )

    def subtasks(self) -> Iterator[SubtaskSnapshot]:
        """Every subtask's part, operator by operator."""
        for operator in self.operators.values():
            yield from operator.subtasks

    def files(self) -> Iterator[FileHandle]:
        """Every file named, in order; a shared one once per mention."""
        for subtask in self.subtasks():
            if subtask.keyed is not None:
                yield from subtask.keyed.files

    def to_bytes(self) -> bytes:
        """The content of `_metadata`."""
        body: dict[str, Any] = {
            "format": MANIFEST_FORMAT,
            "kind": self.kind.value,
            "job": self.job,
            "attempt": self.attempt,
            "checkpoint": self.checkpoint,
            "requestId": self.request_id,
            "atMs": self.at_ms,
            "durationMs": self.duration_ms,
            "parent": self.parent,
            "parallelism": self.parallelism,
            "maxParallelism": self.max_parallelism,
            "hash": self.hash_name,
            "keyFormat": self.key_format,
            "rowFormat": self.row_format,
            "operators": {uid: op.to_json() for uid, op in self.operators.items()},
        }
        body["sha256"] = checksums.of_document(body)
        return json.dumps(body, indent=1, ensure_ascii=False).encode()

    @classmethod
    def from_bytes(cls, data: bytes, *, path: str) -> Manifest:
        """Read `_metadata`; `path` is for the error only.

        Raises:
            Corrupt: not a manifest, of a later format, or damaged.
        """
        try:
            body = json.loads(data)
            if body["format"] != MANIFEST_FORMAT:
                raise Corrupt(
                    f"the snapshot has format {body['format']}, this Penstock reads {MANIFEST_FORMAT}",
                    where=path,
                    fix="read it with the version of Penstock that wrote it, or a later one",
                )
            stated = body.pop("sha256")
            if stated != checksums.of_document(body):
                raise Corrupt(
                    "the snapshot's manifest is damaged: its checksum does not fit its content",
                    where=path,
                    fix="restore an older one: penstock snapshots lists them",
                )
            return cls(
                kind=SnapshotKind(body["kind"]),
                job=JobId(body["job"]),
                attempt=AttemptNumber(body["attempt"]),
                checkpoint=CheckpointId(body["checkpoint"]),
                at_ms=body["atMs"],
                parallelism=body["parallelism"],
                max_parallelism=body["maxParallelism"],
                hash_name=body["hash"],
                key_format=body["keyFormat"],
                row_format=body["rowFormat"],
                operators={
                    OperatorId(uid): OperatorSnapshot.from_json(op)
                    for uid, op in body["operators"].items()
                },
                request_id=body["requestId"],
                duration_ms=body["durationMs"],
                parent=body["parent"],
            )
        except (ValueError, KeyError, TypeError, AttributeError) as e:
            raise Corrupt(
                "the snapshot's manifest cannot be read: it is not what Penstock writes",
                where=path,
                fix="restore an older one: penstock snapshots lists them",
            ) from e
