"""Orders and answers of the coordinator's REST."""

import pytest
from pydantic import ValidationError

from penstock.spec.orders import JobPhase, JobStatus, StartOrder, StopOrder

STATUS = {
    "jobId": "wordcount",
    "name": "wordcount",
    "phase": "Running",
    "revision": "0123456789ab",
    "attempt": 1,
    "parallelism": 2,
    "maxParallelism": 128,
    "lastCheckpoint": {
        "id": 8,
        "path": "wordcount/chk-8",
        "completedAtMs": 5,
        "durationMs": 201,
        "sizeBytes": 10,
        "bytesNew": 3,
    },
    "operators": [{"id": "counts", "label": "counts", "kind": "count", "parallelism": 2}],
}


def test_names_are_camel_case_in_json():
    order = StartOrder(request_id="r", after=3, revision="a", parallelism=2)
    assert order.model_dump(mode="json") == {
        "requestId": "r",
        "after": 3,
        "revision": "a",
        "parallelism": 2,
        "origin": "Log",
        "maxParallelism": None,
        "restore": None,
        "allowNonRestoredState": None,
        "hold": None,
        "settings": {},
    }
    assert StartOrder.model_validate_json(order.model_dump_json()) == order


def test_an_order_restores_as_the_manifest_says():
    order = StartOrder.model_validate(
        {"requestId": "r", "revision": "a", "parallelism": 2, "restore": {"from": "chk-8"}}
    )
    assert order.restore is not None
    assert order.restore.from_ == "chk-8"
    assert StartOrder.model_validate_json(order.model_dump_json()) == order


@pytest.mark.parametrize(
    "body", [{}, {"requestId": ""}, {"requestId": "x" * 254}, {"requestId": "r", "dran": True}]
)
def test_an_order_that_is_not_understood_whole_is_refused(body):
    with pytest.raises(ValidationError):
        StopOrder.model_validate(body)


def test_an_answer_of_a_newer_version_is_read():
    status = JobStatus.model_validate(STATUS | {"novelty": {"a": 1}})
    assert status.phase is JobPhase.RUNNING
    assert not status.phase.is_end
    assert status.last_checkpoint is not None
    assert status.last_checkpoint.bytes_new == 3
    assert JobStatus.model_validate_json(status.model_dump_json()) == status
