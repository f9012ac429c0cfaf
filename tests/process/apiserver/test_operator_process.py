"""`penstock-operator run` as a process, against a real API server, with a coordinator that is played.

No controllers run here: what would make pods of a Deployment or StatefulSet is played as well.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import yaml
from tests.process.apiserver.conftest import ROOT
from tests.process.apiserver.deeds import (
    SPEC,
    WORKER_IMAGE,
    eventually,
    make_bench,
    playing_coordinator,
)
from tests.process.apiserver.server import running as server_running

from penstock_operator.cluster.kube import DEPLOYMENTS, PODS, STATEFUL_SETS, STREAM_JOBS
from penstock_operator.resources.names import API_VERSION, FINALIZER_SAVEPOINT

pytestmark = [pytest.mark.process, pytest.mark.kube]

COMMAND = [sys.executable, "-m", "penstock_operator.handlers"]


@dataclass
class Operator:
    process: subprocess.Popen
    log: Path
    port: int

    def lines(self) -> list[dict]:
        return [json.loads(line) for line in self.log.read_text().splitlines() if line[:1] == "{"]

    def said(self, event: str) -> list[dict]:
        return [line for line in self.lines() if line["event"] == event]

    def get(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as e:
            return e.code, e.read().decode()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return sock.getsockname()[1]


@contextlib.contextmanager
def operator(server, namespace, coordinator_url, tmp_path, name="operator", watched=None):
    log, port = tmp_path / f"{name}.log", free_port()
    arguments = [
        f"--namespaces={watched or namespace}",
        f"--worker-image={WORKER_IMAGE}",
        f"--operator-namespace={namespace}",
        f"--coordinator-url={coordinator_url}",
        f"--http-port={port}",
    ]
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [*COMMAND, "run", *arguments], env=server.environment(), stderr=stderr
        )
    try:
        yield Operator(process, log, port)
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def coordinator():
    with playing_coordinator() as played:
        yield played


@pytest.fixture
def bench(api_server, namespace, coordinator):
    return make_bench(api_server, namespace, coordinator)


@pytest.fixture
def running(api_server, namespace, coordinator, tmp_path):
    with operator(api_server, namespace, coordinator.url, tmp_path) as found:
        eventually(lambda: found.said("operator runs"), within_s=60)
        yield found


def run_coordinators_pod(bench) -> None:
    """What the Deployment's controller and a kubelet do."""
    deployment = eventually(lambda: bench.find(DEPLOYMENTS, "words-coordinator"))
    template = deployment["spec"]["template"]
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "words-coordinator-0",
            "namespace": bench.namespace,
            "labels": template["metadata"]["labels"],
        },
        "spec": template["spec"],
    }
    bench.kube.create(pod)
    status = {"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}}
    bench.kube.merge(PODS, bench.namespace, "words-coordinator-0", status, part="status")


def waiting_status(bench) -> dict:
    job = bench.observe().observed.job
    return {
        "jobId": f"{bench.namespace}.words",
        "name": "words",
        "phase": "Waiting",
        "revision": job.revision,
        "attempt": 0,
        "parallelism": 2,
        "maxParallelism": 128,
    }


def phase_of(bench):
    return (bench.find(STREAM_JOBS, "words") or {}).get("status", {}).get("phase")


def test_an_applied_streamjob_gets_what_it_runs_on_and_is_ordered_to_start(
    bench, running, coordinator
):
    bench.make()
    run_coordinators_pod(bench)
    assert eventually(lambda: bench.find(STATEFUL_SETS, "words-worker"))["spec"]["replicas"] == 2
    coordinator.status = waiting_status(bench)
    path, _, body = eventually(lambda: coordinator.orders and coordinator.orders[0])
    assert path == "/penstock/v1/start"
    assert (body["parallelism"], body["revision"]) == (2, coordinator.status["revision"])
    coordinator.status |= {"phase": "Running", "attempt": 1, "logSeq": 1}
    eventually(lambda: phase_of(bench) == "Running")
    starts = {order["requestId"] for path, _, order in coordinator.orders if path.endswith("start")}
    assert len(starts) == 1, "sent again it is the same order"


def test_an_operator_that_was_killed_goes_on_where_it_was(
    bench, api_server, namespace, coordinator, tmp_path
):
    with operator(api_server, namespace, coordinator.url, tmp_path, "first") as first:
        bench.make()
        run_coordinators_pod(bench)
        os.kill(first.process.pid, signal.SIGKILL)
        first.process.wait()
    coordinator.status = waiting_status(bench)
    with operator(api_server, namespace, coordinator.url, tmp_path, "second"):
        eventually(lambda: coordinator.orders, within_s=60)
        token = {token for _, token, _ in coordinator.orders}
        assert len(token) == 1, "the token is derived from the same key"


def test_what_somebody_deletes_is_back_at_once(bench, running):
    bench.make()
    eventually(lambda: bench.find(DEPLOYMENTS, "words-coordinator"))
    bench.server.kubectl("delete", "deployment", "words-coordinator", "-n", bench.namespace)
    eventually(lambda: bench.find(DEPLOYMENTS, "words-coordinator"), within_s=20)


def test_a_wrong_spec_is_told_in_the_conditions_and_nothing_is_made(bench, running):
    bench.make(SPEC | {"coordinator": {"resources": {"requests": {"cpu": "many"}}}})

    def spec_valid():
        status = (bench.find(STREAM_JOBS, "words") or {}).get("status", {})
        found = [c for c in status.get("conditions", []) if c["type"] == "SpecValid"]
        return found and found[0]

    condition = eventually(spec_valid)
    assert condition["status"] == "False"
    assert "its pods are refused by the API server" in condition["message"]
    assert bench.find(DEPLOYMENTS, "words-coordinator") is None


def test_health_and_figures_are_served(bench, running):
    bench.make()
    eventually(lambda: bench.find(DEPLOYMENTS, "words-coordinator"))
    assert running.get("/healthz")[0] == 200
    status, page = running.get("/metrics")
    assert status == 200
    assert 'penstock_kubernetes_reconciles_total{outcome="done"}' in page
    assert "penstock_kubernetes_streamjobs{phase=" in page
    assert running.get("/else")[0] == 404


def test_the_operator_ends_soon_when_it_is_told_to(running):
    running.process.send_signal(signal.SIGTERM)
    assert running.process.wait(timeout=30) == 0
    assert running.said("operator ends")


def test_nothing_unexpected_was_logged_and_kopf_wrote_nothing(bench, running):
    bench.make()
    eventually(lambda: bench.find(DEPLOYMENTS, "words-coordinator"))
    metadata = bench.find(STREAM_JOBS, "words")["metadata"]
    assert not [a for a in metadata.get("annotations", {}) if "kopf" in a]
    assert [line for line in running.lines() if "exception" in line] == []


@pytest.fixture
def check(api_server, namespace):
    def run():
        return subprocess.run(
            [*COMMAND, "check-uninstall", f"--namespaces={namespace}"],
            env=api_server.environment(),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


def test_uninstalling_is_refused_while_savepoints_wait_for_the_operator(
    api_server, namespace, check
):
    def make(name, finalizers):
        metadata = {"name": name, "namespace": namespace, "finalizers": finalizers}
        spec = {"jobName": "words", "disposeOnDelete": True}
        manifest = {"apiVersion": API_VERSION, "kind": "Savepoint"}
        given = manifest | {"metadata": metadata, "spec": spec}
        api_server.kubectl("apply", "-f", "-", given=given)

    make("free", [])
    assert check().returncode == 0
    make("held", [FINALIZER_SAVEPOINT])
    refused = check()
    assert refused.returncode == 1
    assert f"1 Savepoint would be left without an operator: {namespace}/held" in refused.stderr
    assert f"kubectl delete savepoint held --namespace {namespace}\n" in refused.stderr


def test_uninstalling_is_refused_while_there_are_streamjobs(bench, check, namespace):
    assert check().returncode == 0
    bench.make()
    refused = check()
    assert refused.returncode == 1
    assert f"1 StreamJob would be left without an operator: {namespace}/words" in refused.stderr
    assert f"kubectl delete streamjobs --all --namespace {namespace}\n" in refused.stderr


def test_an_operator_that_waits_for_the_crds_is_healthy(
    bench, api_server, namespace, coordinator, tmp_path
):
    def set_version(version):
        patch = {"metadata": {"annotations": {"penstock.dev/schema-version": version}}}
        what = ("patch", "crd", "savepoints.penstock.dev", "--type=merge")
        api_server.kubectl(*what, "-p", json.dumps(patch))

    known = api_server.get("crd", "savepoints.penstock.dev")["metadata"]["annotations"]
    set_version("0")
    try:
        with operator(api_server, namespace, coordinator.url, tmp_path) as waiting:
            eventually(lambda: waiting.said("waiting"), within_s=60)
            assert waiting.get("/healthz")[0] == 200
            set_version(known["penstock.dev/schema-version"])
            eventually(lambda: waiting.said("operator runs"), within_s=60)
    finally:
        set_version(known["penstock.dev/schema-version"])


@pytest.fixture
def strict(kube_programs, tmp_path):
    """A server of its own that grants only what is granted."""
    folder = tmp_path / "strict"
    folder.mkdir()
    with server_running(folder, authorization="RBAC") as server:
        crds = [yaml.safe_load(path.read_text()) for path in (ROOT / "crds").glob("*.yaml")]
        server.kubectl("apply", "--server-side", "-f", "-", given=crds)
        names = [f"crd/{crd['metadata']['name']}" for crd in crds]
        server.kubectl("wait", "--for=condition=Established", "--timeout=30s", *names)
        yield server


def test_a_namespace_without_rights_is_passed_over_until_there_are_some(
    strict, coordinator, tmp_path
):
    may, may_not = strict.new_namespace(), strict.new_namespace()
    strict.kubectl("create", "serviceaccount", "penstock", "-n", may)
    account = f"--serviceaccount={may}:penstock"
    kinds = "--resource=namespaces,customresourcedefinitions.apiextensions.k8s.io"
    strict.kubectl("create", "clusterrole", "looks", "--verb=get", kinds)
    strict.kubectl("create", "clusterrolebinding", "looks", "--clusterrole=looks", account)
    grant = ("create", "rolebinding", "all", "--clusterrole=cluster-admin", account, "-n")
    strict.kubectl(*grant, may)
    kubeconfig = yaml.safe_load(strict.kubeconfig.read_text())
    token = strict.kubectl("create", "token", "penstock", "-n", may).stdout.strip()
    kubeconfig["users"][0]["user"] = {"token": token}
    (tmp_path / "account").write_text(yaml.safe_dump(kubeconfig))
    account_of = replace(strict, kubeconfig=tmp_path / "account")

    inside, outside = (make_bench(strict, place, coordinator) for place in (may, may_not))
    places = f"{may},{may_not}"
    with operator(account_of, may, coordinator.url, tmp_path, watched=places) as found:
        (told,) = eventually(lambda: found.said("watched namespaces"), within_s=60)
        assert (told["watched"], told["refused"]) == ([may], [may_not])
        inside.make()
        outside.make()
        eventually(lambda: phase_of(inside), within_s=60)
        assert phase_of(outside) is None
        strict.kubectl(*grant, may_not)
        eventually(lambda: phase_of(outside), within_s=120)
        told = eventually(lambda: found.said("watched namespaces")[1:], within_s=120)
        assert told[0]["refused"] == []
