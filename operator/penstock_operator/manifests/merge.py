"""A podTemplate merged into a rendered pod as Kubernetes' strategic merge patch does it.

Blocks are merged field by field; lists that have a key (containers by name, env by name, mounts by
path) item by item; every other list, and every value, replaces ours. Null takes a field away.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

_KEYS: Mapping[str, str] = MappingProxyType(
    {
        "containers": "name",
        "initContainers": "name",
        "env": "name",
        "volumes": "name",
        "volumeMounts": "mountPath",
        "volumeDevices": "devicePath",
        "ports": "containerPort",
        "imagePullSecrets": "name",
        "hostAliases": "ip",
        "topologySpreadConstraints": "topologyKey",
    }
)


def merged(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    """Ours changed by theirs; neither argument is."""
    result = dict(ours)
    for name, value in theirs.items():
        if value is None:
            result.pop(name, None)
            continue
        match result.get(name), value:
            case dict() as old, dict():
                result[name] = merged(old, value)
            case list() as old, list() if name in _KEYS:
                result[name] = _merged_items(old, value, _KEYS[name])
            case _:
                result[name] = value
    return result


def _merged_items(ours: list[Any], theirs: list[Any], key: str) -> list[Any]:
    """Ours in their order, changed; then those that only they have."""
    if not all(isinstance(item, dict) and key in item for item in theirs):
        return theirs  # the API server says what is wrong with it
    changes = {item[key]: item for item in theirs}
    kept = [merged(item, changes.pop(item[key], {})) for item in ours]
    return [*kept, *changes.values()]
