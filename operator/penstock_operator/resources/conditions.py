"""The conditions of a StreamJob, and how new findings become part of what stands there.

Ready, Reconciling and Stalled are those that kstatus and GitOps tools know. A condition's transition
time changes only with its status; a type that nothing was found about stays as it was. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from penstock_operator.resources.status import Condition


class ConditionType(StrEnum):
    """What a condition is about, in the order they are shown in."""

    READY = "Ready"
    """The job is as the spec says; suspended and finished jobs are, too."""
    RECONCILING = "Reconciling"
    """Something is being done about the difference."""
    STALLED = "Stalled"
    """Nothing more will be done until a person does something."""
    SPEC_VALID = "SpecValid"
    STATE_COMPATIBLE = "StateCompatible"
    """The wanted version can go on from the job's state."""
    CHECKPOINTS_HEALTHY = "CheckpointsHealthy"
    STABLE = "Stable"
    """What runs has proved itself; sinks do not hold commits."""
    PAUSED = "Paused"
    """A person told the operator to leave this job alone."""


class ConditionStatus(StrEnum):
    """As in any Kubernetes condition."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"

    @classmethod
    def of(cls, truth: bool | None) -> ConditionStatus:
        """Unknown for None."""
        if truth is None:
            return cls.UNKNOWN
        return cls.TRUE if truth else cls.FALSE


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found now about one condition.

    `reason` is one CamelCase word for programs, `message` a sentence for people.
    """

    type: ConditionType
    status: ConditionStatus
    reason: str
    message: str = ""


_ORDER = {str(kind): place for place, kind in enumerate(ConditionType)}


def merged(
    old: Iterable[Condition], found: Iterable[Finding], *, generation: int, now: datetime
) -> tuple[Condition, ...]:
    """The conditions after these findings, each about `generation`; ours first, in their order."""
    conditions = {condition.type: condition for condition in old}
    for finding in found:
        before = conditions.get(finding.type)
        stands = before if before and before.status == finding.status else None
        conditions[str(finding.type)] = Condition(
            type=str(finding.type),
            status=str(finding.status),
            reason=finding.reason,
            message=finding.message,
            last_transition_time=stands.last_transition_time if stands else now,
            observed_generation=generation,
        )
    return tuple(sorted(conditions.values(), key=lambda c: _ORDER.get(c.type, len(_ORDER))))
