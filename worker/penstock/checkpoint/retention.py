"""Which checkpoints are kept, and which files go with those that are not.

Files are deleted only after a log entry dropped their checkpoint, by name, and never outside the
job's folder: a savepoint's files belong to the person who asked for it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from penstock.checkpoint.log import kept
from penstock.core import paths
from penstock.core.errors import Corrupt
from penstock.core.ids import JobId
from penstock.core.log import Entry, Hold, SnapshotRef
from penstock.core.manifest import Manifest

_OWN_FILE = re.compile(r"(\d+)-(\d+)-.+")


def retain(
    retained: tuple[SnapshotRef, ...], new: SnapshotRef, *, count: int, hold: Hold | None
) -> tuple[tuple[SnapshotRef, ...], tuple[SnapshotRef, ...]]:
    """The newest `count` with the new one, and those that it subsumes.

    What a hold goes back to is kept beyond the count.
    """
    everything = sorted((*retained, new), key=lambda ref: ref.id)
    newest = everything[-max(count, 1) :]
    staying = tuple(
        ref
        for ref in everything
        if ref in newest or (hold is not None and ref.path == hold.from_.path)
    )
    return staying, tuple(ref for ref in everything if ref not in staying)


def files_in_job(job: JobId, manifest: Manifest) -> set[str]:
    """The files of a manifest that lie in the job's folder, relative to the storage's root."""
    return {f"{job}/{file.path}" for file in manifest.files() if "://" not in file.path}


def files_to_delete(
    job: JobId, dropped: SnapshotRef, manifest: Manifest | None, *, in_use: set[str]
) -> tuple[str, ...]:
    """What goes with a dropped checkpoint, in order: manifest, private files, shared files.

    `in_use` are the files that retained manifests and running uploads name. Without the manifest
    nobody knows its files any more; a sweep finds them.
    """
    if manifest is None:
        return (dropped.path,)
    private: list[str] = []
    shared: list[str] = []
    for file in manifest.files():
        path = f"{job}/{file.path}"
        if "://" not in file.path and path not in in_use:
            (shared if file.shared else private).append(path)
    return tuple(dict.fromkeys((dropped.path, *private, *shared)))


@dataclass(frozen=True, slots=True)
class Listed:
    """One object of the job's folder; `modified_ms` is the store's clock."""

    path: str
    length: int
    modified_ms: int


@dataclass(frozen=True, slots=True)
class Sweep:
    """Every object of a job's folder in one class; only `orphans` may be deleted.

    `live` may belong to something that runs, `young` is within the grace period.
    """

    referenced: tuple[Listed, ...]
    live: tuple[Listed, ...]
    young: tuple[Listed, ...]
    orphans: tuple[Listed, ...]

    @property
    def orphan_bytes(self) -> int:
        """What deleting them would free."""
        return sum(found.length for found in self.orphans)


def sweep(
    listed: Iterable[Listed],
    newest: Entry,
    manifests: Mapping[str, Manifest],
    *,
    job: JobId,
    now_ms: int,
    grace_ms: int,
) -> Sweep:
    """Classify all objects of a job's folder against what its newest entry names.

    `manifests` are those of the entry's references, by path. Objects of the newest attempt are left
    alone until the run has ended and everything is committed.

    Raises:
        Corrupt: a manifest that is needed to tell what is in use is missing.
    """
    for ref in kept(newest):
        if ref.path not in manifests:
            raise Corrupt(
                "nobody can tell which files this snapshot uses: its manifest cannot be read",
                where=ref.path,
                fix="nothing was deleted; restore the manifest from a backup, or drop the snapshot",
            )
    in_use = set(manifests).union(*(files_in_job(job, m) for m in manifests.values()))
    is_over = newest.end is not None and newest.end.committed
    classes: dict[str, list[Listed]] = {"referenced": [], "live": [], "young": [], "orphans": []}
    for found in listed:
        if found.path in in_use or paths.log_seq(found.path) is not None:
            name = "referenced"
        elif not is_over and not _is_of_older_attempt(found.path, newest):
            name = "live"
        elif now_ms - found.modified_ms < grace_ms:
            name = "young"
        else:
            name = "orphans"
        classes[name].append(found)
    return Sweep(**{name: tuple(found) for name, found in classes.items()})


def _is_of_older_attempt(path: str, newest: Entry) -> bool:
    name = path.rpartition("/")[2]
    checkpoint = paths.checkpoint_of(path)
    if name == paths.METADATA and checkpoint is not None:
        return checkpoint < newest.attempt.next_checkpoint
    own = _OWN_FILE.fullmatch(name)
    return own is not None and int(own[1]) < newest.attempt.number
