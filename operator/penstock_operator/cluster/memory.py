"""What is remembered between the turns of a job, and may be lost with the process.

Refusals of orders, so that the next decision sees them; revisions whose dry run went well, so that it
is not done again. Nothing here is needed to go on: it is asked or told again.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

REFUSALS_KEPT_S = 300.0
_REVISIONS_KEPT = 20
_REFUSALS_KEPT = 50


@dataclass(slots=True)
class _Job:
    refusals: OrderedDict[str, tuple[float, str]] = field(default_factory=OrderedDict)
    tried: OrderedDict[str, None] = field(default_factory=OrderedDict)


class Memory:
    """By the UID of the job; `now_s` is a monotonic clock."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self._jobs: dict[str, _Job] = {}
        self._lock = threading.Lock()

    def refusals(self, uid: str) -> Mapping[str, str]:
        """Refused orders by request id, those of the last minutes."""
        oldest_s = self._now_s() - REFUSALS_KEPT_S
        with self._lock:
            job = self._jobs.get(uid, _Job())
            return {id: why for id, (at_s, why) in job.refusals.items() if at_s >= oldest_s}

    def remember_refusal(self, uid: str, request_id: str, why: str | None) -> None:
        """An order was refused; None: it was taken after all."""
        with self._lock:
            refusals = self._jobs.setdefault(uid, _Job()).refusals
            refusals.pop(request_id, None)
            if why is not None:
                refusals[request_id] = (self._now_s(), why)
            while len(refusals) > _REFUSALS_KEPT:
                refusals.popitem(last=False)

    def was_tried(self, uid: str, revision: str) -> bool:
        """Whether the API server took the pods of this revision."""
        with self._lock:
            return revision in self._jobs.get(uid, _Job()).tried

    def remember_tried(self, uid: str, revision: str) -> None:
        """It did."""
        with self._lock:
            tried = self._jobs.setdefault(uid, _Job()).tried
            tried[revision] = None
            while len(tried) > _REVISIONS_KEPT:
                tried.popitem(last=False)

    def forget(self, uid: str) -> None:
        """The job is gone."""
        with self._lock:
            self._jobs.pop(uid, None)
