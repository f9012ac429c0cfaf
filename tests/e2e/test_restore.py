"""Where a job's state comes from when it is told."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from tests.e2e.support_job import Job
from tests.e2e.support_output import Line, assert_exact, keys, records_before

from penstock.snapshots import Snapshot


def test_a_new_job_begins_from_a_savepoint_by_its_name(new_job: Callable[..., Job]) -> None:
    job = new_job()
    path = _savepoint(job, "before-the-sale")
    copy = _copy_of(job, {"from": "before-the-sale"})
    copy.apply()
    assert copy.wait_for_phase("Running")["restoredFrom"] == path
    _assert_continues(copy.wait_for_output(), path)
    assert_exact(job.wait_for_output(500))


def test_a_new_job_begins_from_a_retained_checkpoint_by_its_path(
    new_job: Callable[..., Job],
) -> None:
    job = new_job()
    job.start(1000)
    job.annotate(checkpoint="this-one")
    job.wait_for_receipt("checkpoint", "this-one")
    job.apply(deletion={"policy": "Retain"})
    job.delete()
    path = _newest_checkpoint(job)
    copy = _copy_of(job, {"from": path})
    copy.apply()
    assert copy.wait_for_phase("Running")["restoredFrom"] == path
    _assert_continues(copy.wait_for_output(), path)


def test_a_job_goes_back_to_the_snapshot_of_a_time(new_job: Callable[..., Job]) -> None:
    job = new_job()
    path = _savepoint(job, "early")
    taken_s = Snapshot.open(path).manifest.at_ms // 1000
    at = datetime.fromtimestamp(taken_s + 1, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    # By then every checkpoint of that second is subsumed: three are kept.
    enough = job.coordinator()["completedInAttempt"] + 6
    job.wait_for(lambda _: job.coordinator().get("completedInAttempt", 0) >= enough, "six more")
    job.apply(desiredState="Suspended")
    job.wait_for_phase("Suspended")
    # What is rewound would be written again: into another folder.
    job.apply(
        desiredState="Running",
        parameters={"output": f"s3://{job.bucket}/again"},
        restore={"from": at, "allowOlder": True},
    )
    assert job.wait_for_phase("Running")["restoredFrom"] == path
    _assert_continues(job.wait_for_output(), path)


def test_a_path_where_nothing_is_starts_nothing_and_says_what_it_looked_for(
    new_job: Callable[..., Job],
) -> None:
    job = new_job(parallelism=1)
    path = f"s3://{job.bucket}/savepoints/savepoint-that-is-not"
    job.apply(restore={"from": path})
    job.wait_for_sentence(path, "a condition names the path")
    assert job.condition("Ready")["status"] == "False"
    assert job.output() == []


def _savepoint(job: Job, name: str) -> str:
    job.apply()
    job.wait_for_output(1000)
    job.ask_savepoint(name)
    return job.wait_for_savepoint(name)


def _copy_of(job: Job, restore: dict[str, Any]) -> Job:
    parameters = {"output": f"s3://{job.bucket}/copy/out", "version": "copy"}
    spec = {"restore": restore, "parameters": parameters}
    return Job(job.namespace, job.bucket, "copy", spec)


def _assert_continues(lines: list[Line], path: str) -> None:
    """Exactly the input after the snapshot, counted on from its state."""
    before = records_before(path)
    overlap = [line for line in lines if (line.key, line.number) in before]
    assert not overlap, overlap[:5]
    firsts = [Line(key, number, number + 1, "before") for key, number in before]
    assert_exact(firsts + lines)


def _newest_checkpoint(job: Job) -> str:
    found = keys(f"s3://{job.bucket}/checkpoints/")
    manifests = [key for key in found if key.endswith("_metadata") and "chk-" in key]
    newest = max(manifests, key=lambda key: int(key.split("chk-")[1].split("/")[0]))
    return f"s3://{job.bucket}/{newest.rpartition('/')[0]}"
