"""A job's coordinator, asked over REST with short timeouts: what it says, and what it is told."""

from __future__ import annotations

import json
from dataclasses import dataclass
from types import MappingProxyType

import urllib3
from pydantic import ValidationError

from penstock.core.errors import Retryable
from penstock.spec.orders import (
    CancelOrder,
    CheckpointOrder,
    DisposeOrder,
    JobStatus,
    Order,
    RefusalKind,
    RescaleOrder,
    SavepointOrder,
    SettingsOrder,
    StartOrder,
    StopOrder,
)
from penstock_operator.manifests import names
from penstock_operator.reconcile.observed import Refusal

IN_CLUSTER = f"http://{{coordinator}}.{{namespace}}.svc:{names.REST_PORT}"
"""Where coordinators are found, by their Services' names."""
_CONNECT_TIMEOUT_S = 2.0
_READ_TIMEOUT_S = 5.0
_BODY_BYTES_MAX = 4 << 20

PATHS = MappingProxyType(
    {
        StartOrder: "start",
        StopOrder: "stop",
        CancelOrder: "cancel",
        SavepointOrder: "savepoints",
        CheckpointOrder: "checkpoints",
        RescaleOrder: "rescale",
        SettingsOrder: "settings",
        DisposeOrder: "dispose",
    }
)


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    body: object


class CoordinatorClient:
    """All jobs' coordinators. Safe from several threads."""

    def __init__(self, url: str = IN_CLUSTER, *, threads: int = 8) -> None:
        self._url = url
        self._pool = urllib3.PoolManager(num_pools=64, maxsize=threads, retries=False)

    def status(self, namespace: str, job: str) -> JobStatus:
        """The whole job. Raises Retryable when there is no answer, or none that is understood."""
        answer = self._ask("GET", namespace, job, "status")
        try:
            if answer.status == 200:
                return JobStatus.model_validate(answer.body)
        except ValidationError as e:
            raise Retryable(
                f"the coordinator's answer is not understood: {e.errors()[0]['msg']}"
            ) from e
        raise Retryable(f"the coordinator answered {answer.status}: {_told(answer.body)}")

    def send(self, namespace: str, job: str, order: Order, *, token: str) -> Refusal | None:
        """Give an order without waiting for its outcome, which the next status tells; why it was
        refused before it began, None when it was taken.

        Raises:
            Retryable: no answer, or not now; it may have been taken.
        """
        answer = self._ask("POST", namespace, job, PATHS[type(order)], order=order, token=token)
        if answer.status < 400 or answer.status == 409:
            return None
        if answer.status < 500:
            return Refusal(_kind(answer.body), _told(answer.body))
        raise Retryable(_told(answer.body), where=f"order {order.request_id}")

    def _ask(
        self,
        method: str,
        namespace: str,
        job: str,
        path: str,
        *,
        order: Order | None = None,
        token: str | None = None,
    ) -> _Answer:
        root = self._url.format(coordinator=names.coordinator(job), namespace=namespace, job=job)
        # A connection that is kept would go on to a pod that the Service has left.
        headers = {"Content-Type": "application/json", "Connection": "close"}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        try:
            response = self._pool.request(
                method,
                f"{root}/penstock/v1/{path}",
                body=None if order is None else order.model_dump_json(by_alias=True).encode(),
                headers=headers,
                timeout=urllib3.Timeout(connect=_CONNECT_TIMEOUT_S, read=_READ_TIMEOUT_S),
                preload_content=False,
                redirect=False,
            )
            try:
                data = response.read(_BODY_BYTES_MAX)
            finally:
                response.release_conn()
        except urllib3.exceptions.HTTPError as e:
            raise Retryable(f"the coordinator does not answer: {e}") from e
        try:
            return _Answer(response.status, json.loads(data))
        except ValueError:
            return _Answer(response.status, data[:200].decode(errors="replace"))


def _kind(body: object) -> RefusalKind | None:
    """What an answer that refuses advises; None from an older coordinator, or a newer one."""
    match body:
        case {"error": {"refusal": str(kind)}} if kind in tuple(RefusalKind):
            return RefusalKind(kind)
    return None


def _told(body: object) -> str:
    """The sentence in an answer that refuses."""
    match body:
        case {"error": {"what": str(what), **rest}}:
            fix = rest.get("fix")
            return f"{what}; {fix}" if fix else what
        case {"error": str(what)}:
            return what
    return str(body)
