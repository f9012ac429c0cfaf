"""Deleting a savepoint: whether it may go, and which objects go with it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from penstock.core import paths
from penstock.core.ids import JobId
from penstock.core.log import SnapshotRef
from penstock.core.manifest import Manifest, SnapshotKind


def refusal(
    job: JobId,
    url: str,
    manifest: Manifest,
    kept: Iterable[SnapshotRef],
    manifests: Mapping[str, Manifest],
) -> str | None:
    """Why the savepoint in the folder `url` may not go; None when it may.

    `kept` are the snapshots that the job still needs, with their manifests by path.
    """
    if manifest.kind is not SnapshotKind.SAVEPOINT:
        return f"{url} is a checkpoint; retention deletes those"
    if manifest.job != job:
        return f"{url} is a savepoint of {manifest.job}, not of {job}"
    for ref in kept:
        known = manifests.get(ref.path)
        named = [ref.path, *(file.path for file in known.files())] if known else [ref.path]
        if any(path.startswith(f"{url}/") for path in named):
            return (
                f"{url} is still needed: {job} would go on or back from it, or from checkpoint "
                f"{ref.id}, which uses its files; take a few checkpoints, then dispose of it"
            )
    return None


def objects(folder: str, manifest: Manifest) -> tuple[str, ...]:
    """What goes, in this order: its `_metadata`, then the files it names that lie in its folder."""
    own = sorted({file.path for file in manifest.files() if _is_inside(file.path)})
    return tuple(f"{folder}/{name}" for name in (paths.METADATA, *own))


def _is_inside(path: str) -> bool:
    return "://" not in path and not path.startswith("/") and ".." not in path.split("/")
