"""Kubernetes Events: the story that `kubectl describe` tells.

The same words about the same job are one Event whose count goes up, as the recorder of Kubernetes'
own controllers has it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Self

from penstock.core.errors import PenstockError
from penstock_operator.cluster.kube import EVENTS, Conflict, Kube
from penstock_operator.cluster.log import Log
from penstock_operator.manifests import names
from penstock_operator.manifests.names import MANAGER, Job, Manifest
from penstock_operator.reconcile.effects import Announce
from penstock_operator.resources.names import API_VERSION

_NOTE_LENGTH_MAX = 1024


@dataclass(frozen=True, slots=True)
class About:
    """The object that an Event is about; `job` is the StreamJob's name."""

    kind: str
    namespace: str
    name: str
    uid: str
    job: str

    @classmethod
    def of(cls, job: Job) -> Self:
        """The StreamJob itself."""
        return cls("StreamJob", job.namespace, job.name, job.uid, job.name)


def announce(kube: Kube, about: About, told: Announce, *, now: datetime, log: Log) -> None:
    """Say it; said before, count it. What cannot be said stops nothing."""
    event = _event(about, told, now=now)
    try:
        try:
            kube.create_event(event)
        except Conflict:
            _count(kube, event)
    except PenstockError as e:
        log.info("event not written", reason=told.reason, message=told.message, error=e.what)


def _count(kube: Kube, event: Manifest) -> None:
    namespace, name = event["metadata"]["namespace"], event["metadata"]["name"]
    found = kube.get(EVENTS, namespace, name)
    patch = {"count": found.get("count", 1) + 1, "lastTimestamp": event["lastTimestamp"]}
    kube.merge(EVENTS, namespace, name, patch)


def _event(about: About, told: Announce, *, now: datetime) -> Manifest:
    at = now.strftime("%Y-%m-%dT%H:%M:%SZ")
    message = told.message
    if len(message) > _NOTE_LENGTH_MAX:
        message = message[: _NOTE_LENGTH_MAX - 1] + "…"
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {
            "name": names.event(about.name, about.uid, told.reason, message),
            "namespace": about.namespace,
            "labels": names.selector(about.job),
        },
        "involvedObject": {
            "apiVersion": API_VERSION,
            "kind": about.kind,
            "namespace": about.namespace,
            "name": about.name,
            "uid": about.uid,
        },
        "type": "Warning" if told.is_warning else "Normal",
        "reason": told.reason,
        "message": message,
        "source": {"component": MANAGER},
        "reportingComponent": MANAGER,
        "firstTimestamp": at,
        "lastTimestamp": at,
        "count": 1,
    }
