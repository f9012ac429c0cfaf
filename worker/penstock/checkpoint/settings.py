"""What a person may set about checkpoints and restarts, in the units that the decisions use."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias

from penstock.core.ids import JobId


class OnCancellation(StrEnum):
    """What becomes of a cancelled job's checkpoints."""

    RETAIN = "Retain"
    DELETE = "Delete"


@dataclass(frozen=True, slots=True)
class ExponentialDelay:
    """Each restart waits twice as long as the one before; a calm time of `reset_after_ms` resets."""

    initial_ms: int = 1_000
    max_ms: int = 60_000
    reset_after_ms: int = 600_000


@dataclass(frozen=True, slots=True)
class FixedDelay:
    """At most `attempts` restarts, each after the same delay; None: without end."""

    delay_ms: int = 1_000
    attempts: int | None = None


@dataclass(frozen=True, slots=True)
class FailureRate:
    """Restarts as long as no more than `failures` fall into any `window_ms`."""

    delay_ms: int = 1_000
    failures: int = 10
    window_ms: int = 600_000


@dataclass(frozen=True, slots=True)
class NoRestart:
    """The first failure ends the job."""


RestartStrategy: TypeAlias = ExponentialDelay | FixedDelay | FailureRate | NoRestart


@dataclass(frozen=True, slots=True)
class CheckpointSettings:
    """`interval_ms` is from start to start, 0 for off; `min_pause_ms` from an end to a start.

    `tolerable_failures` is how many checkpoints may fail in a row before the attempt does. Of the
    log the newest `log_entries` are kept.
    """

    interval_ms: int = 10_000
    min_pause_ms: int = 0
    timeout_ms: int = 600_000
    tolerable_failures: int = 0
    retained: int = 3
    log_entries: int = 100
    on_cancellation: OnCancellation = OnCancellation.RETAIN
    restart: RestartStrategy = field(default_factory=ExponentialDelay)


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this coordinator is, and what it runs.

    `incarnation` is unique to this process: the nonces of its entries are made from it. `owner` is
    in every entry; another owner's log is taken over only with `adopt`. `savepoints_url` is the root
    of the savepoints' storage, without a slash at the end.
    """

    job: JobId
    owner: str
    revision: str
    incarnation: str
    savepoints_url: str
    adopt: bool = False
