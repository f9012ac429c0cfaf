"""The operator's own figures, for Prometheus."""

from __future__ import annotations

import threading
from collections import Counter as Counts

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from penstock_operator.cluster.observe import JobKey
from penstock_operator.resources.status import Phase

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """Safe from several threads."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._lock = threading.Lock()
        self._phases: dict[JobKey, Phase] = {}
        self._turns = Counter(
            "penstock_kubernetes_reconciles",
            "Turns by outcome.",
            ["outcome"],
            registry=self._registry,
        )
        self._seconds = Histogram(
            "penstock_kubernetes_reconcile_seconds",
            "Duration of turns.",
            buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
            registry=self._registry,
        )
        self._jobs = Gauge(
            "penstock_kubernetes_streamjobs",
            "StreamJobs by phase.",
            ["phase"],
            registry=self._registry,
        )

    def turned(self, outcome: str, seconds: float) -> None:
        """A turn ended."""
        self._turns.labels(outcome).inc()
        self._seconds.observe(seconds)

    def phase(self, key: JobKey, phase: Phase) -> None:
        """Where a job stands."""
        with self._lock:
            self._phases[key] = phase

    def gone(self, key: JobKey) -> None:
        """It stands nowhere."""
        with self._lock:
            self._phases.pop(key, None)

    def page(self) -> bytes:
        """All figures."""
        with self._lock:
            counts = Counts(self._phases.values())
        for phase in Phase:
            self._jobs.labels(phase.value).set(counts[phase])
        return generate_latest(self._registry)
