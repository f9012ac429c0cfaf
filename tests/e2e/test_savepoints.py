"""Savepoints: by annotation, as objects, and what becomes of their files."""

from collections.abc import Callable
from typing import Any

import pytest
from tests.e2e.support_job import Job
from tests.e2e.support_kube import Namespace, holds_for, wait_for
from tests.e2e.support_output import assert_state, keys


@pytest.mark.ci
def test_one_request_id_makes_one_savepoint_however_often_it_is_annotated(
    new_job: Callable[..., Job],
) -> None:
    job = new_job()
    job.apply()
    job.wait_for_output(1000)
    job.annotate(savepoint="first")
    first = job.wait_for_receipt("savepoint", "first")
    assert_state(first["path"])
    job.annotate(savepoint="first")
    job.namespace.run("annotate", "streamjob", job.name, "penstock.dev/savepoint-")
    job.annotate(savepoint="first")
    holds_for(lambda: len(_savepoints(job.namespace)) == 1, "one savepoint", 5)
    job.annotate(savepoint="second")
    second = job.wait_for_receipt("savepoint", "second")
    assert second["path"] != first["path"]
    assert_state(second["path"])
    paths = {s["status"]["path"] for s in _savepoints(job.namespace)}
    assert paths == {first["path"], second["path"]}
    job.assert_exact()


def test_annotations_of_two_kinds_stand_side_by_side(new_job: Callable[..., Job]) -> None:
    job = new_job()
    job.apply()
    job.wait_for_output(500)
    job.annotate(savepoint="one", checkpoint="one")
    savepoint, checkpoint = (
        job.wait_for_receipt("savepoint", "one"),
        job.wait_for_receipt("checkpoint", "one"),
    )
    job.annotate(checkpoint="two")
    assert job.wait_for_receipt("checkpoint", "two")["path"] != checkpoint["path"]
    assert job.wait_for_receipt("savepoint", "one") == savepoint
    assert len(_savepoints(job.namespace)) == 1


def test_a_savepoint_object_is_taken_told_and_outlives_its_job(
    new_job: Callable[..., Job],
) -> None:
    job = new_job(deletion={"policy": "Retain"})
    job.apply()
    job.wait_for_output(500)
    job.ask_savepoint("by-hand")
    path = job.wait_for_savepoint("by-hand")
    assert_state(path)
    row = job.namespace.run("get", "savepoints").splitlines()[1].split()
    assert row[:3] == ["by-hand", job.name, "Completed"]
    job.delete()
    holds_for(lambda: job.namespace.get("savepoint", "by-hand"), "the savepoint", 5)
    assert_state(path)


def test_a_savepoint_that_is_deleted_leaves_its_files_unless_it_says_otherwise(
    new_job: Callable[..., Job],
) -> None:
    job = new_job()
    job.apply()
    job.wait_for_output(500)
    job.ask_savepoint("kept")
    job.ask_savepoint("disposed", disposeOnDelete=True)
    kept, disposed = (job.wait_for_savepoint(n) for n in ("kept", "disposed"))
    for name in ("kept", "disposed"):
        job.namespace.run("delete", "savepoint", name, "--wait=false")
        wait_for(lambda n=name: not job.namespace.get("savepoint", n), f"{name} is gone")
    assert keys(disposed) == []
    assert_state(kept)
    job.wait_for_output(500)
    job.assert_exact()


def test_a_savepoint_of_a_suspended_job_fails_with_a_sentence_or_waits_for_it(
    new_job: Callable[..., Job],
) -> None:
    job = new_job()
    job.apply()
    job.wait_for_output(500)
    job.apply(desiredState="Suspended")
    job.wait_for_phase("Suspended")
    job.ask_savepoint("while-suspended")
    # Either answer is one; a savepoint that runs without a job is none.
    found = wait_for(
        lambda: (job.namespace.get("savepoint", "while-suspended") or {}).get("status"),
        "it has a status",
    )
    assert found["phase"] in {"Pending", "Failed"}
    if found["phase"] == "Failed":
        assert found["error"]
        return
    job.apply(desiredState="Running")
    assert_state(job.wait_for_savepoint("while-suspended"))


def _savepoints(namespace: Namespace) -> list[dict[str, Any]]:
    return namespace.list("savepoint")
