"""The coordinator: a Deployment of one, and the Service that workers and the operator find it by."""

from __future__ import annotations

from typing import Any

from penstock.spec.streamjob import StreamJobSpec
from penstock_operator.manifests import names
from penstock_operator.manifests.names import Job, Manifest, Role
from penstock_operator.manifests.pods import pod_template

_IS_READY = {"httpGet": {"path": "/penstock/v1/status", "port": "http"}}
"""Answered once the log is read: a store that is away must not have it killed, and look like a fault
of the job's code."""
_IS_ALIVE = {"httpGet": {"path": "/", "port": "http"}}
_LOST_NODE_SECONDS = 30


def coordinator_template(
    job: Job, spec: StreamJobSpec, revision: str, *, image: str, cluster: str
) -> Manifest:
    """The pod's template. `cluster` is the cluster's identity: with the job's name it owns the log."""
    container: dict[str, Any] = {
        "image": image,
        "args": ["coordinator"],
        "ports": [
            {"name": "control", "containerPort": names.CONTROL_PORT},
            {"name": "http", "containerPort": names.REST_PORT},
        ],
        "startupProbe": {**_IS_ALIVE, "periodSeconds": 1, "failureThreshold": 120},
        "readinessProbe": {**_IS_READY, "periodSeconds": 2},
        "livenessProbe": {
            **_IS_ALIVE,
            "periodSeconds": 10,
            "timeoutSeconds": 5,
            "failureThreshold": 6,
        },
    }
    if spec.coordinator.resources:
        container["resources"] = spec.coordinator.resources
    return pod_template(
        job,
        spec,
        Role.COORDINATOR,
        revision,
        container=container,
        env=[
            {"name": "PENSTOCK_OWNER", "value": f"{cluster}/{job.namespace}/{job.name}"},
            {"name": "PENSTOCK_REVISION", "value": revision},
        ],
        pod={"tolerations": _lost_node()},
        changes=spec.coordinator.pod_template,
    )


def deployment(job: Job, revision: str, template: Manifest) -> Manifest:
    """One coordinator.

    The old pod is told to go before the new one comes, but not waited for: one on a lost node would
    block `Recreate` for ever, and two at once are harmless, because the log fences one of them.
    """
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": names.metadata(
            job, names.coordinator(job.name), Role.COORDINATOR, revision=revision
        ),
        "spec": {
            "replicas": 1,
            "revisionHistoryLimit": 1,
            "strategy": {
                "type": "RollingUpdate",
                "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1},
            },
            "selector": {"matchLabels": names.selector(job.name, Role.COORDINATOR)},
            "template": template,
        },
    }


def coordinator_service(job: Job) -> Manifest:
    """A stable name for the pod that is ready."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": names.metadata(job, names.coordinator(job.name), Role.COORDINATOR),
        "spec": {
            "selector": names.selector(job.name, Role.COORDINATOR),
            "ports": [
                {"name": "control", "port": names.CONTROL_PORT, "targetPort": "control"},
                {"name": "http", "port": names.REST_PORT, "targetPort": "http"},
            ],
        },
    }


def _lost_node() -> list[Manifest]:
    """Gone for half a minute is gone: Kubernetes' own five minutes are a long time without a leader."""
    return [
        {
            "key": f"node.kubernetes.io/{what}",
            "operator": "Exists",
            "effect": "NoExecute",
            "tolerationSeconds": _LOST_NODE_SECONDS,
        }
        for what in ("not-ready", "unreachable")
    ]
