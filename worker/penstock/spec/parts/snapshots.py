"""The parts of the manifest about state: where it lives, how it is saved, where it comes from."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, Field, ValidationInfo, field_validator

from penstock.spec.parts.fields import (
    Count,
    Flag,
    LongerThanZero,
    ObjectName,
    PositiveCount,
    SpecModel,
    Storage,
    Text,
    wrong,
)
from penstock.spec.parts.quantities import DurationMs, SizeBytes

_FACTORY = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)
BUILT_IN_BACKENDS = ("Memory", "FileSystem", "RocksDB")


class DirectoryStrategy(StrEnum):
    """Which of several local directories a new database goes to."""

    ROUND_ROBIN = "RoundRobin"
    RANDOM = "Random"
    LEAST_USED = "LeastUsed"


class CheckpointMode(StrEnum):
    """What barriers promise about state."""

    EXACTLY_ONCE = "ExactlyOnce"
    AT_LEAST_ONCE = "AtLeastOnce"


class OnCancellation(StrEnum):
    """What becomes of checkpoints when the job is cancelled."""

    RETAIN = "Retain"
    DELETE = "Delete"


class RestorePolicy(StrEnum):
    """Whether a job whose log names no usable snapshot may start."""

    REQUIRE_STATE = "RequireState"
    ALLOW_EMPTY = "AllowEmpty"


class ClaimMode(StrEnum):
    """Who owns the files restored from."""

    NO_CLAIM = "NoClaim"
    CLAIM = "Claim"


def _backend(text: str) -> str:
    if text not in BUILT_IN_BACKENDS and not _FACTORY.fullmatch(text):
        near = next((b for b in BUILT_IN_BACKENDS if b.lower() == text.lower()), None)
        tail = f"did you mean {near}?" if near else "nor a factory, package.module:name"
        raise wrong(f'"{text}" is none of {", ".join(BUILT_IN_BACKENDS)}; {tail}')
    return text


_CRON_BOUNDS = (
    ("a minute", 0, 59),
    ("an hour", 0, 23),
    ("a day", 1, 31),
    ("a month", 1, 12),
    ("a weekday", 0, 7),
)
_CRON_PART = re.compile(r"(?:\*|(\d{1,2})(?:-(\d{1,2}))?)(?:/([1-9]\d?))?", re.ASCII)


def _schedule(text: str) -> str:
    parts = text.split()
    if len(parts) != len(_CRON_BOUNDS):
        raise wrong(
            f'"{text}" is not a schedule; write five numbers or *: "0 3 * * *" is every day at 03:00 UTC'
        )
    for part, (name, low, high) in zip(parts, _CRON_BOUNDS, strict=True):
        for item in part.split(","):
            found = _CRON_PART.fullmatch(item)
            bounds = [int(n) for n in found.groups()[:2] if n is not None] if found else [-1]
            if bounds != sorted(bounds) or not all(low <= n <= high for n in bounds):
                raise wrong(f'"{item}" is not {name}; {low} to {high}, a range, a list or *')
    return text


def _absolute(directory: str) -> str:
    if not directory.startswith("/"):
        raise wrong(f'"{directory}" is not an absolute path')
    return directory


class RocksDb(SpecModel):
    """How RocksDB keeps working state."""

    memory_bytes: SizeBytes = Field(
        default="512Mi",
        validate_default=True,
        description="Memory of one worker for caches and write buffers of all its databases.",
    )
    incremental: Flag = Field(
        default=True, description="Checkpoints upload only files that the last one did not have."
    )
    local_directories: list[Annotated[Text, AfterValidator(_absolute)]] = Field(
        default_factory=list,
        max_length=16,
        description="Absolute paths for working state; unusable ones are skipped. "
        "Empty: the worker's volume.",
    )
    directory_strategy: DirectoryStrategy = Field(
        default=DirectoryStrategy.ROUND_ROBIN,
        description="Which of several directories is taken next.",
    )


class State(SpecModel):
    """Where working state lives."""

    backend: Annotated[Text, AfterValidator(_backend)] = Field(
        default="RocksDB",
        description="Memory, FileSystem, RocksDB, or a factory of your own: package.module:name.",
    )
    local_recovery: Flag = Field(
        default=True,
        description="Workers keep a copy of the newest checkpoint and restore from it first.",
    )
    rocksdb: RocksDb = Field(default_factory=RocksDb, description="Used when backend is RocksDB.")


class Checkpoints(SpecModel):
    """Consistent snapshots of the job, for recovery."""

    storage: Storage | None = Field(
        default=None,
        description="s3://bucket/folder, needed on a cluster; on a laptop also a folder, by default ./state.",
    )
    interval_ms: DurationMs = Field(
        default="10s",
        validate_default=True,
        description="Time from one trigger to the next; 0s takes only those that are asked for.",
    )
    mode: CheckpointMode = Field(
        default=CheckpointMode.EXACTLY_ONCE,
        description="AtLeastOnce never holds a channel back, and may count records twice after a failure.",
    )
    timeout_ms: Annotated[DurationMs, LongerThanZero] = Field(
        default="10m",
        validate_default=True,
        description="A checkpoint that takes longer is given up.",
    )
    max_concurrent: PositiveCount = Field(
        default=1, description="Checkpoints that may be under way at once."
    )
    min_pause_ms: DurationMs = Field(
        default="0s",
        validate_default=True,
        description="Least time from the end of one to the next trigger; needs maxConcurrent 1.",
    )
    tolerable_failures: Count = Field(
        default=0, description="Checkpoints in a row that may fail before the attempt is failed."
    )
    retained: PositiveCount = Field(default=3, description="Completed checkpoints that are kept.")
    on_cancellation: OnCancellation = Field(
        default=OnCancellation.RETAIN,
        description="Keep or delete checkpoints when the job is cancelled.",
    )

    @field_validator("min_pause_ms")
    @classmethod
    def _pause_is_of_one(cls, pause_ms: int, info: ValidationInfo) -> int:
        concurrent = info.data.get("max_concurrent", 1)
        if pause_ms and concurrent != 1:
            raise wrong(f"needs maxConcurrent 1, which is {concurrent}")
        return pause_ms


class Keep(SpecModel):
    """Which scheduled savepoints are kept: those within both limits."""

    count: PositiveCount = Field(default=10, description="At most so many, newest first.")
    age_ms: Annotated[DurationMs, LongerThanZero] = Field(
        default="168h", validate_default=True, description="None older than this."
    )


class Savepoints(SpecModel):
    """Snapshots that a person owns."""

    storage: Storage | None = Field(
        default=None,
        description="s3://bucket/folder; on a laptop also a folder. "
        "Default: beside the checkpoints.",
    )
    schedule: Annotated[Text, AfterValidator(_schedule)] | None = Field(
        default=None, description='When to take one by itself, as cron does, in UTC: "0 3 * * *".'
    )
    keep: Keep = Field(default_factory=Keep, description="Which scheduled ones are kept.")


class CaBundle(SpecModel):
    """Certificates to trust."""

    config_map_name: ObjectName = Field(description="ConfigMap whose keys are PEM files.")


class StorageCredentials(SpecModel):
    """How pods reach the object store; not needed with workload identity."""

    secret_name: ObjectName | None = Field(
        default=None,
        description="Secret with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.",
    )
    endpoint: Text | None = Field(
        default=None, description="URL of an S3 server other than Amazon's."
    )
    ca_bundle: CaBundle | None = Field(default=None, description="Certificates of that server.")


class Restore(SpecModel):
    """Where state comes from when the job's own log has no snapshot, once per changed value."""

    from_: Text = Field(
        default="Latest",
        description="Latest, None, a snapshot's path, a Savepoint's name, or a time: "
        "the newest at or before it.",
    )
    policy: RestorePolicy = Field(
        default=RestorePolicy.REQUIRE_STATE,
        description="RequireState refuses to start empty when the job had snapshots that are gone.",
    )
    claim_mode: ClaimMode = Field(
        default=ClaimMode.NO_CLAIM,
        description="NoClaim never touches the files restored from; Claim makes them this job's.",
    )
    allow_older: Flag = Field(
        default=False,
        description="May fall back to a checkpoint before committed output, repeating it.",
    )
    adopt: Flag = Field(default=False, description="Take over state that another job's id owns.")
    rename: dict[str, Text] = Field(
        default_factory=dict,
        max_length=1000,
        description="Operators whose uid changed: old uid to new uid.",
    )
