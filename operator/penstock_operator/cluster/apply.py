"""Objects brought to what was rendered, and left alone when they are that already.

What was applied is remembered on the object itself, as a hash: one that was deleted or changed over is
made again, and an object that is the same costs a read, every half minute. Secrets are not read: they
are written over, which changes nothing when there is nothing to change. A patch would be answered with
all that the Secret has, so that the right to patch is one to read.
"""

from __future__ import annotations

import json
from typing import Any

from penstock.core.errors import Rejected, Retryable
from penstock_operator.cluster import facts
from penstock_operator.cluster.kube import (
    DEPLOYMENTS,
    SECRETS,
    STATEFUL_SETS,
    Kube,
    NotFound,
    resource_of,
)
from penstock_operator.cluster.memory import Memory
from penstock_operator.manifests import names
from penstock_operator.manifests.names import Job, Manifest

_WATCHED = (DEPLOYMENTS, STATEFUL_SETS)
"""Read in each turn; what happens to them is an event."""


def ensure(
    kube: Kube, memory: Memory, job: Job, manifest: Manifest, live: Manifest | None = None
) -> None:
    """Applies it, unless the live object is the same. One that was seen already is given as `live`.

    Raises:
        Retryable: the object of a StreamJob that had this name is still going.
        Rejected: somebody else's object has the name.
    """
    wanted, resource = with_hash(manifest), resource_of(manifest)
    kind, name = resource.kind, manifest["metadata"]["name"]
    applied = applied_hash(wanted)
    assert applied is not None, name
    is_watched = resource in _WATCHED
    if not is_watched and memory.is_same(job.uid, kind, name, applied):
        return
    if resource is SECRETS:
        _write_over(kube, wanted)
    else:
        _bring_to(kube, job, wanted, live or kube.find(resource, job.namespace, name))
    memory.remember_same(job.uid, kind, name, applied)


def _write_over(kube: Kube, wanted: Manifest) -> None:
    try:
        kube.replace(wanted)
    except NotFound:
        kube.create(wanted)


def _bring_to(kube: Kube, job: Job, wanted: Manifest, live: Manifest | None) -> None:
    if live is not None:
        must_be_ours(job, live, wanted["kind"])
    if live is None or not _is_same(live, wanted):
        kube.apply(wanted)


def with_hash(manifest: Manifest) -> Manifest:
    """With the hash of itself among its annotations."""
    text = json.dumps(manifest, sort_keys=True, ensure_ascii=False)
    metadata = manifest["metadata"]
    annotations = metadata.get("annotations", {}) | {names.APPLIED: names.digest(text)}
    return {**manifest, "metadata": {**metadata, "annotations": annotations}}


def applied_hash(manifest: Manifest) -> str | None:
    """The hash that stands on an object."""
    found: str | None = manifest["metadata"].get("annotations", {}).get(names.APPLIED)
    return found


def must_be_ours(job: Job, live: Manifest, kind: str) -> None:
    """Raises when the object cannot be taken for the job's own; see `ensure`."""
    metadata = live["metadata"]
    what = f"the {kind} {metadata['name']}"
    if facts.is_deleting(live):
        raise Retryable(f"{what} is being deleted", where=job.namespace)
    owner = facts.controller_of(live)
    if owner.get("uid") == job.uid:
        return
    if owner.get("kind") == "StreamJob" and owner.get("name") == job.name:
        raise Retryable(
            f"{what} still belongs to the StreamJob that had this name before",
            where=job.namespace,
            fix="it goes by itself, unless that one was deleted with --cascade=orphan",
        )
    raise Rejected(
        f"{what} is there already and is not this StreamJob's",
        where=job.namespace,
        fix="delete or rename it, or choose another name for the StreamJob",
    )


def _is_same(live: Manifest, wanted: Manifest) -> bool:
    """By the hash; replicas also by themselves, because `kubectl scale` leaves annotations alone."""
    return applied_hash(live) == applied_hash(wanted) and _replicas(live) == _replicas(wanted)


def _replicas(manifest: Manifest) -> Any:
    return manifest.get("spec", {}).get("replicas")
