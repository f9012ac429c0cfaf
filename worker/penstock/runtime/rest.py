"""The coordinator's REST: ours under /penstock/v1, Flink's under /v1, metrics, and the page.

The token is asked on everything but GET (`Authorization: Bearer …`). Reference: docs/reference/rest.md.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from pydantic import ValidationError

from penstock.core.errors import Corrupt, PenstockError, Rejected
from penstock.runtime.flink_rest import FlinkRest
from penstock.runtime.logs import get_logger
from penstock.runtime.order_desk import AnyOrder, LogIsBeingRead, OrderDesk, refusal_of
from penstock.spec.orders import (
    CancelOrder,
    CheckpointOrder,
    DisposeOrder,
    JobStatus,
    RequestPhase,
    RescaleOrder,
    SavepointOrder,
    SettingsOrder,
    StartOrder,
    StopOrder,
)

log = get_logger()

WAIT_MAX_S = 300.0
_BODY_BYTES_MAX = 4 << 20
_HTTP_OF_PHASE = {RequestPhase.DONE: 200, RequestPhase.RUNNING: 202, RequestPhase.FAILED: 409}
_FLINKS_PATHS = "/v1/"
_READING = {"GET", "HEAD", "OPTIONS"}


def make_app(
    *,
    token: str,
    desk: OrderDesk,
    status: Callable[[], JobStatus],
    metrics: Callable[[], tuple[bytes, str]],
    page: Callable[[], str],
    flink: FlinkRest,
) -> web.Application:
    """The application; `metrics` gives its body and content type."""
    ours = _OwnRest(desk, status)
    app = web.Application(
        middlewares=[_errors, _ask_for_token(token)], client_max_size=_BODY_BYTES_MAX
    )
    app.add_routes(
        [
            web.get("/penstock/v1/status", ours.get_status),
            web.get("/penstock/v1/requests/{id}", ours.get_request),
            web.post("/penstock/v1/start", ours.post(StartOrder)),
            web.post("/penstock/v1/stop", ours.post(StopOrder)),
            web.post("/penstock/v1/cancel", ours.post(CancelOrder)),
            web.post("/penstock/v1/savepoints", ours.post(SavepointOrder)),
            web.post("/penstock/v1/checkpoints", ours.post(CheckpointOrder)),
            web.post("/penstock/v1/rescale", ours.post(RescaleOrder)),
            web.post("/penstock/v1/settings", ours.post(SettingsOrder)),
            web.post("/penstock/v1/dispose", ours.post(DisposeOrder)),
            *flink.routes(),
        ]
    )

    async def get_metrics(_: web.Request) -> web.Response:
        body, content_type = metrics()
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def get_page(_: web.Request) -> web.Response:
        return web.Response(text=page(), content_type="text/html")

    app.router.add_get("/metrics", get_metrics)
    app.router.add_get("/", get_page)
    return app


class _OwnRest:
    def __init__(self, desk: OrderDesk, status: Callable[[], JobStatus]) -> None:
        self._desk = desk
        self._status = status

    async def get_status(self, _: web.Request) -> web.Response:
        self._check()
        return web.Response(text=self._status().model_dump_json(), content_type="application/json")

    async def get_request(self, request: web.Request) -> web.Response:
        self._check()
        found = self._desk.status(request.match_info["id"])
        if found is None:
            raise web.HTTPNotFound(text=f"no request {request.match_info['id']} is known here")
        return web.Response(
            text=found.model_dump_json(),
            content_type="application/json",
            status=_HTTP_OF_PHASE[found.phase],
        )

    def _check(self) -> None:
        if not self._desk.has_read_log:  # nobody may take it for a job that never ran
            raise LogIsBeingRead

    def post(self, model: type[AnyOrder]) -> Handler:
        """The handler of one kind of order; `?wait=SECONDS` waits for its outcome."""

        async def handle(request: web.Request) -> web.Response:
            order = model.model_validate_json(await request.read() or b"{}")
            found = await self._desk.take(order, wait_s=_wait_s(request))
            return web.Response(
                text=found.model_dump_json(),
                content_type="application/json",
                status=_HTTP_OF_PHASE[found.phase],
            )

        return handle


def _wait_s(request: web.Request) -> float:
    try:
        return min(WAIT_MAX_S, max(0.0, float(request.query.get("wait", "0"))))
    except ValueError as e:
        raise Rejected("wait is not a number of seconds", where=request.path_qs) from e


def _ask_for_token(token: str) -> Middleware:
    expected = f"Bearer {token}".encode()

    @web.middleware
    async def ask(request: web.Request, handler: Handler) -> web.StreamResponse:
        given = request.headers.get("Authorization", "").encode()
        if request.method not in _READING and not hmac.compare_digest(given, expected):
            error = Rejected(
                "the job's token is missing or wrong",
                where=f"{request.method} {request.path}",
                fix="send the header Authorization: Bearer TOKEN",
            )
            return _error(error, 401, request)
        return await handler(request)

    return ask


@web.middleware
async def _errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except ValidationError as e:
        what = "; ".join(
            f"{'.'.join(str(part) for part in mistake['loc']) or 'body'}: {mistake['msg']}"
            for mistake in e.errors()
        )
        return _error(Rejected(what, where=f"{request.method} {request.path}"), 400, request)
    except Rejected as e:
        return _error(e, 400, request)
    except Corrupt as e:
        return _error(e, 422, request)
    except LogIsBeingRead as e:
        response = _error(e, 503, request)
        response.headers["Retry-After"] = "1"
        return response
    except PenstockError as e:
        return _error(e, 503, request)
    except web.HTTPException as e:
        if e.status < 400:
            raise
        return _error(Rejected(e.text or e.reason, where=request.path), e.status, request)


def _error(error: PenstockError, status: int, request: web.Request) -> web.Response:
    """In three parts; on Flink's paths in the form that its tools print, which is strict."""
    log.info("refused", path=request.path, error=error.what)
    if request.path.startswith(_FLINKS_PATHS):
        return web.json_response({"errors": [str(error)]}, status=status)
    body = {
        "what": error.what,
        "where": error.where,
        "fix": error.fix,
        "exitCode": error.exit_code,
        "refusal": refusal_of(error),
    }
    return web.json_response({"error": body}, status=status)
