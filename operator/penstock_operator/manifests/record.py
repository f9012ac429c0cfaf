"""A revision as it was accepted: everything its pods are made from, kept in a ControllerRevision.

Kubernetes lets nobody change the data of one. A live template is taken from here, never rendered anew,
so that a newer operator, or another default image of the chart's, touches no pod.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from penstock.spec.streamjob import StreamJobSpec
from penstock_operator.manifests import config, names
from penstock_operator.manifests.coordinator import coordinator_template
from penstock_operator.manifests.names import Job, Manifest, Role
from penstock_operator.manifests.workers import worker_template

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Record:
    """One revision, rendered: the effective image, the spec as written, and both pod templates."""

    revision: str
    image: str
    spec: Mapping[str, Any]
    coordinator: Manifest
    worker: Manifest

    @classmethod
    def of(
        cls, job: Job, spec: StreamJobSpec, revision: str, *, default_image: str, cluster: str
    ) -> Self:
        """Rendered now."""
        image = spec.image or default_image
        return cls(
            revision=revision,
            image=image,
            spec=config.written(spec),
            coordinator=coordinator_template(job, spec, revision, image=image, cluster=cluster),
            worker=worker_template(job, spec, revision, image=image),
        )

    @classmethod
    def read(cls, manifest: Manifest) -> Self:
        """From the ControllerRevision that keeps it."""
        data = manifest["data"]
        return cls(
            revision=data["revision"],
            image=data["image"],
            spec=data["spec"],
            coordinator=data["coordinator"],
            worker=data["worker"],
        )

    def model(self) -> StreamJobSpec:
        """The spec that was accepted."""
        return StreamJobSpec.model_validate(dict(self.spec))

    def controller_revision(self, job: Job, number: int) -> Manifest:
        """The object that keeps it; `number` counts up."""
        name = names.revision(job.name, self.revision)
        return {
            "apiVersion": "apps/v1",
            "kind": "ControllerRevision",
            "metadata": names.metadata(job, name, Role.REVISION, revision=self.revision),
            "revision": number,
            "data": {
                "format": FORMAT,
                "revision": self.revision,
                "image": self.image,
                "spec": dict(self.spec),
                "coordinator": self.coordinator,
                "worker": self.worker,
            },
        }
