"""One turn of one job: observe, decide, execute."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta
from typing import TypeAlias

from penstock.core.errors import PenstockError, Retryable
from penstock_operator.cluster.events import About
from penstock_operator.cluster.execute import SchemaTooOld, Tools, execute
from penstock_operator.cluster.kube import STREAM_JOBS, Conflict, Forbidden, NamespaceGoes
from penstock_operator.cluster.loop import leaving, orphans
from penstock_operator.cluster.loop.metrics import Metrics
from penstock_operator.cluster.loop.schema import SchemaGate
from penstock_operator.cluster.observe import JobKey, Observer, Seen
from penstock_operator.manifests.names import Job
from penstock_operator.reconcile.effects import Announce, Decision
from penstock_operator.reconcile.observed import Observed

Reconcile: TypeAlias = Callable[[Observed, datetime], Decision]

IDLE = timedelta(minutes=1)
_AT_ONCE = timedelta(0)
_SOON = timedelta(seconds=2)


class Turns:
    """The turns of all jobs; safe from several threads, one per job."""

    def __init__(
        self,
        observer: Observer,
        reconcile: Reconcile,
        tools: Tools,
        *,
        schema: SchemaGate,
        metrics: Metrics,
    ) -> None:
        self._observer = observer
        self._reconcile = reconcile
        self._tools = tools
        self._schema = schema
        self._metrics = metrics
        self._uids: dict[JobKey, str] = {}

    def turn(self, key: JobKey) -> timedelta | None:
        """The time until the next look; None when there is no such StreamJob.

        Raises:
            PenstockError: something failed; it is tried again later.
        """
        began_s = time.monotonic()
        outcome = "error"
        try:
            look_again, outcome = self._taken(key)
        except NamespaceGoes as e:
            self._tools.log.info("namespace goes", job=str(key), what=e.what)
            look_again, outcome = _SOON, "namespace goes"
        except Forbidden:
            if not leaving.is_leaving(self._tools, key.namespace):
                raise
            leaving.let_go(self._tools, key)
            look_again, outcome = _SOON, "namespace goes"
        finally:
            self._metrics.turned(outcome, time.monotonic() - began_s)
        return look_again

    def _taken(self, key: JobKey) -> tuple[timedelta | None, str]:
        if (why := self._schema.objection()) is not None:
            self._tools.log.error("nothing is done", error=why)
            return IDLE, "schema too old"
        seen = self._observed(key)
        if seen is None:
            self._metrics.gone(key)
            if (uid := self._uids.pop(key, None)) is not None:
                self._tools.memory.forget(uid)
            return orphans.let_go(self._tools, key), "gone"
        self._uids[key] = seen.job.uid
        decision = self._reconcile(seen.observed, self._tools.now())
        self._metrics.phase(key, decision.status.phase)
        try:
            execute(self._tools, seen, decision)
        except Conflict as e:
            self._tools.log.info("seen too late", job=str(key), what=e.what)
            return _AT_ONCE, "conflict"
        except Retryable:
            raise
        except PenstockError as e:
            self._tell(seen.job, e)
            if isinstance(e, SchemaTooOld):
                return IDLE, "schema too old"
            raise
        return decision.look_again, "done"

    def _observed(self, key: JobKey) -> Seen | None:
        try:
            return self._observer.observe(key)
        except Retryable:
            raise
        except PenstockError as e:
            with suppress(PenstockError):
                if found := self._tools.kube.find(STREAM_JOBS, key.namespace, key.name):
                    uid = found["metadata"]["uid"]
                    self._tell(Job(key.namespace, key.name, uid), e)
            raise

    def _tell(self, job: Job, error: PenstockError) -> None:
        """What a person must change is told where a person looks."""
        told = Announce("ReconcileFailed", ". ".join(filter(None, (error.what, error.fix))), True)
        self._tools.recorder.tell(About.of(job), told)
