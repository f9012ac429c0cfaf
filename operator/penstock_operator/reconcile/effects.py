"""What is to be done, as values; `cluster.execute` has one plain case for each.

Every effect is a level, not an edge: carried out twice, or by an operator that was killed after the
first half, it leads to the same. What cannot be taken back is decided only from a status that already
says so, so it was written and read back before.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TypeAlias

from penstock.spec.orders import Order
from penstock_operator.resources.status import SavepointSpec, SavepointStatus, StreamJobStatus


@dataclass(frozen=True, slots=True)
class SetFinalizer:
    """Put our finalizer on the StreamJob, or take it away."""

    present: bool


@dataclass(frozen=True, slots=True)
class RecordRevision:
    """Keep the spec as it is now, rendered, as the ControllerRevision of this id and number."""

    revision: str
    number: int


@dataclass(frozen=True, slots=True)
class ForgetRevision:
    """Delete a ControllerRevision that nothing can go back to any more."""

    name: str


@dataclass(frozen=True, slots=True)
class RecordDigests:
    """Keep with the ControllerRevision of this name what its pods were pulled as: image digests, the
    oldest first, of coordinator and worker."""

    name: str
    digests: tuple[tuple[str, tuple[str, ...]], ...]


@dataclass(frozen=True, slots=True)
class EnsureShared:
    """Everything of a revision that is neither workload nor pod: service account, token, services,
    configuration, disruption budget, network policy."""

    revision: str


@dataclass(frozen=True, slots=True)
class EnsureCoordinator:
    """The coordinator's Deployment with the template of this revision."""

    revision: str


@dataclass(frozen=True, slots=True)
class EnsureWorkers:
    """The workers' StatefulSet with the template of this revision and so many replicas."""

    revision: str
    replicas: int


@dataclass(frozen=True, slots=True)
class RemoveCoordinator:
    """Delete the coordinator's Deployment, and with it its pod."""


@dataclass(frozen=True, slots=True)
class DeletePods:
    """Delete these pods by name and UID; `force` without waiting for their node."""

    pods: tuple[tuple[str, str], ...]
    force: bool = False


@dataclass(frozen=True, slots=True)
class DeleteClaims:
    """Delete these volume claims."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RunCheck:
    """Run the check pod: does this revision go on from this snapshot?

    `against` is a path, or `latest` for the newest of the job's log at the moment when it looks;
    None: only its graph.
    """

    revision: str
    against: str | None


@dataclass(frozen=True, slots=True)
class RunDisposal:
    """Run a short pod of this revision that deletes a savepoint's files (None: all of the job's)."""

    revision: str
    path: str | None


@dataclass(frozen=True, slots=True)
class Send:
    """Post an order to the coordinator. Its answer is seen in the status of the next turn."""

    order: Order


@dataclass(frozen=True, slots=True)
class CreateSavepoint:
    """Create a Savepoint object; one of that name is as good."""

    name: str
    spec: SavepointSpec
    annotations: tuple[tuple[str, str], ...] = ()
    status: SavepointStatus | None = None
    """What is known of it already: a savepoint that a stop made."""


@dataclass(frozen=True, slots=True)
class WriteSavepointStatus:
    """Replace the status of a Savepoint."""

    name: str
    status: SavepointStatus


@dataclass(frozen=True, slots=True)
class SetSavepointFinalizer:
    """Put our finalizer on a Savepoint, or take it away."""

    name: str
    present: bool


@dataclass(frozen=True, slots=True)
class Announce:
    """A Kubernetes Event on the StreamJob."""

    reason: str
    message: str
    is_warning: bool = False


Effect: TypeAlias = (
    SetFinalizer
    | RecordRevision
    | ForgetRevision
    | RecordDigests
    | EnsureShared
    | EnsureCoordinator
    | EnsureWorkers
    | RemoveCoordinator
    | DeletePods
    | DeleteClaims
    | RunCheck
    | RunDisposal
    | Send
    | CreateSavepoint
    | WriteSavepointStatus
    | SetSavepointFinalizer
    | Announce
)


@dataclass(frozen=True, slots=True)
class Decision:
    """The status to write first (if it differs), then the effects in order, then another look."""

    status: StreamJobStatus
    effects: tuple[Effect, ...]
    look_again: timedelta
