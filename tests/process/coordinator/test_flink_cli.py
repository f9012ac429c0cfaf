"""Flink's own command line against a coordinator."""

import os
import re
import subprocess

import pytest

from penstock.core import paths
from penstock.runtime import snapshot_files

FLINK = os.environ.get("PENSTOCK_FLINK_BIN")

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(
        FLINK is None, reason="PENSTOCK_FLINK_BIN names no `flink`; Flink's client is not tried"
    ),
    pytest.mark.usefixtures("seldom"),
]

TOKEN = "correct horse"


@pytest.fixture
def flink(coordinator, worker):
    coordinator.order_start()
    coordinator.wait_for_phase("Running")

    def run(*arguments, token=TOKEN):
        environment = {**os.environ, "FLINK_REST_CLIENT_HEADERS": f"Authorization:Bearer {token}"}
        done = subprocess.run(
            [FLINK, arguments[0], "-m", f"127.0.0.1:{coordinator.rest_port}", *arguments[1:]],
            env=environment,
            check=False,
            capture_output=True,
            text=True,
            timeout=120,
        )
        return done.returncode, done.stdout + done.stderr

    return run


JID = paths.flink_id("counting")


def test_list_shows_the_running_job(flink):
    code, text = flink("list")
    assert code == 0, text
    assert re.search(rf"{JID} : counting \(RUNNING\)", text), text


def test_savepoint_tells_where_it_lies(flink, coordinator):
    code, text = flink("savepoint", JID)
    assert code == 0, text
    (path,) = re.findall(r"Savepoint completed. Path: (\S+)", text)
    assert snapshot_files.resolve(coordinator.storage, path) is not None
    assert coordinator.status()["phase"] == "Running"


def test_stop_ends_the_job_with_a_savepoint(flink, coordinator):
    code, text = flink("stop", JID)
    assert code == 0, text
    (path,) = re.findall(r"Savepoint completed. Path: (\S+)", text)
    assert snapshot_files.resolve(coordinator.storage, path) is not None
    coordinator.wait_for_phase("Stopped")


def test_cancel_ends_the_job(flink, coordinator):
    code, text = flink("cancel", JID)
    assert code == 0, text
    coordinator.wait_for_phase("Cancelled")


def test_a_wrong_token_is_told(flink, coordinator):
    code, text = flink("savepoint", JID, token="wrong")
    assert code != 0
    assert "the job's token is missing or wrong" in text, text
