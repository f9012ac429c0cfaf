"""Deleting a job's snapshots while none of its coordinators runs: what a short pod does.

A savepoint goes `_metadata` first: from then on it is none. Checkpoints go behind an entry of the
job's log that keeps none of them, so that a coordinator which still runs, or runs again, neither
restores one nor goes on. The newest entry stays: numbers are never used twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from penstock.checkpoint import disposal, log, recovery
from penstock.core import paths
from penstock.core.errors import Rejected, Retryable
from penstock.core.ids import CheckpointId
from penstock.core.log import End, EndKind, Entry
from penstock.runtime.job_storage import JobStorage
from penstock.runtime.snapshot_files import savepoint_at
from penstock.storage.store import ObjectInfo, Store

REASON = "its checkpoints were deleted"


@dataclass(frozen=True, slots=True)
class Disposed:
    """What was deleted, and from where; no objects when it was gone already."""

    path: str
    objects: int
    size_bytes: int


def dispose_savepoint(storage: JobStorage, named: str) -> Disposed:
    """Delete a savepoint of this job; one that is not there is disposed of.

    Raises:
        Rejected: it is another job's, no savepoint, or the job would go on from it.
    """
    folder, manifest = savepoint_at(storage, named)
    url = f"{storage.savepoints.url}/{folder}"
    if manifest is None:
        return Disposed(url, 0, 0)
    read = storage.run(recovery.read_job(storage.job))
    kept = [] if read.newest is None else log.kept(read.newest)
    refusal = disposal.refusal(storage.job, url, manifest, kept, read.manifests)
    if refusal is not None:
        raise Rejected(refusal, where=url, fix="nothing was deleted")
    metadata = f"{folder}/{paths.METADATA}"
    listed = list(storage.savepoints.list(f"{folder}/"))
    # Also what tries that died left beside it.
    storage.savepoints.delete((metadata, *(i.path for i in listed if i.path != metadata)))
    return _disposed(url, listed)


def dispose_checkpoints(
    storage: JobStorage, *, owner: str, adopt: bool, nonce: str, at_ms: int
) -> Disposed:
    """Delete everything in the job's folder but the entry that says so; savepoints stay.

    What sinks had prepared and not committed is never committed. `nonce` is unique to this call.

    Raises:
        Rejected: the folder is another owner's.
        Retryable: a coordinator wrote to the log meanwhile.
        Corrupt: the log cannot be read.
    """
    store = storage.checkpoints
    # Before the end that fences it off: what a coordinator writes until then is not in it, nor later.
    listed = list(store.list(f"{storage.job}/"))
    url = f"{store.url}/{storage.job}"
    newest = storage.run(log.read_newest(storage.job))
    if newest is None:
        return Disposed(url, 0, 0)
    if newest.owner != owner and not adopt:
        raise Rejected(
            f"the job's folder belongs to {newest.owner}",
            where=f"{url}, as {owner}",
            fix="nothing was deleted; to take it over on purpose, set spec.restore.adopt: true",
        )
    if not _keeps_nothing(newest):
        newest = _ended(storage, newest, nonce=nonce, at_ms=at_ms)
    kept = paths.log_entry(storage.job, newest.seq)
    return _emptied(store, url, [info for info in listed if info.path != kept])


def _keeps_nothing(entry: Entry) -> bool:
    return entry.end is not None and entry.end.committed and not log.kept(entry)


def _ended(storage: JobStorage, newest: Entry, *, nonce: str, at_ms: int) -> Entry:
    listed = storage.run(log.listing(f"{storage.job}/"))
    highest = max(log.highest_named(newest), recovery.highest_checkpoint(listed))
    entry = log.ended(
        # Nothing else remembers the numbers that were used.
        replace(newest, attempt=replace(newest.attempt, next_checkpoint=CheckpointId(highest + 1))),
        End(EndKind.CANCELLED, committed=True, reason=REASON),
        nonce=nonce,
        at_ms=at_ms,
        request_id=None,
        retained=(),
        dropping=(),
        hold=None,
    )
    match storage.run(log.append(storage.job, entry)):
        case log.Won(entry=won):
            return won
        case log.Lost():
            raise Retryable(
                "a coordinator of the job still writes to its log",
                where=f"{storage.checkpoints.url}/{storage.job}",
                fix="end it, then try again; nothing was deleted",
            )


def _emptied(store: Store, url: str, listed: Sequence[ObjectInfo]) -> Disposed:
    # What a manifest names may go only after it.
    gone = [info.path for info in listed]
    store.delete(path for path in gone if path.endswith(f"/{paths.METADATA}"))
    store.delete(path for path in gone if not path.endswith(f"/{paths.METADATA}"))
    return _disposed(url, listed)


def _disposed(url: str, listed: Iterable[ObjectInfo]) -> Disposed:
    sizes = [info.length for info in listed]
    return Disposed(url, len(sizes), sum(sizes))
