"""Snapshots in a storage, found by what lies there: jobs by their logs, savepoints by their manifests.

A storage is a folder or URL that holds checkpoints, savepoints or both, at any depth: `./state` of a
laptop, the root of a bucket, one job's folder.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from penstock.checkpoint.log import kept
from penstock.core.errors import Corrupt, Rejected
from penstock.core.handles import FileHandle
from penstock.core.ids import CheckpointId, JobId
from penstock.core.log import EndKind, Entry
from penstock.core.manifest import Manifest, SnapshotKind
from penstock.core.paths import METADATA, checkpoint_of
from penstock.storage.location import open_store
from penstock.storage.store import ObjectInfo, Store

DEFAULT_STORAGE = "state"
_LOG = re.compile(r"((?:.*/)?([^/]+)/)log/\d{20}\.json")
_SAVEPOINT = re.compile(r"((?:.*/)?(savepoint-[0-9a-f]{6}-[0-9a-f]{12})/)_metadata")


@dataclass(frozen=True, slots=True)
class Found:
    """One snapshot. `folder` is its own, with a slash at the end, in the storage; `name` what people
    call it. `manifest` is None where it cannot be read; `missing` counts files that are not there
    with their length."""

    name: str
    kind: SnapshotKind
    job: JobId
    folder: str
    manifest: Manifest | None
    new_bytes: int | None
    made_by: str
    missing: int = 0
    is_latest: bool = False

    @property
    def damage(self) -> str:
        """What is wrong with it, in words; empty when nothing is."""
        if self.manifest is None:
            return "damaged: its manifest cannot be read"
        if self.missing:
            return f"damaged: {self.missing} file{'s' if self.missing > 1 else ''} missing"
        return ""


@dataclass(slots=True)
class Storage:
    """Everything that a storage holds, listed once. `url` is as the person wrote it."""

    url: str
    store: Store
    objects: dict[str, ObjectInfo]
    jobs: dict[str, Entry] = field(default_factory=dict)
    """The newest entry of each job's log, by the job's folder (with a slash at the end)."""

    @classmethod
    def read(cls, url: str) -> Storage:
        """List a storage and read its jobs' newest log entries.

        Raises:
            Rejected: there is no such folder.
        """
        store = open_store(url)
        if store.url.startswith("file://") and not Path(store.url.removeprefix("file://")).is_dir():
            raise Rejected(
                f"there is no folder {url}",
                where=store.url,
                fix="name the storage: a folder, file:///folder or s3://bucket/folder",
            )
        # Logs may be trimmed between the listing and the read; the newest entry never is, so a
        # second listing shows what took its place.
        while True:
            found = cls(url, store, {info.path: info for info in store.list("")})
            if found._read_logs():
                return found

    def _read_logs(self) -> bool:
        newest: dict[str, str] = {}
        for path in self.objects:  # sorted, so the last of a folder is its newest
            if match := _LOG.fullmatch(path):
                newest[match[1]] = path
        for folder, path in newest.items():
            data = self.store.get(path)
            if data is None:
                return False
            self.jobs[folder] = Entry.from_bytes(data, path=f"{self.store.url}/{path}")
        return True

    def snapshots(self) -> list[Found]:
        """What can be restored: newest first, job by job."""
        by_job: dict[JobId, list[Found]] = {}
        for found in self._savepoints():
            by_job.setdefault(found.job, []).append(found)
        for folder, entry in self.jobs.items():
            job = JobId(folder.rstrip("/").rpartition("/")[2])
            by_job.setdefault(job, []).extend(self._checkpoints(folder, job, entry))
        return [found for job in sorted(by_job) for found in _newest_first(by_job[job])]

    def _checkpoints(self, folder: str, job: JobId, entry: Entry) -> Iterator[Found]:
        root = folder.removesuffix(f"{job}/")
        seen = set()
        for ref in kept(entry):
            if "://" in ref.path or ref.path in seen:
                continue
            seen.add(ref.path)
            own = root + ref.path.removesuffix(METADATA)
            manifest = self._manifest(root + ref.path)
            yield self._found(
                f"chk-{ref.id}", SnapshotKind.CHECKPOINT, job, own, manifest, base=folder
            )

    def _savepoints(self) -> Iterator[Found]:
        for path in self.objects:
            match = _SAVEPOINT.fullmatch(path)
            if match is None:
                continue
            manifest = self._manifest(path)
            job = manifest.job if manifest else JobId("?")
            yield self._found(
                match[2], SnapshotKind.SAVEPOINT, job, match[1], manifest, base=match[1]
            )

    def _found(
        self,
        name: str,
        kind: SnapshotKind,
        job: JobId,
        folder: str,
        manifest: Manifest | None,
        *,
        base: str,
    ) -> Found:
        if manifest is None:
            return Found(name, kind, job, folder, None, None, "")
        kind = manifest.kind
        missing = sum(not self._is_there(file, base) for file in _distinct(manifest))
        return Found(
            name=name,
            kind=kind,
            job=job,
            folder=folder,
            manifest=manifest,
            new_bytes=None if kind is SnapshotKind.SAVEPOINT else _uploaded_for(manifest),
            made_by=self._made_by(manifest, folder),
            missing=missing,
        )

    def _made_by(self, manifest: Manifest, folder: str) -> str:
        if manifest.kind is SnapshotKind.CHECKPOINT:
            return f"attempt {manifest.attempt}"
        for entry in self.jobs.values():
            end = entry.end
            if end is not None and end.kind is EndKind.STOPPED and _is_same(end.savepoint, folder):
                return "stop"
        return manifest.request_id or f"attempt {manifest.attempt}"

    def _manifest(self, path: str) -> Manifest | None:
        data = self.store.get(path)
        if data is None:
            return None
        try:
            return Manifest.from_bytes(data, path=f"{self.store.url}/{path}")
        except Corrupt:
            return None

    def _is_there(self, file: FileHandle, base: str) -> bool:
        if "://" not in file.path:
            info = self.objects.get(base + file.path)
            return info is not None and info.length == file.length
        if file.path.startswith(f"{self.store.url}/"):
            info = self.objects.get(file.path.removeprefix(f"{self.store.url}/"))
            return info is not None and info.length == file.length
        folder, _, name = file.path.rpartition("/")
        return open_store(folder).length(name) == file.length


def _is_same(savepoint: str | None, folder: str) -> bool:
    name = folder.rstrip("/").rpartition("/")[2]
    return savepoint is not None and savepoint.rstrip("/").rpartition("/")[2] == name


def locate(name: str, storage: str) -> str:
    """Where the snapshot of that name lies: a path or URL as it is, `chk-8` or (the beginning of)
    a savepoint's name in the storage.

    Raises:
        Rejected: none or several fit.
    """
    if "://" in name or "/" in name or (Path(name) / METADATA).exists() or name.endswith(METADATA):
        return name
    there = Storage.read(storage)
    snapshots = there.snapshots()
    fitting = [s for s in snapshots if s.name == name]
    fitting = fitting or [
        s for s in snapshots if name.startswith("savepoint-") and s.name.startswith(name)
    ]
    if len(fitting) == 1:
        return f"{there.store.url}/{fitting[0].folder.rstrip('/')}"
    if fitting:
        raise Rejected(
            f"{len(fitting)} snapshots are called {name}",
            where=storage,
            fix="name its folder: "
            + ", ".join(f"{storage}/{s.folder.rstrip('/')}" for s in fitting),
        )
    names = ", ".join(dict.fromkeys(s.name for s in snapshots))
    raise Rejected(
        f"no snapshot: {name}",
        where=there.store.url,
        fix=f"there are: {names}" if names else "there is none in it; another one with --storage",
    )


def _distinct(manifest: Manifest) -> list[FileHandle]:
    return list({file.path: file for file in manifest.files()}.values())


def _uploaded_for(manifest: Manifest) -> int:
    """Bytes of files that no earlier checkpoint had: private ones, and shared ones named after it."""
    prefix = f"{manifest.attempt}-{manifest.checkpoint}-"
    return sum(
        file.length
        for file in _distinct(manifest)
        if checkpoint_of(file.path) == manifest.checkpoint
        or file.path.rpartition("/")[2].startswith(prefix)
    )


def _newest_first(snapshots: list[Found]) -> list[Found]:
    """Sorted, and the newest whole one marked: what `latest` means."""

    def order(found: Found) -> tuple[int, CheckpointId]:
        if found.manifest is None:
            return (0, checkpoint_of(found.name + "/") or CheckpointId(0))
        return (found.manifest.at_ms, found.manifest.checkpoint)

    ordered = sorted(snapshots, key=order, reverse=True)
    for i, found in enumerate(ordered):
        if not found.damage:
            ordered[i] = replace(found, is_latest=True)
            break
    return ordered
