"""Suspend and resume, restart, delete, finish; and what the chart may do beside jobs that run."""

from collections.abc import Callable

import pytest
from tests.e2e.support_job import Job
from tests.e2e.support_kube import Namespace, holds_for, kubectl, wait_for
from tests.e2e.support_output import assert_exact, assert_is_prefix_of, assert_state, keys, s3


@pytest.mark.ci
def test_a_suspended_job_has_committed_exactly_its_savepoint_and_goes_on_from_it(
    new_job: Callable[..., Job],
) -> None:
    # Volumes go with a smaller parallelism; a job that rests keeps its own.
    job = new_job(worker={"volume": {"whenScaledDown": "Delete"}})
    job.start(1000)
    volumes = job.volumes()
    assert set(volumes) == {f"state-{name}" for name in job.uids("worker")}
    job.apply(desiredState="Suspended")
    status = job.wait_for_phase("Suspended")
    wait_for(lambda: not job.pods("worker") + job.pods("coordinator"), "no pod is left")
    path = status["lastSavepoint"]["path"]
    lines = job.assert_exact()
    assert_is_prefix_of(lines, path)
    assert_state(path)
    assert job.condition("Ready")["reason"] == "Suspended"
    job.apply(desiredState="Running")
    assert job.wait_for_phase("Running")["restoredFrom"] == path
    assert_exact(job.wait_for_output(1000))
    assert job.volumes() == volumes


def test_a_job_that_is_changed_while_it_is_suspended_resumes_as_the_new_version(
    new_job: Callable[..., Job],
) -> None:
    job = new_job()
    job.start()
    job.apply(desiredState="Suspended")
    job.wait_for_phase("Suspended")
    before = len(job.assert_exact())
    job.apply(parallelism=3, parameters={"version": "2"})
    holds_for(lambda: not job.pods("worker"), "no worker while it is suspended", 5)
    job.apply(desiredState="Running")
    job.wait_for_phase("Running")
    lines = job.wait_for_output(500)
    assert_exact(lines)
    assert sum(line.version == "1" for line in lines) == before
    assert len(job.pods("worker")) == 3


def test_restart_by_annotation_is_a_new_attempt_once_for_each_id(
    new_job: Callable[..., Job],
) -> None:
    job = new_job()
    attempt = job.start()["attempt"]
    job.annotate(restart="one")
    status = job.wait_for_attempt(after=attempt)
    assert status["requests"]["restart"]["id"] == "one"
    lines = job.wait_for_output(500)
    assert_exact(lines)
    assert job.status()["attempt"] == status["attempt"]


@pytest.mark.ci
def test_a_job_that_is_deleted_and_applied_again_goes_on(new_job: Callable[..., Job]) -> None:
    job = new_job()
    job.start(1000)
    job.delete()
    wait_for(lambda: not job.namespace.list("pod"), "its pods are gone")
    lines = job.assert_exact()
    job.apply()
    status = job.wait_for_phase("Running")
    assert_is_prefix_of(lines, status["restoredFrom"])
    assert_exact(job.wait_for_output(1000))


def test_a_job_that_is_deleted_with_its_state_leaves_no_checkpoint(
    new_job: Callable[..., Job],
) -> None:
    job = new_job(deletion={"policy": "Delete"})
    job.start()
    assert keys(f"s3://{job.bucket}/checkpoints/")
    job.delete()
    assert [
        k for k in keys(f"s3://{job.bucket}/checkpoints/") if "chk-" in k or "/shared/" in k
    ] == []


def test_state_that_is_gone_is_no_reason_to_begin_empty(new_job: Callable[..., Job]) -> None:
    job = new_job(deletion={"policy": "Retain"})
    job.start()
    job.delete()
    for key in keys(f"s3://{job.bucket}/checkpoints/"):
        if key.endswith("_metadata"):
            s3().delete_object(Bucket=job.bucket, Key=key)
    before = len(job.output())
    job.apply()
    found = job.wait_for_condition("Ready", "False")
    job.wait_for_sentence("checkpoints", "a sentence says what was looked for")
    assert found
    assert len(job.output()) == before


def test_a_bounded_job_that_has_finished_does_not_run_again(new_job: Callable[..., Job]) -> None:
    job = new_job(parameters={"count": 3000, "per_second": 1500})
    job.apply()
    job.wait_for_phase("Finished")
    lines = job.assert_exact()
    assert len(lines) == 3000
    (old,) = job.uids("coordinator").values()
    job.namespace.run("delete", "pod", "-l", "app.kubernetes.io/component=coordinator")
    wait_for(
        lambda: set(job.uids("coordinator").values()) - {old} and job.coordinator(),
        "another coordinator",
    )
    assert job.coordinator()["phase"] == "Finished"
    holds_for(lambda: job.status()["phase"] == "Finished", "it is finished", 10)
    assert len(job.output()) == 3000
    assert not job.pods("worker")


def test_two_jobs_with_one_id_on_one_bucket_cannot_both_be(
    new_namespace: Callable[[], Namespace], bucket: str
) -> None:
    one, other = (Job(new_namespace(), bucket, spec={"jobId": "shared"}) for _ in range(2))
    one.start()
    other.apply()
    other.wait_for_condition("Ready", "False")
    other.wait_for_sentence(one.namespace.name, "a sentence names the owner")
    assert_exact(one.wait_for_output(1000))
    assert one.status()["restarts"] == 0


@pytest.mark.ci
def test_a_namespace_with_a_job_that_runs_can_be_deleted(new_job: Callable[..., Job]) -> None:
    job = new_job()
    job.start()
    kubectl("delete", "namespace", job.namespace.name, "--wait=false")
    wait_for(lambda: not job.namespace.exists(), "the namespace is gone")
    job.assert_exact()


def test_an_object_that_cannot_be_finished_lets_go_when_it_is_forced(
    new_job: Callable[..., Job],
) -> None:
    job = new_job(image="penstock-nowhere:1.0.0", deletion={"policy": "Savepoint", "timeout": "1h"})
    job.apply()
    job.wait_for(lambda s: s.get("observedGeneration"), "it was looked at")
    job.annotate(deletion="force")
    job.delete()


def test_a_job_that_never_ran_is_deleted_at_once(new_job: Callable[..., Job]) -> None:
    job = new_job(image="penstock-nowhere:1.0.0", deletion={"policy": "Savepoint", "timeout": "1h"})
    job.apply()
    job.wait_for(lambda s: s.get("observedGeneration"), "it was looked at")
    job.delete()


def test_what_is_deleted_by_hand_is_made_again(new_job: Callable[..., Job]) -> None:
    job = new_job()
    job.start()
    owned = f"penstock.dev/job={job.name}"
    kinds = "service,configmap,serviceaccount,networkpolicy,poddisruptionbudget"
    before = set(job.namespace.run("get", kinds, "-l", owned, "-o", "name").split())
    assert len(before) >= 6
    job.namespace.run("delete", kinds, "-l", owned)
    wait_for(
        lambda: set(job.namespace.run("get", kinds, "-l", owned, "-o", "name").split()) == before,
        "all of it is there again",
    )
    token = job.namespace.run("get", "secret", "-l", owned, "-o", "name").strip()
    job.namespace.run("delete", token)
    wait_for(
        lambda: job.namespace.run("get", "secret", "-l", owned, "-o", "name").strip() == token,
        "the token is there again",
    )
    assert_exact(job.wait_for_output(500))
    job.annotate(savepoint="with-the-same-token")
    # By which operator and coordinator still know each other.
    job.wait_for_receipt("savepoint", "with-the-same-token")


def test_an_invalid_change_is_told_and_the_job_runs_on(new_job: Callable[..., Job]) -> None:
    job = new_job()
    job.start()
    pods = job.uids()
    # Every part is valid by itself, so that the API server takes it; pods would refuse to start.
    job.apply(worker={"podTemplate": {"spec": {"containers": [{"name": "penstock", "imag": "x"}]}}})
    found = job.wait_for_condition("SpecValid", "False")
    assert "imag" in found["message"]
    job.wait_for_output(500)
    assert job.uids() == pods
    job.spec["worker"].pop("podTemplate")
    job.namespace.run(
        "patch",
        "streamjob",
        job.name,
        "--type=json",
        "-p",
        '[{"op":"remove","path":"/spec/worker/podTemplate"}]',
    )
    job.wait_for_condition("SpecValid", "True")
    job.assert_exact()
