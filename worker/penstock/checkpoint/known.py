"""The snapshots that the newest entry names, with their manifests: what may be deleted, what is used."""

from __future__ import annotations

from collections.abc import Mapping

from penstock.checkpoint import log, retention
from penstock.checkpoint.effects import DeleteFiles, DeleteSnapshot, Effect
from penstock.checkpoint.events import SubtaskAcked
from penstock.core.ids import JobId
from penstock.core.log import Entry, SnapshotRef
from penstock.core.manifest import Manifest


class KnownSnapshots:
    """Manifests by the path of their reference, and the dropped ones that still lie there."""

    def __init__(self, job: JobId) -> None:
        self._job = job
        self._manifests: dict[str, Manifest] = {}
        self._undeleted: dict[str, SnapshotRef] = {}

    def read(self, entry: Entry | None, manifests: Mapping[str, Manifest]) -> None:
        """What the store has, as it was read."""
        self._manifests = dict(manifests)
        self._undeleted = {ref.path: ref for ref in entry.dropping} if entry else {}

    def add(self, snapshot: SnapshotRef, manifest: Manifest) -> None:
        """One more manifest."""
        self._manifests[snapshot.path] = manifest

    def manifest(self, snapshot: SnapshotRef) -> Manifest:
        """That of a snapshot which the newest entry keeps."""
        return self._manifests[snapshot.path]

    @property
    def manifests(self) -> Mapping[str, Manifest]:
        """All of them, by path."""
        return self._manifests

    @property
    def undeleted(self) -> tuple[SnapshotRef, ...]:
        """Dropped by an earlier entry, not known to be gone: the next entry drops them, too."""
        return tuple(self._undeleted.values())

    def deleted(self, snapshot: SnapshotRef) -> None:
        """All objects of a dropped snapshot are gone."""
        self._undeleted.pop(snapshot.path, None)

    def settle(self, entry: Entry) -> list[Effect]:
        """The entry was won: delete what it dropped, keep in mind what it keeps."""
        in_use = self._files_in_use(entry)
        effects: list[Effect] = []
        for ref in entry.dropping:
            self._undeleted[ref.path] = ref
            manifest = self._manifests.get(ref.path)
            files = retention.files_to_delete(self._job, ref, manifest, in_use=in_use)
            effects.append(DeleteSnapshot(ref, files))
        named = {ref.path for ref in log.kept(entry)}
        self._manifests = {path: m for path, m in self._manifests.items() if path in named}
        return effects

    def collect(self, ack: SubtaskAcked, entry: Entry) -> list[Effect]:
        """What was uploaded for an attempt that is over: no entry can come to name it any more.

        A savepoint's files are left alone, since the savepoint may have been published.
        """
        if ack.attempt >= entry.attempt.number:
            return []
        in_use = self._files_in_use(entry)
        own = f"{self._job}/"
        files = tuple(p for p in ack.files if p.startswith(own) and p not in in_use)
        return [DeleteFiles(files)] if files else []

    def _files_in_use(self, entry: Entry) -> set[str]:
        manifests = (self._manifests.get(ref.path) for ref in log.kept(entry))
        return set().union(*(retention.files_in_job(self._job, m) for m in manifests if m))
