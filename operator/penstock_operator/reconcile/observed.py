"""What was seen of one StreamJob and everything that belongs to it, at one moment.

Facts only, as the API server and the coordinator tell them; `cluster.observe` gathers them, nothing
here reads anything. What could not be seen is None, never guessed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from penstock.spec.orders import JobStatus, RefusalKind
from penstock.spec.streamjob import StreamJobSpec
from penstock_operator.resources.status import SavepointSpec, SavepointStatus, StreamJobStatus


@dataclass(frozen=True, slots=True)
class JobObject:
    """The StreamJob itself. `spec` is None when it has `mistakes`, each a sentence.

    `revision` is the hash of the upgrade-class fields of `spec`.
    """

    uid: str
    namespace: str
    name: str
    generation: int
    annotations: Mapping[str, str]
    finalizers: tuple[str, ...]
    spec: StreamJobSpec | None
    revision: str | None
    mistakes: tuple[str, ...]
    status: StreamJobStatus
    deleted_at: datetime | None = None
    is_namespace_terminating: bool = False


class PodPhase(StrEnum):
    """As Kubernetes has it."""

    PENDING = "Pending"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    UNKNOWN = "Unknown"


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod of the job. `ordinal` is a worker's.

    `waiting` is the reason why its container does not run (`ImagePullBackOff`), `message` what is
    said about it. `termination` is the termination message of the last container that ended.
    `image_digest` is what its container runs, whatever tag it was pulled by.
    """

    name: str
    uid: str
    revision: str
    phase: PodPhase
    is_ready: bool
    created_at: datetime
    ordinal: int | None = None
    is_deleting: bool = False
    restarts: int = 0
    waiting: str | None = None
    message: str | None = None
    termination: str | None = None
    image_digest: str | None = None
    node: str | None = None


@dataclass(frozen=True, slots=True)
class Workload:
    """The coordinator's Deployment or the workers' StatefulSet: what it is told to run.

    `failure` is why its pods are refused, as a Deployment tells it; a StatefulSet does not.
    """

    uid: str
    revision: str
    replicas: int
    is_deleting: bool = False
    failure: str | None = None


@dataclass(frozen=True, slots=True)
class Claim:
    """A worker's volume claim."""

    name: str
    ordinal: int
    is_deleting: bool = False


@dataclass(frozen=True, slots=True)
class Revision:
    """An accepted revision: a ControllerRevision of this job, `number` counting up.

    `image` is the one that its pods name; `digests` what they were seen to run, by coordinator and
    worker, the oldest first.
    """

    id: str
    name: str
    number: int
    image: str = ""
    digests: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Report:
    """A short pod that does one thing and reports JSON. `verdict` once it has ended and said so.

    `waiting` and `message` as for pods.
    """

    name: str
    uid: str
    purpose: str
    """What it was made for: the revision to check, the path to dispose of (`checkpoints` for None)."""
    against: str | None
    created_at: datetime
    has_ended: bool
    verdict: Mapping[str, Any] | None = None
    waiting: str | None = None
    message: str | None = None
    has_run: bool = True
    """Whether a container of it ever began, as far as one that has ended tells."""


@dataclass(frozen=True, slots=True)
class SavepointObject:
    """A Savepoint that names this job."""

    name: str
    uid: str
    spec: SavepointSpec
    status: SavepointStatus
    annotations: Mapping[str, str]
    finalizers: tuple[str, ...]
    created_at: datetime
    deleted_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why the coordinator did not take an order; `kind` None: it does not tell."""

    kind: RefusalKind | None
    error: str


@dataclass(frozen=True, slots=True)
class Observed:
    """Everything a decision is made from, beside the time.

    `coordinator` is what the job's coordinator answered to GET status; None with the reason in
    `unreachable` when it did not. `accepted` is the spec that was kept with the newest revision: it
    stands in for one with mistakes; `applied` the one kept with `status.revision`. `restore_savepoint` is the Savepoint that `spec.restore.from`
    names, of whichever job. `selector` finds the workers' pods. `fail_points`: whether the annotation
    hold-at is obeyed, in tests alone. `refusals` are the orders that the coordinator refused before they
    began, by request id: remembered for some minutes, and forgotten with the operator's process.
    `watched_since` is when this process began to look: time before it counts for no
    time-out.
    """

    job: JobObject
    revisions: tuple[Revision, ...] = ()
    coordinator_workload: Workload | None = None
    worker_workload: Workload | None = None
    coordinator_pods: tuple[Pod, ...] = ()
    worker_pods: tuple[Pod, ...] = ()
    claims: tuple[Claim, ...] = ()
    coordinator: JobStatus | None = None
    unreachable: str | None = None
    check: Report | None = None
    disposals: tuple[Report, ...] = ()
    savepoints: tuple[SavepointObject, ...] = ()
    accepted: StreamJobSpec | None = None
    applied: StreamJobSpec | None = None
    restore_savepoint: SavepointObject | None = None
    selector: str | None = None
    fail_points: bool = False
    refusals: Mapping[str, Refusal] = field(default_factory=dict)
    watched_since: datetime | None = None
