"""The JSON of Flink's REST, part by part, out of what a coordinator saw."""

from __future__ import annotations

from typing import Any

from penstock.core import paths
from penstock.runtime.job_status import snapshot_url
from penstock.runtime.job_view import CheckpointRecord, CheckpointStatus
from penstock.spec.orders import JobPhase, JobStatus, OperatorStatus

STATE = {
    JobPhase.WAITING: "CREATED",
    JobPhase.DEPLOYING: "INITIALIZING",
    JobPhase.RUNNING: "RUNNING",
    JobPhase.RESTARTING: "RESTARTING",
    JobPhase.STOPPING: "RUNNING",
    JobPhase.ENDING: "RUNNING",
    JobPhase.FINISHED: "FINISHED",
    JobPhase.STOPPED: "FINISHED",
    JobPhase.CANCELLED: "CANCELED",
    JobPhase.FAILED: "FAILED",
    JobPhase.STOOD_DOWN: "SUSPENDED",
}
STATES = (
    "INITIALIZING",
    "CREATED",
    "RUNNING",
    "FAILING",
    "FAILED",
    "CANCELLING",
    "CANCELED",
    "FINISHED",
    "RESTARTING",
    "SUSPENDED",
    "RECONCILING",
)
_TASK_STATES = (
    "CREATED",
    "SCHEDULED",
    "DEPLOYING",
    "RUNNING",
    "FINISHED",
    "CANCELING",
    "CANCELED",
    "FAILED",
    "RECONCILING",
    "INITIALIZING",
)
_TASK_STATE = {
    "CREATED": "CREATED",
    "INITIALIZING": "INITIALIZING",
    "RUNNING": "RUNNING",
    "RESTARTING": "SCHEDULED",
    "FINISHED": "FINISHED",
    "CANCELED": "CANCELED",
    "FAILED": "FAILED",
    "SUSPENDED": "CANCELED",
}
_CHECKPOINT_STATUS = {
    CheckpointStatus.IN_PROGRESS: "IN_PROGRESS",
    CheckpointStatus.COMPLETED: "COMPLETED",
    CheckpointStatus.FAILED: "FAILED",
}


def vertex(status: JobStatus, operator: OperatorStatus, slot_group: str) -> dict[str, Any]:
    """An operator, without the times."""
    state = _TASK_STATE[STATE[status.phase]]
    return {
        "id": paths.flink_id(operator.id),
        "slotSharingGroupId": slot_group,
        "name": f"{operator.id} ({operator.kind})",
        "maxParallelism": status.max_parallelism,
        "parallelism": operator.parallelism,
        "status": state,
        "tasks": {s: operator.parallelism if s == state else 0 for s in _TASK_STATES},
        "metrics": {
            "read-bytes": 0,
            "read-bytes-complete": False,
            "write-bytes": 0,
            "write-bytes-complete": False,
            "read-records": operator.records_in,
            "read-records-complete": True,
            "write-records": operator.records_out,
            "write-records-complete": True,
            "accumulated-backpressured-time": 0,
            "accumulated-idle-time": 0,
            "accumulated-busy-time": 0.0,
        },
    }


def checkpoint(record: CheckpointRecord, root_url: str, *, now_ms: int) -> dict[str, Any]:
    """A checkpoint or savepoint; `root_url` is that of the storage it goes to."""
    ended_ms = record.ended_ms
    body: dict[str, Any] = {
        "className": _CHECKPOINT_STATUS[record.status].lower(),
        "id": record.id,
        "status": _CHECKPOINT_STATUS[record.status],
        "is_savepoint": record.savepoint,
        "savepointFormat": "CANONICAL" if record.savepoint else None,
        "trigger_timestamp": record.started_ms,
        "latest_ack_timestamp": ended_ms or record.started_ms,
        "checkpointed_size": record.bytes_new,
        "state_size": record.size_bytes,
        "end_to_end_duration": (ended_ms or now_ms) - record.started_ms,
        "alignment_buffered": 0,
        "processed_data": 0,
        "persisted_data": 0,
        "num_subtasks": record.acknowledged,
        "num_acknowledged_subtasks": record.acknowledged,
        "checkpoint_type": "SAVEPOINT" if record.savepoint else "CHECKPOINT",
        "tasks": {},
    }
    if record.status is CheckpointStatus.COMPLETED:
        body["external_path"] = snapshot_url(record, root_url)
        body["discarded"] = False
    elif record.status is CheckpointStatus.FAILED:
        body["failure_timestamp"] = ended_ms
        body["failure_message"] = record.reason
    return body


def task_counts(status: JobStatus) -> dict[str, int]:
    """Subtasks by their state; all are in the same one."""
    total = sum(operator.parallelism for operator in status.operators)
    state = _TASK_STATE[STATE[status.phase]]
    return {s: total if s == state else 0 for s in _TASK_STATES}


def plan_node(operator: OperatorStatus) -> dict[str, Any]:
    """An operator in the plan."""
    return {
        "id": paths.flink_id(operator.id),
        "parallelism": operator.parallelism,
        "operator": "",
        "operator_strategy": "",
        "description": f"{operator.id} ({operator.kind})",
        "optimizer_properties": {},
    }


def summary(completed: list[CheckpointRecord]) -> dict[str, Any]:
    """Statistics over completed checkpoints."""
    return {
        "checkpointed_size": _statistics([r.bytes_new for r in completed]),
        "state_size": _statistics([r.size_bytes for r in completed]),
        "end_to_end_duration": _statistics([r.duration_ms or 0 for r in completed]),
        "alignment_buffered": _statistics([]),
        "processed_data": _statistics([]),
        "persisted_data": _statistics([]),
    }


def _statistics(values: list[int]) -> dict[str, float]:
    ordered = sorted(values) or [0]

    def quantile(q: float) -> float:
        return float(ordered[min(len(ordered) - 1, int(q * len(ordered)))])

    return {
        "min": ordered[0],
        "max": ordered[-1],
        "avg": sum(ordered) // len(ordered),
        "p50": quantile(0.5),
        "p90": quantile(0.9),
        "p95": quantile(0.95),
        "p99": quantile(0.99),
        "p999": quantile(0.999),
    }
