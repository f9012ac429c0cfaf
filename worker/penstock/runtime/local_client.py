"""The REST of a coordinator that this process itself started: patient, as it may be started again."""

from __future__ import annotations

import asyncio
import http.client
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penstock.core.errors import Corrupt, PenstockError, Rejected, Retryable
from penstock.spec.orders import JobStatus, Order, RequestPhase, RequestStatus

HOST = "127.0.0.1"
_PAUSE_S = 0.1
_ORDER_WAIT_S = 5
_ANSWER_S = 10
_ERRORS: dict[int, type[PenstockError]] = {3: Retryable, 4: Corrupt}


@dataclass(frozen=True, slots=True)
class LocalClient:
    """Asks a coordinator, and the next one when that one dies. `broken()` says that none will come.

    Every method raises what the coordinator refused, or what `broken` gives.
    """

    port: int
    token: str
    broken: Callable[[], PenstockError | None]

    async def status(self) -> JobStatus:
        """The whole job at this moment."""
        return JobStatus.model_validate(await self._call("GET", "status"))

    async def order(self, path: str, order: Order) -> RequestStatus:
        """What became of an order; asked again under its id until it is known."""
        body = order.model_dump_json().encode()
        while True:
            found = await self._call("POST", f"{path}?wait={_ORDER_WAIT_S}", body)
            answer = RequestStatus.model_validate(found)
            if answer.phase is not RequestPhase.RUNNING:
                return answer

    async def _call(self, method: str, path: str, body: bytes | None = None) -> Any:
        while True:
            try:
                return await asyncio.to_thread(self._call_once, method, path, body)
            except (OSError, http.client.HTTPException, ValueError):
                if broken := self.broken():
                    raise broken from None
            await asyncio.sleep(_PAUSE_S)

    def _call_once(self, method: str, path: str, body: bytes | None) -> Any:
        connection = http.client.HTTPConnection(HOST, self.port, timeout=_ORDER_WAIT_S + _ANSWER_S)
        try:
            headers = {"Authorization": f"Bearer {self.token}"}
            connection.request(method, f"/penstock/v1/{path}", body, headers)
            response = connection.getresponse()
            if response.getheader("Retry-After"):
                raise ConnectionError("it was started again, and reads the job's log")
            answer = json.loads(response.read())
        finally:
            connection.close()
        if isinstance(answer.get("error"), dict):
            raise _told(answer["error"])
        return answer


def error_in(ports_file: Path) -> PenstockError | None:
    """Why a coordinator ended, if it said so in its ports file."""
    try:
        error = json.loads(ports_file.read_text()).get("error")
    except FileNotFoundError:
        return None
    return None if error is None else _told(error)


def _told(error: dict[str, Any]) -> PenstockError:
    kind = _ERRORS.get(error["exitCode"], Rejected)
    return kind(error["what"], where=error["where"], fix=error["fix"])
