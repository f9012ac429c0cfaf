"""The workers: a StatefulSet with a volume each, its headless Service, and a disruption budget.

OnDelete: the template changes only after the job has stopped, and then all pods go at once; a rolling
update would leave a mixture of versions. Claims go with the StatefulSet, since the truth is in the
object store; not with a scale, because one to zero would delete them all: the operator deletes those
beyond the parallelism itself.
"""

from __future__ import annotations

from typing import Any

from penstock.spec.parts.pods import Volume
from penstock.spec.parts.quantities import format_size
from penstock.spec.streamjob import StreamJobSpec
from penstock_operator.manifests import names
from penstock_operator.manifests.names import Job, Manifest, Role
from penstock_operator.manifests.pods import VOLUME_FOLDER, pod_template

VOLUME = "state"


def worker_template(job: Job, spec: StreamJobSpec, revision: str, *, image: str) -> Manifest:
    """The pod's template."""
    container: dict[str, Any] = {
        "image": image,
        "args": ["worker"],
        "readinessProbe": {
            "exec": {"command": ["test", "-f", f"{VOLUME_FOLDER}/registered"]},
            "periodSeconds": 2,
        },
    }
    if spec.worker.resources:
        container["resources"] = spec.worker.resources
    address = f"{names.coordinator(job.name)}:{names.CONTROL_PORT}"
    return pod_template(
        job,
        spec,
        Role.WORKER,
        revision,
        container=container,
        env=[{"name": "PENSTOCK_COORDINATOR", "value": address}],
        mounts=[{"name": VOLUME, "mountPath": VOLUME_FOLDER}],
        pod={},
        changes=spec.worker.pod_template,
    )


def stateful_set(
    job: Job, revision: str, template: Manifest, *, replicas: int, claims: list[Manifest]
) -> Manifest:
    """So many workers; `claims` cannot be changed once it exists."""
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": names.metadata(job, names.worker(job.name), Role.WORKER, revision=revision),
        "spec": {
            "replicas": replicas,
            "serviceName": names.worker(job.name),
            "podManagementPolicy": "Parallel",
            "updateStrategy": {"type": "OnDelete"},
            "persistentVolumeClaimRetentionPolicy": {
                "whenDeleted": "Delete",
                "whenScaled": "Retain",
            },
            "revisionHistoryLimit": 1,
            "selector": {"matchLabels": names.selector(job.name, Role.WORKER)},
            "template": template,
            "volumeClaimTemplates": claims,
        },
    }


def claim_templates(job: Job, volume: Volume) -> list[Manifest]:
    """The volume of each worker. Only labels that never change: they cannot be changed."""
    spec: Manifest = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": format_size(volume.size_bytes)}},
    }
    if volume.storage_class_name is not None:
        spec["storageClassName"] = volume.storage_class_name
    metadata = {"name": VOLUME, "labels": names.labels(job.name, Role.WORKER)}
    return [{"metadata": metadata, "spec": spec}]


def worker_service(job: Job) -> Manifest:
    """Headless, as a StatefulSet wants it; pods that are not ready yet have an address, too."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": names.metadata(job, names.worker(job.name), Role.WORKER),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": names.selector(job.name, Role.WORKER),
        },
    }


def disruption_budget(job: Job) -> Manifest:
    """Drains take one worker at a time: each is a restart of the attempt."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": names.metadata(job, names.worker(job.name), Role.WORKER),
        "spec": {
            "maxUnavailable": 1,
            # One that fails at each start would else keep its node from being drained.
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": {"matchLabels": names.selector(job.name, Role.WORKER)},
        },
    }
