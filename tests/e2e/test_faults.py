"""Pods, nodes, volumes and the object store go in the middle of things; what comes out is exact."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from tests.e2e.support_faults import (
    ANYONE,
    Relay,
    is_ready,
    kill,
    kill_coordinator,
    kill_operator,
    kill_worker,
    no_operator,
    node_without_s3,
    pause,
    unpause,
)
from tests.e2e.support_job import Job
from tests.e2e.support_kube import Namespace, wait_for
from tests.e2e.support_output import (
    assert_exact,
    assert_is_prefix_of,
    assert_state,
    assert_versions,
    keys,
)

whoever = pytest.mark.parametrize("kill_one", ANYONE.values(), ids=ANYONE)


@pytest.fixture
def running(new_job: Callable[..., Job]) -> Job:
    """A job that is stable and commits."""
    job = new_job(rescale={"cooldown": "0s"})
    job.start()
    return job


@pytest.fixture
def relay(namespace: Namespace) -> Relay:
    """This namespace's own way to S3."""
    return Relay(namespace)


@pytest.fixture
def relayed(new_job: Callable[..., Job], relay: Relay) -> Job:
    """The same job, which reaches S3 by the relay alone."""
    job = new_job(rescale={"cooldown": "0s"}, storageCredentials={"endpoint": relay.URL})
    job.start()
    return job


@pytest.mark.ci
def test_a_worker_that_is_killed_comes_back_and_no_record_is_lost(running: Job) -> None:
    attempt = running.status()["attempt"]
    kill_worker(running)
    running.wait_for_attempt(after=attempt)
    assert_exact(running.wait_for_output(1000))


@pytest.mark.ci
def test_a_coordinator_that_is_killed_comes_back_from_the_log_alone(running: Job) -> None:
    attempt = running.status()["attempt"]
    kill_coordinator(running)
    running.wait_for_attempt(after=attempt)
    assert_exact(running.wait_for_output(1000))


def test_without_the_operator_jobs_run_on_and_what_was_asked_is_done_later(running: Job) -> None:
    with no_operator():
        kill_worker(running)
        running.annotate(savepoint="while-nobody-looks")
        assert_exact(running.wait_for_output(1000))
    assert_state(running.wait_for_receipt("savepoint", "while-nobody-looks")["path"])
    running.assert_exact()


@whoever
def test_a_savepoint_survives_the_end_of_anyone(
    relayed: Job, relay: Relay, kill_one: Callable[[Job], None]
) -> None:
    with relay.silence():
        relayed.annotate(savepoint="in-the-middle")
        _wait_for_order(relayed, "savepoint")
        kill_one(relayed)
    receipt = relayed.wait_for_receipt("savepoint", "in-the-middle", "Done", "Failed")
    if receipt["phase"] == "Done":
        assert_state(receipt["path"])
    else:
        assert receipt["error"]
    relayed.wait_for_phase("Running")
    assert_exact(relayed.wait_for_output(1000))


@whoever
def test_the_stop_of_an_upgrade_survives_the_end_of_anyone(
    relayed: Job, relay: Relay, kill_one: Callable[[Job], None]
) -> None:
    old = relayed.status()["stableRevision"]
    relayed.hold_at("Stopping")
    relayed.apply(parameters={"version": "2"})
    with _under_way(relayed, relay, "Stopping", "stop"):
        kill_one(relayed)
    _assert_upgraded(relayed, old)


@whoever
def test_a_version_that_is_on_probation_survives_the_end_of_anyone(
    relayed: Job, relay: Relay, kill_one: Callable[[Job], None]
) -> None:
    old = relayed.status()["stableRevision"]
    relayed.hold_at("Stabilizing")
    relayed.apply(parameters={"version": "2"})
    relayed.wait_for_step("Stabilizing")
    with relay.silence():
        # No checkpoint can be completed, so it cannot prove itself before this.
        relayed.let_go()
        kill_one(relayed)
    _assert_upgraded(relayed, old)


@whoever
def test_a_rescale_survives_the_end_of_anyone(
    relayed: Job, relay: Relay, kill_one: Callable[[Job], None]
) -> None:
    relayed.hold_at("Moving")
    relayed.scale(3)
    with _under_way(relayed, relay, "Moving", "rescale"):
        kill_one(relayed)
    relayed.wait_for_parallelism(3)
    assert_exact(relayed.wait_for_output(1000))


def test_an_operator_that_is_killed_before_each_step_of_an_upgrade_goes_on_with_it(
    running: Job,
) -> None:
    old = running.status()["stableRevision"]
    running.hold_at("Checking")
    running.apply(parameters={"version": "2"})
    _kill_operator_at(running, "Checking", "Stopping", "Replacing", "Starting", "Stabilizing")
    _assert_upgraded(running, old)


def test_an_operator_that_is_killed_before_each_step_of_a_rescale_goes_on_with_it(
    running: Job,
) -> None:
    pods = running.uids()
    running.hold_at("AddingWorkers")
    running.scale(3)
    _kill_operator_at(running, "AddingWorkers", "Moving", "RemovingWorkers")
    assert running.wait_for_parallelism(3)["rescale"]["failures"] == 0
    assert pods.items() <= running.uids().items()
    assert_exact(running.wait_for_output(500))


def test_a_coordinator_that_is_killed_between_the_stop_and_its_answer_stops_once(
    running: Job,
) -> None:
    old = running.status()["stableRevision"]
    running.hold_at("Replacing")
    running.apply(parameters={"version": "2"})
    running.wait_for(
        lambda _: running.coordinator().get("phase") == "Stopped", "it has stopped, unseen"
    )
    kill_coordinator(running)
    lines = running.assert_exact()
    running.let_go()
    status = running.wait_for_revision(old)
    assert_is_prefix_of(lines, status["restoredFrom"])
    _assert_upgraded(running, old)
    assert len(_savepoint_folders(running)) == 1


def test_a_volume_that_is_lost_is_restored_from_the_store(running: Job) -> None:
    (name, *_) = sorted(running.uids("worker"))
    claim = f"state-{name}"
    old = running.namespace.get("pvc", claim)
    assert old
    running.namespace.run("delete", "pvc", claim, "--wait=false")
    kill(running.namespace.name, name)
    wait_for(
        lambda: (
            (running.namespace.get("pvc", claim) or old)["metadata"]["uid"]
            != old["metadata"]["uid"]
        ),
        "another volume",
    )
    running.wait_for_phase("Running")
    assert_exact(running.wait_for_output(1000))


def test_s3_may_be_away_for_a_minute(relayed: Job, relay: Relay) -> None:
    relay.close()
    before = len(relayed.output())
    time.sleep(60)  # the minute is what is tested
    assert_exact(relayed.output())
    relay.open()
    wait_for(lambda: len(relayed.output()) > before + 1000, "it commits again")
    assert_exact(relayed.output())


@pytest.fixture
def node() -> Iterator[str]:
    """A node that can be paused, without S3; it goes on in the end."""
    name = node_without_s3()
    yield name
    unpause(name)


@pytest.mark.alone
def test_a_node_that_is_paused_and_comes_back_is_no_harm(
    new_job: Callable[..., Job], node: str
) -> None:
    # Its workers are missed before the node is, by a coordinator that does not stand still with them.
    job = new_job(
        worker={"podTemplate": _on("In", node), "heartbeatTimeout": "10s"},
        coordinator={"podTemplate": _on("NotIn", node)},
    )
    attempt = job.start()["attempt"]
    pause(node)
    wait_for(lambda: not is_ready(node), "the node is missed")
    unpause(node)
    wait_for(lambda: is_ready(node), "the node is back")
    job.wait_for_attempt(after=attempt)
    assert_exact(job.wait_for_output(1000))


def _on(operator: str, node: str) -> dict[str, Any]:
    """A pod template that wants this node, or any other."""
    chosen = {"key": "kubernetes.io/hostname", "operator": operator, "values": [node]}
    terms = {"nodeSelectorTerms": [{"matchExpressions": [chosen]}]}
    rule = {"requiredDuringSchedulingIgnoredDuringExecution": terms}
    return {"spec": {"affinity": {"nodeAffinity": rule}}}


@contextmanager
def _under_way(job: Job, relay: Relay, step: str, order: str) -> Iterator[None]:
    """The order of the step at which the job is held is taken, and cannot be done meanwhile."""
    job.wait_for_step(step)
    with relay.silence():
        job.let_go()
        _wait_for_order(job, order)
        yield


def _wait_for_order(job: Job, kind: str) -> None:
    def is_under_way() -> bool:
        orders = job.coordinator().get("requests", ())
        return any(o["kind"] == kind and o["phase"] == "Running" for o in orders)

    wait_for(is_under_way, f"the coordinator has begun a {kind}")


def _kill_operator_at(job: Job, *steps: str) -> None:
    """Once at each of these steps, of which the job is held at the first; then it is let go."""
    for step, following in zip(steps, (*steps[1:], None), strict=True):
        job.wait_for_step(step)
        kill_operator()
        if following:
            job.hold_at(following)
    job.let_go()


def _assert_upgraded(job: Job, old: str) -> None:
    """Version 2 is stable, and went on exactly where version 1 ended."""
    assert job.wait_for_revision(old)["upgrade"]["step"] == "Stable"
    lines = job.wait_for_output(500)
    assert_exact(lines)
    assert_versions(lines, "1", "2")


def _savepoint_folders(job: Job) -> set[str]:
    found = keys(f"s3://{job.bucket}/savepoints/")
    return {key.rpartition("/")[0] for key in found if key.endswith("_metadata")}
