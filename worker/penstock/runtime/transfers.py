"""Files between a worker's disk and the object store: snapshots up, restored state down.

Run by the supervisor on threads, so that none of it competes with records for the child's
interpreter. A RocksDB directory goes up file by file; what the base checkpoint already has is
referenced. Canonical streams are one file, or inline in the manifest when they are small. Down comes
what no local copy has.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

from penstock.core import paths
from penstock.core.errors import Corrupt, Rejected
from penstock.core.handles import FileHandle, KeyedFormat, KeyedHandle
from penstock.core.ids import AttemptNumber, CheckpointId, JobId, OperatorId, SubtaskId
from penstock.core.snapshots import KeyedSource, OperatorPart, RestorePlan
from penstock.network import frames
from penstock.runtime.job_storage import JobStorage
from penstock.state import canonical

INLINE_BYTES_MAX = 20 << 10
MEMORY_BYTES_MAX = 5 << 20
_COPY = "copy.json"
_BLOCK_BYTES = 1 << 20
_DOWNLOAD_THREADS = 8


class Aborted(Exception):
    """The checkpoint was given up while it was uploaded."""


@dataclass(slots=True)
class Upload:
    """One subtask's part of one checkpoint on its way. `files` have been uploaded so far."""

    snapshotted: frames.Snapshotted
    trigger: frames.Trigger
    files: list[str] = field(default_factory=list)
    bytes_new: int = 0
    is_aborted: bool = False


class Uploader:
    """Uploads of one attempt of one worker. `known` are the shared files that a base checkpoint has,
    by (operator, subtask index) and local name."""

    def __init__(
        self,
        storage: JobStorage,
        attempt: AttemptNumber,
        *,
        max_parallelism: int,
        is_incremental: bool,
        keeps_in_manifest: bool,
    ) -> None:
        self._storage = storage
        self._job: JobId = storage.job
        self._attempt = attempt
        self._max_parallelism = max_parallelism
        self._is_incremental = is_incremental
        self._keeps_in_manifest = keeps_in_manifest
        self._known: dict[CheckpointId, dict[tuple[OperatorId, int], dict[str, FileHandle]]] = {}

    def knows(
        self, checkpoint: CheckpointId, operator: OperatorId, index: int, handle: KeyedHandle
    ) -> None:
        """Remember what a checkpoint has, to be referenced once it is the base of another."""
        shared = {f.local_name: f for f in handle.files if f.shared and f.local_name is not None}
        self._known.setdefault(checkpoint, {})[operator, index] = shared

    def forget_before(self, checkpoint: CheckpointId) -> None:
        """A checkpoint completed: older ones are no base any more."""
        for old in [n for n in self._known if n < checkpoint]:
            del self._known[old]

    def run(self, upload: Upload) -> frames.Acked:
        """Upload everything of a part; blocks.

        Raises:
            Aborted: it was given up meanwhile.
            PenstockError: the store refused, or is not reached; `upload.files` are to be deleted.
        """
        part = upload.snapshotted
        parts = dict(part.parts)
        for operator, path in part.copies.items():
            handle = parts[operator].snapshot.keyed
            assert handle is not None, operator
            done = self._handle(upload, operator, handle, Path(path))
            parts[operator] = _with_keyed(parts[operator], done)
            if upload.trigger.savepoint is None:
                self.knows(part.checkpoint, operator, part.subtask.index, done)
        return frames.Acked(
            attempt=part.attempt,
            checkpoint=part.checkpoint,
            subtask=part.subtask,
            parts=parts,
            files=tuple(upload.files),
            bytes_new=upload.bytes_new,
        )

    def _handle(
        self, upload: Upload, operator: OperatorId, handle: KeyedHandle, path: Path
    ) -> KeyedHandle:
        subtask = SubtaskId(operator, upload.snapshotted.subtask.index)
        if handle.format is KeyedFormat.CANONICAL:
            return self._canonical(upload, subtask, handle, path)
        if upload.trigger.savepoint is not None:
            file = path.with_name(f"{path.name}-{operator}.canonical")
            copied = canonical.from_rocks(
                path, handle.groups, file, max_parallelism=self._max_parallelism
            )
            moved = replace(handle, format=copied.format, offsets=copied.offsets)
            try:
                return self._canonical(upload, subtask, moved, file)
            finally:
                file.unlink()
        return replace(handle, files=tuple(self._directory(upload, subtask, path)))

    def _directory(self, upload: Upload, subtask: SubtaskId, path: Path) -> Iterator[FileHandle]:
        n, base = upload.snapshotted.checkpoint, upload.trigger.base
        known: dict[str, FileHandle] = {}
        if self._is_incremental and base is not None:
            known = self._known.get(base, {}).get((subtask.operator, subtask.index), {})
        for file in sorted(path.iterdir()):
            is_shared = file.suffix == ".sst"
            before = known.get(file.name) if is_shared else None
            if before is not None and before.length == file.stat().st_size:
                yield before
                continue
            nonce = uuid.uuid4().hex
            if is_shared:
                where = paths.shared_file(self._job, self._attempt, n, nonce)
            else:
                where = paths.private_file(self._job, self._attempt, n, subtask, nonce)
            length, crc32 = self._put(upload, where, file)
            yield FileHandle(
                paths.relative_to_job(self._job, where), length, crc32, is_shared, file.name
            )

    def _canonical(
        self, upload: Upload, subtask: SubtaskId, handle: KeyedHandle, path: Path
    ) -> KeyedHandle:
        size = path.stat().st_size
        if self._keeps_in_manifest and size > MEMORY_BYTES_MAX:
            raise Rejected(
                f"the state of {subtask} is {size:,} bytes, and the Memory backend keeps snapshots in "
                f"the manifest, at most {MEMORY_BYTES_MAX:,} bytes each",
                where=f"operator {subtask.operator}",
                fix="set spec.state.backend to FileSystem or RocksDB",
            )
        if size <= INLINE_BYTES_MAX or self._keeps_in_manifest:
            upload.bytes_new += size
            return replace(handle, inline=path.read_bytes())
        n, nonce = upload.snapshotted.checkpoint, uuid.uuid4().hex
        folder = upload.trigger.savepoint
        if folder is None:
            where = paths.private_file(self._job, self._attempt, n, subtask, nonce)
            name = paths.relative_to_job(self._job, where)
        else:
            name = paths.file_name(self._attempt, n, subtask, nonce)
            where = folder + name
        length, crc32 = self._put(upload, where, path)
        return replace(handle, files=(FileHandle(name, length, crc32),))

    def _put(self, upload: Upload, where: str, file: Path) -> tuple[int, int]:
        if upload.is_aborted:
            raise Aborted
        is_savepoint = upload.trigger.savepoint is not None
        store = self._storage.savepoints if is_savepoint else self._storage.checkpoints
        upload.files.append(where)
        stored = store.upload(where, file)
        upload.bytes_new += stored.length
        return stored.length, stored.crc32


class LocalCopies:
    """Copies of a worker's own parts of recent checkpoints, by hard link, for local recovery.

    A copy stands in for the store only when the handle it was acknowledged with is the one asked
    for, name by name, and its bytes are those that were uploaded: any doubt means the store. Names of
    files are never used twice, so that it does not matter which subtask asks, or for which groups.
    """

    def __init__(self, folder: Path, job: JobId) -> None:
        self._folder = folder
        self._job = job

    def listed(self) -> tuple[str, ...]:
        """The checkpoints (their manifests' paths) of which there is a copy."""
        return tuple(paths.checkpoint_metadata(self._job, n) for n, _ in self._folders())

    def keep(
        self, acked: frames.Acked, copies: dict[OperatorId, str], *, across: bool = False
    ) -> None:
        """Keep what an acknowledged part was written to; it is moved here. `across`: also from
        another file system, which takes as long as copying does.

        Raises:
            OSError: it cannot be kept.
        """
        for operator, path in copies.items():
            handle = acked.parts[operator].snapshot.keyed
            assert handle is not None, operator
            target = self._of(acked.checkpoint, operator, acked.subtask.index)
            # An attempt that was given up may have left one under the same number.
            shutil.rmtree(target, ignore_errors=True)
            target.mkdir(parents=True)
            try:
                (shutil.move if across else os.rename)(path, target / "data")
                (target / _COPY).write_text(json.dumps(handle.to_json()))
            except OSError:
                shutil.rmtree(target, ignore_errors=True)
                raise

    def find(self, handle: KeyedHandle) -> Path | None:
        """The copy of what a handle names, if there is one."""
        if not handle.files:
            return None
        wanted = handle.to_json()
        for note in self._folder.glob(f"chk-*/*/{_COPY}"):
            try:
                stored = json.loads(note.read_text())
            except (OSError, ValueError):
                continue
            if stored == wanted and _is_whole(note.with_name("data"), handle):
                return note.with_name("data")
        return None

    def drop_before(self, checkpoint: CheckpointId) -> None:
        """A checkpoint completed: copies of older ones go."""
        for n, path in self._folders():
            if n < checkpoint:
                shutil.rmtree(path, ignore_errors=True)

    def _folders(self) -> list[tuple[CheckpointId, Path]]:
        found = [(p.name.removeprefix("chk-"), p) for p in self._folder.glob("chk-*")]
        return sorted((CheckpointId(int(digits)), p) for digits, p in found if digits.isdigit())

    def _of(self, checkpoint: CheckpointId, operator: OperatorId, index: int) -> Path:
        return self._folder / f"chk-{checkpoint}" / f"{operator}-{index}"


@dataclass(frozen=True, slots=True)
class Brought:
    """Where each of `plan[operator][subtask].keyed` lies on this disk, and what was downloaded."""

    paths: dict[OperatorId, dict[int, tuple[str, ...]]]
    fetched_bytes: int


def bring(
    storage: JobStorage, copies: LocalCopies | None, plan: RestorePlan, folder: Path
) -> Brought:
    """Have everything on this disk that a plan restores; what is downloaded goes below `folder`.

    Each handle by itself comes from its local copy, whatever range is wanted of it, or from the
    store: a worker that survives a change of parallelism fetches only what others had.

    Raises:
        PenstockError: see `fetch`.
    """
    wanted = [
        (operator, index, source, folder / f"{operator}-{index}" / str(i))
        for operator, by_subtask in plan.items()
        for index, restore in by_subtask.items()
        for i, source in enumerate(restore.keyed)
    ]
    at_hand = [None if copies is None else copies.find(source.handle) for _, _, source, _ in wanted]
    fetched = fetch(
        storage,
        [
            (source, into)
            for (_, _, source, into), copy in zip(wanted, at_hand, strict=True)
            if copy is None
        ],
    )
    downloaded = iter(fetched)
    found: dict[OperatorId, dict[int, tuple[str, ...]]] = {
        operator: dict.fromkeys(by_subtask, ()) for operator, by_subtask in plan.items()
    }
    for (operator, index, _, _), copy in zip(wanted, at_hand, strict=True):
        path = next(downloaded).path if copy is None else str(copy)
        found[operator][index] += (path,)
    return Brought(found, sum(one.bytes_new for one in fetched))


@dataclass(frozen=True, slots=True)
class Fetched:
    """Where a handle's files lie now, empty for what is inline; how many bytes were downloaded."""

    path: str
    bytes_new: int


def fetch(storage: JobStorage, sources: Sequence[tuple[KeyedSource, Path]]) -> list[Fetched]:
    """Download what each handle names into a folder of its own, many files at a time; in order.

    Raises:
        Corrupt: a file is missing, or is not the one that was uploaded.
        PenstockError: the store refused, or is not reached.
    """
    wanted = [(source, file, into) for source, into in sources for file in source.handle.files]
    for into in {into for _, _, into in wanted}:
        into.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(_DOWNLOAD_THREADS, thread_name_prefix="download") as threads:
        downloads = [threads.submit(_download, storage, *one) for one in wanted]
        try:
            for download in downloads:
                download.result()
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            raise
    return [_fetched(source.handle, into) for source, into in sources]


def _fetched(handle: KeyedHandle, into: Path) -> Fetched:
    if not handle.files:
        return Fetched("", 0)
    is_directory = handle.format is KeyedFormat.ROCKSDB
    path = into if is_directory else into / _local_name(handle.files[0])
    return Fetched(str(path), sum(file.length for file in handle.files))


def _local_name(file: FileHandle) -> str:
    return file.local_name or "stream"


def _download(storage: JobStorage, source: KeyedSource, file: FileHandle, into: Path) -> None:
    folder = source.folder.rstrip("/")
    url = folder if "://" in folder else f"{storage.checkpoints.url}/{folder}"
    store, path = storage.locate(file.path, folder_url=url)
    stored = store.download(path, into / _local_name(file))
    if (stored.length, stored.crc32) != (file.length, file.crc32):
        raise Corrupt(
            f"{file.path} is damaged: {stored.length:,} bytes with checksum {stored.crc32:08x}, "
            f"the manifest says {file.length:,} with {file.crc32:08x}",
            where=store.url,
            fix="restore an older snapshot: penstock snapshots lists them",
        )


def _is_whole(data: Path, handle: KeyedHandle) -> bool:
    """Whether a copy is, byte for byte, what was uploaded: a machine that lost power may have left
    files of the right length with something else in them."""
    files = {f.local_name: f for f in handle.files}
    if handle.format is KeyedFormat.CANONICAL:
        return len(handle.files) == 1 and _is_same(data, handle.files[0])
    found = list(data.iterdir()) if data.is_dir() else []
    return {p.name for p in found} == files.keys() and all(
        _is_same(path, files[path.name]) for path in found
    )


def _is_same(path: Path, file: FileHandle) -> bool:
    if not path.is_file() or path.stat().st_size != file.length:
        return False
    crc32 = 0
    with path.open("rb") as content:
        while block := content.read(_BLOCK_BYTES):
            crc32 = zlib.crc32(block, crc32)
    return crc32 == file.crc32


def _with_keyed(part: OperatorPart, handle: KeyedHandle) -> OperatorPart:
    return replace(part, snapshot=replace(part.snapshot, keyed=handle))
