"""A release of the chart that looks after two namespaces: all that jobs need there, nothing elsewhere."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from tests.e2e.support_chart import MAY, MAY_NOT, Release
from tests.e2e.support_faults import no_operator, operators
from tests.e2e.support_job import Job
from tests.e2e.support_kube import Namespace, holds_for
from tests.e2e.support_output import assert_exact, assert_is_prefix_of, assert_state

pytestmark = pytest.mark.alone
REFUSED = re.compile("forbidden|unauthorized", re.IGNORECASE)
TO_LET_GO = [("get", "streamjobs.penstock.dev"), ("patch", "streamjobs.penstock.dev")]
"""What `MAY` has of the rights outside: a namespace that is deleted takes those inside along."""


@dataclass(frozen=True)
class Limited:
    """A release beside the cluster's, which rests meanwhile, and namespaces inside and outside."""

    release: Release
    shop: Namespace
    billing: Namespace
    elsewhere: Namespace

    def log(self) -> list[str]:
        """The lines that its operator has told so far; the pod is still its first."""
        selector = f"app.kubernetes.io/instance={self.release.name}"
        (pod,) = Namespace(self.release.namespace).list("pod", selector)
        assert not any(c["restartCount"] for c in pod["status"]["containerStatuses"])
        text = Namespace(self.release.namespace).run("logs", pod["metadata"]["name"])
        return text.splitlines()


@pytest.fixture
def limited(new_namespace: Callable[[], Namespace]) -> Iterator[Limited]:
    """Such a release; afterwards it is gone and the cluster's operator is back."""
    values = Release().values()
    home, shop, billing, elsewhere = (new_namespace() for _ in range(4))
    found = Limited(Release("streams-penstock", home.name), shop, billing, elsewhere)
    own = {"crds": {"enabled": False}, "watchNamespaces": [shop.name, billing.name]}
    gone = ("uninstall", found.release.name, "--no-hooks", "--ignore-not-found", "--wait")
    with no_operator():
        try:
            found.release.install({**values, **own})
            yield found
        finally:
            found.release.helm(*gone)


def test_an_operator_of_two_namespaces_does_all_there_and_touches_nothing_else(
    limited: Limited, bucket: str
) -> None:
    job = _job(limited.shop, bucket, "oracle", rescale={"cooldown": "0s"})
    other = _job(limited.billing, bucket, "other", parallelism=1)
    outside = _job(limited.elsewhere, bucket, "outside", parallelism=1)
    outside.apply()
    other.apply()
    job.start()
    assert job.status()["lastCheckpoint"]["path"].startswith(f"s3://{bucket}/checkpoints/")
    job.annotate(savepoint="by-annotation")
    assert_state(job.wait_for_receipt("savepoint", "by-annotation")["path"])
    pods = job.uids("worker")
    job.scale(3)
    job.wait_for_parallelism(3)
    assert pods.items() <= job.uids("worker").items()
    assert_exact(job.wait_for_output(500))
    job.apply(parameters={"version": "2"})
    assert_exact(job.wait_for_version("2"))
    other.wait_for_output()

    for one in (job, other):
        before = {s["metadata"]["name"] for s in one.namespace.list("savepoint")}
        one.delete()
        last = {s["metadata"]["name"] for s in one.namespace.list("savepoint")} - before
        assert_is_prefix_of(one.assert_exact(), one.wait_for_savepoint(last.pop()))

    _assert_untouched(outside)
    told = limited.log()
    assert [line for line in told if REFUSED.search(line)] == []
    assert [line for line in told if outside.namespace.name in line] == []


def test_outside_its_account_may_read_and_patch_our_kinds_and_nothing_else(
    limited: Limited,
) -> None:
    release, inside = limited.release, (limited.shop.name, limited.billing.name)
    for namespace in inside:
        assert release.allowed(MAY, namespace) == MAY
        assert release.allowed(MAY_NOT, namespace) == []
    for namespace in (limited.elsewhere.name, None):
        assert release.allowed(MAY + MAY_NOT, namespace) == TO_LET_GO
    names = [f"namespaces:{name}" for name in (*inside, "kube-system", limited.elsewhere.name)]
    may_get = [what for _, what in release.allowed([("get", n) for n in names], "default")]
    assert may_get == names[:3]


def test_it_goes_when_its_own_jobs_are_gone_and_others_are_taken_up_by_the_clusters_operator(
    limited: Limited, bucket: str
) -> None:
    inside, outside = (
        _job(namespace, bucket, name, parallelism=1)
        for name, namespace in (("inside", limited.shop), ("outside", limited.elsewhere))
    )
    outside.apply()
    inside.start()
    assert limited.release.ask_helm("uninstall", limited.release.name).returncode != 0
    check = f"job/{limited.release.name}-uninstall-check"
    said = Namespace(limited.release.namespace).run("logs", check)
    assert f"{limited.shop.name}/inside" in said
    assert f"kubectl delete streamjobs --all --namespace {limited.shop.name}" in said
    assert "outside" not in said
    limited.release.keep()
    inside.delete()
    limited.release.helm("uninstall", limited.release.name, "--wait")
    _assert_untouched(outside)
    operators(1)
    outside.wait_for_stable()
    assert_exact(outside.wait_for_output(500))


def _assert_untouched(job: Job) -> None:
    def is_untouched() -> bool:
        found = job.object()
        assert found is not None
        is_bare = "status" not in found and "finalizers" not in found["metadata"]
        return is_bare and not job.namespace.list("pod")

    holds_for(is_untouched, "nobody has touched it", 5)


def _job(namespace: Namespace, bucket: str, name: str, **spec: Any) -> Job:
    """With a place of its own for what comes out."""
    return Job(namespace, bucket, name, {"parameters": {"output": f"s3://{bucket}/{name}"}, **spec})
