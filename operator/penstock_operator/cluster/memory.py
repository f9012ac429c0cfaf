"""What is remembered between the turns of a job, and may be lost with the process.

Refusals of orders, so that the next decision sees them; revisions whose dry run went well, so that it
is not done again; objects that were just seen to be as they should, so that each turn of a move does
not read them anew. Nothing here is needed to go on: it is asked or told again.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from penstock_operator.reconcile.observed import Refusal

REFUSALS_KEPT_S = 300.0
SAME_KEPT_S = 30.0
"""So long an object that nobody watches may be gone before it is missed, beside the minute's turn."""
_REVISIONS_KEPT = 20
_REFUSALS_KEPT = 50


@dataclass(slots=True)
class _Job:
    refusals: OrderedDict[str, tuple[float, Refusal]] = field(default_factory=OrderedDict)
    tried: OrderedDict[str, None] = field(default_factory=OrderedDict)
    same: dict[tuple[str, str], tuple[float, str]] = field(default_factory=dict)


class Memory:
    """By the UID of the job; `now_s` is a monotonic clock."""

    def __init__(self, now_s: Callable[[], float], *, same_kept_s: float = SAME_KEPT_S) -> None:
        self._now_s = now_s
        self._same_kept_s = same_kept_s
        self._jobs: dict[str, _Job] = {}
        self._lock = threading.Lock()

    def refusals(self, uid: str) -> Mapping[str, Refusal]:
        """Refused orders by request id, those of the last minutes."""
        oldest_s = self._now_s() - REFUSALS_KEPT_S
        with self._lock:
            job = self._jobs.get(uid, _Job())
            return {id: said for id, (at_s, said) in job.refusals.items() if at_s >= oldest_s}

    def remember_refusal(self, uid: str, request_id: str, refusal: Refusal | None) -> None:
        """An order was refused; None: it was taken after all."""
        with self._lock:
            refusals = self._jobs.setdefault(uid, _Job()).refusals
            refusals.pop(request_id, None)
            if refusal is not None:
                refusals[request_id] = (self._now_s(), refusal)
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

    def is_same(self, uid: str, kind: str, name: str, applied: str) -> bool:
        """Whether that object was seen with that hash a moment ago."""
        with self._lock:
            at_s, known = self._jobs.get(uid, _Job()).same.get((kind, name), (0.0, None))
            return known == applied and self._now_s() - at_s < self._same_kept_s

    def remember_same(self, uid: str, kind: str, name: str, applied: str) -> None:
        """It was, or is now."""
        with self._lock:
            self._jobs.setdefault(uid, _Job()).same[kind, name] = (self._now_s(), applied)

    def forget_same(self, uid: str, kind: str, name: str) -> None:
        """It was deleted."""
        with self._lock:
            self._jobs.setdefault(uid, _Job()).same.pop((kind, name), None)

    def forget(self, uid: str) -> None:
        """The job is gone."""
        with self._lock:
            self._jobs.pop(uid, None)
