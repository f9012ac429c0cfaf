"""A StreamJob under test: applied, changed and looked at as a person does it, with kubectl."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.e2e.support_kube import Namespace, wait_for
from tests.e2e.support_output import Line, assert_exact, committed

ORACLE = (Path(__file__).parent / "image" / "oracle.py").read_text()
S3_INSIDE = "http://s3.penstock-s3:7070"
SECRET = "s3"
CHECKPOINT_INTERVAL_S = 2


@dataclass
class Job:
    """One StreamJob with the oracle's code, and its bucket."""

    namespace: Namespace
    bucket: str
    name: str = "oracle"
    spec: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Fields that the test gave replace these."""
        given = self.spec
        self.spec = {
            "parameters": {"output": f"s3://{self.bucket}/out"},
            "parallelism": 2,
            "maxParallelism": 32,
            "checkpoints": {
                "storage": f"s3://{self.bucket}/checkpoints",
                "interval": f"{CHECKPOINT_INTERVAL_S}s",
            },
            "storageCredentials": {"secretName": SECRET, "endpoint": S3_INSIDE},
            "state": {"rocksdb": {"memory": "64Mi"}},
            "upgrade": {"stableAfter": {"checkpoints": 2}},
            "worker": {"heartbeatTimeout": "10s", "volume": {"size": "1Gi"}},
        }
        if "entrypoint" not in given:
            self.spec["script"] = ORACLE
        merge(self.spec, given)

    # ── what a person does ──────────────────────────────────────────────────────────────────────

    def apply(self, **changes: Any) -> None:
        """`kubectl apply` of the whole manifest, with these fields of the spec changed."""
        merge(self.spec, changes)
        self.namespace.apply(self.document())

    def document(self) -> dict[str, Any]:
        """The manifest."""
        return {
            "apiVersion": "penstock.dev/v1alpha1",
            "kind": "StreamJob",
            "metadata": {"name": self.name},
            "spec": self.spec,
        }

    def annotate(self, **annotations: str) -> None:
        """`kubectl annotate`, our own kinds by their short names."""
        texts = [f"penstock.dev/{k.replace('_', '-')}={v}" for k, v in annotations.items()]
        self.namespace.run("annotate", "streamjob", self.name, "--overwrite", *texts)

    def scale(self, parallelism: int) -> None:
        """`kubectl scale`."""
        self.namespace.run("scale", "streamjob", self.name, f"--replicas={parallelism}")
        self.spec["parallelism"] = parallelism

    def delete(self) -> None:
        """`kubectl delete`, until it is gone."""
        self.namespace.run("delete", "streamjob", self.name, "--wait=false")
        wait_for(lambda: not self.object(), f"{self.name} is gone")

    # ── what a person sees ──────────────────────────────────────────────────────────────────────

    def object(self) -> dict[str, Any] | None:
        """The StreamJob as it is in the cluster."""
        return self.namespace.get("streamjob", self.name)

    def status(self) -> dict[str, Any]:
        """Its status."""
        found: dict[str, Any] = (self.object() or {}).get("status") or {}
        return found

    def condition(self, kind: str) -> dict[str, Any]:
        """One condition; without fields as long as it is not there."""
        for found in self.status().get("conditions", ()):
            if found["type"] == kind:
                return dict(found)
        return {}

    def pods(self, component: str) -> list[dict[str, Any]]:
        """Pods of `worker`, `coordinator` or `check`, those that go left out."""
        labels = f"penstock.dev/job={self.name},app.kubernetes.io/component={component}"
        found = self.namespace.list("pod", labels)
        return [p for p in found if "deletionTimestamp" not in p["metadata"]]

    def uids(self, component: str) -> dict[str, str]:
        """Names of these pods, and their UIDs: the same pod has the same."""
        return {p["metadata"]["name"]: p["metadata"]["uid"] for p in self.pods(component)}

    def coordinator(self) -> dict[str, Any]:
        """The status that the coordinator itself tells; without fields when there is none."""
        path = (
            f"/api/v1/namespaces/{self.namespace.name}/services/{self.name}-coordinator:8081/proxy"
        )
        try:
            text = self.namespace.run("get", "--raw", f"{path}/penstock/v1/status")
        except AssertionError:
            return {}
        found: dict[str, Any] = json.loads(text)
        return found

    def output(self) -> list[Line]:
        """What is committed."""
        return committed(self.bucket)

    # ── facts to wait for ───────────────────────────────────────────────────────────────────────

    def wait_for(
        self, fact: Callable[[dict[str, Any]], object], what: str, within_s: float = 300
    ) -> dict[str, Any]:
        """The status, once the fact is true of it."""

        def seen() -> dict[str, Any] | None:
            status = self.status()
            return status if status and fact(status) else None

        return wait_for(seen, f"{self.name}: {what}", within_s)

    def wait_for_phase(self, phase: str, within_s: float = 300) -> dict[str, Any]:
        """The status, once it tells this phase of the spec as it is."""
        return self.wait_for(
            lambda s: (
                s.get("phase") == phase and s.get("observedGeneration", 0) >= self.generation()
            ),
            f"phase {phase}",
            within_s,
        )

    def wait_for_condition(
        self, kind: str, status: str, reason: str | None = None, within_s: float = 300
    ) -> dict[str, Any]:
        """The condition, once it is so."""

        def seen() -> dict[str, Any] | None:
            found = self.condition(kind)
            is_so = found.get("status") == status and reason in (None, found.get("reason"))
            return found if is_so else None

        return wait_for(seen, f"{self.name}: {kind}={status} {reason or ''}", within_s)

    def wait_for_stable(self, within_s: float = 300) -> dict[str, Any]:
        """The status, once the spec as it is runs and nothing is under way."""
        return self.wait_for(
            lambda s: (
                s.get("phase") == "Running"
                and not s.get("move")
                and s.get("revision") == s.get("stableRevision")
                and s.get("observedGeneration", 0) >= self.generation()
            ),
            "running, stable",
            within_s,
        )

    def wait_for_output(self, more: int = 1, within_s: float = 300) -> list[Line]:
        """What is committed, once it is so many records more than now."""
        wanted = len(self.output()) + more

        def seen() -> list[Line] | None:
            lines = self.output()
            return lines if len(lines) >= wanted else None

        return wait_for(seen, f"{self.name}: {more} more records are committed", within_s)

    def generation(self) -> int:
        """The generation of the spec."""
        found = self.object()
        return int(found["metadata"]["generation"]) if found else 0

    def assert_exact(self) -> list[Line]:
        """What is committed, which has no gap and nothing twice."""
        lines = self.output()
        assert_exact(lines)
        return lines


def merge(into: dict[str, Any], changes: dict[str, Any]) -> None:
    """A merge patch: fields of fields; None takes one away."""
    for name, value in changes.items():
        if value is None:
            into.pop(name, None)
        elif isinstance(value, dict) and isinstance(into.get(name), dict):
            merge(into[name], value)
        else:
            into[name] = value
