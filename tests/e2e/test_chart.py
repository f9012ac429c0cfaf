"""The chart beside jobs that run: what the operator may do, an upgrade of it, and its refusal to go."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.e2e.support_chart import MAY, MAY_NOT, Release, can_i
from tests.e2e.support_job import Job
from tests.e2e.support_kube import (
    OPERATOR,
    OPERATOR_NAMESPACE,
    Namespace,
    holds_for,
    kubectl,
    wait_for,
)
from tests.e2e.support_output import assert_exact


def test_the_operator_may_do_what_it_does_and_nothing_more(namespace: Namespace) -> None:
    may = [*MAY, ("get", "namespaces")]
    assert Release().allowed(may, namespace.name) == may
    assert Release().allowed(MAY_NOT, namespace.name) == []


@pytest.mark.parametrize(
    ("role", "may"),
    [
        ("view", {"get", "list", "watch"}),
        ("edit", {"get", "list", "watch", "create", "update", "patch", "delete"}),
    ],
)
def test_streamjobs_belong_to_the_clusters_own_roles_for_people(
    namespace: Namespace, role: str, may: set[str]
) -> None:
    namespace.run("create", "rolebinding", "people", f"--clusterrole={role}", "--user=ann")
    wait_for(lambda: can_i("get", "pods", account="ann", where=namespace.name), "ann has a role")
    for kind in ("streamjobs.penstock.dev", "savepoints.penstock.dev"):
        verbs = ("get", "list", "watch", "create", "update", "patch", "delete")
        found = {v for v in verbs if can_i(v, kind, account="ann", where=namespace.name)}
        assert found == may, kind
    scale = "streamjobs.penstock.dev/scale"
    may_scale = can_i("patch", scale, account="ann", where=namespace.name)
    assert may_scale is ("patch" in may)


def test_pods_of_jobs_may_ask_the_api_server_nothing(new_job: Callable[..., Job]) -> None:
    job = new_job(parallelism=1)
    job.apply()
    job.wait_for_phase("Running")
    account = f"system:serviceaccount:{job.namespace.name}:{job.name}-job"
    for verb, what in (("get", "pods"), ("list", "secrets"), ("get", "streamjobs.penstock.dev")):
        assert not can_i(verb, what, account=account, where=job.namespace.name), (verb, what)
    for pod in job.pods("worker") + job.pods("coordinator"):
        volumes = pod["spec"]["volumes"]
        assert not [v for v in volumes if "serviceAccountToken" in json.dumps(v)]


@pytest.fixture
def values() -> Iterator[dict[str, Any]]:
    """The values of the release as it is; they hold again afterwards."""
    before = Release().values()
    yield before
    Release().install(before)


@pytest.mark.alone
def test_an_upgrade_of_the_chart_touches_no_pod_of_a_job(
    new_job: Callable[..., Job], values: dict[str, Any]
) -> None:
    job = new_job()
    job.start()
    pods = job.uids()
    revision = job.status()["revision"]
    Release().install({**values, "workerImage": {**values["workerImage"], "tag": "of-tomorrow"}})
    # The new operator has looked at the job when it has taken a savepoint of it.
    job.annotate(savepoint="by-the-new-operator")
    job.wait_for_receipt("savepoint", "by-the-new-operator")
    holds_for(lambda: job.uids() == pods, "the same pods", 10)
    assert job.status()["revision"] == revision
    assert_exact(job.wait_for_output(500))


@pytest.mark.alone
def test_the_chart_is_not_uninstalled_while_there_are_jobs(
    new_job: Callable[..., Job], values: dict[str, Any]
) -> None:
    job = new_job(parallelism=1)
    job.apply()
    job.wait_for_phase("Running")
    refused = Release().ask_helm("uninstall", Release().name)
    assert refused.returncode != 0, refused.stdout
    assert job.status()["phase"] == "Running"
    pods = kubectl("-n", OPERATOR_NAMESPACE, "get", "pods", "-l", OPERATOR, "-o", "name")
    assert pods
    message = kubectl("-n", OPERATOR_NAMESPACE, "logs", "job/penstock-uninstall-check")
    assert f"{job.namespace.name}/{job.name}" in message
    Release().keep()
