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
            "worker": {"volume": {"size": "1Gi"}},
        }
        if "entrypoint" not in given:
            self.spec["script"] = ORACLE
        merge(self.spec, given)

    # ── what a person does ──────────────────────────────────────────────────────────────────────

    def apply(self, **changes: Any) -> None:
        """`kubectl apply` of the whole manifest, with these fields of the spec changed."""
        merge(self.spec, changes)
        self.namespace.apply(self.document())

    def start(self, output: int = 500) -> dict[str, Any]:
        """Apply it; the status once it is stable, when so many records are committed."""
        self.apply()
        status = self.wait_for_stable()
        self.wait_for_output(output)
        return status

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

    def hold_at(self, step: str) -> None:
        """Let the operator stand still before this step of a move."""
        self.annotate(hold_at=step)

    def let_go(self) -> None:
        """Let it go on."""
        self.namespace.run("annotate", "streamjob", self.name, "penstock.dev/hold-at-")

    def ask_savepoint(self, name: str, **spec: Any) -> None:
        """`kubectl apply` of a Savepoint."""
        self.namespace.apply(
            {
                "apiVersion": "penstock.dev/v1alpha1",
                "kind": "Savepoint",
                "metadata": {"name": name},
                "spec": {"jobName": self.name, **spec},
            }
        )

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

    def uids(self, *components: str) -> dict[str, str]:
        """Names of these pods (default: worker and coordinator), and UIDs: the same pod has the same."""
        return _uids([p for c in components or ("worker", "coordinator") for p in self.pods(c)])

    def volumes(self) -> dict[str, str]:
        """The same of the workers' volume claims."""
        found = self.namespace.list("pvc", f"penstock.dev/job={self.name}")
        return _uids([c for c in found if "deletionTimestamp" not in c["metadata"]])

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
        return committed(self.spec["parameters"]["output"])

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

    def wait_for_sentence(self, words: str, what: str) -> None:
        """Until a condition's message has these words."""

        def is_said(status: dict[str, Any]) -> bool:
            return any(words in c.get("message", "") for c in status.get("conditions", ()))

        self.wait_for(is_said, what)

    def wait_for_receipt(self, kind: str, request: str, *phases: str) -> dict[str, Any]:
        """The receipt of an annotation, once it has one of these phases (default: Done)."""

        def seen(status: dict[str, Any]) -> bool:
            receipt = status.get("requests", {}).get(kind, {})
            return receipt.get("id") == request and receipt["phase"] in (phases or ("Done",))

        status = self.wait_for(seen, f"{kind} {request} is {' or '.join(phases) or 'Done'}")
        found: dict[str, Any] = status["requests"][kind]
        return found

    def wait_for_savepoint(self, name: str) -> str:
        """Path of that Savepoint, once it is completed."""

        def path() -> str | None:
            status = (self.namespace.get("savepoint", name) or {}).get("status", {})
            return status.get("path") if status.get("phase") == "Completed" else None

        return wait_for(path, f"savepoint {name} is completed")

    def wait_for_step(self, step: str) -> dict[str, Any]:
        """The status, once its move is at this step."""
        return self.wait_for(lambda s: (s.get("move") or {}).get("step") == step, f"step {step}")

    def wait_for_revision(self, other_than: str) -> dict[str, Any]:
        """The status, once another revision is stable."""
        self.wait_for(lambda s: s.get("revision") != other_than, "another revision")
        return self.wait_for_stable()

    def wait_for_parallelism(self, wanted: int) -> dict[str, Any]:
        """The status, once a rescale to it is done."""

        def is_done(status: dict[str, Any]) -> bool:
            rescale = status.get("rescale", {})
            is_there = status["phase"] == "Running" and status["parallelism"] == wanted
            is_told = rescale.get("to") == wanted and rescale.get("step") == "Done"
            return is_there and is_told and not status.get("move")

        return self.wait_for(is_done, f"parallelism {wanted}")

    def wait_for_attempt(self, after: int) -> dict[str, Any]:
        """The status, once a later attempt runs and nothing is under way."""
        return self.wait_for(
            lambda s: s["attempt"] > after and s["phase"] == "Running" and not s.get("move"),
            "another attempt runs",
        )

    def wait_for_version(self, version: str) -> list[Line]:
        """What is committed, once that version of the code has committed as well."""

        def seen() -> list[Line] | None:
            lines = self.output()
            return lines if any(line.version == version for line in lines) else None

        return wait_for(seen, f"{self.name}: version {version} has committed")

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


def _uids(objects: list[dict[str, Any]]) -> dict[str, str]:
    return {o["metadata"]["name"]: o["metadata"]["uid"] for o in objects}


def merge(into: dict[str, Any], changes: dict[str, Any]) -> None:
    """A merge patch: fields of fields; None takes one away."""
    for name, value in changes.items():
        if value is None:
            into.pop(name, None)
        elif isinstance(value, dict) and isinstance(into.get(name), dict):
            merge(into[name], value)
        else:
            into[name] = value
