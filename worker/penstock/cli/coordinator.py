"""A running job's coordinator, asked over REST: found by name on this machine, or by `-m HOST:PORT`."""

from __future__ import annotations

import http.client
import json
import os
import uuid
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import click
from pydantic import ValidationError

from penstock.cli.help import Option
from penstock.core.errors import Corrupt, PenstockError, Rejected, Retryable
from penstock.runtime.registry import find_job
from penstock.spec.orders import JobStatus, Order, RequestPhase, RequestStatus

TOKEN_VARIABLE = "PENSTOCK_TOKEN"  # noqa: S105  the variable's name
_ANSWER_TIMEOUT_S = 10.0
_WAIT_S = 60
_ERRORS: dict[int, type[PenstockError]] = {2: Rejected, 3: Retryable, 4: Corrupt}


def job_argument() -> click.Argument:
    """JOB, which may be left out."""
    return click.Argument(["job"], required=False)


def coordinator_option() -> Option:
    """`-m HOST:PORT`."""
    return Option(
        ["-m", "--coordinator", "address"],
        metavar="HOST:PORT",
        help=f"A coordinator elsewhere; its token is taken from {TOKEN_VARIABLE}",
    )


def find(job: str | None, address: str | None) -> Coordinator:
    """The coordinator that is meant.

    Raises:
        Rejected: none or several run here, or both JOB and -m are given.
    """
    if address is None:
        running = find_job(job)
        return Coordinator(running.url, running.token)
    if job is not None:
        raise Rejected(
            "both JOB and -m are given",
            where=f"JOB {job}, -m {address}",
            fix="leave one out: -m reaches the only job of that coordinator",
        )
    url = address if "://" in address else f"http://{address}"
    try:
        is_wrong = not urlsplit(url).hostname or not urlsplit(url).port
    except ValueError:
        is_wrong = True
    if is_wrong:
        raise Rejected(
            f"{address!r} is not HOST:PORT", where="-m", fix="write it as in -m 127.0.0.1:8081"
        )
    return Coordinator(url, os.environ.get(TOKEN_VARIABLE))


@dataclass(frozen=True, slots=True)
class Coordinator:
    """One coordinator's REST. Every method may raise Retryable (no answer) or what it answers."""

    url: str
    token: str | None

    def status(self) -> JobStatus:
        """The whole job at this moment."""
        try:
            return JobStatus.model_validate(self._ask("GET", "/penstock/v1/status"))
        except ValidationError as e:
            raise self._is_another(e) from e

    def order(self, path: str, order: Order) -> RequestStatus:
        """Give an order and wait until it is carried out.

        Raises:
            Rejected: it was refused, or it failed.
        """
        body = order.model_dump_json(by_alias=True).encode()
        answer = self._request(
            self._ask("POST", f"/penstock/v1/{path}?wait={_WAIT_S}", body, _WAIT_S)
        )
        while answer.phase is RequestPhase.RUNNING:
            # Sent again it is not another order: its request id is the same.
            answer = self._request(
                self._ask("POST", f"/penstock/v1/{path}?wait={_WAIT_S}", body, _WAIT_S)
            )
        if answer.phase is RequestPhase.FAILED:
            raise Rejected(
                f"the {answer.kind} failed: {answer.error or 'no reason was given'}",
                where=self.url,
                fix="see penstock status",
            )
        return answer

    def _request(self, body: Any) -> RequestStatus:
        try:
            return RequestStatus.model_validate(body)
        except ValidationError as e:
            raise self._is_another(e) from e

    def _ask(self, method: str, path: str, body: bytes | None = None, wait_s: float = 0) -> Any:
        address = urlsplit(self.url)
        assert address.hostname, self.url
        connection = http.client.HTTPConnection(
            address.hostname, address.port, timeout=_ANSWER_TIMEOUT_S + wait_s
        )
        headers = {"Content-Type": "application/json"}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            data = response.read()
        except (OSError, http.client.HTTPException) as e:
            raise Retryable(
                f"the coordinator does not answer: {e or type(e).__name__}",
                where=self.url,
                fix="see whether the job still runs (penstock list), then try again",
            ) from e
        finally:
            connection.close()
        try:
            answer = json.loads(data)
        except ValueError as e:
            raise self._is_another(e) from e
        if isinstance(answer, dict) and "error" in answer and isinstance(answer["error"], dict):
            raise self._told(answer["error"], response.status)
        return answer

    def _told(self, error: dict[str, Any], status: int) -> PenstockError:
        if status == http.HTTPStatus.UNAUTHORIZED:
            what = "wrong" if self.token else "missing"
            return Rejected(
                f"the job's token is {what}",
                where=self.url,
                fix=f"set {TOKEN_VARIABLE} to the token of that job",
            )
        kind = _ERRORS.get(error.get("exitCode", 2), Rejected)
        where = error.get("where") or self.url
        return kind(str(error.get("what")), where=where, fix=error.get("fix"))

    def _is_another(self, cause: Exception) -> Rejected:
        return Rejected(
            "what answers there is no coordinator of Penstock",
            where=self.url,
            fix=f"look at the address; its answer was not understood ({type(cause).__name__})",
        )


def new_request_id() -> str:
    """An identity for one order: sent twice, it is carried out once."""
    return uuid.uuid4().hex[:12]
