"""What a snapshot holds, gathered and told: its contents, and one key's value."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from penstock.cli import numbers
from penstock.cli.graph import STATE_NAMES, type_of
from penstock.cli.output import one_line
from penstock.cli.tables import table
from penstock.core.descriptors import KEYED_KINDS, StateDescriptor
from penstock.core.errors import Rejected
from penstock.core.handles import KeyedFormat
from penstock.core.keys import decode_key
from penstock.core.manifest import Manifest
from penstock.snapshots import Snapshot
from penstock.snapshots.snapshot import value_of
from penstock.state.plain import plain_value

_HEAVIEST = 3
_FORMATS = {KeyedFormat.CANONICAL: "canonical v1", KeyedFormat.ROCKSDB: "RocksDB files v1"}


# ── ls ──────────────────────────────────────────────────────────────────────────────────────────


@dataclass(slots=True)
class StateContents:
    """One state's share of a snapshot; `keys` is None for operator state."""

    descriptor: StateDescriptor
    keys: int | None = None
    entries: int = 0
    size_bytes: int = 0
    example: Any = None


@dataclass(slots=True)
class OperatorContents:
    """One operator's share."""

    uid: str
    keys: int
    key_schema: str | None
    states: list[StateContents]


@dataclass(slots=True)
class Contents:
    """Everything in a snapshot, counted; `group_bytes` are those of keyed state by key group."""

    operators: list[OperatorContents]
    group_bytes: Counter[int] = field(default_factory=Counter)


def contents(snapshot: Snapshot) -> Contents:
    """Count what a snapshot holds; reads all of it."""
    inside = Contents([])
    for uid in snapshot.operators():
        operator = snapshot.operator(uid)
        if not operator.states:
            continue
        states = {s.name: StateContents(s) for s in operator.states}
        for state in states.values():
            if state.descriptor.kind in KEYED_KINDS:
                state.keys = 0
            else:
                items = [
                    i for sub in operator.subtasks for i in sub.lists.get(state.descriptor.name, ())
                ]
                state.entries, state.size_bytes = len(items), sum(map(len, items))
        keys = 0
        for group, entries in groupby(snapshot.entries(uid), key=lambda e: e[1].group):
            of_group = set()
            for name, entry in entries:
                of_group.add(entry.key)
                inside.group_bytes[group] += entry.size_bytes
                found = states.get(name)
                if found is None:
                    continue
                if not found.keys or "'" in one_line(found.example):
                    found.example = decode_key(entry.key)
                found.keys = (found.keys or 0) + 1
                found.entries += len(entry.rows)
                found.size_bytes += entry.size_bytes
            keys += len(of_group)
        inside.operators.append(
            OperatorContents(uid, keys, operator.key_schema, list(states.values()))
        )
    return inside


def ls_text(snapshot: Snapshot, inside: Contents, *, shown_as: str) -> str:
    """`penstock state ls`; `shown_as` is what the person called the snapshot."""
    manifest = snapshot.manifest
    head = " · ".join(
        [
            f"{manifest.kind} of {manifest.job}",
            numbers.utc(manifest.at_ms).replace("T", " "),
            f"parallelism {manifest.parallelism}",
            f"{manifest.max_parallelism} key groups",
            *_formats(manifest),
        ]
    )
    rows: list[tuple[str, ...]] = [
        ("OPERATOR", "STATE", "KIND", "TYPE", "TTL", "KEYS", "ENTRIES", "SIZE")
    ]
    for operator in inside.operators:
        rows += _operator_rows(operator)
    parts = [head + "\n", table(rows)]
    if len(rows) == 1:
        parts[1] = "No operator has state in it.\n"
    last = _heaviest(inside, manifest.max_parallelism) + _example(inside, shown_as)
    return "\n".join([*parts, last] if last else parts)


def _formats(manifest: Manifest) -> list[str]:
    found = {s.keyed.format for s in manifest.subtasks() if s.keyed is not None}
    return [_FORMATS[format] for format in KeyedFormat if format in found]


def _operator_rows(operator: OperatorContents) -> Iterator[tuple[str, ...]]:
    nothing = numbers.NOTHING
    name = operator.uid
    keyed = [s for s in operator.states if s.keys is not None]
    if keyed:
        yield (name, "key", "", operator.key_schema or "?", "", f"{operator.keys:,}", "", "")
        name = ""
    for state in operator.states:
        descriptor = state.descriptor
        keys = nothing if state.keys is None else f"{state.keys:,}"
        kind = STATE_NAMES[descriptor.kind]
        size = numbers.size(state.size_bytes)
        entries = f"{state.entries:,}"
        yield (name, descriptor.name, kind, type_of(descriptor), nothing, keys, entries, size)
        name = ""


def _heaviest(inside: Contents, groups: int) -> str:
    total = inside.group_bytes.total()
    if not total:
        return ""
    heaviest = ", ".join(
        f"{group} ({numbers.percent(size / total)})"
        for group, size in inside.group_bytes.most_common(_HEAVIEST)
    )
    return f"Heaviest key groups: {heaviest}; even would be {numbers.percent(1 / groups)}.\n"


def _example(inside: Contents, shown_as: str) -> str:
    for operator in inside.operators:
        for state in operator.states:
            if state.keys:
                key = one_line(state.example).replace("'", "'\\''")
                name = state.descriptor.name
                return f"One key: penstock state get {shown_as} {operator.uid} {name} '{key}'\n"
    return ""


def ls_json(snapshot: Snapshot, inside: Contents) -> dict[str, Any]:
    """`penstock state ls -o json`."""
    manifest = snapshot.manifest
    return {
        "path": snapshot.url,
        "kind": manifest.kind.value,
        "job": manifest.job,
        "checkpoint": manifest.checkpoint,
        "at": numbers.utc(manifest.at_ms),
        "atMs": manifest.at_ms,
        "parallelism": manifest.parallelism,
        "maxParallelism": manifest.max_parallelism,
        "formats": _formats(manifest),
        "operators": [
            {
                "uid": operator.uid,
                "keySchema": operator.key_schema,
                "keys": operator.keys,
                "states": [
                    {
                        **state.descriptor.to_json(),
                        "keys": state.keys,
                        "entries": state.entries,
                        "bytes": state.size_bytes,
                    }
                    for state in operator.states
                ],
            }
            for operator in inside.operators
        ],
        "groupBytes": {str(group): size for group, size in sorted(inside.group_bytes.items())},
    }


# ── get ─────────────────────────────────────────────────────────────────────────────────────────


def find_value(snapshot: Snapshot, uid: str, state: str, key_text: str) -> Any:
    """The plain value of the key that a person wrote as JSON.

    Raises:
        Rejected: no such operator, state or key, or a text that is no JSON.
    """
    descriptor = snapshot.state(uid, state)
    schema = snapshot.operator(uid).key_schema
    key = _key(key_text, schema)
    if (found := _looked_up(snapshot, uid, state, key)) is not None:
        return found
    # Times, enums, dataclasses and the like look alike in JSON: compare what people would write.
    wanted = one_line(key)
    for name, entry in snapshot.entries(uid, {state}):
        decoded = decode_key(entry.key)
        if name == state and (one_line(decoded) == wanted or decoded == key):
            return value_of(
                entry, descriptor, lambda data: plain_value(data, descriptor.serializer)
            )
    raise Rejected(
        f"no key {wanted} in state {state} of operator {uid}",
        where=snapshot.url,
        fix=f"keys are {schema or 'of a type that was never seen'}; all of them: "
        f"penstock state export … {uid} {state}",
    )


def _looked_up(snapshot: Snapshot, uid: str, state: str, key: Any) -> Any:
    try:
        return snapshot.get(uid, state, key)
    except Rejected:
        return None


def _key(text: str, schema: str | None) -> Any:
    try:
        key = json.loads(text)
    except ValueError as e:
        if schema == "str":
            return text
        raise Rejected(
            f"{text} is not JSON", where="KEY", fix="a text is in double quotes: '\"the\"'"
        ) from e
    if schema == "str" and not isinstance(key, str):
        return text
    return float(key) if schema == "float" and isinstance(key, int) else _as_tuple(key)


def _as_tuple(value: Any) -> Any:
    return tuple(map(_as_tuple, value)) if isinstance(value, list) else value
