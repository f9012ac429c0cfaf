"""Every name that other programs and people use for our objects: kinds, labels, annotations.

They outlive any process: what is written here once is found under the same name for ever.
"""

from __future__ import annotations

from dataclasses import dataclass

GROUP = "penstock.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"


@dataclass(frozen=True, slots=True)
class ResourceKind:
    """A kind of object of ours, as the API server and `kubectl` name it."""

    kind: str
    plural: str
    singular: str
    short_names: tuple[str, ...]
    categories: tuple[str, ...]

    @property
    def crd_name(self) -> str:
        """Name of the CustomResourceDefinition."""
        return f"{self.plural}.{GROUP}"


LABEL_JOB = f"{GROUP}/job"
"""On everything that belongs to a StreamJob: its name."""
LABEL_REVISION = f"{GROUP}/revision"
"""On pods and ControllerRevisions: the revision that they run or hold."""

FINALIZER_STREAMJOB = f"{GROUP}/streamjob"
FINALIZER_SAVEPOINT = f"{GROUP}/savepoint"

# Requests by annotation. The value is an id of the person's own choice, but where told otherwise.
ANNOTATION_SAVEPOINT = f"{GROUP}/savepoint"
ANNOTATION_CHECKPOINT = f"{GROUP}/checkpoint"
ANNOTATION_RESTART = f"{GROUP}/restart"
ANNOTATION_RETRY = f"{GROUP}/retry"
"""Try a failed revision again."""
ANNOTATION_APPROVE = f"{GROUP}/approve"
"""The id of the plan that may begin."""
ANNOTATION_ROLLBACK = f"{GROUP}/rollback"

REQUEST_ANNOTATIONS = (
    ANNOTATION_SAVEPOINT,
    ANNOTATION_CHECKPOINT,
    ANNOTATION_RESTART,
    ANNOTATION_RETRY,
    ANNOTATION_APPROVE,
    ANNOTATION_ROLLBACK,
)

ANNOTATION_REQUEST_ID = f"{GROUP}/request-id"
"""On a Savepoint that a stop makes: the order's request id."""

ANNOTATION_RECONCILE = f"{GROUP}/reconcile"
RECONCILE_PAUSED = "paused"
ANNOTATION_DELETION = f"{GROUP}/deletion"
DELETION_FORCE = "force"
"""Let the object go at once; state stays."""
ANNOTATION_HOLD_AT = f"{GROUP}/hold-at"
"""For tests: the operator stops before this step and goes no further."""

ANNOTATION_SCHEMA_VERSION = f"{GROUP}/schema-version"
"""On the CRDs: the version of their schema, a whole number that only grows."""
SCHEMA_VERSION = 2
"""Counts changes of a schema that an older operator or an older CRD does not know."""


def request_kind(annotation: str) -> str:
    """The key of that request's receipt in `status.requests`: the name without our group."""
    return annotation.removeprefix(f"{GROUP}/")
