"""Live settings ordered of a running job: the manifest with them in place of its own. Pure.

They replace all fields that need no restart; one that is not mentioned has its default, since the
manifest that a coordinator was started with may be an older one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from penstock.core.errors import Rejected
from penstock.spec.changes import FieldClass, Path, class_of, live_settings
from penstock.spec.streamjob import StreamJob
from penstock.spec.wording import mistakes_of
from penstock.spec.yaml_lines import Document


def with_live(manifest: StreamJob, live: Mapping[str, Any]) -> StreamJob:
    """The manifest with these live settings, in its own form; `{}` are its own.

    Raises:
        Rejected: a field that is not live, or a value that cannot be, each named.
    """
    if not live:
        return manifest
    for path, _ in _leaves(live):
        _check_class(path)
    document = manifest.document()
    spec = document["spec"]
    for path, _ in _leaves(live_settings(manifest.spec)):
        _part(spec, path).pop(path[-1], None)
    for path, value in _leaves(live):
        _part(spec, path)[path[-1]] = value
    try:
        return StreamJob.model_validate(document)
    except ValidationError as e:
        mistakes = mistakes_of(e, StreamJob, Document(document))
        raise Rejected(
            "; ".join(f"{mistake.field} {mistake.message}" for mistake in mistakes),
            where="settings",
            fix="nothing was changed; correct them, and send them again",
        ) from e


def _check_class(path: Path) -> None:
    text = ".".join(path)
    try:
        found = class_of(text)
    except KeyError:
        return  # validation says so, with the nearest known name
    if found is not FieldClass.LIVE:
        raise Rejected(
            f"spec.{text} cannot change while the job runs",
            where="settings",
            fix="nothing was changed; start the job anew with it, from a savepoint",
        )


def _part(spec: dict[str, Any], path: Path) -> dict[str, Any]:
    for name in path[:-1]:
        below = spec.setdefault(name, {})
        if not isinstance(below, dict):
            below = spec[name] = {}
        spec = below
    return spec


def _leaves(part: Mapping[str, Any], above: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Every value that is not itself a part, by its path."""
    for name, value in part.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, (*above, name))
        else:
            yield (*above, name), value
