"""`penstock state diff`: what is in one snapshot and not so in another."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from penstock.cli.graph import type_of
from penstock.cli.output import one_line, plain
from penstock.cli.tables import table
from penstock.core.descriptors import KEYED_KINDS, StateDescriptor
from penstock.core.errors import Rejected
from penstock.core.keys import decode_key
from penstock.snapshots import Snapshot
from penstock.snapshots.snapshot import Entry, value_of
from penstock.state.plain import plain_value

_Group = dict[tuple[str, bytes], Entry]


@dataclass(slots=True)
class StateDifference:
    """Keys of one state that differ, each with its values (None: absent)."""

    uid: str
    state: str
    added: list[tuple[Any, Any]] = field(default_factory=list)
    removed: list[tuple[Any, Any]] = field(default_factory=list)
    changed: list[tuple[Any, Any, Any]] = field(default_factory=list)


@dataclass(slots=True)
class Difference:
    """What is in one snapshot and not so in another."""

    types: list[str]
    states: list[StateDifference]

    def text(self, old: str, new: str, *, limit: int) -> str:
        """For people; at most `limit` keys of each kind of change in each state."""
        lines = [f"{sentence}\n" for sentence in self.types]
        for state in self.states:
            total = len(state.added), len(state.removed), len(state.changed)
            if not any(total):
                continue
            words = ", ".join(
                f"{n:,} {word}"
                for n, word in zip(total, ("added", "removed", "changed"), strict=True)
                if n
            )
            lines.append(f"{state.uid} {state.state}: {words}\n")
            rows: list[tuple[str, ...]] = []
            rows += [("+", one_line(k), one_line(v)) for k, v in state.added[:limit]]
            rows += [("-", one_line(k), one_line(v)) for k, v in state.removed[:limit]]
            rows += [
                ("~", one_line(k), f"{one_line(a)} → {one_line(b)}")
                for k, a, b in state.changed[:limit]
            ]
            lines.append(table(rows, indent="  "))
            if max(total) > limit:
                lines.append("  … more with --limit\n")
        return "".join(lines) or f"{old} and {new} hold the same keyed state\n"

    def to_json(self) -> dict[str, Any]:
        """Everything, without a limit."""
        return {
            "types": self.types,
            "states": [
                {
                    "operator": s.uid,
                    "state": s.state,
                    "added": [{"key": plain(k), "value": plain(v)} for k, v in s.added],
                    "removed": [{"key": plain(k), "value": plain(v)} for k, v in s.removed],
                    "changed": [
                        {"key": plain(k), "old": plain(a), "new": plain(b)} for k, a, b in s.changed
                    ],
                }
                for s in self.states
            ],
        }


def diff_states(old: Snapshot, new: Snapshot) -> Difference:
    """Compare the keyed state of two snapshots of any parallelism, key group by key group.

    Raises:
        Rejected: their keys are grouped differently.
    """
    groups = old.manifest.max_parallelism
    if groups != new.manifest.max_parallelism:
        raise Rejected(
            f"one snapshot has {groups} key groups, the other {new.manifest.max_parallelism}",
            where=f"{old.url}, {new.url}",
            fix="export both and compare the lines",
        )
    before, after = _states(old), _states(new)
    difference = Difference(list(_type_changes(before, after)), [])
    for uid in sorted({uid for uid, _ in before | after}):
        names = sorted({name for one, name in before | after if one == uid})
        found = {name: StateDifference(uid, name) for name in names}
        for one, other in _side_by_side(_groups(old, uid), _groups(new, uid)):
            for name, key in sorted(one.keys() | other.keys()):
                if name in found:
                    _compare(
                        found[name],
                        key,
                        _Side(one.get((name, key)), before.get((uid, name))),
                        _Side(other.get((name, key)), after.get((uid, name))),
                    )
        difference.states += found.values()
    return difference


@dataclass(frozen=True, slots=True)
class _Side:
    entry: Entry | None
    descriptor: StateDescriptor | None

    def value(self) -> Any:
        descriptor = self.descriptor
        if self.entry is None or descriptor is None:
            return None
        return value_of(self.entry, descriptor, lambda d: plain_value(d, descriptor.serializer))


def _compare(found: StateDifference, key: bytes, old: _Side, new: _Side) -> None:
    shown = decode_key(key)
    if old.entry is None:
        found.added.append((shown, new.value()))
    elif new.entry is None:
        found.removed.append((shown, old.value()))
    elif old.entry.rows != new.entry.rows:
        found.changed.append((shown, old.value(), new.value()))


def _states(snapshot: Snapshot) -> dict[tuple[str, str], StateDescriptor]:
    return {
        (uid, state.name): state
        for uid in snapshot.operators()
        for state in snapshot.operator(uid).states
        if state.kind in KEYED_KINDS
    }


def _type_changes(
    old: dict[tuple[str, str], StateDescriptor], new: dict[tuple[str, str], StateDescriptor]
) -> Iterator[str]:
    for uid, name in sorted(old | new):
        a, b = old.get((uid, name)), new.get((uid, name))
        if a is None or b is None:
            yield f"state {name} of {uid} is {'new' if a is None else 'gone'}"
        elif a != b:
            yield f"state {name} of {uid} was {type_of(a)} and is {type_of(b)}"


def _groups(snapshot: Snapshot, uid: str) -> Iterator[tuple[int, _Group]]:
    """The entries of each key group that has some, in ascending order."""
    if uid in snapshot.operators():
        for group, same in groupby(snapshot.entries(uid), key=lambda found: found[1].group):
            yield group, {(name, entry.key): entry for name, entry in same}


def _side_by_side(
    old: Iterator[tuple[int, _Group]], new: Iterator[tuple[int, _Group]]
) -> Iterator[tuple[_Group, _Group]]:
    """Both streams joined by group; where one has none, an empty one."""
    a, b = next(old, None), next(new, None)
    while a is not None or b is not None:
        group = min(found[0] for found in (a, b) if found is not None)
        one: _Group = {}
        other: _Group = {}
        if a is not None and a[0] == group:
            one, a = a[1], next(old, None)
        if b is not None and b[0] == group:
            other, b = b[1], next(new, None)
        yield one, other
