"""A StreamJob whose code changes: forward with its state, or back without a trace in the output."""

from collections.abc import Callable
from typing import Any

import pytest
from tests.e2e.support_job import ORACLE, Job
from tests.e2e.support_kube import holds_for
from tests.e2e.support_output import assert_exact, assert_versions

INCOMPATIBLE = ORACLE.replace(
    "penstock.ValueState(int, default=0)", 'penstock.ValueState(str, default="")'
)
NO_PYTHON = ORACLE + "\nthis is no Python\n"


@pytest.mark.ci
def test_a_good_upgrade_goes_on_from_the_state_of_the_old_version(
    new_job: Callable[..., Job],
) -> None:
    job = new_job()
    old = job.start(1000)
    pods = job.uids("worker")
    job.apply(parameters={"version": "2"})
    status = job.wait_for_revision(old["stableRevision"])
    lines = job.wait_for_output(500)
    assert_exact(lines)
    assert_versions(lines, "1", "2")
    assert set(pods.values()).isdisjoint(job.uids("worker").values())
    assert status["upgrade"]["from"] == old["stableRevision"]
    assert status["upgrade"]["to"] == status["stableRevision"]
    assert status["upgrade"]["snapshot"] == status["restoredFrom"]
    assert "savepoint" in status["restoredFrom"]
    assert status["history"][-1]["move"] == "Upgrade"
    assert job.condition("Stalled")["status"] == "False"


@pytest.mark.ci
def test_an_upgrade_that_cannot_read_the_state_is_refused_and_the_old_version_runs_on(
    new_job: Callable[..., Job],
) -> None:
    job = new_job()
    job.start()
    pods = job.uids()
    job.apply(script=INCOMPATIBLE)
    found = job.wait_for_condition("StateCompatible", "False")
    assert "seen" in found["message"]
    job.wait_for_output(500)
    assert job.uids() == pods
    assert_versions(job.assert_exact(), "1")
    # The way out is to write what fits.
    job.apply(script=ORACLE, parameters={"version": "2"})
    job.wait_for_version("2")
    job.wait_for_condition("StateCompatible", "True")
    assert_versions(job.assert_exact(), "1", "2")


def test_code_that_cannot_be_imported_is_refused_and_the_old_version_runs_on(
    new_job: Callable[..., Job],
) -> None:
    job = new_job()
    job.start()
    pods = job.uids()
    job.apply(script=NO_PYTHON)
    job.wait_for_condition("Stalled", "True")
    job.wait_for_output(500)
    assert job.uids() == pods
    assert_versions(job.assert_exact(), "1")


def test_an_image_that_cannot_be_pulled_leaves_the_old_version_running(
    new_job: Callable[..., Job],
) -> None:
    job = new_job()
    job.start()
    pods = job.uids()
    job.apply(image="penstock-nowhere:1.0.0")
    # Pulling has two minutes of grace.
    found = job.wait_for_condition("Stalled", "True")
    assert "penstock-nowhere:1.0.0" in found["message"]
    job.wait_for_output(500)
    assert job.uids() == pods
    assert_versions(job.assert_exact(), "1")


@pytest.mark.ci
def test_a_version_that_crashes_at_once_is_rolled_back_and_has_written_nothing(
    new_job: Callable[..., Job],
) -> None:
    job = new_job()
    old = job.start()
    job.apply(parameters={"version": "bad", "fails_if": "/"})
    _rolled_back(job, old["stableRevision"])
    lines = job.wait_for_output(500)
    assert_exact(lines)
    assert_versions(lines, "1")
    # The failed revision is remembered; another one is a new try.
    failed = job.status()["failedRevision"]
    holds_for(lambda: job.status()["failedRevision"] == failed, "it is not tried again", 5)
    job.apply(parameters={"version": "2", "fails_if": None})
    job.wait_for_version("2")
    assert_versions(job.assert_exact(), "1", "2")
    job.wait_for_condition("Stalled", "False")


def test_a_version_that_crashes_after_its_first_checkpoint_is_rolled_back_without_a_trace(
    new_job: Callable[..., Job],
) -> None:
    job = new_job()
    old = job.start()
    fuse = "/tmp/fuse"
    # It is not proven before it crashes, however slow the machine is.
    probation = {"stableAfter": {"checkpoints": 1000}}
    job.apply(upgrade=probation, parameters={"version": "bad", "fails_if": fuse})
    job.wait_for(
        lambda _: (job.coordinator().get("hold") or {}).get("completed", 0) >= 1,
        "the bad version completes a checkpoint",
    )
    bad = job.coordinator()["revision"]
    assert bad != old["stableRevision"]
    for pod in job.uids("worker"):
        job.namespace.run("exec", pod, "--", "touch", fuse)
    assert _rolled_back(job, old["stableRevision"])["failedRevision"] == bad
    lines = job.wait_for_output(500)
    assert_exact(lines)
    assert_versions(lines, "1")


def test_a_failed_revision_is_tried_again_when_it_is_asked_for(
    new_job: Callable[..., Job],
) -> None:
    job = new_job()
    old = job.start()
    job.apply(parameters={"version": "bad", "fails_if": "/"})
    status = _rolled_back(job, old["stableRevision"])
    job.annotate(retry="once-more")
    job.wait_for(
        lambda s: len(_moves(s, "Rollback")) > len(_moves(status, "Rollback")),
        "it was tried and rolled back again",
    )
    lines = job.wait_for_output(500)
    assert_exact(lines)
    assert_versions(lines, "1")


def test_last_state_goes_on_from_the_newest_checkpoint(new_job: Callable[..., Job]) -> None:
    job = new_job(upgrade={"mode": "LastState"})
    old = job.start()
    job.apply(parameters={"version": "2"})
    status = job.wait_for_revision(old["stableRevision"])
    assert "chk-" in status["restoredFrom"]
    lines = job.wait_for_output(500)
    assert_exact(lines)
    assert_versions(lines, "1", "2")


def test_stateless_begins_anew_because_it_was_asked_for(new_job: Callable[..., Job]) -> None:
    job = new_job()
    old = job.start()
    job.apply(upgrade={"mode": "Stateless"}, parameters={"version": "2"})
    job.wait_for_revision(old["stableRevision"])
    lines = job.wait_for_version("2")
    for version in ("1", "2"):
        assert_exact([line for line in lines if line.version == version])


def test_live_settings_restart_nothing(new_job: Callable[..., Job]) -> None:
    job = new_job()
    job.start()
    pods = job.uids()
    before = job.status()
    job.apply(checkpoints={"interval": "1s", "timeout": "5m"})
    job.wait_for(
        lambda s: (
            s["observedGeneration"] >= job.generation()
            and job.coordinator()["settings"]["checkpoints"]["interval"] == "1s"
        ),
        "the coordinator has the new interval",
    )
    job.wait_for_output(1000)
    status = job.status()
    assert job.uids() == pods
    assert (status["attempt"], status["revision"]) == (before["attempt"], before["revision"])
    job.assert_exact()


def _rolled_back(job: Job, to: str) -> dict[str, Any]:
    job.wait_for_condition("Stalled", "True", "RolledBack")
    job.wait_for_condition("Ready", "True")
    status = job.wait_for(
        lambda s: s["phase"] == "Running" and s["revision"] == to, "the old revision runs"
    )
    assert status["failedRevision"] not in (None, to)
    return status


def _moves(status: dict[str, Any], move: str) -> list[dict[str, Any]]:
    return [entry for entry in status.get("history", ()) if entry["move"] == move]
