"""What ends in the middle of things: pods, the Kubernetes operator, a node, the way to the object store."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from tests.e2e.support_job import Job
from tests.e2e.support_kube import OPERATOR, OPERATOR_NAMESPACE, Namespace, kubectl, wait_for

_RELAY = "relay"
_SILENT = "/tmp/silent"
_RELAY_CODE = f"""
import asyncio, os
async def pump(r, w):
    try:
        while data := await r.read(65536):
            while os.path.exists({_SILENT!r}):
                await asyncio.sleep(0.05)
            w.write(data); await w.drain()
    finally:
        w.close()
async def serve(r, w):
    far_r, far_w = await asyncio.open_connection('s3.penstock-s3', 7070)
    await asyncio.gather(pump(r, far_w), pump(far_r, w), return_exceptions=True)
async def main():
    async with await asyncio.start_server(serve, '', 7070) as server:
        await server.serve_forever()
asyncio.run(main())
"""


def kill(namespace: str, *names: str) -> None:
    """SIGKILL to all processes of these pods: no grace, no goodbye."""
    kubectl("-n", namespace, "delete", "pod", *names, "--grace-period=0", "--force", "--wait=false")


def kill_worker(job: Job) -> None:
    """One worker's pod."""
    kill(job.namespace.name, min(job.uids("worker")))


def kill_coordinator(job: Job) -> None:
    """The coordinator's pod."""
    kill(job.namespace.name, *job.uids("coordinator"))


def kill_operator() -> None:
    """The Kubernetes operator's pod; its Deployment makes another."""
    before = operator_pods()
    kill(OPERATOR_NAMESPACE, *before)
    wait_for(lambda: set(operator_pods()) - set(before), "another operator")


ANYONE: dict[str, Callable[[Job], None]] = {
    "worker": kill_worker,
    "coordinator": kill_coordinator,
    "operator": lambda _: kill_operator(),
}


@contextmanager
def no_operator() -> Iterator[None]:
    """Without an operator of the whole cluster; there is one again afterwards, whatever happens."""
    try:
        operators(0)
        wait_for(lambda: not operator_pods(also_going=True), "no operator")
        yield
    finally:
        operators(1)


def operator_pods(*, also_going: bool = False) -> list[str]:
    """Pods of the cluster's operator, those that go left out: or not, as they still do their work."""
    return [
        p["metadata"]["name"]
        for p in pods_of(OPERATOR_NAMESPACE)
        if p["metadata"]["labels"].get("app.kubernetes.io/name") == "penstock-operator"
        and (also_going or "deletionTimestamp" not in p["metadata"])
    ]


def pods_of(namespace: str) -> list[dict[str, Any]]:
    """All pods of a namespace."""
    found: list[dict[str, Any]] = json.loads(kubectl("-n", namespace, "get", "pods", "-o", "json"))[
        "items"
    ]
    return found


def operators(replicas: int) -> None:
    """So many of the cluster's operator are wanted, 1 or 0."""
    kubectl("-n", OPERATOR_NAMESPACE, "scale", "deploy", "-l", OPERATOR, f"--replicas={replicas}")


# ── nodes ───────────────────────────────────────────────────────────────────────────────────────────


def node_without_s3() -> str:
    """A node for pods of jobs that can be paused; skips where there is none."""
    if subprocess.run(["docker", "info"], capture_output=True, check=False).returncode:
        pytest.skip("nodes are paused by docker, which is not here")
    taken = {pod["spec"]["nodeName"] for pod in pods_of("penstock-s3")}
    free = "!node-role.kubernetes.io/control-plane"
    names = kubectl("get", "nodes", "-l", free, "-o", "name").replace("node/", "").split()
    if not (others := sorted(set(names) - taken)):
        pytest.skip("S3 is on the only node for pods of jobs")
    return others[0]


def pause(node: str) -> None:
    """Nothing on that node of kind's runs on, and nothing is told."""
    subprocess.run(["docker", "pause", node], check=True, capture_output=True)


def unpause(node: str) -> None:
    """Let it go on; a node that does is left alone."""
    subprocess.run(["docker", "unpause", node], check=False, capture_output=True)


def is_ready(node: str) -> bool:
    """Whether the cluster has heard of it lately."""
    path = '{.status.conditions[?(@.type=="Ready")].status}'
    return kubectl("get", "node", node, "-o", f"jsonpath={path}") == "True"


# ── the object store ────────────────────────────────────────────────────────────────────────────────


class Relay:
    """The way to S3 of one namespace, so that S3 can be away for it alone."""

    URL = f"http://{_RELAY}:7070"

    def __init__(self, namespace: Namespace) -> None:
        """Begin to relay."""
        self._namespace = namespace
        namespace.apply(*_relay(_operators_image()))
        namespace.run("rollout", "status", f"deployment/{_RELAY}", "--timeout=120s")

    def close(self) -> None:
        """Connections are refused."""
        self._namespace.run("scale", f"deployment/{_RELAY}", "--replicas=0")

    def open(self) -> None:
        """They are taken again."""
        self._namespace.run("scale", f"deployment/{_RELAY}", "--replicas=1")

    @contextmanager
    def silence(self) -> Iterator[None]:
        """Connections stand, and nothing comes over them."""
        self._do("touch", _SILENT)
        try:
            yield
        finally:
            self._do("rm", "-f", _SILENT)

    def _do(self, *command: str) -> None:
        self._namespace.run("exec", f"deploy/{_RELAY}", "--", *command)


def _operators_image() -> str:
    path = "jsonpath={.items[0].spec.template.spec.containers[0].image}"
    return kubectl("-n", OPERATOR_NAMESPACE, "get", "deploy", "-l", OPERATOR, "-o", path)


def _relay(image: str) -> list[dict[str, Any]]:
    labels = {"app": _RELAY}
    security = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    container = {
        "name": _RELAY,
        "image": image,
        "command": ["python", "-c", _RELAY_CODE],
        "readinessProbe": {"tcpSocket": {"port": 7070}, "periodSeconds": 1},
        "securityContext": security,
    }
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": _RELAY},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [container], "terminationGracePeriodSeconds": 0},
            },
        },
    }
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": _RELAY},
        "spec": {"selector": labels, "ports": [{"port": 7070}]},
    }
    return [deployment, service]
