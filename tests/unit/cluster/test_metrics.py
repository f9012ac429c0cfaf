"""The Kubernetes operator's own figures."""

import re
from pathlib import Path

from penstock_operator.cluster.loop.metrics import Metrics
from penstock_operator.cluster.observe import JobKey
from penstock_operator.resources.status import Phase

REFERENCE = Path(__file__).parents[3] / "docs" / "reference" / "metrics.md"
PREFIX = "penstock_kubernetes_"


def page(metrics: Metrics) -> str:
    return metrics.page().decode()


def test_its_prefix_is_no_prefix_of_a_jobs_figures():
    """An operator of a job is something else."""
    assert set(re.findall(r"^# TYPE (\w+?_\w+?_)", page(Metrics()), re.MULTILINE)) == {PREFIX}
    jobs, _, own = REFERENCE.read_text().partition("## The Kubernetes operator's own")
    assert "`penstock_operator_busy_ratio`" in jobs
    assert f"`{PREFIX}" not in jobs
    assert f"`{PREFIX}streamjobs`" in own


def test_streamjobs_are_counted_by_phase_until_they_are_gone():
    metrics, first, second = Metrics(), JobKey("a", "words"), JobKey("b", "words")
    metrics.phase(first, Phase.STARTING)
    metrics.phase(second, Phase.RUNNING)
    metrics.phase(first, Phase.RUNNING)
    assert f'{PREFIX}streamjobs{{phase="Running"}} 2.0' in page(metrics)
    assert f'{PREFIX}streamjobs{{phase="Starting"}} 0.0' in page(metrics)
    metrics.gone(first)
    assert f'{PREFIX}streamjobs{{phase="Running"}} 1.0' in page(metrics)
