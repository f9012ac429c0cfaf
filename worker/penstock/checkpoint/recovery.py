"""What to do from the newest entry of a job's log: reading it, and the decision.

`read_job` gathers what the store knows (a generator over store requests, as in `log`); `recovery`
decides from it. Nothing is written before the decision.
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator
from dataclasses import dataclass
from typing import TypeAlias

from penstock.checkpoint import log, restore
from penstock.checkpoint.events import LogRead
from penstock.core import paths
from penstock.core.errors import Corrupt
from penstock.core.ids import CheckpointId, JobId
from penstock.core.log import End, Entry, SnapshotRef
from penstock.core.manifest import Manifest


@dataclass(frozen=True, slots=True)
class StartFresh:
    """There is no log: whoever orders a start begins the job."""


@dataclass(frozen=True, slots=True)
class Restore:
    """Open the next attempt from this snapshot (None: empty).

    Sinks commit what they restore up to `committed`: all of it, or in a hold what was committed
    before it.
    """

    snapshot: SnapshotRef | None
    committed: CheckpointId | None


@dataclass(frozen=True, slots=True)
class CommitOnly:
    """The run ended; its last transactions are to be committed up to `committed`, no more."""

    end: End
    committed: CheckpointId | None


@dataclass(frozen=True, slots=True)
class HasEnded:
    """The run ended and everything is committed: run nothing until an order says so."""

    end: End


@dataclass(frozen=True, slots=True)
class WaitForOrder:
    """Another revision ran last: code may take over by an order only."""

    revision: str


@dataclass(frozen=True, slots=True)
class Foreign:
    """The job's folder belongs to someone else; nothing may be written."""

    owner: str


@dataclass(frozen=True, slots=True)
class Damaged:
    """What would be restored cannot be; `older` is the next retained one that can."""

    snapshot: SnapshotRef
    reason: str
    older: SnapshotRef | None


Recovery: TypeAlias = (
    StartFresh | Restore | CommitOnly | HasEnded | WaitForOrder | Foreign | Damaged
)


def recovery(read: LogRead, *, owner: str, revision: str, adopt: bool = False) -> Recovery:
    """What a coordinator of this owner and revision does without being told more."""
    entry = read.newest
    if entry is None:
        return StartFresh()
    if entry.owner != owner and not adopt:
        return Foreign(entry.owner)
    if entry.end is not None and entry.end.committed:
        return HasEnded(entry.end)
    point = log.recovery_point(entry)
    if point is not None and point.path in read.damaged:
        older = newest_whole_below(point, entry, read)
        return Damaged(point, read.damaged[point.path], older)
    if entry.end is not None:
        return CommitOnly(entry.end, committed_up_to(entry, point))
    if entry.attempt.revision != revision:
        return WaitForOrder(entry.attempt.revision)
    return Restore(point, committed_up_to(entry, point))


def newest_whole_below(point: SnapshotRef, entry: Entry, read: LogRead) -> SnapshotRef | None:
    """The newest snapshot before a damaged one that the log keeps and that is whole."""
    older = [ref for ref in log.kept(entry) if ref.id < point.id and ref.path not in read.damaged]
    return max(older, key=lambda ref: ref.id, default=None)


def committed_up_to(entry: Entry, point: SnapshotRef | None) -> CheckpointId | None:
    """Up to where sinks that restore this point may commit: in a hold nothing above `after`."""
    if point is None:
        return None
    return entry.hold.after if entry.hold else point.id


def next_checkpoint(
    previous: Entry | None, highest_listed: CheckpointId, restored: Manifest | None
) -> CheckpointId:
    """The first number of a new attempt: above all that the log, the store and the snapshot use.

    Commits are ordered by "all up to n", so it must be above the number restored from, too.
    """
    used = [highest_listed]
    if previous is not None:
        used.append(log.highest_named(previous))
    if restored is not None:
        used.append(restored.checkpoint)
    return CheckpointId(max(used) + 1)


def read_job(job: JobId) -> Generator[log.StoreRequest, log.StoreAnswer, LogRead]:
    """All that the store knows of a job, each named manifest checked.

    Files are looked for, too: those of the recovery point and of what a hold goes back to; when the
    recovery point is damaged, of older ones until one is whole.

    Raises:
        Corrupt: the newest entry cannot be read.
    """
    listed = yield from log.listing(f"{job}/")
    newest = yield from log.read_newest(job)
    manifests: dict[str, Manifest] = {}
    damaged: dict[str, str] = {}

    def look(ref: SnapshotRef | None) -> Generator[log.StoreRequest, log.StoreAnswer, None]:
        if ref is None or ref.path not in manifests or ref.path in damaged:
            return
        manifest = manifests[ref.path]
        missing = yield from missing_file(manifest, restore.folder_of(ref, manifest))
        if missing is not None:
            damaged[ref.path] = missing

    if newest is not None:
        for ref in {*log.kept(newest), *newest.dropping}:
            data = yield from log.read_object(ref.path)
            try:
                manifests[ref.path] = _manifest(ref, data)
            except Corrupt as e:
                damaged[ref.path] = e.what
        point = log.recovery_point(newest)
        yield from look(point)
        yield from look(newest.hold.from_ if newest.hold else None)
        if point is not None and point.path in damaged:
            for ref in sorted(log.kept(newest), key=lambda ref: -ref.id):
                yield from look(ref)
                if ref.id < point.id and ref.path not in damaged:
                    break
    return LogRead(newest, highest_checkpoint(listed), manifests, damaged)


def missing_file(
    manifest: Manifest, folder: str
) -> Generator[log.StoreRequest, log.StoreAnswer, str | None]:
    """A sentence about the first file of a snapshot that is missing or has another length."""
    wanted = {
        file.path if is_absolute(file.path) else folder + file.path: file.length
        for file in manifest.files()
    }
    there: dict[str, int] = {}
    for prefix in sorted({path.rpartition("/")[0] + "/" for path in wanted}):
        there |= yield from log.listing(prefix)
    for path, length in wanted.items():
        if path not in there:
            return f"its file {path} is missing"
        if there[path] != length:
            return f"its file {path} has {there[path]} bytes, it should have {length}"
    return None


def highest_checkpoint(listed: dict[str, int]) -> CheckpointId:
    """The greatest number in names of checkpoints and shared files, 0 for none."""
    found = [paths.checkpoint_of(p) or paths.shared_checkpoint(p) or 0 for p in listed]
    return CheckpointId(max(found, default=0))


def is_absolute(path: str) -> bool:
    """Whether a path names its storage itself (`s3://…`, `file:///…`)."""
    return "://" in path


def _manifest(ref: SnapshotRef, data: bytes | None) -> Manifest:
    if data is None:
        raise Corrupt("its manifest is missing", where=ref.path)
    if hashlib.sha256(data).hexdigest() != ref.digest:
        raise Corrupt("its manifest is not the one that was completed", where=ref.path)
    return Manifest.from_bytes(data, path=ref.path)
