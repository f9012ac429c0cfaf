"""What the coordinator's REST promises."""

import re

import pytest

from penstock.core import paths
from penstock.network import frames
from penstock.runtime import snapshot_files
from penstock.spec.orders import JobStatus, RequestStatus

pytestmark = [pytest.mark.process, pytest.mark.usefixtures("seldom")]

JID = paths.flink_id("counting")


@pytest.fixture
def running(coordinator, worker):
    coordinator.order_start()
    coordinator.wait_for_phase("Running")
    return coordinator


def test_everything_but_reading_asks_for_the_token(running):
    for token in (None, "", "wrong"):
        for method, path in [
            ("POST", "/penstock/v1/stop"),
            ("POST", "/penstock/v1/nowhere"),
            ("PATCH", f"/v1/jobs/{JID}?mode=cancel"),
        ]:
            code, body = running.call(method, path, {"requestId": "x"}, token=token)
            assert code == 401, (method, path, body)
    code, body = running.call("POST", "/penstock/v1/stop", {"requestId": "x"}, token=None)
    assert body["error"]["what"] == "the job's token is missing or wrong"
    for path in ("/penstock/v1/status", "/v1/jobs", "/metrics", "/"):
        assert running.call("GET", path, token=None)[0] == 200, path
    assert running.status()["phase"] == "Running"


def test_the_same_request_id_gets_the_same_answer_and_does_nothing_twice(running, worker):
    first = running.post("/penstock/v1/checkpoints?wait=20", {"requestId": "c1"})
    again = running.post("/penstock/v1/checkpoints?wait=20", {"requestId": "c1"})
    assert first == again
    assert RequestStatus.model_validate(first[1]).path is not None
    assert len(worker.of(frames.Trigger)) == 1
    assert running.get("/penstock/v1/requests/c1") == first[1]


def test_an_order_that_takes_long_is_running_until_it_is_asked_about_again(running, worker):
    worker.stalls = True
    code, body = running.post("/penstock/v1/checkpoints", {"requestId": "c1"})
    assert (code, body["phase"]) == (202, "Running")
    assert [r["requestId"] for r in running.status()["requests"]] == ["start-1", "c1"]


def test_a_second_start_is_refused_while_the_job_runs(running):
    code, body = running.order_start("start-2")
    assert (code, body["phase"], body["error"]) == (409, "Failed", "the job runs already")
    assert body["refusal"] == "Outdated"


def test_a_body_with_mistakes_is_refused_naming_each(running):
    code, body = running.post("/penstock/v1/stop", {"requestid": "x", "drain": "perhaps"})
    assert code == 400
    assert {"requestId: Field required", "requestid: Extra inputs are not permitted"} <= set(
        body["error"]["what"].split("; ")
    )
    assert running.post("/penstock/v1/stop?wait=soon", {"requestId": "x"})[0] == 400


def test_a_snapshot_that_is_not_there_is_told_in_three_parts(coordinator):
    code, body = coordinator.order_start(restore={"from": "chk-7"})
    assert code == 400
    assert body["error"] == {
        "what": "chk-7 is not a checkpoint that counting keeps",
        "where": f"{coordinator.storage.checkpoints.url}/counting",
        "fix": "kept are: none",
        "exitCode": 2,
        "refusal": "Rejected",
    }


def test_an_order_from_a_world_that_has_gone_on_is_refused_as_outdated(coordinator):
    code, body = coordinator.order_start(after=7)
    assert (code, body["error"]["refusal"]) == (400, "Outdated")


def test_the_status_tells_workers_operators_and_their_records(running, wait):
    wait(lambda: running.status()["operators"][0]["recordsIn"], "metrics")
    status = JobStatus.model_validate(running.status())
    assert [worker.id for worker in status.workers] == [0]
    by_id = {operator.id: operator for operator in status.operators}
    assert (by_id["lines"].records_in, by_id["lines"].records_out) == (7, 5)
    assert by_id["lines"].kind == "source"
    assert (status.max_parallelism, status.log_seq) == (128, 1)


def test_metrics_are_in_the_format_of_prometheus(running, wait):
    running.post("/penstock/v1/checkpoints?wait=20", {"requestId": "c1"})
    text = wait(
        lambda: (
            'records_in_total{job="counting",operator="lines"} 7.0'
            in (found := running.get("/metrics"))
            and found
        ),
        "metrics of operators",
    )
    for line in (
        'penstock_checkpoints_completed_total{job="counting"} 1.0',
        'penstock_job_phase{job="counting",phase="Running"} 1.0',
        'penstock_workers{job="counting"} 1.0',
        'penstock_restarts_total{job="counting"} 0.0',
        'penstock_last_checkpoint_new_bytes{job="counting"} 10.0',
    ):
        assert line in text.splitlines(), line


def test_the_page_shows_the_job_without_foreign_parts(running):
    code, page = running.call("GET", "/")
    assert code == 200
    assert "counting" in page
    assert not re.search(r"https?://|<script", page)


# ── Flink's paths ───────────────────────────────────────────────────────────────────────────────


def test_flinks_paths_tell_the_job_by_its_hashed_identifier(running):
    assert running.get("/v1/jobs") == {"jobs": [{"id": JID, "status": "RUNNING"}]}
    job = running.get(f"/v1/jobs/{JID}")
    assert (job["jid"], job["name"], job["state"]) == (JID, "counting", "RUNNING")
    assert len(job["vertices"]) == len(running.status()["operators"])
    code, body = running.call("GET", f"/v1/jobs/{'0' * 32}")
    assert code == 404
    assert "is not here" in body["errors"][0]


def test_a_savepoint_by_flinks_paths_is_asked_about_until_it_is_there(running, wait):
    code, body = running.post(f"/v1/jobs/{JID}/savepoints", {"cancel-job": False})
    assert code == 202
    path = f"/v1/jobs/{JID}/savepoints/{body['request-id']}"
    wait(lambda: running.get(path)["status"]["id"] == "COMPLETED", "the savepoint")
    location = running.get(path)["operation"]["location"]
    assert snapshot_files.resolve(running.storage, location) is not None
    checkpoints = running.get(f"/v1/jobs/{JID}/checkpoints")
    assert checkpoints["latest"]["savepoint"]["external_path"] == location
    assert checkpoints["counts"]["completed"] == 2


def test_a_checkpoint_by_flinks_paths_gives_its_number(running, wait):
    trigger = "0123456789abcdef0123456789abcdef"
    running.post(f"/v1/jobs/{JID}/checkpoints", {"triggerId": trigger})
    path = f"/v1/jobs/{JID}/checkpoints/{trigger}"
    wait(lambda: running.get(path)["status"]["id"] == "COMPLETED", "the checkpoint")
    number = running.get(path)["operation"]["checkpointId"]
    details = running.get(f"/v1/jobs/{JID}/checkpoints/details/{number}")
    assert (details["status"], details["className"]) == ("COMPLETED", "completed")
    assert details["external_path"].endswith(f"/chk-{number}")


def test_what_flinks_paths_cannot_do_is_said(running):
    for body in ({"target-directory": "/elsewhere"}, {"formatType": "NATIVE"}):
        code, answer = running.post(f"/v1/jobs/{JID}/savepoints", body)
        assert code == 400, body
        assert "errors" in answer
