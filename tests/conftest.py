"""Settings that hold for every test, and which things outside of Python must not be missing."""

import os
from collections.abc import Generator

import pytest
from hypothesis import settings

# Tests do not time: a busy machine is no failure.
settings.register_profile("penstock", deadline=None)
settings.load_profile("penstock")

OUTSIDE = {
    "s3": "a real S3 server, by AWS_ENDPOINT_URL and credentials",
    "helm": "Helm's program on PATH",
    "kube": "etcd, kube-apiserver and kubectl on PATH or in the folder PENSTOCK_KUBE_BIN",
    "e2e": "a Kubernetes cluster with the chart installed, by KUBECONFIG; make e2e brings one",
}
"""What some tests need beside Python and make, each the name of a marker."""

_REQUIRED = set(os.environ.get("PENSTOCK_REQUIRE", "").replace(",", " ").split())


def pytest_configure(config: pytest.Config) -> None:
    """A name that nobody knows would let a skip pass unseen."""
    if unknown := _REQUIRED - OUTSIDE.keys():
        raise pytest.UsageError(
            f"PENSTOCK_REQUIRE names {', '.join(sorted(unknown))}; known are {', '.join(OUTSIDE)}"
        )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A skip of a test is a failure where what it needs is required."""
    report = yield
    missing = [name for name in sorted(_REQUIRED) if item.get_closest_marker(name)]
    if report.skipped and missing and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        what = ", ".join(f"{name} ({OUTSIDE[name]})" for name in missing)
        report.longrepr = f"skipped, and PENSTOCK_REQUIRE asks for {what}: {report.longrepr}"
    return report
