"""Whether the CRDs are as new as this operator.

An older schema throws away fields of a status that it does not know, silently; an intention that was
not kept is worse than none. So beneath an older one nothing is done, and that is said.
"""

from __future__ import annotations

import threading
import time

from penstock_operator.cluster.kube import DEFINITIONS, Kube
from penstock_operator.resources.names import ANNOTATION_SCHEMA_VERSION, SCHEMA_VERSION
from penstock_operator.resources.savepoint import SAVEPOINT
from penstock_operator.resources.streamjob import STREAMJOB

_KEPT_S = 60.0


class SchemaGate:
    """Asks once a minute. Safe from several threads."""

    def __init__(self, kube: Kube) -> None:
        self._kube = kube
        self._lock = threading.Lock()
        self._asked_at_s: float | None = None
        self._objection: str | None = None

    def objection(self) -> str | None:
        """Why nothing may be done; None when all is well. Raises what Kube raises."""
        with self._lock:
            now_s = time.monotonic()
            is_fresh = self._asked_at_s is not None and now_s - self._asked_at_s < _KEPT_S
            if not is_fresh or self._objection is not None:
                self._objection = self._ask()
                self._asked_at_s = now_s
            return self._objection

    def _ask(self) -> str | None:
        for kind in (STREAMJOB, SAVEPOINT):
            found = self._kube.find(DEFINITIONS, None, kind.crd_name)
            if found is None:
                return f"there is no CRD {kind.crd_name}; apply the folder crds/"
            version = _version(found["metadata"].get("annotations", {}))
            if version < SCHEMA_VERSION:
                return (
                    f"the schema of {kind.crd_name} has version {version}, this operator needs "
                    f"{SCHEMA_VERSION}; apply the CRDs of this operator's version"
                )
        return None


def _version(annotations: dict[str, str]) -> int:
    text = annotations.get(ANNOTATION_SCHEMA_VERSION, "")
    return int(text) if text.isdecimal() else 0
