"""What the coordinator is told: facts that happened, each with the attempt it belongs to.

A fact may come late, twice, or about something long given up; the coordinator says what it means.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeAlias

from penstock.checkpoint.origin import Origin, RestoreFrom, RestoreRules
from penstock.core.failure import Failure
from penstock.core.ids import AttemptNumber, CheckpointId, OperatorId, SubtaskId, WorkerId
from penstock.core.log import Entry, SnapshotRef
from penstock.core.manifest import Manifest
from penstock.core.snapshots import OperatorPart


@dataclass(frozen=True, slots=True)
class Tick:
    """Time passed; sent at least every 100 ms. `now_ms` never goes back."""

    now_ms: int


@dataclass(frozen=True, slots=True)
class LogRead:
    """What the store knows of the job.

    `highest_checkpoint` is the greatest number seen anywhere in the job's folder, 0 for none.
    `manifests` are those that the newest entry names, by the path of their reference; `damaged` says
    in a sentence what is wrong with one that cannot be restored (then it may be absent from the
    others).
    """

    newest: Entry | None
    highest_checkpoint: CheckpointId
    manifests: dict[str, Manifest]
    damaged: dict[str, str]


@dataclass(frozen=True, slots=True)
class WorkerJoined:
    """A worker registered. `copies` are the checkpoints (paths) of which its disk has a copy."""

    worker: WorkerId
    copies: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class WorkerLeft:
    """A worker's connection ended, or its heartbeats did."""

    worker: WorkerId
    reason: str


@dataclass(frozen=True, slots=True)
class WorkerReady:
    """A worker restored its subtasks of an attempt and listens for its channels.

    `fetched_bytes` is what it had to download for that.
    """

    worker: WorkerId
    attempt: AttemptNumber
    fetched_bytes: int = 0


@dataclass(frozen=True, slots=True)
class SubtaskAcked:
    """A subtask's part of a checkpoint is durable.

    `files` are all paths that were uploaded for it: what leaks if nobody uses the acknowledgement.
    They are relative to the checkpoints' root, of a savepoint to the savepoints' root. The handles'
    paths are relative to the job's folder, of a savepoint to the savepoint's folder.
    """

    attempt: AttemptNumber
    checkpoint: CheckpointId
    subtask: SubtaskId
    parts: dict[OperatorId, OperatorPart]
    files: tuple[str, ...] = ()
    bytes_new: int = 0


@dataclass(frozen=True, slots=True)
class SubtaskDeclined:
    """A subtask cannot give its part; what it had uploaded it has deleted."""

    attempt: AttemptNumber
    checkpoint: CheckpointId
    subtask: SubtaskId
    reason: str


@dataclass(frozen=True, slots=True)
class SubtaskFinished:
    """All input of a subtask ended and was processed; it stays, for the final checkpoint."""

    attempt: AttemptNumber
    subtask: SubtaskId


@dataclass(frozen=True, slots=True)
class WorkerCommitted:
    """All sinks of a worker have committed every transaction up to this checkpoint.

    Sent after each NotifyCompleted that says so, and after a restore that was told what to commit.
    """

    worker: WorkerId
    attempt: AttemptNumber
    checkpoint: CheckpointId


@dataclass(frozen=True, slots=True)
class AttemptFailed:
    """Something of an attempt broke, on a worker or between two."""

    attempt: AttemptNumber
    failure: Failure


@dataclass(frozen=True, slots=True)
class EntryWon:
    """The entry of the last Append stands in the log, and none above it."""

    entry: Entry


@dataclass(frozen=True, slots=True)
class EntryLost:
    """Somebody else's entry has the number (or a higher one exists): the newest one."""

    newest: Entry


@dataclass(frozen=True, slots=True)
class ManifestWritten:
    """The manifest of a checkpoint is durable. `digest` is the SHA-256 of its bytes."""

    checkpoint: CheckpointId
    digest: str


@dataclass(frozen=True, slots=True)
class ManifestRefused:
    """The manifest cannot be written; `is_taken`: another attempt's stands under this number."""

    checkpoint: CheckpointId
    reason: str
    is_taken: bool


@dataclass(frozen=True, slots=True)
class SavepointPublished:
    """The `_metadata` in a savepoint's own folder is durable."""

    request_id: str


@dataclass(frozen=True, slots=True)
class SnapshotDeleted:
    """All objects of a DeleteSnapshot are gone."""

    snapshot: SnapshotRef


@dataclass(frozen=True, slots=True)
class SavepointDisposed:
    """All objects of a DisposeSavepoint are gone."""

    request_id: str


@dataclass(frozen=True, slots=True)
class StartOrdered:
    """Run. `after` is the sequence number of the log that the orderer has seen (0: none).

    `restore` is what a person named, as the shell read and verified it; None is the newest of the
    job's own log, else empty. `restore_id` names a standing wish, which acts once; without one it
    acts in any case. `hold_stable`: sinks hold their commits for that many checkpoints. `live` are
    settings as in SettingsOrdered.
    """

    request_id: str
    after: int
    revision: str
    parallelism: int
    max_parallelism: int | None = None
    origin: Origin = Origin.LOG
    restore: RestoreFrom | None = None
    restore_id: str | None = None
    rules: RestoreRules = field(default_factory=RestoreRules)
    hold_stable: int | None = None
    live: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SavepointOrdered:
    """Take a savepoint without stopping. `published`: its `_metadata`, if it stands there already."""

    request_id: str
    published: Manifest | None = None


@dataclass(frozen=True, slots=True)
class CheckpointOrdered:
    """Take a checkpoint now."""

    request_id: str


@dataclass(frozen=True, slots=True)
class StopOrdered:
    """Stop with a savepoint; `drain` sends the final watermark first."""

    request_id: str
    drain: bool = False


@dataclass(frozen=True, slots=True)
class CancelOrdered:
    """Stop at once, without a savepoint. `retain`: whether checkpoints are kept; None: as is set."""

    request_id: str
    retain: bool | None = None


@dataclass(frozen=True, slots=True)
class RescaleOrdered:
    """Go on at another parallelism, without a stop; its workers are registered."""

    request_id: str
    parallelism: int


@dataclass(frozen=True, slots=True)
class SettingsOrdered:
    """Replace the live settings by these, in the manifest's own form; `{}` are the manifest's."""

    request_id: str
    live: dict[str, Any]


@dataclass(frozen=True, slots=True)
class DisposeOrdered:
    """Delete the savepoint in this folder, relative to the savepoints' root, without a slash at the
    end. `manifest` is what stands there; None: nothing does."""

    request_id: str
    folder: str
    manifest: Manifest | None = None


Event: TypeAlias = (
    Tick
    | LogRead
    | WorkerJoined
    | WorkerLeft
    | WorkerReady
    | SubtaskAcked
    | SubtaskDeclined
    | SubtaskFinished
    | WorkerCommitted
    | AttemptFailed
    | EntryWon
    | EntryLost
    | ManifestWritten
    | ManifestRefused
    | SavepointPublished
    | SnapshotDeleted
    | SavepointDisposed
    | StartOrdered
    | SavepointOrdered
    | CheckpointOrdered
    | StopOrdered
    | CancelOrdered
    | RescaleOrdered
    | SettingsOrdered
    | DisposeOrdered
)
