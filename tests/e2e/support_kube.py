"""A namespace of a test's own, asked by kubectl; and what to show of it when the test fails."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

from penstock_operator.cluster import kube

T = TypeVar("T")

OPERATOR_NAMESPACE = "penstock-system"
OPERATOR = "app.kubernetes.io/name=penstock-operator"
_CALL_TIMEOUT_S = 60
KINDS = {
    "streamjob": kube.STREAM_JOBS,
    "savepoint": kube.SAVEPOINTS,
    "pod": kube.PODS,
    "pvc": kube.CLAIMS,
    "event": kube.EVENTS,
    "secret": kube.SECRETS,
}


@cache
def api() -> kube.Kube:
    """The API server of KUBECONFIG: what is asked twice a second is not asked by kubectl."""
    return kube.Kube.from_environment()


class KubectlError(AssertionError):
    """What kubectl said."""


def kubectl(*arguments: str, text: str | None = None) -> str:
    """What kubectl prints. Raises KubectlError with what it says."""
    done = subprocess.run(
        ["kubectl", *arguments],
        input=text,
        capture_output=True,
        text=True,
        timeout=_CALL_TIMEOUT_S,
        check=False,
    )
    if done.returncode:
        raise KubectlError(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


def wait_for(fact: Callable[[], T], what: str, within_s: float = 300) -> T:
    """The fact, once it is truthy; an AssertionError that names it after the deadline."""
    deadline = time.monotonic() + within_s
    while not (found := fact()):
        assert time.monotonic() < deadline, f"not within {within_s:.0f} s: {what}"
        time.sleep(0.5)
    return found


def holds_for(fact: Callable[[], object], what: str, seconds: float) -> None:
    """That something stays so is a fact that needs its time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert fact(), f"no longer: {what}"
        time.sleep(1)


class Namespace:
    """One namespace, by kubectl."""

    def __init__(self, name: str) -> None:
        self.name = name

    def run(self, *arguments: str, text: str | None = None) -> str:
        """`kubectl -n NAMESPACE …`."""
        return kubectl("-n", self.name, *arguments, text=text)

    def apply(self, *documents: dict[str, Any]) -> str:
        """`kubectl apply -f -`, as a person does it."""
        return self.run("apply", "-f", "-", text="\n---\n".join(map(json.dumps, documents)))

    def get(self, kind: str, name: str) -> dict[str, Any] | None:
        """One object, None when it is not there."""
        return api().find(KINDS[kind], self.name, name)

    def list(self, kind: str, selector: str = "") -> list[dict[str, Any]]:
        """Objects of a kind, with these labels."""
        return api().list(KINDS[kind], self.name, labels=selector)

    def exists(self) -> bool:
        """Whether it is there, going or not."""
        return bool(kubectl("get", "namespace", self.name, "--ignore-not-found", "-o", "name"))

    def dump(self) -> str:
        """Everything that tells a person why a test of this namespace failed."""
        parts = [
            _told("-n", self.name, "get", "streamjobs,savepoints,all,pvc,cm", "-o", "wide"),
            _told("-n", self.name, "get", "streamjobs,savepoints", "-o", "yaml"),
            _told("-n", self.name, "get", "events", "--sort-by=.lastTimestamp"),
        ]
        for pod in self.list("pod"):
            name = pod["metadata"]["name"]
            parts.append(_told("-n", self.name, "logs", name, "--all-containers", "--tail=60"))
            statuses = pod.get("status", {}).get("containerStatuses", [])
            if any(c["restartCount"] for c in statuses):
                parts.append(_told("-n", self.name, "logs", name, "--previous", "--tail=40"))
        operator = _told(
            "-n", OPERATOR_NAMESPACE, "logs", "-l", OPERATOR, "--tail=2000", "--since=15m"
        )
        lines = [x for x in operator.splitlines() if self.name in x or "Traceback" in x]
        parts.append("operator:\n" + "\n".join(lines[-120:]))
        return "\n\n".join(parts)


def _told(*arguments: str) -> str:
    try:
        return f"$ kubectl {' '.join(arguments)}\n{kubectl(*arguments)}"
    except (KubectlError, subprocess.TimeoutExpired) as e:
        return str(e)
