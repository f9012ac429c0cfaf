"""What an ordered start begins from: the log, a snapshot that somebody named, a hold, or nothing.

Values only. A standing `restore` acts once: its identity goes into the settings of the opening and
outlives restarts, so that it does not rewind them. Nothing is started from a snapshot that is not
whole, and nothing from empty by accident, unless the order says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from penstock.checkpoint import log, recovery
from penstock.checkpoint.events import LogRead, StartOrdered
from penstock.checkpoint.opening import COMMITTED, LIVE, RESTORE, Opening, verify
from penstock.checkpoint.origin import Origin
from penstock.checkpoint.restore import IsReadable, is_same_type
from penstock.core.errors import Rejected
from penstock.core.graph import JobGraph
from penstock.core.ids import CheckpointId, OperatorId
from penstock.core.keygroups import check_parallelism, default_max_parallelism
from penstock.core.log import Entry, EntryKind, Hold, SnapshotRef
from penstock.core.manifest import Manifest

RESTORE_ID = "restoreId"
_HOLD_FROM_COMMITTED = "holdFromCommitted"


@dataclass(frozen=True, slots=True)
class _Beginning:
    """`is_committed`: an end said that all transactions of the snapshot are committed.

    `hold` is the standing one, where it goes on. Retained checkpoints above `keeps_up_to` go.
    """

    snapshot: SnapshotRef | None = None
    manifest: Manifest | None = None
    is_committed: bool = False
    hold: Hold | None = None
    keeps_up_to: CheckpointId | None = None
    how: Mapping[str, Any] = field(default_factory=dict)


def ordered(
    order: StartOrdered, read: LogRead, graph: JobGraph, is_readable: IsReadable = is_same_type
) -> Opening:
    """The attempt that somebody ordered.

    Raises:
        Rejected: it cannot be, with the reason.
    """
    entry = read.newest
    beginning = _beginning(order, read)
    manifest = beginning.manifest
    if manifest is not None:
        max_parallelism = manifest.max_parallelism
    else:
        max_parallelism = order.max_parallelism or default_max_parallelism(order.parallelism)
    dropped: tuple[SnapshotRef, ...] = ()
    if entry is not None and beginning.keeps_up_to is not None:
        dropped = tuple(ref for ref in entry.retained if ref.id > beginning.keeps_up_to)
    settings = _settings(order, entry, beginning)
    opening = Opening(
        snapshot=beginning.snapshot,
        manifest=manifest,
        parallelism=order.parallelism,
        max_parallelism=max_parallelism,
        hold=_hold(order, read, beginning),
        request_id=order.request_id,
        highest_checkpoint=read.highest_checkpoint,
        settings=settings,
        dropped=dropped,
    )
    verify(opening, graph, order.max_parallelism, is_readable)
    check_parallelism(parallelism=order.parallelism, max_parallelism=max_parallelism)
    return opening


def is_restore_due(entry: Entry | None, restore_id: str) -> bool:
    """Whether a standing `restore` acts: the log has no snapshot, or obeyed another one last."""
    if entry is None or log.recovery_point(entry) is None:
        return True
    return bool(entry.settings.get(RESTORE_ID) != restore_id)


def has_seen(entry: Entry | None, after: int) -> bool:
    """Whether somebody who saw this number last has seen the newest entry.

    That an end is committed changes nothing for him; that something was deleted since may.
    """
    if entry is None:
        return after == 0
    is_settled = entry.kind is EntryKind.ENDED and entry.end is not None and entry.end.committed
    return after == entry.seq or (is_settled and after == entry.seq - 1)


# ── from what ───────────────────────────────────────────────────────────────────────────────────


def _beginning(order: StartOrdered, read: LogRead) -> _Beginning:
    match order.origin:
        case Origin.EMPTY:
            return _Beginning()
        case Origin.HOLD:
            return _from_hold(read)
        case Origin.RESTORE:
            is_named = True
        case Origin.LOG:
            is_named = order.restore_id is None or is_restore_due(read.newest, order.restore_id)
    if is_named and order.restore is not None:
        return _Beginning(order.restore.snapshot, order.restore.manifest, how=order.rules.to_json())
    return _from_log(order, read)


def _from_log(order: StartOrdered, read: LogRead) -> _Beginning:
    entry, rules = read.newest, order.rules
    point = log.recovery_point(entry) if entry else None
    if entry is None or point is None:
        if entry is None and read.highest_checkpoint > 0 and not rules.allow_empty:
            raise Rejected(
                f"the job's folder has checkpoints, up to {read.highest_checkpoint}, and no log: "
                "nobody can tell which of them are complete",
                where="the folder log/ beside them",
                fix="bring the log back, or begin anew with --restore none "
                "(restore.policy: AllowEmpty)",
            )
        return _Beginning()
    ran = entry.attempt.revision
    if entry.hold is not None and order.revision != ran:
        raise Rejected(
            f"sinks hold what revision {ran} wrote, which is not stable: another revision cannot go "
            "on from its state",
            where=point.path,
            fix="begin before it with origin: Hold, or restore a snapshot by name",
        )
    if point.path in read.damaged:
        return _instead_of(point, entry, read, order)
    manifest = read.manifests[point.path]
    how: dict[str, Any] = {}
    if point == entry.attempt.restored_from:
        how = dict(entry.settings.get(RESTORE, {}))
    how |= replace(rules, rename=_still_needed(rules.rename, manifest)).to_json()
    # In a hold the end committed only what lies before it; what is held must be restored.
    is_committed = entry.end is not None and entry.end.committed and entry.hold is None
    return _Beginning(point, manifest, is_committed, entry.hold, how=how)


def _still_needed(
    rename: Mapping[OperatorId, OperatorId], manifest: Manifest
) -> dict[OperatorId, OperatorId]:
    """A standing `rename` was obeyed by the first snapshot that has the new uid."""
    there = manifest.operators.keys()
    return {old: new for old, new in rename.items() if old in there or new not in there}


def _instead_of(point: SnapshotRef, entry: Entry, read: LogRead, order: StartOrdered) -> _Beginning:
    older = recovery.newest_whole_below(point, entry, read)
    if older is not None and order.rules.allow_older:
        hold = entry.hold
        if hold is not None and older.id <= hold.after and older.path != hold.from_.path:
            hold = None  # it lies before what the hold goes back to
        return _Beginning(
            older,
            read.manifests[older.path],
            hold=hold,
            keeps_up_to=older.id,
            how=order.rules.to_json(),
        )
    if older is None and order.rules.allow_empty:
        return _Beginning()
    raise Rejected(
        f"the newest snapshot is damaged: {read.damaged[point.path]}",
        where=point.path,
        fix=f"{older.path} is the newest whole one before it: name it, or set restore.allowOlder; "
        "output since then is written twice"
        if older
        else "no older checkpoint is whole: restore a savepoint or a backup, or begin empty with "
        "restore.policy: AllowEmpty",
    )


def _from_hold(read: LogRead) -> _Beginning:
    entry = read.newest
    hold = entry.hold if entry else None
    if entry is None or hold is None:
        raise Rejected(
            "there is nothing to go back to: no hold stands, it was released or there was none",
            where="origin: Hold",
            fix="what was written since would be written twice; start from the log, or restore a "
            "snapshot by name",
        )
    if hold.from_.path in read.damaged:
        raise Rejected(
            f"the snapshot that the hold goes back to is damaged: {read.damaged[hold.from_.path]}",
            where=hold.from_.path,
            fix="bring its files back; until then the newer version is all there is",
        )
    return _Beginning(
        hold.from_,
        read.manifests[hold.from_.path],
        is_committed=bool(entry.settings.get(_HOLD_FROM_COMMITTED)),
        keeps_up_to=hold.after,
    )


# ── with what ───────────────────────────────────────────────────────────────────────────────────


def _hold(order: StartOrdered, read: LogRead, beginning: _Beginning) -> Hold | None:
    """A new hold withholds everything that the attempts from now on take.

    Where one stands, nothing above it was committed: it goes on, so that a rollback still finds the
    snapshot of the last stable version.
    """
    stands, stable = beginning.hold, order.hold_stable
    if stands is not None:
        return replace(stands, stable=stable) if stable else stands
    if not stable or beginning.snapshot is None:
        return None
    first = recovery.next_checkpoint(read.newest, read.highest_checkpoint, beginning.manifest)
    return Hold(beginning.snapshot, CheckpointId(first - 1), stable)


def _settings(order: StartOrdered, entry: Entry | None, beginning: _Beginning) -> dict[str, Any]:
    before = entry.settings if entry else {}
    how = dict(beginning.how)
    if beginning.is_committed:
        how[COMMITTED] = True
    restore_id = before.get(RESTORE_ID)
    if order.restore_id is not None and order.origin is not Origin.RESTORE:
        restore_id = order.restore_id
    from_committed = beginning.is_committed
    if beginning.hold is not None:
        from_committed = bool(before.get(_HOLD_FROM_COMMITTED))
    settings = {
        RESTORE: how,
        RESTORE_ID: restore_id,
        LIVE: order.live,
        _HOLD_FROM_COMMITTED: from_committed,
    }
    return {name: value for name, value in settings.items() if value}
