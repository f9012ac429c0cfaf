"""Flink's REST paths under /v1, as far as its command line, its Kubernetes operator and dashboards
go for a running job; the JSON is Flink 2.3's. Identifiers are 32 hex digits, of ours' SHA-256.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from penstock._version import __version__
from penstock.core import paths
from penstock.core.errors import Rejected
from penstock.core.ids import JobId
from penstock.runtime import flink_shapes as shapes
from penstock.runtime.job_view import CheckpointRecord, CheckpointStatus, JobView
from penstock.runtime.order_desk import AnyOrder, OrderDesk
from penstock.spec.orders import (
    CancelOrder,
    CheckpointOrder,
    JobStatus,
    RequestPhase,
    RequestStatus,
    SavepointOrder,
    StopOrder,
)

FLINK_VERSION = "2.3.0"
"""The version whose REST this is; `flink-revision` says who answers."""

_TRIGGER_ID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class FlinkRest:
    """The handlers; `now_ms` is the coordinator's clock."""

    job: JobId
    view: JobView
    desk: OrderDesk
    status: Callable[[], JobStatus]
    now_ms: Callable[[], int]
    checkpoints_url: str
    savepoints_url: str

    @property
    def jid(self) -> str:
        """The job's identifier as Flink's tools want it."""
        return paths.flink_id(self.job)

    def routes(self) -> list[web.RouteDef]:
        """What to add to the application."""
        job = "/v1/jobs/{jid}"
        return [
            web.get("/v1/config", self.get_config),
            web.get("/v1/overview", self.get_overview),
            web.get("/v1/jobs", self.get_jobs),
            web.get("/v1/jobs/overview", self.get_jobs_overview),
            web.get(job, self.get_job),
            web.patch(job, self.patch_job),
            web.get(f"{job}/status", self.get_job_status),
            web.get(f"{job}/checkpoints", self.get_checkpoints),
            web.post(f"{job}/checkpoints", self.post_checkpoint),
            web.get(f"{job}/checkpoints/details/{{id}}", self.get_checkpoint_details),
            web.get(f"{job}/checkpoints/{{trigger}}", self.get_triggered_checkpoint),
            web.post(f"{job}/savepoints", self.post_savepoint),
            web.get(f"{job}/savepoints/{{trigger}}", self.get_savepoint),
            web.post(f"{job}/stop", self.post_stop),
        ]

    # ── the cluster ─────────────────────────────────────────────────────────────────────────────

    async def get_config(self, _: web.Request) -> web.Response:
        """GET /v1/config."""
        features = {"web-submit": False, "web-cancel": True, "web-rescale": False}
        return web.json_response(
            {
                "refresh-interval": 3000,
                "timezone-name": "Coordinated Universal Time",
                "timezone-offset": 0,
                "flink-version": FLINK_VERSION,
                "flink-revision": f"penstock {__version__}",
                "features": {**features, "web-history": False},
            }
        )

    async def get_overview(self, _: web.Request) -> web.Response:
        """GET /v1/overview."""
        status = self.status()
        state = shapes.STATE[status.phase]
        return web.json_response(
            {
                "taskmanagers": len(status.workers),
                "slots-total": len(status.workers),
                "slots-available": max(0, len(status.workers) - status.parallelism),
                "jobs-running": int(state not in {"FINISHED", "CANCELED", "FAILED"}),
                "jobs-finished": int(state == "FINISHED"),
                "jobs-cancelled": int(state == "CANCELED"),
                "jobs-failed": int(state == "FAILED"),
                "flink-version": FLINK_VERSION,
                "flink-commit": f"penstock {__version__}",
            }
        )

    # ── the job ─────────────────────────────────────────────────────────────────────────────────

    async def get_jobs(self, _: web.Request) -> web.Response:
        """GET /v1/jobs."""
        state = shapes.STATE[self.view.phase]
        return web.json_response({"jobs": [{"id": self.jid, "status": state}]})

    async def get_jobs_overview(self, _: web.Request) -> web.Response:
        """GET /v1/jobs/overview."""
        status = self.status()
        tasks = shapes.task_counts(status)
        return web.json_response(
            {
                "jobs": [
                    {
                        **self._times(status),
                        "jid": self.jid,
                        "name": status.name,
                        "state": shapes.STATE[status.phase],
                        "job-type": "STREAMING",
                        "jobType": "STREAMING",
                        "last-modification": self._times(status)["start-time"],
                        "tasks": {
                            "total": sum(tasks.values()),
                            **{state.lower(): count for state, count in tasks.items()},
                        },
                        "pending-operators": 0,
                    }
                ]
            }
        )

    async def get_job_status(self, request: web.Request) -> web.Response:
        """GET /v1/jobs/:jid/status."""
        self._check(request)
        return web.json_response({"status": shapes.STATE[self.view.phase]})

    async def get_job(self, request: web.Request) -> web.Response:
        """GET /v1/jobs/:jid."""
        self._check(request)
        status = self.status()
        state, times = shapes.STATE[status.phase], self._times(status)
        return web.json_response(
            {
                **times,
                "jid": self.jid,
                "name": status.name,
                "isStoppable": True,
                "state": state,
                "job-type": "STREAMING",
                "maxParallelism": status.max_parallelism,
                "now": self.now_ms(),
                "timestamps": {
                    name: times["start-time"] if name in {"CREATED", state} else 0
                    for name in shapes.STATES
                },
                "vertices": [
                    {**times, **shapes.vertex(status, operator, self.jid)}
                    for operator in status.operators
                ],
                "status-counts": shapes.task_counts(status),
                "plan": {
                    "jid": self.jid,
                    "name": status.name,
                    "type": "STREAMING",
                    "nodes": [shapes.plan_node(operator) for operator in status.operators],
                },
                "pending-operators": 0,
            }
        )

    async def patch_job(self, request: web.Request) -> web.Response:
        """PATCH /v1/jobs/:jid?mode=cancel."""
        self._check(request)
        mode = request.query.get("mode", "cancel")
        if mode != "cancel":
            raise Rejected(f"mode {mode} is not supported", where=request.path_qs, fix="cancel")
        await self._order(CancelOrder(request_id=f"flink-cancel-{self.view.attempt}"))
        return web.json_response({}, status=202)

    def _times(self, status: JobStatus) -> dict[str, int]:
        start_ms = status.started_at_ms or self.view.started_ms
        end_ms = self.view.ended_ms
        return {
            "start-time": start_ms,
            "end-time": -1 if end_ms is None else end_ms,
            "duration": max(0, (end_ms or self.now_ms()) - start_ms),
        }

    # ── checkpoints ─────────────────────────────────────────────────────────────────────────────

    async def get_checkpoints(self, request: web.Request) -> web.Response:
        """GET /v1/jobs/:jid/checkpoints."""
        self._check(request)
        history = list(reversed(self.view.checkpoints))
        completed = [r for r in history if r.status is CheckpointStatus.COMPLETED]
        failed = [r for r in history if r.status is CheckpointStatus.FAILED]
        in_progress = [r for r in history if r.status is CheckpointStatus.IN_PROGRESS]
        restored = self.view.newest.attempt.restored_from if self.view.newest else None
        counts = {
            "restored": int(restored is not None),
            "total": self.view.checkpoints_completed
            + self.view.checkpoints_failed
            + len(in_progress),
            "in_progress": len(in_progress),
            "completed": self.view.checkpoints_completed,
            "failed": self.view.checkpoints_failed,
        }
        latest_restored = restored and {
            "id": restored.id,
            "restore_timestamp": self.view.running_since_ms or self.view.started_ms,
            "is_savepoint": "savepoint-" in restored.path,
            "external_path": restored.path.rpartition("/")[0],
        }
        return web.json_response(
            {
                "counts": counts,
                "summary": shapes.summary(completed),
                "latest": {
                    "completed": self._first(r for r in completed if not r.savepoint),
                    "savepoint": self._first(r for r in completed if r.savepoint),
                    "failed": self._first(failed),
                    "restored": latest_restored,
                },
                "history": [self._checkpoint(record) for record in history],
            }
        )

    async def get_checkpoint_details(self, request: web.Request) -> web.Response:
        """GET /v1/jobs/:jid/checkpoints/details/:id."""
        self._check(request)
        wanted = request.match_info["id"]
        for record in reversed(self.view.checkpoints):
            if str(record.id) == wanted:
                return web.json_response(self._checkpoint(record))
        raise web.HTTPNotFound(text=f"no checkpoint {wanted} is known here")

    def _first(self, records: Iterable[CheckpointRecord]) -> dict[str, Any] | None:
        return next((self._checkpoint(record) for record in records), None)

    def _checkpoint(self, record: CheckpointRecord) -> dict[str, Any]:
        root = self.savepoints_url if record.savepoint else self.checkpoints_url
        return shapes.checkpoint(record, root, now_ms=self.now_ms())

    # ── orders that are asked about again ───────────────────────────────────────────────────────

    async def post_savepoint(self, request: web.Request) -> web.Response:
        """POST /v1/jobs/:jid/savepoints."""
        self._check(request)
        body = await _body(request)
        self._check_target(body.get("target-directory"), body.get("formatType"))
        trigger = _trigger_id(body)
        order: AnyOrder = SavepointOrder(request_id=trigger)
        if body.get("cancel-job"):
            order = StopOrder(request_id=trigger)
        return await self._triggered(order)

    async def post_stop(self, request: web.Request) -> web.Response:
        """POST /v1/jobs/:jid/stop."""
        self._check(request)
        body = await _body(request)
        self._check_target(body.get("targetDirectory"), body.get("formatType"))
        return await self._triggered(
            StopOrder(request_id=_trigger_id(body), drain=bool(body.get("drain")))
        )

    async def post_checkpoint(self, request: web.Request) -> web.Response:
        """POST /v1/jobs/:jid/checkpoints."""
        self._check(request)
        return await self._triggered(CheckpointOrder(request_id=_trigger_id(await _body(request))))

    async def get_savepoint(self, request: web.Request) -> web.Response:
        """GET /v1/jobs/:jid/savepoints/:trigger."""
        found = self._asked(request)
        return _operation(found, {"location": found.path})

    async def get_triggered_checkpoint(self, request: web.Request) -> web.Response:
        """GET /v1/jobs/:jid/checkpoints/:trigger."""
        found = self._asked(request)
        return _operation(found, {"checkpointId": self.desk.checkpoint_of(found.request_id)})

    async def _triggered(self, order: AnyOrder) -> web.Response:
        await self._order(order)
        return web.json_response({"request-id": order.request_id}, status=202)

    async def _order(self, order: AnyOrder) -> None:
        await self.desk.take(order, wait_s=0.0)

    def _asked(self, request: web.Request) -> RequestStatus:
        self._check(request)
        found = self.desk.status(request.match_info["trigger"])
        if found is None:
            raise web.HTTPNotFound(
                text=f"no operation {request.match_info['trigger']} is known here"
            )
        return found

    def _check(self, request: web.Request) -> None:
        if request.match_info["jid"] != self.jid:
            raise web.HTTPNotFound(
                text=f"job {request.match_info['jid']} is not here; this is {self.job}, {self.jid}"
            )

    def _check_target(self, folder: str | None, format: str | None) -> None:
        if folder and folder.rstrip("/") != self.savepoints_url:
            raise Rejected(
                f"savepoints of this job go to {self.savepoints_url}",
                where=f"target directory {folder}",
                fix="leave the directory out; a savepoint is self-contained and may be copied",
            )
        if format == "NATIVE":
            raise Rejected(
                "savepoints are canonical",
                where="formatType NATIVE",
                fix="leave the type out, or write canonical",
            )


def _operation(found: RequestStatus, operation: dict[str, Any]) -> web.Response:
    if found.phase is RequestPhase.FAILED:
        # Flink wants a failure cause as a serialized Java object; an error it can print will do.
        return web.json_response({"errors": [found.error]}, status=409)
    if found.phase is RequestPhase.RUNNING:
        return web.json_response({"status": {"id": "IN_PROGRESS"}})
    return web.json_response({"status": {"id": "COMPLETED"}, "operation": operation})


async def _body(request: web.Request) -> dict[str, Any]:
    try:
        body = await request.json() if request.can_read_body else {}
    except ValueError as e:
        raise Rejected("the body is not JSON", where=request.path) from e
    if not isinstance(body, dict):
        raise Rejected("the body is not a JSON object", where=request.path)
    return body


def _trigger_id(body: dict[str, Any]) -> str:
    given = body.get("triggerId")
    if given is None:
        return secrets.token_hex(16)
    if not isinstance(given, str) or not _TRIGGER_ID.fullmatch(given):
        raise Rejected("triggerId is not 32 hex digits", where="body")
    return given
