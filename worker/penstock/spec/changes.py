"""What a change of a field means for a running job, and which revision a spec is.

A table gives every field its class; the strongest class among the changes wins. Pure.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from types import MappingProxyType
from typing import Any, TypeAlias

from pydantic import BaseModel

from penstock.spec.streamjob import StreamJobSpec

REVISION_LENGTH = 12
Path: TypeAlias = tuple[str, ...]


class FieldClass(IntEnum):
    """Weakest first. `OWN` fields have moves of their own: suspend, restore, a larger volume."""

    IGNORE = 0
    LIVE = 1
    OWN = 2
    SCALE = 3
    UPGRADE = 4
    FORBIDDEN = 5


FIELD_CLASSES: Mapping[str, FieldClass] = MappingProxyType(
    {
        "image": FieldClass.UPGRADE,
        "script": FieldClass.UPGRADE,
        "entrypoint": FieldClass.UPGRADE,
        "parameters": FieldClass.UPGRADE,
        "maxParallelism": FieldClass.FORBIDDEN,
        "parallelism": FieldClass.SCALE,
        "desiredState": FieldClass.OWN,
        "serviceAccountName": FieldClass.UPGRADE,
        "jobId": FieldClass.FORBIDDEN,
        "state": FieldClass.UPGRADE,
        "checkpoints": FieldClass.LIVE,
        "checkpoints.storage": FieldClass.FORBIDDEN,
        "checkpoints.mode": FieldClass.UPGRADE,
        "savepoints": FieldClass.LIVE,
        # A coordinator writes where it was started to write.
        "savepoints.storage": FieldClass.UPGRADE,
        "storageCredentials": FieldClass.UPGRADE,
        "upgrade": FieldClass.IGNORE,
        "rescale": FieldClass.IGNORE,
        "restore": FieldClass.OWN,
        "errors": FieldClass.UPGRADE,
        "restart": FieldClass.LIVE,
        "deletion": FieldClass.IGNORE,
        "worker": FieldClass.UPGRADE,
        "worker.heartbeatTimeout": FieldClass.LIVE,
        "worker.progressTimeout": FieldClass.LIVE,
        # A smaller one is forbidden; `changes` looks at the direction.
        "worker.volume.size": FieldClass.OWN,
        "worker.volume.storageClassName": FieldClass.FORBIDDEN,
        "worker.volume.whenScaledDown": FieldClass.IGNORE,
        "coordinator": FieldClass.UPGRADE,
    }
)
"""By path in YAML below `spec`; a part's class is that of all its fields without one of their own."""


@dataclass(frozen=True, slots=True)
class Change:
    """One field whose value in force differs."""

    path: str
    kind: FieldClass


def class_of(path: str) -> FieldClass:
    """The class of the field at that path below `spec`. Raises KeyError for an unknown field."""
    while path not in FIELD_CLASSES and "." in path:
        path = path.rpartition(".")[0]
    return FIELD_CLASSES[path]


def changes(old: StreamJobSpec, new: StreamJobSpec) -> tuple[Change, ...]:
    """The fields whose values in force differ, in the order of the manifest."""
    before, after = dict(_fields(old, only_set=False)), dict(_fields(new, only_set=False))
    paths = [*before, *(p for p in after if p not in before)]
    found = []
    for path in paths:
        if before.get(path) != after.get(path):
            text = ".".join(path)
            shrinks = path == _VOLUME_SIZE and after[path] < before[path]
            found.append(Change(text, FieldClass.FORBIDDEN if shrinks else class_of(text)))
    return tuple(found)


def live_settings(spec: StreamJobSpec) -> dict[str, Any]:
    """The live fields as the user set them, in the manifest's own form: what SettingsOrder carries."""
    written = spec.model_dump(mode="json", by_alias=True, exclude_unset=True)
    settings: dict[str, Any] = {}
    for path, _ in _fields(spec, only_set=True):
        if class_of(".".join(path)) is FieldClass.LIVE:
            part = settings
            for name in path[:-1]:
                part = part.setdefault(name, {})
            part[path[-1]] = _at(written, path)
    return settings


def revision_of(spec: StreamJobSpec) -> str:
    """Hash of the upgrade-class fields as the user set them: what runs, without defaults.

    Twelve hex digits. A new default of Penstock's changes no revision.
    """
    fields = {
        ".".join(path): value
        for path, value in fields_as_written(spec)
        if class_of(".".join(path)) is FieldClass.UPGRADE
    }
    text = json.dumps(fields, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:REVISION_LENGTH]


def fields_as_written(spec: StreamJobSpec) -> Iterator[tuple[Path, Any]]:
    """Every field that was set and is not itself a part: its path in YAML, its value as in YAML."""
    written = spec.model_dump(mode="json", by_alias=True, exclude_unset=True)
    for path, _ in _fields(spec, only_set=True):
        yield path, _at(written, path)


_VOLUME_SIZE = ("worker", "volume", "size")


def _fields(part: BaseModel, above: Path = (), *, only_set: bool) -> Iterator[tuple[Path, Any]]:
    """Every field that is not itself a part, by its path in YAML."""
    for name, info in type(part).model_fields.items():
        if only_set and name not in part.model_fields_set:
            continue
        value, path = getattr(part, name), (*above, info.alias or name)
        if isinstance(value, BaseModel):
            yield from _fields(value, path, only_set=only_set)
        else:
            yield path, value


def _at(written: Any, path: Path) -> Any:
    for name in path:
        written = written[name]
    return written
