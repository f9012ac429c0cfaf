"""StreamJob: the manifest of a job, one model for a laptop and for Kubernetes."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field, ValidationInfo, field_validator

from penstock.core.ids import JobId
from penstock.core.keygroups import MAX_PARALLELISM_LIMIT
from penstock.spec.parts.fields import (
    FreeForm,
    JobIdText,
    Name,
    ObjectName,
    PositiveCount,
    SpecModel,
    Text,
    absent,
    wrong,
)
from penstock.spec.parts.moves import Deletion, Errors, Rescale, Restart, Upgrade
from penstock.spec.parts.pods import Coordinator, Worker
from penstock.spec.parts.snapshots import (
    Checkpoints,
    Restore,
    Savepoints,
    State,
    StorageCredentials,
)

API_VERSION = "penstock.dev/v1alpha1"
KIND = "StreamJob"
SCRIPT_LENGTH_MAX_BYTES = 64 * 1024
_ENTRYPOINT = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)


class DesiredState(StrEnum):
    """Whether the job should run."""

    RUNNING = "Running"
    SUSPENDED = "Suspended"


def is_entrypoint(text: str) -> bool:
    """Whether text has the form `module:function`."""
    return _ENTRYPOINT.fullmatch(text) is not None


def _script(text: str) -> str:
    size = len(text.encode())
    if size > SCRIPT_LENGTH_MAX_BYTES:
        raise wrong(f"has {size:,} bytes; at most 64 KiB fit, put more into an image")
    if not text.strip():
        raise wrong("is empty; write the job's Python code")
    return text


class Metadata(SpecModel):
    """Name, and whatever else Kubernetes keeps here."""

    model_config = ConfigDict(extra="allow")

    name: Name = Field(description="Name of the job; on a laptop also its id.")
    namespace: str | None = Field(
        default=None, description="Namespace; on a laptop without meaning."
    )
    labels: dict[str, str] = Field(default_factory=dict, description="As on any object.")
    annotations: dict[str, str] = Field(default_factory=dict, description="As on any object.")


class StreamJobSpec(SpecModel):
    """What the job is and how it should run."""

    image: Text | None = Field(
        default=None,
        description="Image with the job's code. Default: the chart's worker image.",
    )
    script: Annotated[str, AfterValidator(_script)] | None = Field(
        default=None,
        json_schema_extra={"maxLength": SCRIPT_LENGTH_MAX_BYTES},
        description="The job's code itself (at most 64 KiB), with a function job; for a first try.",
    )
    entrypoint: Annotated[str, Field(max_length=1024)] | None = Field(
        default=None, description="module:function of the job; either this or script."
    )
    parameters: FreeForm = Field(
        default_factory=dict, description="Keyword arguments of the job's function."
    )
    max_parallelism: Annotated[PositiveCount, Field(le=MAX_PARALLELISM_LIMIT)] | None = Field(
        default=None,
        description="Number of key groups, fixed for the job's life. Default: the snapshot's, "
        "else 128 (more for a parallelism above 85).",
    )
    parallelism: PositiveCount = Field(
        default=1, description="Workers, and subtasks of an operator."
    )
    desired_state: DesiredState = Field(
        default=DesiredState.RUNNING,
        description="Suspended stops the job with a savepoint; pods go.",
    )
    service_account_name: ObjectName | None = Field(
        default=None,
        description="Service account of all pods, for workload identity.",
    )
    job_id: JobIdText | None = Field(
        default=None,
        description="Owner of the state in the store: a name, or <namespace>.<name>. "
        "Default: its own <namespace>.<name>.",
    )
    state: State = Field(default_factory=State, description="Where working state lives.")
    checkpoints: Checkpoints = Field(
        default_factory=Checkpoints, description="Consistent snapshots of the job, for recovery."
    )
    savepoints: Savepoints = Field(
        default_factory=Savepoints, description="Snapshots that a person owns."
    )
    storage_credentials: StorageCredentials | None = Field(
        default=None, description="How pods reach the object store."
    )
    upgrade: Upgrade = Field(
        default_factory=Upgrade, description="How the job moves to a new version."
    )
    rescale: Rescale = Field(default_factory=Rescale, description="How parallelism changes.")
    restore: Restore = Field(
        default_factory=Restore, description="Where state comes from when the job has none."
    )
    errors: Errors = Field(
        default_factory=Errors, description="What becomes of a record whose processing raises."
    )
    restart: Restart = Field(
        default_factory=Restart, description="When a failed job gets its next attempt."
    )
    deletion: Deletion = Field(
        default_factory=Deletion, description="What becomes of state when the object is deleted."
    )
    worker: Worker = Field(
        default_factory=Worker, description="The pods that run the job's operators."
    )
    coordinator: Coordinator = Field(
        default_factory=Coordinator,
        description="The pod that leads checkpoints and recovery.",
    )

    @field_validator("entrypoint")
    @classmethod
    def _one_of_entrypoint_and_script(cls, text: str | None, info: ValidationInfo) -> str | None:
        if text is None:
            if info.data.get("script", "wrong by itself") is None:
                raise absent("is missing; write module:function, or the code itself in script")
            return None
        if not is_entrypoint(text):
            raise wrong(f'"{text}" is not module:function, as in wordcount:job')
        if info.data.get("script") is not None:
            raise wrong("script is given as well; a job has one of the two")
        return text

    @field_validator("parallelism", mode="before")
    @classmethod
    def _suspended_is_not_zero(cls, value: Any) -> Any:
        if value == 0 and isinstance(value, int) and not isinstance(value, bool):
            raise wrong("is 0; to stop the job and keep its state, write desiredState: Suspended")
        return value

    @field_validator("parallelism")
    @classmethod
    def _within_max_parallelism(cls, parallelism: int, info: ValidationInfo) -> int:
        limit = info.data.get("max_parallelism") or MAX_PARALLELISM_LIMIT
        if parallelism > limit:
            raise wrong(f"is {parallelism}, more than maxParallelism, which is {limit}")
        return parallelism


class StreamJob(SpecModel):
    """A stream job."""

    api_version: Literal["penstock.dev/v1alpha1"] = Field(description=API_VERSION)
    kind: Literal["StreamJob"] = Field(description=KIND)
    metadata: Metadata = Field(description="Name, and whatever else Kubernetes keeps here.")
    spec: StreamJobSpec = Field(description="What the job is and how it should run.")
    status: FreeForm | None = Field(
        default=None, exclude=True, description="Written by the Kubernetes operator; not read here."
    )

    def job_id(self, *, namespace: str | None = None) -> JobId:
        """The owner of the job's state; without a namespace, as on a laptop, the name itself."""
        if self.spec.job_id:
            return JobId(self.spec.job_id)
        return JobId(f"{namespace}.{self.metadata.name}" if namespace else self.metadata.name)

    def document(self) -> dict[str, Any]:
        """As it was written, without defaults: plain values for YAML or JSON."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True)


def json_schema() -> dict[str, Any]:
    """JSON schema of the whole manifest, for editors and `penstock graph --schema`."""
    schema = StreamJob.model_json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
