"""Fixtures with a real API server; tests that use them are marked `process` and `kube`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from tests.process.apiserver.server import BIN_VARIABLE, ApiServer, missing_programs, running

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="session")
def kube_programs() -> None:
    """Skips where the programs of an API server cannot be found."""
    if missing := missing_programs():
        pytest.skip(
            f"no {', '.join(missing)}: an API server needs them on PATH or in {BIN_VARIABLE}"
        )


@pytest.fixture(scope="session")
def empty_api_server(
    kube_programs: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ApiServer]:
    """An API server that everybody with its token may do everything on; one for all tests."""
    with running(tmp_path_factory.mktemp("api-server")) as server:
        yield server


@pytest.fixture(scope="session")
def api_server(empty_api_server: ApiServer) -> ApiServer:
    """The same with our kinds installed."""
    crds = [yaml.safe_load(path.read_text()) for path in sorted((ROOT / "crds").glob("*.yaml"))]
    assert crds
    empty_api_server.kubectl("apply", "--server-side", "-f", "-", given=crds)
    names = [f"crd/{crd['metadata']['name']}" for crd in crds]
    empty_api_server.kubectl("wait", "--for=condition=Established", "--timeout=30s", *names)
    return empty_api_server


@pytest.fixture
def namespace(api_server: ApiServer) -> str:
    """A namespace of the test's own; it stays behind."""
    return api_server.new_namespace()
