"""Kubernetes Events: the story that `kubectl describe` tells.

The same words about the same object are one Event whose count goes up, as the recorder of Kubernetes'
own controllers has it. `kubectl` sorts by whole seconds and leaves what is equal in the order of
names: a name begins with the moment at which the words were said first.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Self

from penstock.core.errors import PenstockError
from penstock_operator.cluster.kube import EVENTS, Kube, NotFound
from penstock_operator.cluster.log import Log
from penstock_operator.manifests import names
from penstock_operator.manifests.names import MANAGER, Job, Manifest
from penstock_operator.reconcile.effects import Announce
from penstock_operator.resources.names import API_VERSION

_NOTE_LENGTH_MAX = 1024
_OBJECTS_KEPT = 2000
_WORDS_KEPT = 100
_EPOCH = datetime.fromtimestamp(0, UTC)


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


@dataclass(frozen=True, slots=True)
class _Words:
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class _Said:
    name: str
    count: int


class Recorder:
    """Says Events about any object; about one object from one thread at a time.

    One request each: what a former process said is looked up once, before the first words about an
    object.
    """

    def __init__(self, kube: Kube, *, now: Callable[[], datetime], log: Log) -> None:
        self._kube = kube
        self._now = now
        self._log = log
        self._lock = threading.Lock()
        self._newest_us = 0
        self._objects: OrderedDict[str, OrderedDict[_Words, _Said]] = OrderedDict()

    def tell(self, about: About, told: Announce) -> None:
        """Say it; said before, count it. What cannot be said stops nothing."""
        try:
            self._tell(about, told)
        except PenstockError as e:
            with self._lock:
                self._objects.pop(about.uid, None)  # it may have been taken
            self._log.info(
                "event not written", reason=told.reason, message=told.message, error=e.what
            )

    def _tell(self, about: About, told: Announce) -> None:
        words, now = _Words(told.reason, _cut(told.message)), self._now()
        known = self._known(about)
        said = known.get(words)
        counted = self._count(about, said, now) if said is not None else None
        if counted is None:
            event = _event(about, words, now=now, is_warning=told.is_warning)
            event["metadata"]["name"] = names.event(about.name, self._moment_us(now))
            self._kube.create_event(event)
            counted = _Said(event["metadata"]["name"], 1)
        known[words] = counted
        known.move_to_end(words)
        while len(known) > _WORDS_KEPT:
            known.popitem(last=False)

    def _known(self, about: About) -> OrderedDict[_Words, _Said]:
        with self._lock:
            known = self._objects.get(about.uid)
        if known is None:
            known = self._said_before(about)
        with self._lock:
            self._objects[about.uid] = known
            self._objects.move_to_end(about.uid)
            while len(self._objects) > _OBJECTS_KEPT:
                self._objects.popitem(last=False)
        return known

    def _said_before(self, about: About) -> OrderedDict[_Words, _Said]:
        found = self._kube.list(EVENTS, about.namespace, labels=names.selector_text(about.job))
        return OrderedDict(
            (
                _Words(event.get("reason", ""), event.get("message", "")),
                _Said(event["metadata"]["name"], event.get("count") or 1),
            )
            for event in found
            if event["involvedObject"].get("uid") == about.uid
        )

    def _count(self, about: About, said: _Said, now: datetime) -> _Said | None:
        """None when it has expired."""
        patch = {"count": said.count + 1, "lastTimestamp": _text(now)}
        try:
            self._kube.merge(EVENTS, about.namespace, said.name, patch)
        except NotFound:
            return None
        return _Said(said.name, said.count + 1)

    def _moment_us(self, now: datetime) -> int:
        """Microseconds since 1970; of what is said within one, each is a later one."""
        with self._lock:
            now_us = (now - _EPOCH) // timedelta(microseconds=1)
            self._newest_us = max(now_us, self._newest_us + 1)
            return self._newest_us


def _event(about: About, words: _Words, *, now: datetime, is_warning: bool) -> Manifest:
    at = _text(now)
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"namespace": about.namespace, "labels": names.selector(about.job)},
        "involvedObject": {
            "apiVersion": API_VERSION,
            "kind": about.kind,
            "namespace": about.namespace,
            "name": about.name,
            "uid": about.uid,
        },
        "type": "Warning" if is_warning else "Normal",
        "reason": words.reason,
        "message": words.message,
        "source": {"component": MANAGER},
        "reportingComponent": MANAGER,
        "firstTimestamp": at,
        "lastTimestamp": at,
        "count": 1,
    }


def _text(now: datetime) -> str:
    return now.strftime("%Y-%m-%dT%H:%M:%SZ")


def _cut(message: str) -> str:
    """As long as an Event may be."""
    is_long = len(message) > _NOTE_LENGTH_MAX
    return message[: _NOTE_LENGTH_MAX - 1] + "…" if is_long else message
