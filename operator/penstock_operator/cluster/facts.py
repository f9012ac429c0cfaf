"""Objects of the API server as the values that decisions are made from. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError

from penstock_operator.manifests import names
from penstock_operator.manifests.names import Manifest, Role
from penstock_operator.manifests.workers import VOLUME
from penstock_operator.reconcile.observed import (
    Claim,
    Pod,
    PodPhase,
    Report,
    Revision,
    SavepointObject,
    Workload,
)
from penstock_operator.resources.names import LABEL_REVISION
from penstock_operator.resources.status import SavepointSpec, SavepointStatus

_NOT_FOUND = "ContainerStatusUnknown"
"""What the kubelet writes of a container that it has not seen end."""
_ORDINAL = re.compile(r"-(\d+)$")


def time_of(text: str | None) -> datetime | None:
    """A timestamp as Kubernetes writes it."""
    return None if text is None else datetime.fromisoformat(text)


def role_of(manifest: Manifest) -> str | None:
    """What an object of a job is for."""
    role: str | None = manifest["metadata"].get("labels", {}).get(names.LABEL_ROLE)
    return role


def is_deleting(manifest: Manifest) -> bool:
    """Whether it was told to go."""
    return "deletionTimestamp" in manifest["metadata"]


def controller_of(manifest: Manifest) -> Mapping[str, Any]:
    """The owner reference of its controller, empty where it has none."""
    owners = manifest["metadata"].get("ownerReferences", [])
    return next((o for o in owners if o.get("controller")), {})


def pod(manifest: Manifest) -> Pod:
    """A coordinator's or worker's pod."""
    metadata, status = manifest["metadata"], manifest.get("status", {})
    waiting, message = _why_not_running(status)
    return Pod(
        name=metadata["name"],
        uid=metadata["uid"],
        revision=_revision(metadata),
        phase=PodPhase(status.get("phase", "Pending")),
        is_ready=_condition(status, "Ready").get("status") == "True",
        created_at=_created(metadata),
        ordinal=_ordinal(metadata["name"]) if role_of(manifest) == Role.WORKER else None,
        is_deleting=is_deleting(manifest),
        restarts=sum(c.get("restartCount", 0) for c in status.get("containerStatuses", [])),
        waiting=waiting,
        message=message,
        termination=_termination(status).get("message"),
        image_digest=_image_digest(status),
        node=manifest["spec"].get("nodeName"),
    )


def workload(manifest: Manifest | None) -> Workload | None:
    """A Deployment or StatefulSet."""
    if manifest is None:
        return None
    metadata = manifest["metadata"]
    replicas = manifest["spec"].get("replicas", 1)
    refused = _condition(manifest.get("status", {}), "ReplicaFailure")
    return Workload(
        metadata["uid"],
        _revision(metadata),
        replicas,
        is_deleting(manifest),
        failure=refused.get("message") if refused.get("status") == "True" else None,
    )


def claim_templates(stateful_set: Manifest) -> list[Manifest]:
    """As they were applied, without what the API server has put in."""
    return [
        {
            "metadata": {name: c["metadata"][name] for name in ("name", "labels")},
            "spec": {name: value for name, value in c["spec"].items() if name != "volumeMode"},
        }
        for c in stateful_set["spec"]["volumeClaimTemplates"]
    ]


def claim(manifest: Manifest, job: str) -> Claim | None:
    """A worker's claim, None for another one."""
    name = manifest["metadata"]["name"]
    ordinal = _ordinal(name)
    if ordinal is None or name != f"{VOLUME}-{names.worker(job)}-{ordinal}":
        return None
    return Claim(name, ordinal, is_deleting(manifest))


def revision(manifest: Manifest) -> Revision:
    """A ControllerRevision of ours."""
    data, metadata = manifest["data"], manifest["metadata"]
    return Revision(
        data["revision"],
        metadata["name"],
        manifest["revision"],
        image=data["image"],
        digests=_digests(metadata.get("annotations", {}).get(names.IMAGE_DIGEST)),
    )


def digests_text(digests: Iterable[tuple[str, Sequence[str]]]) -> str:
    """What `revision` reads, as the annotation says it."""
    return json.dumps({part: list(each) for part, each in digests})


def _digests(text: str | None) -> dict[str, tuple[str, ...]]:
    """Empty for what is not ours."""
    try:
        found = json.loads(text or "{}")
        return {str(part): tuple(map(str, each)) for part, each in found.items()}
    except (ValueError, TypeError, AttributeError):
        return {}


def report(manifest: Manifest) -> Report:
    """A check or disposal pod."""
    metadata, status = manifest["metadata"], manifest.get("status", {})
    annotations = metadata.get("annotations", {})
    has_ended = status.get("phase") in {PodPhase.SUCCEEDED, PodPhase.FAILED}
    waiting, message = _why_not_running(status)
    termination = _termination(status)
    if has_ended and not message:
        message = _how_it_ended(termination)
    return Report(
        name=metadata["name"],
        uid=metadata["uid"],
        purpose=annotations.get(names.PURPOSE, ""),
        against=annotations.get(names.AGAINST),
        created_at=_created(metadata),
        has_ended=has_ended,
        verdict=_verdict(termination.get("message")) if has_ended else None,
        waiting=waiting,
        message=message,
        has_run=not has_ended or _has_run(status),
    )


def savepoint(manifest: Manifest) -> SavepointObject | None:
    """A Savepoint; None for one that the API server should not have taken."""
    metadata = manifest["metadata"]
    try:
        spec = SavepointSpec.model_validate(manifest.get("spec", {}))
        status = SavepointStatus.model_validate(manifest.get("status", {}))
    except ValidationError:
        return None
    return SavepointObject(
        name=metadata["name"],
        uid=metadata["uid"],
        spec=spec,
        status=status,
        annotations=metadata.get("annotations", {}),
        finalizers=tuple(metadata.get("finalizers", ())),
        created_at=_created(metadata),
        deleted_at=time_of(metadata.get("deletionTimestamp")),
    )


def newest(reports: Iterable[Report], purpose: str | None) -> Report | None:
    """The one with that purpose if there is one, else the newest."""
    return max(reports, key=lambda r: (r.purpose == purpose, r.created_at), default=None)


def _created(metadata: Mapping[str, Any]) -> datetime:
    return time_of(metadata.get("creationTimestamp")) or datetime.fromtimestamp(0, UTC)


def _revision(metadata: Mapping[str, Any]) -> str:
    revision: str = metadata.get("labels", {}).get(LABEL_REVISION, "")
    return revision


def _ordinal(name: str) -> int | None:
    found = _ORDINAL.search(name)
    return int(found[1]) if found else None


def _condition(status: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    return next((c for c in status.get("conditions", []) if c["type"] == kind), {})


def _why_not_running(status: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """Reason and message of the first container that waits, or of a pod without a node."""
    for container in (
        *status.get("initContainerStatuses", []),
        *status.get("containerStatuses", []),
    ):
        if waiting := container.get("state", {}).get("waiting"):
            return waiting.get("reason"), waiting.get("message")
    scheduled = _condition(status, "PodScheduled")
    if scheduled.get("status") == "False":
        return scheduled.get("reason"), scheduled.get("message")
    return None, status.get("message") or status.get("reason")


def _termination(status: Mapping[str, Any]) -> Mapping[str, Any]:
    """How our container ended last; an init container's end where ours never began."""
    for container in (*_ours_first(status), *status.get("initContainerStatuses", [])):
        for state in ("state", "lastState"):
            ended: Mapping[str, Any] | None = container.get(state, {}).get("terminated")
            if ended and (ended.get("message") or ended.get("exitCode")):
                return ended
    return {}


def _has_run(status: Mapping[str, Any]) -> bool:
    """Whether our container ended, or an init container that kept it from beginning: not a pod that
    waited for its image, was evicted or lost its node."""
    ours = (c for c in status.get("containerStatuses", []) if c["name"] == names.CONTAINER)
    ends = [c.get("state", {}).get("terminated") or {} for c in ours]
    before = (
        c.get("state", {}).get("terminated") or {} for c in status.get("initContainerStatuses", [])
    )
    ends += [ended for ended in before if ended.get("exitCode")]
    return any(ended and ended.get("reason") != _NOT_FOUND for ended in ends)


def _ours_first(status: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return sorted(status.get("containerStatuses", []), key=lambda c: c["name"] != names.CONTAINER)


def _image_digest(status: Mapping[str, Any]) -> str | None:
    """`sha256:…` of `registry/name@sha256:…`, as a container runtime tells it of our container."""
    ours = next((c for c in _ours_first(status) if c["name"] == names.CONTAINER), {})
    return ours.get("imageID", "").rpartition("@")[2] or None


def _how_it_ended(termination: Mapping[str, Any]) -> str | None:
    """`OOMKilled, exit code 137`, where nothing was reported."""
    if not termination or termination.get("message"):
        return None
    return f"{termination.get('reason', 'ended')}, exit code {termination.get('exitCode')}"


def _verdict(message: str | None) -> Mapping[str, Any] | None:
    try:
        found = json.loads(message or "")
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
