"""Pods, nodes, volumes and the object store go in the middle of things; what comes out is exact."""

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.e2e.support_job import Job
from tests.e2e.support_kube import OPERATOR, OPERATOR_NAMESPACE, kubectl, wait_for
from tests.e2e.support_output import (
    assert_exact,
    assert_is_prefix_of,
    assert_state,
    assert_versions,
    keys,
)


def kill(namespace: str, *names: str) -> None:
    """SIGKILL to all processes of these pods: no grace, no goodbye."""
    kubectl("-n", namespace, "delete", "pod", *names, "--grace-period=0", "--force", "--wait=false")


def kill_operator() -> None:
    """The Kubernetes operator's pod; its Deployment makes another."""
    pods = kubectl("-n", OPERATOR_NAMESPACE, "get", "pods", "-l", OPERATOR, "-o", "name").split()
    kill(OPERATOR_NAMESPACE, *(pod.removeprefix("pod/") for pod in pods))


def kill_coordinator(job: Job) -> None:
    """The coordinator's pod."""
    kill(job.namespace.name, *job.uids("coordinator"))


def kill_worker(job: Job) -> None:
    """One worker's pod."""
    kill(job.namespace.name, min(job.uids("worker")))


KILLS: dict[str, Callable[[Job], None]] = {
    "worker": kill_worker,
    "coordinator": kill_coordinator,
    "operator": lambda _: kill_operator(),
}
whoever = pytest.mark.parametrize("kill_one", KILLS.values(), ids=KILLS)


@pytest.fixture
def running(new_job: Callable[..., Job]) -> Job:
    """A job that is stable and commits."""
    job = new_job(rescale={"cooldown": "0s"})
    job.apply()
    job.wait_for_stable()
    job.wait_for_output(500)
    return job


@pytest.mark.ci
def test_a_worker_that_is_killed_comes_back_and_no_record_is_lost(running: Job) -> None:
    attempt = running.status()["attempt"]
    kill_worker(running)
    running.wait_for(lambda s: s["attempt"] > attempt, "another attempt")
    running.wait_for_phase("Running")
    assert_exact(running.wait_for_output(1000))


@pytest.mark.ci
def test_a_coordinator_that_is_killed_comes_back_from_the_log_alone(running: Job) -> None:
    attempt = running.status()["attempt"]
    kill_coordinator(running)
    running.wait_for(lambda s: s["attempt"] > attempt, "another attempt")
    running.wait_for_phase("Running")
    assert_exact(running.wait_for_output(1000))


def test_without_the_operator_jobs_run_on_and_what_was_asked_is_done_later(running: Job) -> None:
    try:
        _operators(0)
        wait_for(lambda: not _operator_pods(), "no operator")
        kill_worker(running)
        running.annotate(savepoint="while-nobody-looks")
        assert_exact(running.wait_for_output(1000))
    finally:
        _operators(1)
    status = _done(running, "savepoint", "while-nobody-looks")
    assert_state(status["path"])
    running.assert_exact()


@whoever
def test_a_savepoint_survives_the_end_of_anyone(
    running: Job, kill_one: Callable[[Job], None]
) -> None:
    running.annotate(savepoint="in-the-middle")
    running.wait_for(lambda s: "savepoint" in s.get("requests", {}), "the request is taken up")
    kill_one(running)
    receipt = _done_or_failed(running, "savepoint", "in-the-middle")
    if receipt["phase"] == "Done":
        assert_state(receipt["path"])
    else:
        assert receipt["error"]
    running.wait_for_phase("Running")
    assert_exact(running.wait_for_output(1000))


@whoever
def test_an_upgrade_survives_the_end_of_anyone(
    running: Job, kill_one: Callable[[Job], None]
) -> None:
    old = running.status()["stableRevision"]
    running.apply(parameters={"version": "2"})
    running.wait_for(lambda s: (s.get("move") or {}).get("step") == "Stopping", "it stops")
    kill_one(running)
    running.wait_for(lambda s: s.get("revision") != old, "the new revision")
    status = running.wait_for_stable()
    assert status["revision"] != old
    lines = running.wait_for_output(500)
    assert_exact(lines)
    assert_versions(lines, "1", "2")


@whoever
def test_a_rescale_survives_the_end_of_anyone(
    running: Job, kill_one: Callable[[Job], None]
) -> None:
    running.scale(3)
    running.wait_for(lambda s: (s.get("move") or {}).get("kind") == "Rescale", "it begins")
    kill_one(running)
    running.wait_for(
        lambda s: s["phase"] == "Running" and s["parallelism"] == 3 and not s.get("move"),
        "parallelism 3",
    )
    assert_exact(running.wait_for_output(1000))


@pytest.mark.parametrize("step", ["Checking", "Stopping", "Replacing", "Starting", "Stabilizing"])
def test_an_operator_that_is_killed_before_a_step_of_an_upgrade_goes_on_with_it(
    running: Job, step: str
) -> None:
    running.annotate(hold_at=step)
    running.apply(parameters={"version": "2"})
    running.wait_for(lambda s: (s.get("move") or {}).get("step") == step, f"it is held at {step}")
    kill_operator()
    wait_for(lambda: len(_operator_pods()) == 1, "another operator")
    running.namespace.run("annotate", "streamjob", running.name, "penstock.dev/hold-at-")
    running.wait_for_stable()
    lines = running.wait_for_output(500)
    assert_exact(lines)
    assert_versions(lines, "1", "2")


def test_a_coordinator_that_is_killed_between_the_stop_and_its_answer_stops_once(
    running: Job,
) -> None:
    running.annotate(hold_at="Replacing")
    running.apply(parameters={"version": "2"})
    running.wait_for(
        lambda _: running.coordinator().get("phase") == "Stopped", "it has stopped, unseen"
    )
    kill_coordinator(running)
    lines = running.assert_exact()
    running.namespace.run("annotate", "streamjob", running.name, "penstock.dev/hold-at-")
    status = running.wait_for_stable()
    assert_is_prefix_of(lines, status["restoredFrom"])
    lines = running.wait_for_output(500)
    assert_exact(lines)
    assert_versions(lines, "1", "2")
    stops = [k for k in _savepoint_folders(running) if k]
    assert len(stops) == 1


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


@pytest.fixture
def relayed(new_job: Callable[..., Job], namespace: Any) -> Job:
    """A job that reaches S3 over a relay in its own namespace, so that S3 can be away for it alone."""
    image = kubectl(
        "-n", OPERATOR_NAMESPACE, "get", "deploy", "-l", OPERATOR, "-o",
        "jsonpath={.items[0].spec.template.spec.containers[0].image}",
    )  # fmt: skip
    namespace.apply(*_relay(image))
    namespace.run("rollout", "status", "deployment/relay", "--timeout=60s")
    return new_job(storageCredentials={"endpoint": "http://relay:7070"})


def test_s3_may_be_away_for_a_minute(relayed: Job) -> None:
    relayed.apply()
    relayed.wait_for_stable()
    relayed.wait_for_output(500)
    relayed.namespace.run("scale", "deployment/relay", "--replicas=0")
    before = len(relayed.output())
    time.sleep(60)  # the minute is what is tested
    assert_exact(relayed.output())
    relayed.namespace.run("scale", "deployment/relay", "--replicas=1")
    wait_for(lambda: len(relayed.output()) > before + 1000, "it commits again")
    assert_exact(relayed.output())


@pytest.fixture
def paused_node(running: Job) -> Iterator[str]:
    """A node with a worker, but not S3's; it comes back in the end."""
    if subprocess.run(["docker", "info"], capture_output=True, check=False).returncode:
        pytest.skip("nodes are paused by docker, which is not here")
    others = {pod["spec"]["nodeName"] for pod in _pods_of("penstock-s3")}
    nodes = [p["spec"]["nodeName"] for p in running.pods("worker")]
    free = [n for n in nodes if n not in others]
    if not free:
        pytest.skip("every node with a worker has S3 as well")
    subprocess.run(["docker", "pause", free[0]], check=True, capture_output=True)
    yield free[0]
    unpause(free[0])


@pytest.mark.alone
def test_a_node_that_is_paused_and_comes_back_is_no_harm(running: Job, paused_node: str) -> None:
    attempt = running.status()["attempt"]
    wait_for(lambda: not _is_ready(paused_node), "the node is missed")
    unpause(paused_node)
    wait_for(lambda: _is_ready(paused_node), "the node is back")
    running.wait_for(
        lambda s: s["attempt"] > attempt and s["phase"] == "Running", "another attempt"
    )
    assert_exact(running.wait_for_output(1000))


def unpause(node: str) -> None:
    """Let it go on; a node that does is left alone."""
    subprocess.run(["docker", "unpause", node], check=False, capture_output=True)


def _relay(image: str) -> list[dict[str, Any]]:
    code = (
        "import asyncio\n"
        "async def pump(r, w):\n"
        "    try:\n"
        "        while data := await r.read(65536):\n"
        "            w.write(data); await w.drain()\n"
        "    finally:\n"
        "        w.close()\n"
        "async def serve(r, w):\n"
        "    far_r, far_w = await asyncio.open_connection('s3.penstock-s3', 7070)\n"
        "    await asyncio.gather(pump(r, far_w), pump(far_r, w), return_exceptions=True)\n"
        "async def main():\n"
        "    async with await asyncio.start_server(serve, '', 7070) as server:\n"
        "        await server.serve_forever()\n"
        "asyncio.run(main())\n"
    )
    labels = {"app": "relay"}
    security = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    container = {
        "name": "relay",
        "image": image,
        "command": ["python", "-c", code],
        "readinessProbe": {"tcpSocket": {"port": 7070}, "periodSeconds": 1},
        "securityContext": security,
    }
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "relay"},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [container], "terminationGracePeriodSeconds": 0},
            },
        },
    }
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "relay"},
        "spec": {"selector": labels, "ports": [{"port": 7070}]},
    }
    return [deployment, service]


def _operators(replicas: int) -> None:
    kubectl("-n", OPERATOR_NAMESPACE, "scale", "deploy", "-l", OPERATOR, f"--replicas={replicas}")


def _pods_of(space: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(kubectl("-n", space, "get", "pods", "-o", "json"))[
        "items"
    ]
    return found


def _operator_pods() -> list[str]:
    return [
        p["metadata"]["name"]
        for p in _pods_of(OPERATOR_NAMESPACE)
        if p["metadata"]["labels"].get("app.kubernetes.io/name") == "penstock-operator"
        and "deletionTimestamp" not in p["metadata"]
    ]


def _is_ready(node: str) -> bool:
    path = '{.status.conditions[?(@.type=="Ready")].status}'
    return kubectl("get", "node", node, "-o", f"jsonpath={path}") == "True"


def _done_or_failed(job: Job, kind: str, request: str) -> dict[str, Any]:
    def has_ended(status: dict[str, Any]) -> bool:
        receipt = status.get("requests", {}).get(kind, {})
        return receipt.get("id") == request and receipt.get("phase") in {"Done", "Failed"}

    found: dict[str, Any] = job.wait_for(has_ended, f"{kind} {request} has ended")["requests"][kind]
    return found


def _done(job: Job, kind: str, request: str) -> dict[str, Any]:
    found = _done_or_failed(job, kind, request)
    assert found["phase"] == "Done", found
    return found


def _savepoint_folders(job: Job) -> set[str]:
    found = keys(f"s3://{job.bucket}/savepoints/")
    return {key.rpartition("/")[0] for key in found if key.endswith("_metadata")}
