"""The answer to GET status, out of what a coordinator saw."""

from __future__ import annotations

from penstock.checkpoint.log import recovery_point
from penstock.checkpoint.opening import LIVE
from penstock.checkpoint.rescaling import Outcome, rescale_of
from penstock.checkpoint.settings import CheckpointSettings
from penstock.checkpoint.start import RESTORE_ID
from penstock.core.chains import chains, operator_parallelism
from penstock.core.graph import JobGraph
from penstock.core.ids import JobId, WorkerId
from penstock.core.log import Entry, SnapshotRef
from penstock.network.frames import OperatorMetrics
from penstock.runtime.job_storage import is_url
from penstock.runtime.job_view import (
    CheckpointRecord,
    CheckpointStatus,
    FailureRecord,
    JobView,
    Rates,
)
from penstock.spec.orders import (
    ErrorStatus,
    HoldStatus,
    JobPhase,
    JobStatus,
    OperatorStatus,
    RequestStatus,
    RescaleStatus,
    SnapshotStatus,
    WorkerStatus,
)

FAILED_COUNTER = "failed"
"""Name of the counter of records that raised and were skipped or diverted."""


def job_status(
    view: JobView,
    *,
    job: JobId,
    graph: JobGraph,
    revision: str,
    parallelism: int,
    workers: list[WorkerId],
    requests: tuple[RequestStatus, ...],
    holds_not: tuple[str, ...],
    checkpoints_url: str,
    savepoints_url: str,
    settings_in_force: CheckpointSettings,
    now_ms: int,
) -> JobStatus:
    """The whole job at this moment. `parallelism` is the manifest's, for a job that never ran."""
    newest = view.newest
    attempt = view.newest_attempt
    settings = {} if newest is None else newest.settings
    end = None if newest is None else newest.end
    restored = attempt.restored_from if attempt else None
    width = attempt.parallelism if attempt else parallelism
    return JobStatus(
        job_id=job,
        name=graph.name,
        phase=view.phase,
        revision=attempt.revision if attempt else revision,
        attempt=view.attempt,
        parallelism=width,
        max_parallelism=attempt.max_parallelism if attempt else 0,
        started_at_ms=view.running_since_ms,
        log_seq=view.newest.seq if view.newest else 0,
        restarts=view.restarts,
        last_checkpoint=_last(view, checkpoints_url, savepoint=False),
        checkpoints_kept=len(newest.retained) if newest else 0,
        next_checkpoint_in_ms=view.next_checkpoint_in_ms(now_ms, settings_in_force),
        last_savepoint=_last(view, savepoints_url, savepoint=True),
        restored_from=_folder_url(restored, checkpoints_url),
        next_restore=_folder_url(recovery_point(newest) if newest else None, checkpoints_url),
        restore_id=settings.get(RESTORE_ID),
        completed_in_attempt=view.completed_in_attempt,
        hold=_hold(view, checkpoints_url),
        holds_not=holds_not,
        rescale=_rescale(newest),
        settings=settings.get(LIVE, {}),
        end_reason=end.reason if end else None,
        workers=tuple(
            WorkerStatus(id=worker, progress_age_ms=view.progress_age_ms(worker))
            for worker in workers
        ),
        operators=_operators(view, graph, width),
        last_error=_error(view.failures[-1]) if view.failures else None,
        uncommitted=_error(view.uncommitted) if view.uncommitted else None,
        requests=requests,
    )


def _hold(view: JobView, root_url: str) -> HoldStatus | None:
    hold = view.newest.hold if view.newest else None
    if hold is None:
        return None
    return HoldStatus(
        after=hold.after,
        stable=hold.stable,
        completed=view.completed_in_attempt,
        path=_folder_url(hold.from_, root_url) or "",
    )


def _rescale(newest: Entry | None) -> RescaleStatus | None:
    found = rescale_of(newest)
    if found is None or found.outcome is not Outcome.DONE:
        return None
    return RescaleStatus(
        request_id=found.request_id,
        from_parallelism=len(found.former),
        to_parallelism=found.parallelism,
        key_groups_moved=found.key_groups_moved,
        bytes_moved=found.bytes_moved,
        pause_ms=found.pause_ms,
    )


def _folder_url(ref: SnapshotRef | None, root_url: str) -> str | None:
    """The folder of a snapshot, as `restore.from` takes it."""
    if ref is None:
        return None
    return (ref.path if is_url(ref.path) else f"{root_url}/{ref.path}").rpartition("/")[0]


def _operators(view: JobView, graph: JobGraph, parallelism: int) -> tuple[OperatorStatus, ...]:
    heads = {chain.head for chain in chains(graph, parallelism=parallelism)}
    totals = view.operators()
    found = []
    for operator in graph.operators:
        width = operator_parallelism(operator, parallelism=parallelism)
        metrics = totals.get(operator.id, OperatorMetrics())
        rates = view.rates(operator.id, subtasks=width)
        found.append(
            OperatorStatus(
                id=operator.id,
                label=operator.label,
                kind=operator.kind,
                parallelism=width,
                records_in=metrics.records_in,
                records_out=metrics.records_out,
                records_failed=metrics.counters.get(FAILED_COUNTER, 0),
                records_per_second=round(rates.records_per_second, 1),
                keys=metrics.keys if operator.is_keyed else None,
                state_bytes=metrics.state_bytes if operator.states else None,
                busy=round(rates.busy, 3) if operator.id in heads else None,
                unread_files=metrics.unread_files,
                unread_bytes=metrics.unread_bytes,
                unread_ms=_time_to_read(view, metrics, rates),
            )
        )
    return tuple(found)


def _time_to_read(view: JobView, metrics: OperatorMetrics, rates: Rates) -> int | None:
    """What is unread at the pace of the last seconds; None where that cannot be told."""
    if not metrics.unread_bytes or not rates.read_bytes_per_second:
        return None
    if view.phase is not JobPhase.RUNNING:
        return None
    return round(metrics.unread_bytes * 1000 / rates.read_bytes_per_second)


def _last(view: JobView, root_url: str, *, savepoint: bool) -> SnapshotStatus | None:
    for record in reversed(view.checkpoints):
        if record.savepoint is savepoint and record.status is CheckpointStatus.COMPLETED:
            return SnapshotStatus(
                id=record.id,
                path=snapshot_url(record, root_url),
                completed_at_ms=record.ended_ms or 0,
                duration_ms=record.duration_ms or 0,
                size_bytes=record.size_bytes,
                bytes_new=record.bytes_new,
            )
    return None


def snapshot_url(record: CheckpointRecord, root_url: str) -> str:
    """The folder of a snapshot below its root, where a person finds it."""
    folder = record.folder or (record.path or "").rpartition("/")[0]
    return f"{root_url}/{folder}".rstrip("/")


def _error(record: FailureRecord) -> ErrorStatus:
    failure = record.failure
    return ErrorStatus(
        what=failure.what,
        at_ms=record.at_ms,
        attempt=record.attempt,
        operator=failure.operator,
        subtask=failure.subtask,
        key=failure.key,
        record=failure.record,
        position=failure.position,
        lines=failure.lines,
        fix=failure.fix,
        damaged=failure.damaged,
    )
