"""The parts of the manifest about change: upgrades, rescaling, restarts, errors, deletion."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from penstock.spec.parts.fields import (
    Flag,
    LongerThanZero,
    PositiveCount,
    SpecModel,
    Text,
    absent,
    in_yaml,
    wrong,
)
from penstock.spec.parts.quantities import DurationMs


class UpgradeMode(StrEnum):
    """How a changed job carries its state."""

    SAVEPOINT = "Savepoint"
    LAST_STATE = "LastState"
    STATELESS = "Stateless"


class Approval(StrEnum):
    """Who lets an upgrade's plan begin."""

    AUTOMATIC = "Automatic"
    MANUAL = "Manual"


class WhenUnhealthy(StrEnum):
    """What an upgrade in mode Savepoint does with a job that cannot take one."""

    LATEST_CHECKPOINT = "LatestCheckpoint"
    WAIT = "Wait"


class ErrorPolicy(StrEnum):
    """What becomes of a record whose processing raises."""

    FAIL = "Fail"
    SKIP = "Skip"
    DEAD_LETTER = "DeadLetter"


class RestartStrategy(StrEnum):
    """When a failed job gets its next attempt."""

    EXPONENTIAL_DELAY = "ExponentialDelay"
    FIXED_DELAY = "FixedDelay"
    FAILURE_RATE = "FailureRate"
    NONE = "None"


class DeletionPolicy(StrEnum):
    """What becomes of state when the StreamJob is deleted."""

    SAVEPOINT = "Savepoint"
    RETAIN = "Retain"
    DELETE = "Delete"


class StableAfter(SpecModel):
    """When a new version counts as stable."""

    checkpoints: PositiveCount = Field(
        default=2, description="Checkpoints completed by the new version without a restart."
    )


class Upgrade(SpecModel):
    """How the job moves to a new version."""

    mode: UpgradeMode = Field(
        default=UpgradeMode.SAVEPOINT,
        description="Savepoint stops with one; LastState takes the newest checkpoint; "
        "Stateless begins empty.",
    )
    approval: Approval = Field(
        default=Approval.AUTOMATIC,
        description="Manual shows the plan and waits for the annotation approve.",
    )
    allow_non_restored_state: Flag = Field(
        default=False, description="State that no operator of the new version takes may be dropped."
    )
    stable_after: StableAfter = Field(
        default_factory=StableAfter, description="When the new version counts as stable."
    )
    when_unhealthy: WhenUnhealthy = Field(
        default=WhenUnhealthy.LATEST_CHECKPOINT,
        description="What to do when the running job cannot take a savepoint.",
    )
    hold_commits: Flag = Field(
        default=True, description="Sinks hold what they write until the new version is stable."
    )
    rollback: Flag = Field(
        default=True, description="Go back by itself when the new version does not run."
    )
    timeout_ms: Annotated[DurationMs, LongerThanZero] = Field(
        default="10m", validate_default=True, description="Longest time for one step."
    )


class Rescale(SpecModel):
    """How parallelism changes."""

    cooldown_ms: DurationMs = Field(
        default="2m", validate_default=True, description="Least time between two changes."
    )
    timeout_ms: Annotated[DurationMs, LongerThanZero] = Field(
        default="10m", validate_default=True, description="Longest wait for new workers."
    )


class Errors(SpecModel):
    """What becomes of a record whose processing raises."""

    policy: ErrorPolicy = Field(
        default=ErrorPolicy.FAIL, description="Fail the attempt, Skip and count, or DeadLetter."
    )
    dead_letters: Text | None = Field(
        default=None,
        description="Folder or s3:// URL for records of policy DeadLetter.",
    )

    @field_validator("dead_letters")
    @classmethod
    def _go_with_the_policy(cls, where: str | None, info: ValidationInfo) -> str | None:
        policy = info.data.get("policy")
        if where is None and policy is ErrorPolicy.DEAD_LETTER:
            raise absent("is missing; policy DeadLetter needs a folder or s3:// URL")
        if where is not None and policy not in {None, ErrorPolicy.DEAD_LETTER}:
            raise wrong(f"needs policy DeadLetter, which is {policy}")
        return where


STRATEGY_FIELDS = {
    RestartStrategy.EXPONENTIAL_DELAY: {"initial_delay_ms", "max_delay_ms"},
    RestartStrategy.FIXED_DELAY: {"delay_ms", "attempts"},
    RestartStrategy.FAILURE_RATE: {"delay_ms", "attempts", "window_ms"},
    RestartStrategy.NONE: set[str](),
}


class Restart(SpecModel):
    """When a failed job gets its next attempt."""

    strategy: RestartStrategy = Field(
        default=RestartStrategy.EXPONENTIAL_DELAY,
        description="ExponentialDelay, FixedDelay, FailureRate or None.",
    )
    initial_delay_ms: Annotated[DurationMs, LongerThanZero] = Field(
        default="1s",
        validate_default=True,
        description="ExponentialDelay: wait after the first failure.",
    )
    max_delay_ms: Annotated[DurationMs, LongerThanZero] = Field(
        default="1m", validate_default=True, description="ExponentialDelay: longest wait."
    )
    delay_ms: DurationMs = Field(
        default="1s",
        validate_default=True,
        description="FixedDelay, FailureRate: wait after every failure.",
    )
    attempts: PositiveCount | None = Field(
        default=None,
        description="FixedDelay: restarts in all, default without end. "
        "FailureRate: restarts within the window, default 10.",
    )
    window_ms: Annotated[DurationMs, LongerThanZero] = Field(
        default="10m",
        validate_default=True,
        description="FailureRate: the time that failures are counted in.",
    )

    @field_validator("max_delay_ms")
    @classmethod
    def _not_below_the_first(cls, max_ms: int, info: ValidationInfo) -> int:
        if max_ms < info.data.get("initial_delay_ms", 0):
            raise wrong("is shorter than initialDelay")
        return max_ms

    @model_validator(mode="after")
    def _fields_of_the_strategy(self) -> Self:
        for name in type(self).model_fields:
            if name == "strategy" or name not in self.model_fields_set:
                continue
            if name not in STRATEGY_FIELDS[self.strategy]:
                takers = [str(s) for s, names in STRATEGY_FIELDS.items() if name in names]
                raise wrong(
                    f"needs strategy {' or '.join(takers)}, which is {self.strategy}",
                    at=in_yaml(name),
                )
        return self


class Deletion(SpecModel):
    """What becomes of state when the StreamJob is deleted."""

    policy: DeletionPolicy = Field(
        default=DeletionPolicy.SAVEPOINT,
        description="Savepoint takes one first; Retain keeps checkpoints; Delete removes them.",
    )
    timeout_ms: Annotated[DurationMs, LongerThanZero] = Field(
        default="5m",
        validate_default=True,
        description="After this the object goes anyway; state stays.",
    )
