"""Pods that do one thing and report JSON as their termination message: check and disposal.

Each is the coordinator's pod of a revision with other arguments, so it proves that the image can be
pulled, and has the job's own account and credentials.
"""

from __future__ import annotations

import copy

from penstock_operator.manifests import names
from penstock_operator.manifests.names import Job, Manifest, Role
from penstock_operator.manifests.record import Record

CHECK_SECONDS_MAX = 600
DISPOSAL_SECONDS_MAX = 600
_PROBES_AND_PORTS = ("startupProbe", "readinessProbe", "livenessProbe", "ports", "lifecycle")


def check_pod(job: Job, record: Record, against: str | None) -> Manifest:
    """Does this revision go on from that snapshot? Without one: can its graph be built?"""
    pod = _pod(
        job,
        record,
        names.check(job.name, record.revision),
        Role.CHECK,
        ["check", "--against", against or "none", "-o", "json"],
        seconds_max=CHECK_SECONDS_MAX,
    )
    pod["metadata"]["annotations"] |= {names.PURPOSE: record.revision}
    if against is not None:
        pod["metadata"]["annotations"] |= {names.AGAINST: against}
    return pod


def disposal_pod(job: Job, record: Record, path: str | None) -> Manifest:
    """Delete a savepoint's files, or (None) all checkpoints of the job."""
    what = ["--checkpoints"] if path is None else ["--savepoint", path]
    pod = _pod(
        job,
        record,
        names.disposal(job.name, path),
        Role.DISPOSAL,
        ["dispose", *what, "-o", "json"],
        seconds_max=DISPOSAL_SECONDS_MAX,
    )
    pod["metadata"]["annotations"] |= {names.PURPOSE: path or names.ALL_CHECKPOINTS}
    return pod


def _pod(
    job: Job, record: Record, name: str, role: Role, args: list[str], *, seconds_max: int
) -> Manifest:
    template = copy.deepcopy(record.coordinator)
    spec = template["spec"]
    # Sidecars would keep it from ending.
    (container,) = (c for c in spec["containers"] if c["name"] == names.CONTAINER)
    for field in _PROBES_AND_PORTS:
        container.pop(field, None)
    spec |= {
        "containers": [container | {"args": args}],
        "restartPolicy": "Never",
        "activeDeadlineSeconds": seconds_max,
    }
    metadata = names.metadata(job, name, role, revision=record.revision)
    metadata["labels"] = template["metadata"]["labels"] | metadata["labels"]
    metadata["annotations"] = dict(template["metadata"].get("annotations", {}))
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
