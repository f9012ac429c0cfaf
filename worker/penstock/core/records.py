"""What travels in a channel: batches of records, watermarks, barriers, end of input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from penstock.core.ids import CheckpointId


@dataclass(slots=True)
class Batch:
    """Records as columns of bare Python values; never empty, never straddling a barrier.

    `keys` is there on keyed edges, `timestamps` (milliseconds of event time) once the stream has
    event time; each is as long as `values`.
    """

    values: Sequence[Any]
    keys: Sequence[Any] | None = None
    timestamps: Sequence[int] | None = None


@dataclass(frozen=True, slots=True)
class Watermark:
    """No record with an earlier event time (milliseconds) is expected on this channel."""

    at_ms: int


@dataclass(frozen=True, slots=True)
class Barrier:
    """Everything before it belongs to the checkpoint, nothing after it does."""

    checkpoint: CheckpointId


@dataclass(frozen=True, slots=True)
class EndOfInput:
    """Nothing will ever follow on this channel."""


Element: TypeAlias = Batch | Watermark | Barrier | EndOfInput
END_OF_INPUT = EndOfInput()
