"""Every name, label and annotation of what the operator makes for a job: built here, nowhere else.

What people write on their own objects is in `resources.names`. A job's name has at most 40 characters (the manifest's rule), so that each of these fits into the 63 of
a label.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeAlias

from penstock_operator.resources.names import API_VERSION, GROUP, LABEL_JOB, LABEL_REVISION

Manifest: TypeAlias = dict[str, Any]
"""A Kubernetes object as plain values."""

MANAGER = "penstock-operator"
"""Field manager, and `app.kubernetes.io/managed-by`."""

LABEL_ROLE = f"{GROUP}/role"

APPLIED = f"{GROUP}/applied"
"""Hash of what was applied: the object is left alone while it is the same."""
IMAGE_DIGEST = f"{GROUP}/image-digest"
"""On a ControllerRevision: what the pods of that revision were pulled as."""
PURPOSE = f"{GROUP}/purpose"
AGAINST = f"{GROUP}/against"
ALL_CHECKPOINTS = "checkpoints"
"""Purpose of a disposal that is not about one savepoint."""

CONTAINER = "penstock"
"""The container of ours in every pod; a podTemplate changes it by this name."""
CONTROL_PORT = 6123
REST_PORT = 8081
PURPOSE_LENGTH = 12


class Role(StrEnum):
    """What a pod or another object is for."""

    COORDINATOR = "coordinator"
    WORKER = "worker"
    CHECK = "check"
    DISPOSAL = "disposal"
    REVISION = "revision"
    """A ControllerRevision of ours; the StatefulSet's own ones are beside it."""
    SHARED = "shared"


@dataclass(frozen=True, slots=True)
class Job:
    """The StreamJob that something is made for."""

    namespace: str
    name: str
    uid: str


def coordinator(job: str) -> str:
    """Deployment and Service."""
    return f"{job}-coordinator"


def worker(job: str) -> str:
    """StatefulSet, headless Service, disruption budget; with an ordinal a pod."""
    return f"{job}-worker"


def token(job: str, uid: str) -> str:
    """Secret of the job's token; by its UID, because no Secret of a person's may have that name."""
    return f"{job}-token-{digest(uid)}"


def service_account(job: str) -> str:
    """The account without rights that pods run under when the job names none."""
    return f"{job}-job"


def network_policy(job: str) -> str:
    """Who may reach the job's pods."""
    return f"{job}-job"


def revision(job: str, revision: str) -> str:
    """ControllerRevision and ConfigMap of one revision: its hash is that of their content."""
    return f"{job}-{revision}"


def check(job: str, revision: str) -> str:
    """The pod that checks a revision."""
    return f"{job}-check-{revision}"


def disposal(job: str, path: str | None) -> str:
    """The pod that deletes a savepoint's files; without a path, all of the job's checkpoints."""
    return f"{job}-dispose-{ALL_CHECKPOINTS if path is None else digest(path)}"


def event(name: str, moment_us: int) -> str:
    """A Kubernetes Event about the object of that name; names sort as the moments do."""
    return f"{name}.{moment_us:016x}"


def digest(*parts: str) -> str:
    """Short identity of some text."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:PURPOSE_LENGTH]


def selector(job: str, role: Role | None = None) -> dict[str, str]:
    """Labels that select a job's objects, or those of one role; constant for the job's life."""
    return {LABEL_JOB: job} | ({LABEL_ROLE: role.value} if role else {})


def labels(job: str, role: Role, revision: str | None = None) -> dict[str, str]:
    """All labels of an object. Those without a revision are constant for the job's life."""
    return {
        "app.kubernetes.io/name": "penstock",
        "app.kubernetes.io/instance": job,
        "app.kubernetes.io/component": role.value,
        "app.kubernetes.io/managed-by": MANAGER,
        **selector(job, role),
        **({LABEL_REVISION: revision} if revision else {}),
    }


def metadata(job: Job, name: str, role: Role, revision: str | None = None) -> Manifest:
    """Of an object that goes with its StreamJob."""
    return {
        "name": name,
        "namespace": job.namespace,
        "labels": labels(job.name, role, revision),
        "ownerReferences": [
            {
                "apiVersion": API_VERSION,
                "kind": "StreamJob",
                "name": job.name,
                "uid": job.uid,
                "controller": True,
                "blockOwnerDeletion": True,
            }
        ],
    }


def selector_text(job: str, role: Role | None = None) -> str:
    """The same as `selector`, in the form of a query."""
    return ",".join(f"{name}={value}" for name, value in selector(job, role).items())
