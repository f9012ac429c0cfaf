"""A StreamJob is applied, and what it commits is exact."""

from collections.abc import Callable

import pytest
from tests.e2e.support_job import Job
from tests.e2e.support_output import (
    assert_exact,
    assert_is_prefix_of,
    assert_versions,
)


@pytest.mark.ci
def test_a_job_that_is_applied_runs_and_counts_every_record_once(
    new_job: Callable[..., Job],
) -> None:
    job = new_job()
    job.apply()
    job.wait_for_phase("Running")
    lines = job.wait_for_output(2000)
    assert_exact(lines)
    assert_versions(lines, "1")
    assert job.wait_for_condition("Ready", "True")["observedGeneration"] == job.generation()
    assert job.condition("Reconciling")["status"] == "False"
    assert job.condition("SpecValid")["status"] == "True"
    assert len(job.pods("worker")) == 2
    assert len(job.pods("coordinator")) == 1


def test_get_streamjobs_tells_phase_parallelism_checkpoint_and_age(
    new_job: Callable[..., Job],
) -> None:
    job = new_job(parallelism=1)
    job.apply()
    job.wait_for_phase("Running")
    job.wait_for_output()
    job.wait_for(lambda s: s.get("lastCheckpoint"), "a checkpoint is told")
    head, row = job.namespace.run("get", "streamjobs").splitlines()
    assert [w for w in head.split() if w != "LAST"][:2] == ["NAME", "PHASE"]
    for column in ("PARALLELISM", "CHECKPOINT", "RESTARTS", "AGE"):
        assert column in head
    assert row.split()[:3] == [job.name, "Running", "1"]
    assert job.namespace.run("get", "sj", "-o", "name") == job.namespace.run(
        "get", "streamjobs", "-o", "name"
    )


def test_a_bounded_job_finishes_and_its_output_is_the_whole_input(
    new_job: Callable[..., Job],
) -> None:
    job = new_job(parameters={"count": 5000, "per_second": 2000})
    job.apply()
    status = job.wait_for_phase("Finished")
    lines = job.assert_exact()
    assert len(lines) == 5000
    assert_is_prefix_of(lines, status["nextRestore"])
    assert job.pods("worker") == []


def test_code_in_an_image_of_its_own_runs_as_the_script_does(
    new_job: Callable[..., Job], job_image: str
) -> None:
    job = new_job(image=job_image, entrypoint="oracle:job")
    job.apply()
    job.wait_for_phase("Running")
    assert_exact(job.wait_for_output(1000))
