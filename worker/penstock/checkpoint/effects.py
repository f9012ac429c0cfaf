"""What the coordinator wants done, in this order. Results come back as events.

The shell (`runtime.coordinator`) has one plain case for each; it decides nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

from penstock.core.ids import AttemptNumber, CheckpointId, SubtaskId, WorkerId
from penstock.core.log import Attempt, Entry, SnapshotRef
from penstock.core.manifest import Manifest
from penstock.core.snapshots import RestorePlan


@dataclass(frozen=True, slots=True)
class ReadLog:
    """Read what the store knows of the job (`checkpoint.recovery.read_job`). Answer: LogRead."""


@dataclass(frozen=True, slots=True)
class Append:
    """Put this entry under its number (`checkpoint.log.append`). Answer: EntryWon or EntryLost."""

    entry: Entry


@dataclass(frozen=True, slots=True)
class Prepare:
    """Start a fresh child for each worker's subtasks and restore them. Answer: WorkerReady of each.

    `subtasks` says which worker runs what; chains are named by their head. `committed` is the
    number up to which sinks commit what they restore (None: there is nothing to restore).
    `commit_only`: sinks alone, to finish committing after an end; the attempt's number may have been
    prepared before, and the answer is WorkerCommitted of each.

    A worker that runs a later attempt refuses with AttemptFailed: this coordinator was overtaken.
    """

    attempt: Attempt
    subtasks: dict[WorkerId, tuple[SubtaskId, ...]]
    restore: RestorePlan
    committed: CheckpointId | None
    job_nonce: str
    commit_only: bool = False


@dataclass(frozen=True, slots=True)
class Run:
    """All workers are ready: tell each the others' addresses, and go."""

    attempt: AttemptNumber


@dataclass(frozen=True, slots=True)
class Trigger:
    """Start a checkpoint at every worker.

    `base` is the newest completed checkpoint, which an incremental upload may build on. A savepoint
    has the folder that its files go to; `stop` lets no record follow its barrier, for a stop or for a
    change of parallelism; `drain` sends the final watermark before it.
    """

    attempt: AttemptNumber
    checkpoint: CheckpointId
    base: CheckpointId | None
    savepoint: str | None = None
    stop: bool = False
    drain: bool = False


@dataclass(frozen=True, slots=True)
class Abort:
    """A checkpoint was given up: workers delete what they uploaded for it, by name."""

    attempt: AttemptNumber
    checkpoint: CheckpointId
    reason: str


@dataclass(frozen=True, slots=True)
class Resume:
    """What no record was to follow failed: workers that held their input after its barrier go on."""

    attempt: AttemptNumber
    checkpoint: CheckpointId


@dataclass(frozen=True, slots=True)
class WriteManifest:
    """Create this object if absent, or find our own there (`checkpoint.log.create`).

    Answer: ManifestWritten, or ManifestRefused when another's stands there.
    """

    path: str
    manifest: Manifest


@dataclass(frozen=True, slots=True)
class PublishSavepoint:
    """Create `_metadata` in the savepoint's own folder, if absent; `path` is relative to the
    savepoints' root. One that stands there already, of whichever try, is as good.

    Answer: SavepointPublished.
    """

    request_id: str
    path: str
    manifest: Manifest


@dataclass(frozen=True, slots=True)
class NotifyCompleted:
    """Tell every worker that a checkpoint is complete; sinks commit up to it when `commit`."""

    attempt: AttemptNumber
    checkpoint: CheckpointId
    commit: bool


@dataclass(frozen=True, slots=True)
class CancelWorkers:
    """End the children of every attempt up to this one."""

    attempt: AttemptNumber


@dataclass(frozen=True, slots=True)
class DeleteSnapshot:
    """Delete these objects of a dropped checkpoint in this order, the manifest before the rest.

    Answer: SnapshotDeleted.
    """

    snapshot: SnapshotRef
    paths: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DeleteFiles:
    """Delete these objects, which nothing references: of the checkpoints' root, or the savepoints'.

    Nobody waits for it; what it leaves behind a sweep finds.
    """

    paths: tuple[str, ...]
    savepoints: bool = False


@dataclass(frozen=True, slots=True)
class DisposeSavepoint:
    """Delete these objects of the savepoints' root in this order, `_metadata` before the rest.

    Answer: SavepointDisposed.
    """

    request_id: str
    paths: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ApplySettings:
    """These live settings are in force, `{}` being the manifest's: the shell's own share of them."""

    live: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """The outcome of an order, remembered under its request id: asked again, the same answer."""

    request_id: str
    ok: bool
    detail: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Tell:
    """One line for people: the log, the live view, Kubernetes Events."""

    kind: str
    fields: dict[str, Any]


@dataclass(frozen=True, slots=True)
class StandDown:
    """Another coordinator has the job: end this one without touching anything more."""

    reason: str


@dataclass(frozen=True, slots=True)
class JobOver:
    """The run ended and everything is committed; the coordinator stays to answer questions."""

    entry: Entry


Effect: TypeAlias = (
    ReadLog
    | Append
    | Prepare
    | Run
    | Trigger
    | Abort
    | Resume
    | WriteManifest
    | PublishSavepoint
    | NotifyCompleted
    | CancelWorkers
    | DeleteSnapshot
    | DeleteFiles
    | DisposeSavepoint
    | ApplySettings
    | Answer
    | Tell
    | StandDown
    | JobOver
)
