"""The job's log: how an entry is won, and how the newest one is found.

The log is the only fence, so nothing here guesses. These are generators: each yields one request to
the store and is sent the answer, so that the same lines run over S3, over a folder, and over the
simulator's store that loses answers. They never wait by themselves; whoever drives them waits a
little before it sends a `Unknown` on.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from penstock.core import paths
from penstock.core.errors import Corrupt
from penstock.core.ids import CheckpointId, JobId
from penstock.core.log import Attempt, End, Entry, EntryKind, Hold, SnapshotRef


@dataclass(frozen=True, slots=True)
class PutIfAbsent:
    """Create an object. Answer: True (created), False (there is one), or Unknown."""

    path: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Get:
    """Read an object. Answer: its bytes, None (there is none), or Unknown.

    The path is relative to the checkpoints' root, or absolute.
    """

    path: str


@dataclass(frozen=True, slots=True)
class List:
    """List the objects whose path begins with prefix (relative or absolute).

    Answer: path → length in bytes, or Unknown.
    """

    prefix: str


@dataclass(frozen=True, slots=True)
class Unknown:
    """The store did not say: a write may have happened, may still happen, or not."""


StoreRequest: TypeAlias = PutIfAbsent | Get | List
StoreAnswer: TypeAlias = bool | bytes | dict[str, int] | Unknown | None


@dataclass(frozen=True, slots=True)
class Won:
    """The entry stands under its number, and none above it."""

    entry: Entry


@dataclass(frozen=True, slots=True)
class Lost:
    """Another's entry stands there, or one above it; `newest` is the newest of all."""

    newest: Entry


def append(job: JobId, entry: Entry) -> Generator[StoreRequest, StoreAnswer, Won | Lost]:
    """Put an entry under its number and find out whether it won it.

    Absent is no answer: a put of unknown outcome could still arrive, so the same bytes are put again
    until an entry stands there. Creating is not yet winning: a paused writer may create a number
    that had been deleted, so no higher one may be listed afterwards.
    """
    data = entry.to_bytes()
    there = yield from create(paths.log_entry(job, entry.seq), data)
    if there == data and (yield from _highest_seq(job)) == entry.seq:
        return Won(entry)
    newest = yield from read_newest(job)
    assert newest is not None, "the newest entry of a log is never deleted"
    return Lost(newest)


def create(path: str, data: bytes) -> Generator[StoreRequest, StoreAnswer, bytes]:
    """Create an object unless there is one, whatever the store answers; what stands there then."""
    while True:
        if (yield PutIfAbsent(path, data)) is True:
            return data
        there = yield from read_object(path)
        if there is not None:
            return there


def read_newest(job: JobId) -> Generator[StoreRequest, StoreAnswer, Entry | None]:
    """The newest entry, None for a job without a log.

    Raises:
        Corrupt: it cannot be read, or is another one.
    """
    while True:
        highest = yield from _highest_seq(job)
        if highest is None:
            return None
        path = paths.log_entry(job, highest)
        data = yield from read_object(path)
        if data is not None:  # else it was trimmed since, and there is a newer one
            entry = Entry.from_bytes(data, path=path)
            if entry.seq != highest:
                raise Corrupt(
                    f"entry {entry.seq} of the job's log lies under the name of entry {highest}",
                    where=path,
                    fix="nothing was changed; put back the entry that was there, or see the runbook",
                )
            return entry


def listing(prefix: str) -> Generator[StoreRequest, StoreAnswer, dict[str, int]]:
    """Paths and lengths of what begins with prefix."""
    while True:
        listed = yield List(prefix)
        if isinstance(listed, dict):
            return listed


def read_object(path: str) -> Generator[StoreRequest, StoreAnswer, bytes | None]:
    """An object's content, None when there is none."""
    while True:
        data = yield Get(path)
        if data is None or isinstance(data, bytes):
            return data


def _highest_seq(job: JobId) -> Generator[StoreRequest, StoreAnswer, int | None]:
    listed = yield from listing(paths.log_folder(job))
    return max((seq for path in listed if (seq := paths.log_seq(path)) is not None), default=None)


# ── the next entry: each repeats the whole small truth of the one before ────────────────────────


def opened(
    previous: Entry | None,
    *,
    nonce: str,
    at_ms: int,
    owner: str,
    attempt: Attempt,
    hold: Hold | None,
    request_id: str | None,
    settings: dict[str, Any],
    dropped: tuple[SnapshotRef, ...] = (),
) -> Entry:
    """The opening of an attempt, the only kind that a log begins with.

    `dropped` are retained ones that nobody may go back to any more.
    """
    retained = previous.retained if previous else ()
    return Entry(
        seq=previous.seq + 1 if previous else 1,
        nonce=nonce,
        at_ms=at_ms,
        kind=EntryKind.OPENED,
        owner=owner,
        job_nonce=previous.job_nonce if previous else nonce,
        attempt=attempt,
        request_id=request_id,
        retained=tuple(ref for ref in retained if ref not in dropped),
        dropping=(*(previous.dropping if previous else ()), *dropped),
        hold=hold,
        settings=settings,
    )


def completed(
    previous: Entry,
    *,
    nonce: str,
    at_ms: int,
    retained: tuple[SnapshotRef, ...],
    dropping: tuple[SnapshotRef, ...],
) -> Entry:
    """A checkpoint is complete: the newest of `retained`."""
    return replace(
        _next(previous, EntryKind.COMPLETED, nonce, at_ms), retained=retained, dropping=dropping
    )


def released(previous: Entry, *, nonce: str, at_ms: int) -> Entry:
    """The hold is over: sinks may commit all that is complete."""
    return replace(_next(previous, EntryKind.RELEASED, nonce, at_ms), hold=None)


def with_settings(previous: Entry, settings: dict[str, Any], *, nonce: str, at_ms: int) -> Entry:
    """Other settings are in force."""
    return replace(_next(previous, EntryKind.SETTINGS, nonce, at_ms), settings=settings)


def dropped(previous: Entry, *, nonce: str, at_ms: int) -> Entry:
    """Something outside the job's folder is about to be deleted: who wins this has the job."""
    return _next(previous, EntryKind.DROPPED, nonce, at_ms)


def ended(
    previous: Entry,
    end: End,
    *,
    nonce: str,
    at_ms: int,
    request_id: str | None,
    retained: tuple[SnapshotRef, ...],
    dropping: tuple[SnapshotRef, ...],
    hold: Hold | None,
) -> Entry:
    """The run is over; first with commits outstanding, then `end.committed`."""
    return replace(
        _next(previous, EntryKind.ENDED, nonce, at_ms),
        end=end,
        request_id=request_id,
        retained=retained,
        dropping=dropping,
        hold=hold,
    )


def _next(previous: Entry, kind: EntryKind, nonce: str, at_ms: int) -> Entry:
    return replace(previous, seq=previous.seq + 1, kind=kind, nonce=nonce, at_ms=at_ms)


def recovery_point(entry: Entry) -> SnapshotRef | None:
    """What an attempt after this entry starts from; None for nothing.

    Retained checkpoints below the attempt's own numbers do not count: it may have been started from
    something else on purpose.
    """
    if entry.end is not None:
        return entry.end.go_on_from
    own = [ref for ref in entry.retained if ref.id >= entry.attempt.next_checkpoint]
    return max(own, key=lambda ref: ref.id, default=entry.attempt.restored_from)


def kept(entry: Entry) -> list[SnapshotRef]:
    """Every snapshot that must stay whole: retained ones, the recovery point, what a hold goes back
    to."""
    hold = entry.hold.from_ if entry.hold else None
    needed = (*entry.retained, recovery_point(entry), hold)
    return list({ref.path: ref for ref in needed if ref is not None}.values())


def highest_named(entry: Entry) -> CheckpointId:
    """The greatest checkpoint number that the entry knows to be used."""
    numbers = [entry.attempt.next_checkpoint - 1, *(ref.id for ref in kept(entry))]
    return CheckpointId(max(numbers))
