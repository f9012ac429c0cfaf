"""The coordinator's own REST API under /penstock/v1: what it is asked, and what it answers.

Names are camelCase in JSON; numbers are plain, with their unit in the name (`durationMs`). An order
with an unknown field is refused; in an answer of a newer version unknown fields are passed over.
The same request id gets the same answer.
"""

from __future__ import annotations

import hashlib
from enum import StrEnum
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from penstock.spec.parts.snapshots import Restore

REQUEST_ID_LENGTH_MAX = 253
RESTORE_ID_LENGTH = 12

RequestId = Annotated[str, Field(min_length=1, max_length=REQUEST_ID_LENGTH_MAX)]


class Order(BaseModel):
    """The body of a POST."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        serialize_by_alias=True,
        extra="forbid",
        frozen=True,
    )

    request_id: RequestId


class Origin(StrEnum):
    """What a start begins from."""

    LOG = "Log"
    """The newest of the job's log; `restore` when the log has no snapshot, or when `restore` is
    another than the one that the newest opening obeyed."""
    RESTORE = "Restore"
    """What `restore` says, whatever the log has: a person's wish of this moment."""
    EMPTY = "Empty"
    """Nothing, although there may be state."""
    HOLD = "Hold"
    """The snapshot that the standing hold goes back to: a rollback, nothing is written twice."""


class StartOrder(Order):
    """Run: open the next attempt.

    `after` is the number of the newest log entry that the orderer has seen (0: none); if the log has
    gone on, the order is refused. `max_parallelism` and `allow_non_restored_state` None mean the
    manifest's; `restore` None the newest of the job's own log, else empty.
    `hold` is the number of checkpoints during which sinks hold their commits; where a hold stands
    already, what is held stays so, and another revision may begin only before it. `settings` are live ones, as in SettingsOrder.
    """

    after: int = Field(default=0, ge=0)
    revision: str
    origin: Origin = Origin.LOG
    parallelism: int = Field(ge=1)
    max_parallelism: int | None = Field(default=None, ge=1)
    restore: Restore | None = None
    allow_non_restored_state: bool | None = None
    hold: int | None = Field(default=None, ge=1)
    settings: dict[str, Any] = Field(default_factory=dict)


class StopOrder(Order):
    """Stop with a savepoint; `drain` sends the final watermark first."""

    drain: bool = False


class CancelOrder(Order):
    """Stop at once, from the newest checkpoint.

    `retain` True keeps the checkpoints, False deletes them, None does as the manifest says.
    """

    retain: bool | None = None


class SavepointOrder(Order):
    """Take a savepoint; the job runs on."""


class CheckpointOrder(Order):
    """Take a checkpoint now."""


class RescaleOrder(Order):
    """Run on with another number of workers, which are registered already.

    The answer comes when the first checkpoint at the new parallelism is complete, which is taken at
    once; or it failed, and the old parallelism runs on.
    """

    parallelism: int = Field(ge=1)


class SettingsOrder(Order):
    """Replace all settings that need no restart: fields of class *live* in the manifest's own form;
    one that is left out has its default, `{}` are those of the coordinator's manifest. As in `{"checkpoints": {"interval": "5s"}, "restart": {…}, "worker": {"progressTimeout": "5m"}}`.
    """

    settings: dict[str, Any]


class DisposeOrder(Order):
    """Delete a savepoint of this job, its `_metadata` first; one that is not there is disposed of."""

    path: str = Field(min_length=1)


class Answer(BaseModel):
    """A part of what the coordinator answers."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        serialize_by_alias=True,
        extra="ignore",
        frozen=True,
    )


class JobPhase(StrEnum):
    """Where a job stands, as people and programs read it."""

    WAITING = "Waiting"
    """Nothing runs, and nothing was ordered."""
    DEPLOYING = "Deploying"
    """An attempt is being opened; workers restore."""
    RUNNING = "Running"
    RESTARTING = "Restarting"
    """An attempt failed; the next one follows."""
    STOPPING = "Stopping"
    ENDING = "Ending"
    """The end is decided; sinks still commit."""
    FINISHED = "Finished"
    STOPPED = "Stopped"
    CANCELLED = "Cancelled"
    FAILED = "Failed"
    STOOD_DOWN = "StoodDown"
    """Another coordinator has the job."""

    @property
    def is_end(self) -> bool:
        """Whether the run is over; only a start order begins another."""
        return self in _ENDS


_ENDS = frozenset({JobPhase.FINISHED, JobPhase.STOPPED, JobPhase.CANCELLED, JobPhase.FAILED})


class RequestPhase(StrEnum):
    """Where an order stands."""

    RUNNING = "Running"
    DONE = "Done"
    FAILED = "Failed"


class SnapshotStatus(Answer):
    """A completed checkpoint or savepoint. `bytes_new` is what was uploaded for it alone."""

    id: int
    path: str
    completed_at_ms: int
    duration_ms: int
    size_bytes: int
    bytes_new: int = 0


class WorkerStatus(Answer):
    """One worker; `progress_age_ms` is the time since its job code last returned."""

    id: int
    address: str | None = None
    connected: bool = True
    progress_age_ms: int | None = None


class OperatorStatus(Answer):
    """One operator over all its subtasks.

    `kind` is its kind in the graph, `label` its name for people. Counts are of this attempt;
    `keys` and `state_bytes` are None without state, `busy` is 0 to 1, None inside a chain.
    `unread_files` and `unread_bytes` are what a source has still to read, as far as it knows, and
    `unread_ms` how long that takes at the pace of the last seconds; None where it cannot be told.
    """

    id: str
    label: str
    kind: str
    parallelism: int
    records_in: int = 0
    records_out: int = 0
    records_failed: int = 0
    records_per_second: float = 0.0
    keys: int | None = None
    state_bytes: int | None = None
    busy: float | None = None
    unread_files: int | None = None
    unread_bytes: int | None = None
    unread_ms: int | None = None


class ErrorStatus(Answer):
    """Why the last attempt failed; `lines` are the author's own of the traceback.

    `damaged`: stored data contradicts itself, and is kept as it is.
    """

    what: str
    at_ms: int
    attempt: int
    operator: str | None = None
    subtask: int | None = None
    key: str | None = None
    record: str | None = None
    position: str | None = None
    lines: tuple[str, ...] = ()
    fix: str | None = None
    damaged: bool = False


class RefusalKind(StrEnum):
    """Why an order was refused, by what its sender does next."""

    OUTDATED = "Outdated"
    """The world is another than the one it was decided from: look at the status, and decide anew."""
    REJECTED = "Rejected"
    """It cannot be carried out: somebody must change it, or what it is about."""


class RequestStatus(Answer):
    """An order and what became of it; `path` is the snapshot it made.

    `refusal` stands beside the `error` of one that was refused; None: it was begun and broke, or a
    coordinator of an older version does not tell.
    """

    request_id: str
    kind: str
    phase: RequestPhase
    path: str | None = None
    error: str | None = None
    refusal: RefusalKind | None = None


class HoldStatus(Answer):
    """Sinks hold what they would commit above checkpoint `after`, until `stable` are completed in one
    attempt; `completed` are. `path` is the snapshot that a rollback starts from."""

    after: int
    stable: int
    completed: int
    path: str


class RescaleStatus(Answer):
    """The newest change of parallelism that went through. `pause_ms`: how long no record flowed."""

    request_id: str
    from_parallelism: int
    to_parallelism: int
    key_groups_moved: int
    bytes_moved: int
    pause_ms: int


class JobStatus(Answer):
    """GET status: the whole job at one moment.

    `restore_id` names the manifest's `restore` that the newest opening obeyed (`restore_id_of`);
    `restored_from` is the folder of
    the snapshot that runs now came from, `next_restore` of the one that a restart would start from. `end_reason` says
    why a run failed, `uncommitted` why what an ended run's sinks left is not committed yet.
    `checkpoints_kept` are those of the log; `next_checkpoint_in_ms` is None while one is under way,
    and where the clock takes none.
    `holds_not` are the sinks that cannot hold commits. `settings` are the live ones in force.
    """

    job_id: str
    name: str
    phase: JobPhase
    revision: str
    attempt: int
    parallelism: int
    max_parallelism: int
    started_at_ms: int | None = None
    log_seq: int = 0
    restarts: int = 0
    last_checkpoint: SnapshotStatus | None = None
    checkpoints_kept: int = 0
    next_checkpoint_in_ms: int | None = None
    last_savepoint: SnapshotStatus | None = None
    restored_from: str | None = None
    next_restore: str | None = None
    restore_id: str | None = None
    completed_in_attempt: int = 0
    hold: HoldStatus | None = None
    holds_not: tuple[str, ...] = ()
    rescale: RescaleStatus | None = None
    settings: dict[str, Any] = Field(default_factory=dict)
    end_reason: str | None = None
    workers: tuple[WorkerStatus, ...] = ()
    operators: tuple[OperatorStatus, ...] = ()
    last_error: ErrorStatus | None = None
    uncommitted: ErrorStatus | None = None
    requests: tuple[RequestStatus, ...] = ()


def restore_id_of(restore: Restore) -> str:
    """Identity of a manifest's `restore`: it acts once for each changed `from`.

    A new `policy` or `rename` beside an old path must not rewind the job to it.
    """
    return hashlib.sha256(restore.from_.encode()).hexdigest()[:RESTORE_ID_LENGTH]
