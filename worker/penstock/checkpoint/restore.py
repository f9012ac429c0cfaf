"""From a snapshot to what each subtask starts from, at any parallelism.

`verify` refuses a snapshot that the job's code cannot continue, before anything starts; `plan` cuts
keyed state by key-group ranges and divides operator state. Both are pure: they see manifests, never
files.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

from penstock.core.chains import operator_parallelism
from penstock.core.descriptors import KEYED_KINDS, StateDescriptor, StateKind
from penstock.core.errors import Rejected
from penstock.core.graph import JobGraph, Operator
from penstock.core.ids import OperatorId
from penstock.core.keygroups import HASH_NAME, owned_range
from penstock.core.log import SnapshotRef
from penstock.core.manifest import Manifest, OperatorSnapshot, SnapshotKind
from penstock.core.snapshots import KeyedSource, OperatorRestore, RestorePlan

IsReadable = Callable[[StateDescriptor, StateDescriptor], bool]
"""Whether code that declares the second reads what was written under the first."""


def is_same_type(old: StateDescriptor, new: StateDescriptor) -> bool:
    """The strictest rule of what is readable: what the serializer says is exactly the same."""
    return (old.serializer, old.schema, old.sub_schema) == (
        new.serializer,
        new.schema,
        new.sub_schema,
    )


def is_same_key(old: str, new: str) -> bool:
    """Whether two types of keys may be the same.

    A declared one is written out (`tuple[str, int]`), an observed one is a class's name (`tuple`):
    where one of them says no more than that, the name decides.
    """
    if old == new:
        return True
    names = [re.split(r"[\[{]", text)[0].rpartition(".")[2] for text in (old, new)]
    return names[0] == names[1] and not all(re.search(r"[\[{]", text) for text in (old, new))


def verify(
    manifest: Manifest,
    graph: JobGraph,
    *,
    parallelism: int,
    max_parallelism: int | None,
    rename: Mapping[OperatorId, OperatorId] | None = None,
    allow_non_restored: bool = False,
    is_readable: IsReadable = is_same_type,
) -> None:
    """Whether the job's code can continue from a snapshot.

    `max_parallelism` is None when nobody set it: then the snapshot's is inherited.

    Raises:
        Rejected: it cannot; the first reason, naming operator and state.
    """
    rename = rename or {}
    where = f"snapshot {manifest.checkpoint} of {manifest.job}"
    if manifest.hash_name != HASH_NAME:
        raise Rejected(
            f"keys of the snapshot are grouped by {manifest.hash_name}, this Penstock uses {HASH_NAME}",
            where=where,
            fix="run the job with the version of Penstock that wrote it",
        )
    if max_parallelism not in (None, manifest.max_parallelism):
        raise Rejected(
            f"maxParallelism is {max_parallelism}, the snapshot's is {manifest.max_parallelism}",
            where=where,
            fix=f"set maxParallelism to {manifest.max_parallelism}, or leave it out",
        )
    if parallelism > manifest.max_parallelism:
        raise Rejected(
            f"parallelism {parallelism} is above the snapshot's maxParallelism "
            f"{manifest.max_parallelism}",
            where=where,
            fix=f"choose a parallelism of at most {manifest.max_parallelism}",
        )
    takers = {operator.id: operator for operator in graph.operators}
    _verify_rename(manifest, takers.keys(), rename)
    for uid, snapshot in manifest.operators.items():
        taker = takers.get(rename.get(uid, uid))
        if taker is not None:
            _verify_operator(snapshot, taker, where, is_readable)
        elif _has_state(snapshot) and not allow_non_restored:
            raise Rejected(
                f"operator {uid} has state in the snapshot and is not in the job",
                where=where,
                fix=f"give an operator uid={uid!r}, rename it with restore.rename: "
                f"{{{uid}: <new uid>}}, or leave it behind with upgrade.allowNonRestoredState: true",
            )


def plan(
    manifest: Manifest,
    graph: JobGraph,
    *,
    parallelism: int,
    folder: str,
    rename: Mapping[OperatorId, OperatorId] | None = None,
    local: str | None = None,
) -> RestorePlan:
    """What each subtask starts from; `folder` is what the manifest's paths are relative to.

    `local` names the snapshot to the workers: where a subtask's range is unchanged, a copy of it on
    the worker's own disk may be used.
    """
    rename = rename or {}
    snapshots = {rename.get(uid, uid): snapshot for uid, snapshot in manifest.operators.items()}
    return {
        operator.id: _restore_operator(
            snapshots[operator.id],
            operator,
            width=operator_parallelism(operator, parallelism=parallelism),
            max_parallelism=manifest.max_parallelism,
            folder=folder,
            local=local,
        )
        for operator in graph.operators
        if operator.id in snapshots
    }


def folder_of(snapshot: SnapshotRef, manifest: Manifest) -> str:
    """What the manifest's paths are relative to: a checkpoint's job's folder, a savepoint's own."""
    folder = snapshot.path.rpartition("/")[0]
    if manifest.kind is SnapshotKind.CHECKPOINT:
        folder = folder.rpartition("/")[0]
    return folder + "/"


def divide(
    lists: Iterable[Mapping[str, tuple[bytes, ...]]], parallelism: int
) -> list[dict[str, tuple[bytes, ...]]]:
    """Split lists of old subtasks, divided evenly over new ones.

    Each list is concatenated in subtask order; where it does not divide evenly, the larger shares go
    to the subtasks after those that got the larger shares of the list (by name) before it.
    """
    whole = _concatenate(lists)
    shares: list[dict[str, tuple[bytes, ...]]] = [{} for _ in range(parallelism)]
    first_larger = 0
    for name in sorted(whole):
        items = whole[name]
        size, larger = divmod(len(items), parallelism)
        start = 0
        for index in range(parallelism):
            is_larger = (index - first_larger) % parallelism < larger
            stop = start + size + is_larger
            shares[index][name] = items[start:stop]
            start = stop
        first_larger = (first_larger + larger) % parallelism
    return shares


def _concatenate(lists: Iterable[Mapping[str, tuple[bytes, ...]]]) -> dict[str, tuple[bytes, ...]]:
    whole: dict[str, tuple[bytes, ...]] = {}
    for part in lists:
        for name, items in part.items():
            whole[name] = whole.get(name, ()) + items
    return whole


def _restore_operator(
    snapshot: OperatorSnapshot,
    operator: Operator,
    *,
    width: int,
    max_parallelism: int,
    folder: str,
    local: str | None,
) -> dict[int, OperatorRestore]:
    lists = _lists(snapshot, operator, width)
    restored: dict[int, OperatorRestore] = {}
    for index in range(width):
        groups = owned_range(index, parallelism=width, max_parallelism=max_parallelism)
        keyed = tuple(
            KeyedSource(s.keyed, s.keyed.groups.intersection(groups), folder)
            for s in snapshot.subtasks
            if s.keyed is not None and len(s.keyed.groups.intersection(groups))
        )
        is_unchanged = len(keyed) == 1 and keyed[0].handle.groups == groups
        restored[index] = OperatorRestore(
            keyed=keyed,
            lists=lists[index],
            states=snapshot.states,
            key_schema=snapshot.key_schema,
            watermark_ms=_watermark(snapshot, operator, index, width, max_parallelism),
            local=local if is_unchanged else None,
        )
    return restored


def _watermark(
    snapshot: OperatorSnapshot, operator: Operator, index: int, width: int, max_parallelism: int
) -> int | None:
    """The least of those it is made from; None when one of them had seen none yet."""
    if width == snapshot.parallelism:
        return snapshot.subtasks[index].watermark_ms
    groups = owned_range(index, parallelism=width, max_parallelism=max_parallelism)
    known: list[int] = []
    for i, subtask in enumerate(snapshot.subtasks):
        old = owned_range(i, parallelism=snapshot.parallelism, max_parallelism=max_parallelism)
        if operator.is_keyed and not len(old.intersection(groups)):
            continue
        if subtask.watermark_ms is None:
            return None
        known.append(subtask.watermark_ms)
    return min(known, default=None)


def _lists(
    snapshot: OperatorSnapshot, operator: Operator, width: int
) -> list[dict[str, tuple[bytes, ...]]]:
    # The code's word comes before the snapshot's: it is the code that reads the list.
    kinds = {s.name: s.kind for s in (*snapshot.states, *operator.states)}
    union = {name for name, kind in kinds.items() if kind is StateKind.UNION_LIST}
    parts = [s.lists for s in snapshot.subtasks]
    split = [{n: items for n, items in part.items() if n not in union} for part in parts]
    if width != snapshot.parallelism:
        split = divide(split, width)
    everyone = _concatenate({n: i for n, i in part.items() if n in union} for part in parts)
    return [{**share, **everyone} for share in split]


def _verify_rename(
    manifest: Manifest, takers: Iterable[OperatorId], rename: Mapping[OperatorId, OperatorId]
) -> None:
    takers = set(takers)
    for old, new in rename.items():
        if old not in manifest.operators:
            raise Rejected(
                f"there is no operator {old} in the snapshot to rename",
                where="restore.rename",
                fix=f"the snapshot has {', '.join(sorted(manifest.operators))}",
            )
        if new not in takers:
            raise Rejected(
                f"operator {old} cannot become {new}: the job has no such operator",
                where="restore.rename",
                fix=f"the job has {', '.join(sorted(takers))}",
            )
    targets = [rename.get(uid, uid) for uid in manifest.operators]
    for target in targets:
        if targets.count(target) > 1:
            raise Rejected(
                f"two operators of the snapshot would both become {target}",
                where="restore.rename",
                fix="rename each to an operator of its own",
            )


def _verify_operator(
    snapshot: OperatorSnapshot, operator: Operator, where: str, is_readable: IsReadable
) -> None:
    old_key, new_key = snapshot.key_schema, operator.key_schema
    if old_key is not None and new_key is not None and not is_same_key(old_key, new_key):
        raise Rejected(
            f"keys of operator {operator.id} are {old_key} in the snapshot and {new_key} in the job",
            where=where,
            fix="key by the same type as before; keys cannot change",
        )
    declared = {state.name: state for state in operator.states}
    for old in snapshot.states:
        new = declared.get(old.name)
        if new is None:
            continue
        if (old.kind in KEYED_KINDS or new.kind in KEYED_KINDS) and old.kind is not new.kind:
            raise Rejected(
                f"state {old.name} of operator {operator.id} is a {old.kind} state in the snapshot "
                f"and a {new.kind} state in the job",
                where=where,
                fix="declare it as before, or under a new name",
            )
        if not is_readable(old, new):
            raise Rejected(
                f"state {old.name} of operator {operator.id} is {_type(old)} in the snapshot, "
                f"which the job's {_type(new)} cannot read",
                where=where,
                fix="declare it as before, add fields only with a default, or use a new name",
            )


def _type(state: StateDescriptor) -> str:
    schema = state.schema if state.sub_schema is None else f"{{{state.sub_schema}: {state.schema}}}"
    return f"{schema} ({state.serializer})"


def _has_state(snapshot: OperatorSnapshot) -> bool:
    return any(s.keyed is not None or any(s.lists.values()) for s in snapshot.subtasks)
