"""Opening an attempt: from which snapshot, with which numbers, on which workers.

Values only; that the opening wins its log entry is the coordinator's business.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from penstock.checkpoint import log, recovery, rescaling, restore
from penstock.checkpoint.effects import Prepare
from penstock.checkpoint.events import LogRead
from penstock.checkpoint.placement import Former, place
from penstock.checkpoint.rescaling import Rescale
from penstock.checkpoint.restore import IsReadable, is_same_type
from penstock.checkpoint.settings import Identity
from penstock.core.chains import chains, subtasks_by_worker
from penstock.core.errors import Rejected
from penstock.core.graph import JobGraph
from penstock.core.ids import AttemptNumber, CheckpointId, SubtaskId, WorkerId
from penstock.core.log import Attempt, Entry, Hold, SnapshotRef
from penstock.core.manifest import Manifest
from penstock.core.snapshots import OWN_SERIALIZER, SINK_PENDING, RestorePlan

SINK = "sink"
RESTORE = "restore"
COMMITTED = "committed"
LIVE = "live"
"""Keys in the settings of an entry; `COMMITTED` is one of `RESTORE`'s."""


@dataclass(frozen=True, slots=True)
class Opening:
    """An attempt that is to be opened as soon as its workers are there.

    `dropped` are retained checkpoints that its entry drops. `former` is the placement that the
    snapshot was taken under, when it is not that of the newest entry.
    """

    snapshot: SnapshotRef | None
    manifest: Manifest | None
    parallelism: int
    max_parallelism: int
    hold: Hold | None
    request_id: str | None
    highest_checkpoint: CheckpointId
    settings: dict[str, Any] = field(default_factory=dict)
    dropped: tuple[SnapshotRef, ...] = ()
    former: tuple[int, ...] | None = None


def recovered(
    read: LogRead,
    snapshot: SnapshotRef | None,
    graph: JobGraph,
    is_readable: IsReadable = is_same_type,
    *,
    reason: str = "its coordinator was started again before the first checkpoint",
) -> Opening:
    """The next attempt after one that broke for that reason; a change of parallelism that was not
    firm yet is taken back.

    Raises:
        Rejected: the job's code cannot continue from the snapshot.
    """
    entry = read.newest
    assert entry is not None, "recovery without a log"
    entry = rescaling.taken_back(entry, reason)
    opening = Opening(
        snapshot=snapshot,
        manifest=read.manifests[snapshot.path] if snapshot else None,
        parallelism=entry.attempt.parallelism,
        max_parallelism=entry.attempt.max_parallelism,
        hold=entry.hold,
        request_id=entry.request_id,
        highest_checkpoint=read.highest_checkpoint,
        settings=_carried(entry, snapshot),
        former=entry.attempt.placement,
    )
    verify(opening, graph, entry.attempt.max_parallelism, is_readable)
    return opening


def rescaled(
    entry: Entry,
    snapshot: SnapshotRef,
    manifest: Manifest,
    *,
    request_id: str,
    parallelism: int,
    highest_checkpoint: CheckpointId,
) -> Opening:
    """The attempt at another parallelism, from the checkpoint that was just taken for it."""
    rescale = Rescale(request_id, entry.attempt.placement, parallelism)
    return Opening(
        snapshot=snapshot,
        manifest=manifest,
        parallelism=parallelism,
        max_parallelism=entry.attempt.max_parallelism,
        hold=entry.hold,
        request_id=entry.request_id,
        highest_checkpoint=highest_checkpoint,
        settings=rescaling.noted(_carried(entry, snapshot), rescale),
    )


def _carried(entry: Entry, snapshot: SnapshotRef | None) -> dict[str, Any]:
    """The settings that outlive an attempt; how another snapshot was to be restored does not."""
    is_same = snapshot == entry.attempt.restored_from
    return {name: value for name, value in entry.settings.items() if is_same or name != RESTORE}


def entry_of(
    opening: Opening,
    previous: Entry | None,
    identity: Identity,
    workers: Mapping[WorkerId, tuple[str, ...]],
    *,
    nonce: str,
    at_ms: int,
) -> Entry:
    """The log entry that opens it. `workers` are those that joined, with their local copies."""
    snapshot = opening.snapshot
    former = None
    if previous is not None:
        with_copy = {w for w, copies in workers.items() if snapshot and snapshot.path in copies}
        former = Former(opening.former or previous.attempt.placement, with_copy)
    attempt = Attempt(
        number=AttemptNumber(previous.attempt.number + 1 if previous else 1),
        revision=identity.revision,
        parallelism=opening.parallelism,
        max_parallelism=opening.max_parallelism,
        placement=place(
            parallelism=opening.parallelism,
            max_parallelism=opening.max_parallelism,
            former=former,
        ),
        next_checkpoint=recovery.next_checkpoint(
            previous, opening.highest_checkpoint, opening.manifest
        ),
        restored_from=snapshot,
    )
    return log.opened(
        previous,
        nonce=nonce,
        at_ms=at_ms,
        owner=identity.owner,
        attempt=attempt,
        hold=opening.hold,
        request_id=opening.request_id,
        settings=opening.settings,
        dropped=opening.dropped,
    )


def prepare(entry: Entry, manifest: Manifest | None, graph: JobGraph) -> Prepare:
    """The order to the workers to restore what this opening says."""
    snapshot = entry.attempt.restored_from
    return Prepare(
        attempt=entry.attempt,
        subtasks=subtasks_by_worker(graph, placement=entry.attempt.placement),
        restore=_plan(entry, snapshot, manifest, graph),
        committed=recovery.committed_up_to(entry, snapshot),
        job_nonce=entry.job_nonce,
    )


def check_commit_only(entry: Entry, manifest: Manifest, graph: JobGraph) -> None:
    """Whether this code has the sinks that an ended run left something to commit to. In a hold what
    lies below it was committed before the hold began; the next start restores what lies above.

    Raises:
        Rejected: it has not; to go on would lose that output.
    """
    if entry.hold is not None:
        return
    how: dict[str, Any] = {}
    if entry.end is not None and entry.end.go_on_from == entry.attempt.restored_from:
        how = entry.settings.get(RESTORE, {})
    if how.get(COMMITTED):
        return
    renamed = how.get("rename", {})
    sinks = {operator.id for operator in graph.operators if operator.kind == SINK}
    for uid, operator in manifest.operators.items():
        is_authors = any(
            state.name == SINK_PENDING and state.serializer != OWN_SERIALIZER
            for state in operator.states
        )
        is_pending = any(part.lists.get(SINK_PENDING) for part in operator.subtasks)
        if is_pending and not is_authors and renamed.get(uid, uid) not in sinks:
            raise Rejected(
                f"the run that ended left output of the sink {uid} to be committed, and this code has "
                "no sink of that uid",
                where=f"revision {entry.attempt.revision} wrote it",
                fix="run that revision, which commits it and ends; or give a sink that uid again",
            )


def prepare_commit_only(
    entry: Entry, manifest: Manifest, committed: CheckpointId, graph: JobGraph
) -> Prepare:
    """The order to the workers to commit what an ended run left: sinks alone, without sources."""
    assert entry.end is not None, entry
    sinks = {operator.id for operator in graph.operators if operator.kind == SINK}
    width = entry.attempt.parallelism
    heads = {c.head for c in chains(graph, parallelism=width) if sinks.intersection(c.operators)}
    subtasks: dict[WorkerId, tuple[SubtaskId, ...]] = {
        worker: kept
        for worker, all_of_it in subtasks_by_worker(
            graph, placement=entry.attempt.placement
        ).items()
        if (kept := tuple(s for s in all_of_it if s.operator in heads))
    }
    plan = _plan(entry, entry.end.go_on_from, manifest, graph)
    return Prepare(
        attempt=entry.attempt,
        subtasks=subtasks,
        restore={uid: parts for uid, parts in plan.items() if uid in sinks},
        committed=committed,
        job_nonce=entry.job_nonce,
        commit_only=True,
    )


def _plan(
    entry: Entry, snapshot: SnapshotRef | None, manifest: Manifest | None, graph: JobGraph
) -> RestorePlan:
    if snapshot is None:
        return {}
    assert manifest is not None, snapshot
    how: dict[str, Any] = {}
    if snapshot == entry.attempt.restored_from:
        how = entry.settings.get(RESTORE, {})
    plan = restore.plan(
        manifest,
        graph,
        parallelism=entry.attempt.parallelism,
        folder=restore.folder_of(snapshot, manifest),
        rename=how.get("rename", {}),
        local=snapshot.path,
    )
    return _without_pending(plan, graph) if how.get(COMMITTED) else plan


def _without_pending(plan: RestorePlan, graph: JobGraph) -> RestorePlan:
    """Sinks restore nothing of a run whose end says that everything is committed: its output may
    have been moved away since, and committing it again would miss it."""
    sinks = {operator.id for operator in graph.operators if operator.kind == SINK}
    return {
        uid: {i: replace(part, lists={}) for i, part in parts.items()} if uid in sinks else parts
        for uid, parts in plan.items()
    }


def verify(
    opening: Opening, graph: JobGraph, max_parallelism: int | None, is_readable: IsReadable
) -> None:
    if opening.manifest is None:
        return
    how = opening.settings.get(RESTORE, {})
    restore.verify(
        opening.manifest,
        graph,
        parallelism=opening.parallelism,
        max_parallelism=max_parallelism,
        rename=how.get("rename"),
        allow_non_restored=how.get("allowNonRestored", False),
        is_readable=is_readable,
    )
