"""Another parallelism without a stop: whether it may be, what stands about it in the log, what moved.

    checkpoint, no record behind its barrier ─▶ opening at the new parallelism ─▶ its first checkpoint

Until that first checkpoint is complete the change may be taken back: an attempt that breaks before it,
or whose coordinator is gone, is followed by one at the old parallelism from the same checkpoint. The
record of it is in the settings of every entry since the opening, so that whoever asks again under the
same request id is told the truth by any coordinator.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from penstock.core.chains import operator_parallelism, worker_of
from penstock.core.graph import JobGraph
from penstock.core.ids import WorkerId
from penstock.core.keygroups import subtask_of
from penstock.core.log import Attempt, Entry

KEY = "rescale"


class Outcome(StrEnum):
    """How far a change of parallelism is; the string is on disk: never change one."""

    TRYING = "trying"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Rescale:
    """One change of parallelism; `former` is the placement before it."""

    request_id: str
    former: tuple[int, ...]
    parallelism: int
    outcome: Outcome = Outcome.TRYING
    error: str | None = None
    key_groups_moved: int = 0
    bytes_moved: int = 0
    pause_ms: int = 0

    def to_json(self) -> dict[str, Any]:
        """As it stands in an entry's settings."""
        return {
            "requestId": self.request_id,
            "former": list(self.former),
            "parallelism": self.parallelism,
            "outcome": self.outcome.value,
            "error": self.error,
            "keyGroupsMoved": self.key_groups_moved,
            "bytesMoved": self.bytes_moved,
            "pauseMs": self.pause_ms,
        }


def rescale_of(entry: Entry | None) -> Rescale | None:
    """The newest change of parallelism that the log tells of."""
    body = entry.settings.get(KEY) if entry else None
    if body is None:
        return None
    return Rescale(
        request_id=body["requestId"],
        former=tuple(body["former"]),
        parallelism=body["parallelism"],
        outcome=Outcome(body["outcome"]),
        error=body["error"],
        key_groups_moved=body["keyGroupsMoved"],
        bytes_moved=body["bytesMoved"],
        pause_ms=body["pauseMs"],
    )


def trying(entry: Entry | None) -> Rescale | None:
    """The change that may still be taken back."""
    found = rescale_of(entry)
    return found if found is not None and found.outcome is Outcome.TRYING else None


def noted(settings: dict[str, Any], rescale: Rescale) -> dict[str, Any]:
    """An entry's settings with this in it."""
    return settings | {KEY: rescale.to_json()}


def firm(entry: Entry, *, bytes_moved: int, pause_ms: int) -> Entry:
    """The next entry completes a checkpoint at the new parallelism: what it is made from."""
    found = trying(entry)
    if found is None:
        return entry
    done = replace(found, outcome=Outcome.DONE, bytes_moved=bytes_moved, pause_ms=pause_ms)
    return replace(entry, settings=noted(entry.settings, done))


def taken_back(entry: Entry, error: str) -> Entry:
    """The next entry ends the run, or opens it, at the old parallelism: what it is made from."""
    found = trying(entry)
    if found is None:
        return entry
    failed = replace(found, outcome=Outcome.FAILED, error=error)
    former = replace(entry.attempt, parallelism=len(found.former), placement=found.former)
    return replace(entry, attempt=former, settings=noted(entry.settings, failed))


def refusal(parallelism: int, attempt: Attempt, workers: Collection[WorkerId]) -> str | None:
    """Why a running attempt cannot go on at that parallelism; None when it can."""
    if parallelism < 1:
        return (
            f"parallelism {parallelism} is less than 1; to stop the job, stop it with a savepoint"
        )
    if parallelism > attempt.max_parallelism:
        return (
            f"parallelism {parallelism} is above the job's max parallelism, which is "
            f"{attempt.max_parallelism} and fixed for its life"
        )
    if parallelism == attempt.parallelism:
        return f"the job runs at parallelism {parallelism} already"
    return missing(parallelism, workers)


def missing(parallelism: int, workers: Collection[WorkerId]) -> str | None:
    """A sentence about workers that would be needed and are not registered."""
    absent = [i for i in range(parallelism) if WorkerId(i) not in workers]
    if not absent:
        return None
    names = ", ".join(str(i) for i in absent)
    return f"of workers 0 to {parallelism - 1} these are not registered: {names}"


def with_groups_moved(opened: Entry, graph: JobGraph) -> Entry:
    """The opening with the number of key groups that it moves."""
    found = trying(opened)
    if found is None:
        return opened
    moved = groups_moved(
        graph,
        found.former,
        opened.attempt.placement,
        max_parallelism=opened.attempt.max_parallelism,
    )
    settings = noted(opened.settings, replace(found, key_groups_moved=moved))
    return replace(opened, settings=settings)


def groups_moved(
    graph: JobGraph, former: tuple[int, ...], placement: tuple[int, ...], *, max_parallelism: int
) -> int:
    """How many key groups another worker runs, over all keyed operators."""
    moved = 0
    for operator in graph.operators:
        if operator.is_keyed:
            old, new = (
                operator_parallelism(operator, parallelism=len(workers))
                for workers in (former, placement)
            )
            moved += sum(
                _worker(group, old, former, max_parallelism)
                != _worker(group, new, placement, max_parallelism)
                for group in range(max_parallelism)
            )
    return moved


def _worker(group: int, width: int, placement: tuple[int, ...], max_parallelism: int) -> WorkerId:
    index = subtask_of(group, parallelism=width, max_parallelism=max_parallelism)
    return worker_of(index, parallelism=width, placement=placement)
