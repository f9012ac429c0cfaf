"""What the operator writes into the status of StreamJobs and Savepoints.

A status is a view: all of it but the intentions (`move`, `requests`, `failedRevision`) can be rebuilt
from the job's log, its manifests and its ControllerRevisions. Intentions are written before the deed.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

HISTORY_LENGTH_MAX = 20
Text = Annotated[str, Field(max_length=4096)]


class StatusModel(BaseModel):
    """A part of a status: unknown fields of a newer operator are passed over."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        serialize_by_alias=True,
        extra="ignore",
        frozen=True,
    )


class Phase(StrEnum):
    """Where a StreamJob stands."""

    PENDING = "Pending"
    STARTING = "Starting"
    RUNNING = "Running"
    UPGRADING = "Upgrading"
    ROLLING_BACK = "RollingBack"
    RESCALING = "Rescaling"
    RESTORING = "Restoring"
    RESTARTING = "Restarting"
    SUSPENDING = "Suspending"
    SUSPENDED = "Suspended"
    FINISHED = "Finished"
    FAILED = "Failed"
    DELETING = "Deleting"


class MoveKind(StrEnum):
    """The long step that is under way; one at a time."""

    START = "Start"
    UPGRADE = "Upgrade"
    ROLLBACK = "Rollback"
    RESCALE = "Rescale"
    RESTORE = "Restore"
    RESTART = "Restart"
    SUSPEND = "Suspend"
    DELETE = "Delete"


class Step(StrEnum):
    """How far a move is."""

    CHECKING = "Checking"
    """Upgrade: a pod of the new version looks whether it can go on from the newest snapshot."""
    STOPPING = "Stopping"
    """The run is ordered to end, with a savepoint or from its newest checkpoint."""
    REPLACING = "Replacing"
    """Old pods go, templates of the wanted revision come."""
    STARTING = "Starting"
    """The coordinator is ordered to open an attempt."""
    STABILIZING = "Stabilizing"
    """Upgrade: the new version runs, its sinks hold their commits."""
    ADDING_WORKERS = "AddingWorkers"
    MOVING = "Moving"
    """Rescale: the coordinator is ordered to move key groups."""
    REMOVING_WORKERS = "RemovingWorkers"
    DISPOSING = "Disposing"
    """Delete: state is deleted, too."""
    RELEASING = "Releasing"
    """Delete: nothing is left but the finalizer."""


class StopWay(StrEnum):
    """How a run is brought to its end."""

    SAVEPOINT = "Savepoint"
    CHECKPOINT = "Checkpoint"
    """Cancelled; what follows goes on from the newest checkpoint."""
    NOTHING = "Nothing"
    """Nothing ran when the move began."""


class Move(StatusModel):
    """The intention: what is being done, written before it is done.

    `id` begins the request ids of its orders; `tries` counts the repetitions of the step.
    """

    kind: MoveKind = Field(description="What is being done.")
    step: Step = Field(description="How far it is.")
    id: str = Field(max_length=128, description="Begins the request ids of its orders.")
    tries: int = Field(default=0, ge=0, description="How often this step was begun again.")
    started_at: AwareDatetime = Field(description="When the move began.")
    since: AwareDatetime = Field(description="When the step began.")
    to_revision: str | None = Field(
        default=None, max_length=64, description="The revision it leads to."
    )
    to_parallelism: int | None = Field(default=None, description="The parallelism it leads to.")
    way: StopWay | None = Field(default=None, description="How the run is brought to its end.")
    attempt: int | None = Field(
        default=None, description="The newest attempt before the one that it starts."
    )
    restore_id: str | None = Field(
        default=None,
        max_length=64,
        description="Identity of the spec.restore that its start obeys.",
    )
    held: bool = Field(default=False, description="Sinks were seen to hold their commits.")
    not_before: AwareDatetime | None = Field(
        default=None, description="The step is not tried again before."
    )
    snapshot: str | None = Field(
        default=None, max_length=2048, description="What the next attempt starts from."
    )
    error: Text | None = Field(default=None, description="Why the last try of the step failed.")
    reason: Text | None = Field(default=None, description="Why it is done.")
    image_changed: Text | None = Field(
        default=None, description="That its pods run another image than the revision's did before."
    )


class SnapshotView(StatusModel):
    """A checkpoint or savepoint as `kubectl` shows it."""

    id: int = Field(description="Number of the checkpoint.")
    path: str = Field(max_length=2048, description="Where it lies.")
    completed_at: AwareDatetime = Field(description="When it was complete.")
    duration: str = Field(max_length=32, description="How long it took.")
    size: str = Field(max_length=32, description="What a restore reads, rounded: `11.8Mi`.")
    size_bytes: int | None = Field(default=None, description="Bytes that a restore reads.")


class UpgradeView(StatusModel):
    """The newest upgrade: the plan while it goes on, its outcome after."""

    from_: str | None = Field(
        default=None, alias="from", max_length=64, description="Old revision."
    )
    to: str = Field(max_length=64, description="New revision.")
    step: str = Field(max_length=64, description="How far it is, or how it ended.")
    snapshot: str | None = Field(
        default=None, max_length=2048, description="The snapshot it carries over."
    )
    reason: Text | None = Field(default=None, description="What changed, and why this snapshot.")
    started_at: AwareDatetime | None = Field(default=None, description="When it began.")
    finished_at: AwareDatetime | None = Field(default=None, description="When it ended.")


class RescaleView(StatusModel):
    """The newest change of parallelism."""

    from_: int = Field(alias="from", description="Old parallelism.")
    to: int = Field(description="New parallelism.")
    step: str = Field(max_length=64, description="How far it is, or how it ended.")
    key_groups_moved: int | None = Field(
        default=None, description="Key groups that another worker runs now."
    )
    bytes_moved: int | None = Field(
        default=None, description="Bytes of state fetched from the object store."
    )
    pause: str | None = Field(default=None, max_length=32, description="How long no record flowed.")
    reason: Text | None = Field(default=None, description="Why it failed.")
    failures: int = Field(default=0, description="Failed tries in a row for this target.")
    retry_at: AwareDatetime | None = Field(
        default=None, description="A failed target is not tried before."
    )
    finished_at: AwareDatetime | None = Field(default=None, description="When it ended.")


class RequestView(StatusModel):
    """The receipt for the annotation of one kind."""

    id: str = Field(max_length=253, description="The annotation's value.")
    phase: str = Field(max_length=64, description="Pending, Running, Done or Failed.")
    path: str | None = Field(default=None, max_length=2048, description="The snapshot it made.")
    error: Text | None = Field(default=None, description="Why it failed.")


class HistoryEntry(StatusModel):
    """One move that ended."""

    at: AwareDatetime = Field(description="When it ended.")
    move: str = Field(max_length=64, description="What was done.")
    outcome: str = Field(max_length=64, description="How it ended.")
    message: Text = Field(description="In a sentence.")


class Condition(StatusModel):
    """As any object's condition."""

    type: str = Field(max_length=64, description="What it is about.")
    status: str = Field(max_length=16, description="True, False or Unknown.")
    reason: str = Field(max_length=128, description="In one word, for programs.")
    message: Text = Field(default="", description="In a sentence, for people.")
    last_transition_time: AwareDatetime = Field(description="When the status changed.")
    observed_generation: int = Field(default=0, description="The generation it is about.")


class StreamJobStatus(StatusModel):
    """Where a StreamJob stands, also while long steps run."""

    phase: Phase = Field(default=Phase.PENDING, description="Where the job stands.")
    observed_generation: int = Field(default=0, description="The generation that was looked at.")
    job_id: str | None = Field(
        default=None, max_length=128, description="Owner of the state in the store."
    )
    attempt: int | None = Field(
        default=None,
        description="The attempt that runs or ran last; 0: none so far. Absent until the log told.",
    )
    restarts: int | None = Field(default=None, description="Restarts of the job by itself.")
    parallelism: int | None = Field(default=None, description="Parallelism in force.")
    max_parallelism: int | None = Field(default=None, description="Key groups, fixed.")
    selector: str | None = Field(
        default=None, max_length=512, description="Selects the worker pods, for autoscalers."
    )
    revision: str | None = Field(
        default=None, max_length=64, description="The revision whose templates are applied."
    )
    stable_revision: str | None = Field(
        default=None, max_length=64, description="The newest revision that proved stable."
    )
    failed_revision: str | None = Field(
        default=None, max_length=64, description="Not tried again until the annotation retry."
    )
    restore_id: str | None = Field(
        default=None, max_length=64, description="Identity of spec.restore as it was obeyed."
    )
    last_checkpoint: SnapshotView | None = Field(
        default=None, description="The newest complete checkpoint; written once a minute at most."
    )
    last_savepoint: SnapshotView | None = Field(
        default=None, description="The newest savepoint of this run."
    )
    restored_from: str | None = Field(
        default=None, max_length=2048, description="What runs now came from."
    )
    next_restore: str | None = Field(
        default=None, max_length=2048, description="What a restart would use."
    )
    move: Move | None = Field(default=None, description="What is being done at the moment.")
    upgrade: UpgradeView | None = Field(default=None, description="The newest upgrade.")
    rescale: RescaleView | None = Field(
        default=None, description="The newest change of parallelism."
    )
    requests: dict[str, RequestView] = Field(
        default_factory=dict, description="Receipts, one for each kind of annotation."
    )
    history: tuple[HistoryEntry, ...] = Field(
        default=(), max_length=HISTORY_LENGTH_MAX, description="The last moves, newest last."
    )
    conditions: tuple[Condition, ...] = Field(
        default=(), max_length=16, description="Ready, Reconciling, Stalled and others."
    )


class SavepointPhase(StrEnum):
    """Where a Savepoint stands."""

    PENDING = "Pending"
    RUNNING = "Running"
    COMPLETED = "Completed"
    FAILED = "Failed"
    DISPOSING = "Disposing"


class SavepointFormat(StrEnum):
    """In which form state is written."""

    CANONICAL = "Canonical"


class SavepointSpec(StatusModel):
    """What is to be saved."""

    model_config = ConfigDict(extra="forbid")

    job_name: str = Field(
        min_length=1, max_length=40, description="The StreamJob, in the same namespace."
    )
    format: SavepointFormat = Field(
        default=SavepointFormat.CANONICAL,
        description="Canonical: the same bytes from every backend.",
    )
    dispose_on_delete: bool = Field(
        default=False, description="Delete the files together with this object."
    )


class SavepointStatus(StatusModel):
    """What became of it."""

    phase: SavepointPhase = Field(default=SavepointPhase.PENDING, description="Where it stands.")
    job_id: str | None = Field(default=None, max_length=128, description="Whose state it is.")
    path: str | None = Field(default=None, max_length=2048, description="Where it lies.")
    size: str | None = Field(
        default=None, max_length=32, description="What a restore reads, rounded: `11.8Mi`."
    )
    size_bytes: int | None = Field(default=None, description="Bytes that a restore reads.")
    checkpoint_id: int | None = Field(default=None, description="Its checkpoint number.")
    started_at: AwareDatetime | None = Field(default=None, description="When it was ordered.")
    finished_at: AwareDatetime | None = Field(default=None, description="When it ended.")
    error: Text | None = Field(default=None, description="Why it failed.")
