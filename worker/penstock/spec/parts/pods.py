"""The parts of the manifest about workers and the coordinator as pods."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from penstock.spec.parts.fields import FreeForm, ObjectName, OfHeartbeats, SpecModel
from penstock.spec.parts.quantities import DurationMs, SizeBytes


class WhenScaledDown(StrEnum):
    """What becomes of the volumes of workers that are no longer wanted."""

    DELETE = "Delete"
    RETAIN = "Retain"


class Volume(SpecModel):
    """The disk of each worker."""

    size_bytes: SizeBytes = Field(
        default="10Gi",
        validate_default=True,
        description="Never shrinks; volumes that exist are not resized.",
    )
    storage_class_name: ObjectName | None = Field(
        default=None, description="Default: the cluster's. Cannot be changed."
    )
    when_scaled_down: WhenScaledDown = Field(
        default=WhenScaledDown.DELETE,
        description="Delete or keep the volumes of workers no longer wanted.",
    )


class Worker(SpecModel):
    """The pods that run the job's operators."""

    heartbeat_timeout_ms: Annotated[DurationMs, OfHeartbeats] = Field(
        default="30s",
        validate_default=True,
        description="A worker silent for longer is declared dead. At least 2s.",
    )
    progress_timeout_ms: Annotated[DurationMs, OfHeartbeats] = Field(
        default="5m",
        validate_default=True,
        description="A worker whose job code returns nothing for longer fails the attempt. At least 2s.",
    )
    resources: FreeForm = Field(
        default_factory=dict, description="Requests and limits, as in any container."
    )
    pod_template: FreeForm = Field(
        default_factory=dict, description="Merged into the pod: any field of a PodTemplateSpec."
    )
    volume: Volume = Field(default_factory=Volume, description="The disk of each worker.")


class Coordinator(SpecModel):
    """The pod that leads checkpoints and recovery."""

    resources: FreeForm = Field(
        default_factory=dict, description="Requests and limits, as in any container."
    )
    pod_template: FreeForm = Field(
        default_factory=dict, description="Merged into the pod: any field of a PodTemplateSpec."
    )
