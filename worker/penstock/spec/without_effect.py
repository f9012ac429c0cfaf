"""Fields of the manifest that are read and checked, and change nothing yet; who sets one is told."""

from __future__ import annotations

from collections.abc import Iterator

from penstock.spec.streamjob import StreamJob

WITHOUT_EFFECT = {
    "checkpoints.mode": "every job runs as with ExactlyOnce",
    "checkpoints.maxConcurrent": "one at a time",
    "savepoints.schedule": "savepoints are taken when they are asked for",
    "savepoints.keep": "savepoints stay until a person deletes them",
    "upgrade.approval": "an upgrade begins by itself, as with Automatic",
    "restore.claimMode": "files of others are never touched, as with NoClaim",
    "errors": "a record whose processing raises fails the attempt, as with Fail",
}
"""By path below `spec`: what happens instead."""


def instead_of(path: str) -> str | None:
    """What happens instead of what the field at that path below `spec` says; None if it has effect."""
    for known, instead in WITHOUT_EFFECT.items():
        if path == known or path.startswith(f"{known}."):
            return instead
    return None


def set_without_effect(manifest: StreamJob) -> Iterator[tuple[str, str]]:
    """The fields of that kind that this manifest sets: `spec.errors` and what happens instead."""
    for path, instead in WITHOUT_EFFECT.items():
        value = manifest.document()["spec"]
        for name in path.split("."):
            value = value.get(name) if isinstance(value, dict) else None
        if value is not None:
            yield f"spec.{path}", instead
