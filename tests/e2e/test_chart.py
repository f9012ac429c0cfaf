"""The chart beside jobs that run: what the operator may do, an upgrade of it, and its refusal to go."""

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.support_job import Job
from tests.e2e.support_kube import OPERATOR, OPERATOR_NAMESPACE, Namespace, holds_for, kubectl
from tests.e2e.support_output import assert_exact

CHART = Path(__file__).parents[2] / "helm" / "penstock"
RELEASE = "penstock"

MAY = [
    ("get", "streamjobs.penstock.dev"),
    ("patch", "streamjobs.penstock.dev"),
    ("update", "streamjobs.penstock.dev/status"),
    ("create", "savepoints.penstock.dev"),
    ("create", "pods"),
    ("delete", "pods"),
    ("patch", "statefulsets.apps"),
    ("patch", "deployments.apps"),
    ("create", "secrets"),
    ("delete", "persistentvolumeclaims"),
    ("get", "namespaces"),
]
MAY_NOT = [
    ("get", "secrets"),
    ("list", "secrets"),
    ("delete", "secrets"),
    ("create", "streamjobs.penstock.dev"),
    ("delete", "streamjobs.penstock.dev"),
    ("delete", "savepoints.penstock.dev"),
    ("get", "pods/log"),
    ("create", "pods/exec"),
    ("create", "persistentvolumeclaims"),
    ("delete", "statefulsets.apps"),
    ("delete", "namespaces"),
    ("get", "nodes"),
    ("create", "roles.rbac.authorization.k8s.io"),
    ("bind", "clusterroles.rbac.authorization.k8s.io"),
    ("impersonate", "serviceaccounts"),
    ("create", "serviceaccounts/token"),
    ("patch", "customresourcedefinitions.apiextensions.k8s.io"),
]


def test_the_operator_may_do_what_it_does_and_nothing_more(namespace: Namespace) -> None:
    wrong = [
        (verb, what, answer)
        for rights, answer in ((MAY, "yes"), (MAY_NOT, "no"))
        for verb, what in rights
        if _can(namespace, verb, what) != answer
    ]
    assert not wrong


def test_pods_of_jobs_may_ask_the_api_server_nothing(new_job: Callable[..., Job]) -> None:
    job = new_job(parallelism=1)
    job.apply()
    job.wait_for_phase("Running")
    account = f"system:serviceaccount:{job.namespace.name}:{job.name}-job"
    for verb, what in (("get", "pods"), ("list", "secrets"), ("get", "streamjobs.penstock.dev")):
        done = _kubectl("-n", job.namespace.name, "auth", "can-i", verb, what, "--as", account)
        assert done.stdout.strip() == "no", (verb, what)
    for pod in job.pods("worker") + job.pods("coordinator"):
        volumes = pod["spec"]["volumes"]
        assert not [v for v in volumes if "serviceAccountToken" in json.dumps(v)]


@pytest.fixture
def values() -> Iterator[dict[str, Any]]:
    """The values of the release as it is; they hold again afterwards."""
    before: dict[str, Any] = json.loads(_helm("get", "values", RELEASE, "-o", "json")) or {}
    yield before
    _install(before)


@pytest.mark.alone
def test_an_upgrade_of_the_chart_touches_no_pod_of_a_job(
    new_job: Callable[..., Job], values: dict[str, Any]
) -> None:
    job = new_job()
    job.apply()
    job.wait_for_stable()
    job.wait_for_output(500)
    pods = job.uids("worker") | job.uids("coordinator")
    revision = job.status()["revision"]
    _install({**values, "workerImage": {**values["workerImage"], "tag": "of-tomorrow"}})
    # The new operator has looked at the job when it has taken a savepoint of it.
    job.annotate(savepoint="by-the-new-operator")
    job.wait_for(
        lambda s: s.get("requests", {}).get("savepoint", {}).get("phase") == "Done",
        "the new operator has taken a savepoint",
    )
    holds_for(lambda: job.uids("worker") | job.uids("coordinator") == pods, "the same pods", 10)
    assert job.status()["revision"] == revision
    assert_exact(job.wait_for_output(500))


@pytest.mark.alone
def test_the_chart_is_not_uninstalled_while_there_are_jobs(
    new_job: Callable[..., Job], values: dict[str, Any]
) -> None:
    job = new_job(parallelism=1)
    job.apply()
    job.wait_for_phase("Running")
    done = subprocess.run(
        ["helm", "-n", OPERATOR_NAMESPACE, "uninstall", RELEASE],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0, done.stdout
    assert job.status()["phase"] == "Running"
    pods = kubectl("-n", OPERATOR_NAMESPACE, "get", "pods", "-l", OPERATOR, "-o", "name")
    assert pods
    message = kubectl(
        *["-n", OPERATOR_NAMESPACE, "logs", "job/penstock-uninstall-check"],
    )
    assert f"{job.namespace.name}/{job.name}" in message
    _helm("rollback", RELEASE)


def _can(namespace: Namespace, verb: str, what: str) -> str:
    account = f"system:serviceaccount:{OPERATOR_NAMESPACE}:{RELEASE}"
    kind, _, subresource = what.partition("/")  # can-i takes what follows a slash for a name
    asked = [verb, kind, *(["--subresource", subresource] if subresource else [])]
    return _kubectl("-n", namespace.name, "auth", "can-i", *asked, "--as", account).stdout.strip()


def _kubectl(*arguments: str) -> subprocess.CompletedProcess[str]:
    """`can-i` says no by its exit code, too."""
    return subprocess.run(["kubectl", *arguments], capture_output=True, text=True, check=False)


def _install(values: dict[str, Any]) -> None:
    _helm("upgrade", RELEASE, str(CHART), "--reset-values", "-f", "-", "--wait", values=values)


def _helm(*arguments: str, values: dict[str, Any] | None = None) -> str:
    done = subprocess.run(
        ["helm", "-n", OPERATOR_NAMESPACE, *arguments],
        input=None if values is None else json.dumps(values),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
