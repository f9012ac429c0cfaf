"""Servers for the contracts: a real S3 server where one is named, moto's in this process elsewhere."""

import os
import uuid
from collections.abc import Callable, Iterator

import boto3
import pytest

_REAL_S3 = os.environ.get("AWS_ENDPOINT_URL")


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """URL of an S3 server; the environment names it and its credentials while the tests run."""
    if _REAL_S3:
        yield _REAL_S3
        return
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", endpoint)
        patch.setenv("AWS_ACCESS_KEY_ID", "anyone")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "anything")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.delenv("AWS_PROFILE", raising=False)
        yield endpoint
    server.stop()


@pytest.fixture
def real_s3(s3_endpoint: str) -> str:
    """The same, where moto is no stand-in: skips without a real one, fails where one is required."""
    if _REAL_S3:
        return s3_endpoint
    sentence = "no real S3 server: set AWS_ENDPOINT_URL and credentials"
    if "s3" in os.environ.get("PENSTOCK_REQUIRE", "").replace(",", " ").split():
        pytest.fail(sentence)
    pytest.skip(sentence)


@pytest.fixture
def new_bucket(s3_endpoint: str) -> Callable[[], str]:
    """Makes a bucket of its own at each call."""

    def make() -> str:
        name = f"penstock-{uuid.uuid4().hex[:16]}"
        boto3.Session().client("s3", endpoint_url=s3_endpoint).create_bucket(Bucket=name)
        return name

    return make
