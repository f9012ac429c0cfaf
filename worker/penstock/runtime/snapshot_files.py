"""Snapshots as they lie in stores: found by what a person writes, read, and verified.

A checkpoint counts only when the newest entry of its own job's log retains it; a savepoint's
`_metadata` is enough. Nothing here writes.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from penstock.checkpoint.log import read_newest
from penstock.core import paths
from penstock.core.errors import Corrupt, Rejected
from penstock.core.ids import CheckpointId
from penstock.core.log import Entry, SnapshotRef
from penstock.core.manifest import Manifest, SnapshotKind
from penstock.runtime.job_storage import JobStorage, is_url
from penstock.storage.location import open_store
from penstock.storage.store import Store

LATEST = "latest"
NONE = "none"
_THREADS = 16
_CHECKPOINT = re.compile(r"chk-(\d+)")
_LISTED_MISSING_MAX = 5


@dataclass(frozen=True, slots=True)
class FoundSnapshot:
    """A snapshot that may be restored: `ref.path` is relative to the checkpoints' root when it lies
    there, else absolute; `folder_url` is what relative paths in its manifest start from."""

    ref: SnapshotRef
    manifest: Manifest
    folder_url: str


# ── reading ─────────────────────────────────────────────────────────────────────────────────────


def read_newest_entry(storage: JobStorage) -> Entry | None:
    """The newest entry of a job's log; None for a job that never ran.

    Raises:
        Corrupt: it cannot be read.
    """
    return storage.run(read_newest(storage.job))


def read_snapshot(storage: JobStorage, ref: SnapshotRef) -> FoundSnapshot:
    """The manifest that a log entry names.

    Raises:
        Corrupt: missing, unreadable, or not the bytes that the entry named.
    """
    store, path = storage.locate(ref.path)
    data = store.get(path)
    where = f"{store.url}/{path}"
    if data is None:
        raise Corrupt(f"the manifest of {_name(ref)} is missing", where=where)
    if hashlib.sha256(data).hexdigest() != ref.digest:
        raise Corrupt(
            f"the manifest of {_name(ref)} is not the one that the job's log names", where=where
        )
    return FoundSnapshot(ref, Manifest.from_bytes(data, path=where), _folder_url(store, path, data))


def missing_files(storage: JobStorage, found: FoundSnapshot) -> list[str]:
    """Files that the manifest names and that are not there with their length, as sentences."""
    wanted = {(f.path, f.length) for f in found.manifest.files()}

    def look(item: tuple[str, int]) -> str | None:
        path, length = item
        store, key = storage.locate(path, folder_url=found.folder_url)
        there = store.length(key)
        if there == length:
            return None
        return f"{path} is missing" if there is None else f"{path} has {there} bytes, not {length}"

    with ThreadPoolExecutor(_THREADS) as pool:
        return [answer for answer in pool.map(look, sorted(wanted)) if answer is not None]


def verify(storage: JobStorage, found: FoundSnapshot, older: Iterable[SnapshotRef] = ()) -> None:
    """See that every file of a snapshot is there with its length.

    Raises:
        Corrupt: some are not; names them, and the newest of `older` that is whole.
    """
    missing = missing_files(storage, found)
    if not missing:
        return
    shown = "; ".join(missing[:_LISTED_MISSING_MAX])
    more = len(missing) - _LISTED_MISSING_MAX
    raise Corrupt(
        f"{_name(found.ref)} is damaged: {shown}" + (f"; {more} more" if more > 0 else ""),
        where=found.folder_url,
        fix=_instead(storage, older),
    )


def whole_snapshot(
    storage: JobStorage, ref: SnapshotRef, older: Iterable[SnapshotRef]
) -> FoundSnapshot:
    """Read and verify what a log entry names.

    Raises:
        Corrupt: damaged; says which older one is whole.
    """
    older = tuple(older)
    try:
        found = read_snapshot(storage, ref)
    except Corrupt as e:
        raise Corrupt(e.what, where=e.where, fix=_instead(storage, older)) from e
    verify(storage, found, older)
    return found


# ── finding what a person means ─────────────────────────────────────────────────────────────────


def resolve(storage: JobStorage, wanted: str) -> FoundSnapshot | None:
    """The snapshot to restore for `latest`, `none`, `chk-8`, a savepoint's name, a path, a URL, or a
    time (the newest at or before it), verified. None: start empty.

    Raises:
        Rejected: there is no such snapshot, or the log does not retain it.
        Corrupt: it is damaged.
    """
    text = wanted.strip()
    if text.lower() == NONE:
        return None
    entry = read_newest_entry(storage)
    own = list(_own(entry))
    if text.lower() == LATEST:
        return whole_snapshot(storage, own[0], own[1:]) if own else None
    if named := _CHECKPOINT.fullmatch(text):
        return _own_checkpoint(storage, CheckpointId(int(named[1])), own)
    if (at_ms := _time_ms(text)) is not None:
        return _at_or_before(storage, at_ms, text, own)
    return _by_location(storage, text)


def savepoint_at(storage: JobStorage, text: str) -> tuple[str, Manifest | None]:
    """A folder of this job's savepoints' storage, relative to its root, by name, path or URL; and the
    manifest that stands in it, None when there is none.

    Raises:
        Rejected: it lies elsewhere.
        Corrupt: there is something else than a manifest.
    """
    store, ending = storage.savepoints, f"/{paths.METADATA}"
    for url in _possible_urls(storage, text.rstrip("/")):
        found, path = storage.locate(url)
        folder = path.removesuffix(ending)
        if found is not store or "/" in folder or folder in ("", ".", ".."):
            continue
        data = store.get(folder + ending)
        where = f"{store.url}/{folder}{ending}"
        return folder, None if data is None else Manifest.from_bytes(data, path=where)
    raise Rejected(
        f"{text} is no folder of the job's savepoints",
        where=store.url,
        fix="name one that penstock snapshots lists; what was copied elsewhere is yours to delete",
    )


def snapshots(storage: JobStorage) -> Iterator[FoundSnapshot]:
    """Readable snapshots of this job, checkpoints newest first, then savepoints; not verified."""
    for ref in _own(read_newest_entry(storage)):
        try:
            yield read_snapshot(storage, ref)
        except Corrupt:
            continue
    yield from _savepoints(storage)


def _own(entry: Entry | None) -> Iterator[SnapshotRef]:
    """What a job's log lets one restore, newest first."""
    if entry is None:
        return
    seen = set()
    refs = list(entry.retained)
    if entry.end is not None and entry.end.go_on_from is not None:
        refs.append(entry.end.go_on_from)
    for ref in sorted(refs, key=lambda ref: ref.id, reverse=True):
        if ref.path not in seen:
            seen.add(ref.path)
            yield ref


def _own_checkpoint(storage: JobStorage, id: CheckpointId, own: list[SnapshotRef]) -> FoundSnapshot:
    for i, ref in enumerate(own):
        if ref.id == id:
            return whole_snapshot(storage, ref, own[i + 1 :])
    kept = ", ".join(f"chk-{ref.id}" for ref in own) or "none"
    raise Rejected(
        f"chk-{id} is not a checkpoint that {storage.job} keeps",
        where=f"{storage.checkpoints.url}/{storage.job}",
        fix=f"kept are: {kept}",
    )


def _at_or_before(
    storage: JobStorage, at_ms: int, text: str, own: list[SnapshotRef]
) -> FoundSnapshot:
    found = [read_snapshot(storage, ref) for ref in own] + list(_savepoints(storage))
    fitting = [snapshot for snapshot in found if snapshot.manifest.at_ms <= at_ms]
    if not fitting:
        oldest = min((snapshot.manifest.at_ms for snapshot in found), default=None)
        raise Rejected(
            f"no snapshot of {storage.job} was made at or before {text}",
            where=f"{storage.checkpoints.url}, {storage.savepoints.url}",
            fix="there is none yet" if oldest is None else f"the oldest is of {_utc(oldest)}",
        )
    fitting.sort(key=lambda snapshot: snapshot.manifest.at_ms, reverse=True)
    newest = fitting[0]
    verify(storage, newest, [snapshot.ref for snapshot in fitting[1:]])
    return newest


def _by_location(storage: JobStorage, text: str) -> FoundSnapshot:
    tried = []
    for url in _possible_urls(storage, text.rstrip("/")):
        store, path = storage.locate(url)
        data = store.get(path)
        where = f"{store.url}/{path}"
        if data is None:
            tried.append(f"{store.url.rstrip('/')}/{path}")
            continue
        manifest = Manifest.from_bytes(data, path=where)
        ref = SnapshotRef(
            manifest.checkpoint,
            path if store is storage.checkpoints else where,
            hashlib.sha256(data).hexdigest(),
        )
        found = FoundSnapshot(ref, manifest, _folder_url(store, path, data))
        if manifest.kind is SnapshotKind.CHECKPOINT:
            _refuse_orphan(store, path, found)
        verify(storage, found)
        return found
    raise Rejected(
        f"no snapshot: {text}",
        where="looked for " + ", ".join(tried),
        fix="penstock snapshots lists what there is",
    )


def _possible_urls(storage: JobStorage, text: str) -> Iterator[str]:
    ends = ("",) if text.endswith(f"/{paths.METADATA}") else (f"/{paths.METADATA}",)
    for end in ends:
        if is_url(text):
            yield text + end
        else:
            yield f"file://{(storage.base / Path(text).expanduser()).absolute()}{end}"
            if "/" not in text:
                yield f"{storage.savepoints.url}/{text}{end}"


def _refuse_orphan(store: Store, path: str, found: FoundSnapshot) -> None:
    """A checkpoint's manifest without an entry that retains it may be of one that never completed."""
    folder, _, own_path = path.rpartition(f"{found.manifest.job}/chk-")
    root = store if not folder else open_store(f"{store.url}/{folder}".rstrip("/"))
    entry = read_newest_entry(JobStorage(found.manifest.job, root, root, Path()))
    mine = f"{found.manifest.job}/chk-{own_path}"
    if not any(ref.path == mine and ref.digest == found.ref.digest for ref in _own(entry)):
        raise Rejected(
            f"chk-{found.manifest.checkpoint} is not kept by the log of {found.manifest.job}: "
            "it was dropped, or never completed",
            where=f"{store.url}/{path}",
            fix="restore one that penstock snapshots lists, or a savepoint",
        )


def _savepoints(storage: JobStorage) -> Iterator[FoundSnapshot]:
    for info in storage.savepoints.list(paths.savepoint_prefix(storage.job)):
        if not info.path.endswith(f"/{paths.METADATA}"):
            continue
        data = storage.savepoints.get(info.path)
        if data is None:
            continue
        where = f"{storage.savepoints.url}/{info.path}"
        try:
            manifest = Manifest.from_bytes(data, path=where)
        except Corrupt:
            continue
        if manifest.job == storage.job:
            ref = SnapshotRef(manifest.checkpoint, where, hashlib.sha256(data).hexdigest())
            yield FoundSnapshot(ref, manifest, where.rpartition("/")[0])


# ── words ───────────────────────────────────────────────────────────────────────────────────────


def _folder_url(store: Store, path: str, data: bytes) -> str:
    """What a manifest's relative paths start from: a checkpoint's job folder, a savepoint's own."""
    manifest = Manifest.from_bytes(data, path=f"{store.url}/{path}")
    folder = path.rpartition("/")[0]
    if manifest.kind is SnapshotKind.CHECKPOINT:
        folder = folder.rpartition("/")[0]
    return f"{store.url}/{folder}".rstrip("/")


def _instead(storage: JobStorage, older: Iterable[SnapshotRef]) -> str:
    for ref in older:
        try:
            if not missing_files(storage, read_snapshot(storage, ref)):
                return f"nothing was changed; an older one is whole: --restore {_name(ref)}"
        except Corrupt:
            continue
    return "nothing was changed; no older checkpoint is whole: restore a savepoint, or a backup"


def _name(ref: SnapshotRef) -> str:
    parts = ref.path.split("/")
    return parts[-2] if len(parts) > 1 else ref.path


def _time_ms(text: str) -> int | None:
    """Milliseconds since 1970 of an ISO 8601 time; without a zone it is this machine's."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return None
    return int(at.timestamp() * 1000)


def _utc(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
