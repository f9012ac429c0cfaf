"""Parallelism changes under load, in place; what cannot be had leaves the job as it was."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from tests.e2e.support_job import Job
from tests.e2e.support_kube import KubectlError, wait_for
from tests.e2e.support_output import assert_exact


@pytest.mark.ci
def test_scale_1_to_3_to_2_under_load_moves_key_groups_and_restarts_no_pod(
    new_job: Callable[..., Job],
) -> None:
    job = new_job(parallelism=1, rescale={"cooldown": "0s"})
    job.start(1000)
    first, disks = job.uids("worker"), job.volumes()
    job.scale(3)
    status = job.wait_for_parallelism(3)
    assert (status["rescale"]["from"], status["rescale"]["to"]) == (1, 3)
    # 32 key groups on one worker become 11, 11 and 10 on three.
    assert 20 <= status["rescale"]["keyGroupsMoved"] <= 22
    assert status["rescale"]["bytesMoved"] > 0
    assert status["rescale"]["pause"]
    three = job.uids("worker")
    assert len(three) == 3
    assert first.items() <= three.items()
    assert disks.items() <= job.volumes().items()
    assert_exact(job.wait_for_output(1000))
    job.scale(2)
    status = job.wait_for_parallelism(2)
    assert 10 <= status["rescale"]["keyGroupsMoved"] <= 32
    wait_for(lambda: len(job.pods("worker")) == 2, "the third pod is gone")
    assert job.uids("worker").items() <= three.items()
    assert_exact(job.wait_for_output(1000))
    wait_for(lambda: len(job.volumes()) == 2, "the third volume is gone")
    reasons = [e["reason"] for e in job.namespace.list("event")]
    assert any("Rescale" in reason for reason in reasons), reasons
    assert status["restarts"] == 0


def test_volumes_stay_where_they_are_told_to(new_job: Callable[..., Job]) -> None:
    job = new_job(
        parallelism=2,
        rescale={"cooldown": "0s"},
        worker={"volume": {"whenScaledDown": "Retain"}},
    )
    job.start()
    job.scale(1)
    job.wait_for_parallelism(1)
    job.wait_for_output(1500)
    assert len(job.volumes()) == 2
    job.scale(2)
    job.wait_for_parallelism(2)
    assert_exact(job.wait_for_output(500))


def test_the_scale_subresource_knows_number_and_pods(new_job: Callable[..., Job]) -> None:
    job = new_job(parallelism=2)
    job.apply()
    job.wait_for_stable()
    scale = _scale(job)
    assert scale["spec"]["replicas"] == scale["status"]["replicas"] == 2
    selected = job.namespace.list("pod", scale["status"]["selector"])
    assert {p["metadata"]["name"] for p in selected} == set(job.uids("worker"))


@pytest.mark.parametrize(("replicas", "said"), [(0, "Suspended"), (33, "maxParallelism")])
def test_numbers_that_cannot_be_are_refused_by_kubectl_scale(
    new_job: Callable[..., Job], replicas: int, said: str
) -> None:
    job = new_job(parallelism=1)
    job.apply()
    with pytest.raises(KubectlError, match=said):
        job.scale(replicas)


def test_workers_that_cannot_come_leave_the_old_parallelism_running(
    new_job: Callable[..., Job],
) -> None:
    job = new_job(parallelism=1, rescale={"cooldown": "0s", "timeout": "20s"})
    job.start()
    pods = job.uids("worker")
    job.namespace.run("create", "quota", "full", "--hard=pods=3")
    job.scale(4)
    status = job.wait_for(
        lambda s: s.get("rescale", {}).get("failures", 0) >= 1, "the rescale has failed"
    )
    assert status["rescale"]["retryAt"]
    assert status["rescale"]["reason"]
    assert_exact(job.wait_for_output(500))
    assert job.status()["parallelism"] == 1
    wait_for(lambda: job.uids("worker") == pods, "pods that are of no use are gone")
    job.namespace.run("delete", "quota", "full")
    # Another number is another try, at once.
    job.apply(parallelism=2, rescale={"timeout": "10m"})
    job.wait_for_parallelism(2)
    assert_exact(job.wait_for_output(500))


def test_a_parallelism_that_is_edited_with_the_code_is_one_upgrade(
    new_job: Callable[..., Job],
) -> None:
    job = new_job(parallelism=1)
    old = job.start()
    job.apply(parallelism=3, parameters={"version": "2"})
    status = job.wait_for_revision(old["revision"])
    assert status["parallelism"] == 3
    assert len(job.pods("worker")) == 3
    assert_exact(job.wait_for_output(500))


def _scale(job: Job) -> dict[str, Any]:
    path = (
        f"/apis/penstock.dev/v1alpha1/namespaces/{job.namespace.name}/streamjobs/{job.name}/scale"
    )
    found: dict[str, Any] = json.loads(job.namespace.run("get", "--raw", path))
    return found
