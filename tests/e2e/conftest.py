"""A namespace and a bucket for each test on a cluster, and what to show when one fails.

The cluster is that of KUBECONFIG, with chart and S3 server as `make e2e` installs them. Tests run
only when they are asked for (`-m e2e`, `-m ci`): nobody's cluster is touched by the way.
"""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from tests.e2e.support_job import SECRET, Job
from tests.e2e.support_kube import KubectlError, Namespace, kubectl

S3_OUTSIDE = os.environ.get("PENSTOCK_E2E_S3", "http://127.0.0.1:30080")
_KEYS = {"AWS_ACCESS_KEY_ID": "penstock", "AWS_SECRET_ACCESS_KEY": "penstock-secret"}
_TEST_TIMEOUT_S = 1200
_FOLDER = Path(__file__).parent


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """All of this folder need a cluster, and minutes."""
    is_asked_for = re.search(r"\b(e2e|ci)\b", config.getoption("-m") or "")
    for item in items:
        if not item.path.is_relative_to(_FOLDER):
            continue
        item.add_marker("e2e")
        if not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(_TEST_TIMEOUT_S))
        if not is_asked_for:
            item.add_marker(pytest.mark.skip(reason="needs a cluster: make e2e"))


@pytest.fixture(scope="session")
def cluster() -> None:
    """Skips where there is no cluster with Penstock."""
    if not os.environ.get("KUBECONFIG"):
        pytest.skip("KUBECONFIG names no cluster: make e2e brings one")
    try:
        kubectl("get", "crd", "streamjobs.penstock.dev")
    except (KubectlError, FileNotFoundError) as e:
        pytest.skip(f"no cluster with Penstock: {e}")


@pytest.fixture
def new_namespace(
    cluster: None, request: pytest.FixtureRequest
) -> Iterator[Callable[[], Namespace]]:
    """Namespaces of this test's own, with the bucket's credentials; pods must be restricted ones."""
    made: list[Namespace] = []
    request.node.namespaces = made
    slug = re.sub(r"[^a-z0-9]+", "-", request.node.name.removeprefix("test_"))[:30].strip("-")

    def new() -> Namespace:
        namespace = Namespace(f"{slug}-{uuid.uuid4().hex[:6]}")
        made.append(namespace)
        kubectl("create", "namespace", namespace.name)
        label = "pod-security.kubernetes.io/enforce=restricted"
        kubectl("label", "namespace", namespace.name, label)
        keys = [f"--from-literal={name}={value}" for name, value in _KEYS.items()]
        namespace.run("create", "secret", "generic", SECRET, *keys)
        return namespace

    yield new
    if os.environ.get("PENSTOCK_E2E_KEEP") and request.node.has_failed:
        return
    for namespace in made:
        kubectl("delete", "namespace", namespace.name, "--wait=false", "--ignore-not-found")


@pytest.fixture
def namespace(new_namespace: Callable[[], Namespace]) -> Namespace:
    """One of them."""
    return new_namespace()


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> str:
    """A bucket of this test's own; boto3 in this process finds it."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", S3_OUTSIDE)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    for name, value in _KEYS.items():
        monkeypatch.setenv(name, value)
    name = f"e2e-{uuid.uuid4().hex[:12]}"
    boto3.client("s3").create_bucket(Bucket=name)
    return name


@pytest.fixture
def new_job(namespace: Namespace, bucket: str) -> Callable[..., Job]:
    """Jobs in the test's namespace; fields of the spec by name."""

    def new(name: str = "oracle", **spec: Any) -> Job:
        return Job(namespace, bucket, name, spec)

    return new


@pytest.fixture
def job_image() -> str:
    """The image of tests/e2e/image, in the cluster."""
    image = os.environ.get("PENSTOCK_E2E_JOB_IMAGE")
    if not image:
        pytest.skip("PENSTOCK_E2E_JOB_IMAGE names no image: make e2e builds one")
    return image


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, Any]:
    """What a person would look for in the cluster, while it is still there."""
    report = yield
    if report.when == "setup":
        item.has_failed = False
    if report.failed and report.when != "teardown":
        item.has_failed = True
        for namespace in getattr(item, "namespaces", ()):
            report.sections.append((f"namespace {namespace.name}", namespace.dump()))
    return report
