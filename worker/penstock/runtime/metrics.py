"""A coordinator's metrics in Prometheus' format, collected when they are asked for."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from penstock.runtime.job_view import JobView
from penstock.spec.orders import JobPhase, JobStatus


def metrics_page(view: JobView, status: JobStatus, *, now_ms: int) -> tuple[bytes, str]:
    """The body of GET /metrics at this moment, and its content type."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_JobMetrics(view, status, now_ms))
    return generate_latest(registry), CONTENT_TYPE_LATEST


class _JobMetrics(Collector):
    """What Prometheus is told about one job; every series has the label `job`."""

    def __init__(self, view: JobView, status: JobStatus, now_ms: int) -> None:
        self._view = view
        self._status = status
        self._now_ms = now_ms

    def collect(self) -> Iterable[Metric]:
        """See prometheus_client."""
        yield from self._of_job(self._status)
        yield from self._of_checkpoints(self._status)
        yield from _of_operators(self._status)

    def _of_job(self, status: JobStatus) -> Iterable[Metric]:
        job = status.job_id
        phases = GaugeMetricFamily(
            "penstock_job_phase", "1 for the phase that the job is in", labels=["job", "phase"]
        )
        for phase in JobPhase:
            phases.add_metric([job, phase], float(phase is status.phase))
        yield phases
        started_ms = status.started_at_ms
        ended_ms = self._view.ended_ms or self._now_ms
        uptime_ms = 0 if started_ms is None else ended_ms - started_ms
        yield _gauge(
            "penstock_job_uptime_seconds", "since it first ran here", job, uptime_ms / 1000
        )
        yield _gauge("penstock_job_attempt", "number of the newest attempt", job, status.attempt)
        yield _gauge("penstock_job_parallelism", "subtasks", job, status.parallelism)
        yield _gauge("penstock_workers", "workers that are connected", job, len(status.workers))
        yield _counter("penstock_restarts", "attempts opened after a failure", job, status.restarts)

    def _of_checkpoints(self, status: JobStatus) -> Iterable[Metric]:
        job, view = status.job_id, self._view
        yield _counter(
            "penstock_checkpoints_completed",
            "checkpoints and savepoints completed",
            job,
            view.checkpoints_completed,
        )
        yield _counter(
            "penstock_checkpoints_failed",
            "checkpoints and savepoints given up",
            job,
            view.checkpoints_failed,
        )
        last = view.last_completed
        if last is None or last.ended_ms is None:
            return
        name = "penstock_last_checkpoint"
        yield _gauge(f"{name}_id", "its number", job, last.id)
        yield _gauge(
            f"{name}_duration_seconds",
            "from trigger to completion",
            job,
            (last.duration_ms or 0) / 1000,
        )
        yield _gauge(f"{name}_size_bytes", "the state that it names", job, last.size_bytes)
        yield _gauge(f"{name}_new_bytes", "what was uploaded for it", job, last.bytes_new)
        age_ms = self._now_ms - last.ended_ms
        yield _gauge(f"{name}_age_seconds", "since it completed", job, age_ms / 1000)


def _of_operators(status: JobStatus) -> Iterable[Metric]:
    labels = ["job", "operator"]
    records_in = CounterMetricFamily(
        "penstock_records_in", "records taken in this attempt", labels=labels
    )
    records_out = CounterMetricFamily(
        "penstock_records_out", "records given in this attempt", labels=labels
    )
    failed = CounterMetricFamily(
        "penstock_records_failed", "records skipped or diverted in this attempt", labels=labels
    )
    busy = GaugeMetricFamily("penstock_operator_busy_ratio", "share of time at work", labels=labels)
    state = GaugeMetricFamily("penstock_state_bytes", "working state", labels=labels)
    for operator in status.operators:
        values = [status.job_id, operator.id]
        records_in.add_metric(values, operator.records_in)
        records_out.add_metric(values, operator.records_out)
        failed.add_metric(values, operator.records_failed)
        if operator.busy is not None:
            busy.add_metric(values, operator.busy)
        if operator.state_bytes is not None:
            state.add_metric(values, operator.state_bytes)
    yield from (records_in, records_out, failed, busy, state)


def _gauge(name: str, help: str, job: str, value: float) -> Metric:
    family = GaugeMetricFamily(name, help, labels=["job"])
    family.add_metric([job], value)
    return family


def _counter(name: str, help: str, job: str, value: float) -> Metric:
    family = CounterMetricFamily(name, help, labels=["job"])
    family.add_metric([job], value)
    return family
