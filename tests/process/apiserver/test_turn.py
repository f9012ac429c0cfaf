"""One turn of a job on a real API server, with decisions of the test's own."""

import json
import time
from datetime import timedelta

import pytest
from tests.process.apiserver.deeds import eventually, make_bench, playing_coordinator

from penstock.core.errors import Rejected
from penstock_operator.cluster.kube import SAVEPOINTS, STREAM_JOBS, Forbidden, NamespaceGoes
from penstock_operator.cluster.loop.metrics import Metrics
from penstock_operator.cluster.loop.schema import SchemaGate
from penstock_operator.cluster.loop.turn import IDLE, Turns
from penstock_operator.cluster.observe import JobKey
from penstock_operator.reconcile import effects
from penstock_operator.reconcile.effects import Decision
from penstock_operator.resources.names import FINALIZER_SAVEPOINT
from penstock_operator.resources.status import Phase, StreamJobStatus

pytestmark = [pytest.mark.process, pytest.mark.kube]

LATER = timedelta(seconds=17)


@pytest.fixture
def coordinator():
    with playing_coordinator() as played:
        yield played


@pytest.fixture
def bench(api_server, namespace, coordinator):
    return make_bench(api_server, namespace, coordinator)


@pytest.fixture
def key(bench):
    return JobKey(bench.namespace, bench.name)


def turns_of(bench, *decided: effects.Effect, status=None, meanwhile=lambda: None) -> Turns:
    """Decides always the same; `meanwhile` happens between observing and acting."""

    def reconcile(observed, now):
        meanwhile()
        return Decision(status or observed.job.status, decided, LATER)

    schema = SchemaGate(bench.kube)
    return Turns(bench.observer, reconcile, bench.tools, schema=schema, metrics=Metrics())


def events(bench) -> list[tuple[str, str]]:
    found = bench.server.get("events", "-n", bench.namespace)["items"]
    return [(e["reason"], e["message"]) for e in found]


def test_the_next_look_is_when_the_decision_said(bench, key):
    bench.make()
    assert turns_of(bench, effects.Announce("Told", "once")).turn(key) == LATER
    assert events(bench) == [("Told", "once")]


def test_a_streamjob_that_is_gone_is_not_looked_at_again(bench, key):
    assert turns_of(bench).turn(key) is None


def test_a_streamjob_that_went_on_meanwhile_is_looked_at_at_once(bench, key):
    bench.make()
    turns = turns_of(
        bench,
        effects.Announce("Told", "too late"),
        status=StreamJobStatus(phase=Phase.RUNNING),
        meanwhile=lambda: bench.patch({"metadata": {"annotations": {"at": str(time.time())}}}),
    )
    assert turns.turn(key) == timedelta(0)
    assert events(bench) == []
    assert bench.observe().observed.job.status.phase is Phase.PENDING


def test_what_a_person_must_change_is_told_by_an_event(bench, key):
    bench.make()
    revision = bench.observe().observed.job.revision
    bench.server.kubectl("create", "serviceaccount", "words-job", "-n", bench.namespace)
    with pytest.raises(Rejected):
        turns_of(bench, effects.EnsureShared(revision)).turn(key)
    ((reason, message),) = events(bench)
    assert reason == "ReconcileFailed"
    assert message.startswith("the ServiceAccount words-job is there already")
    assert "choose another name" in message


def test_what_cannot_be_seen_is_told_by_an_event_too(bench, key, monkeypatch):
    bench.make()
    ask = bench.kube._ask

    def refused(method, path, **more):
        if path.endswith("/pods"):
            raise Forbidden("no right to list pods", where=path, fix="see its rights")
        return ask(method, path, **more)

    monkeypatch.setattr(bench.kube, "_ask", refused)
    with pytest.raises(Forbidden):
        turns_of(bench).turn(key)
    assert events(bench) == [("ReconcileFailed", "no right to list pods. see its rights")]


def test_a_namespace_that_goes_is_no_error(bench, key):
    bench.make()
    revision = bench.observe().observed.job.revision
    bench.do(effects.SetFinalizer(present=True))
    # Without controllers it stays in Terminating.
    bench.server.kubectl("delete", "namespace", bench.namespace, "--wait=false")
    told = effects.Announce("Told", "what nobody can read")
    assert turns_of(bench, told).turn(key) == LATER, "an Event that cannot be written stops nothing"
    look_again = turns_of(bench, effects.EnsureShared(revision)).turn(key)
    assert look_again is not None
    assert look_again < LATER
    with pytest.raises(NamespaceGoes):
        bench.do(effects.EnsureShared(revision))
    bench.patch({"spec": {"parameters": {"n": 1}}})
    assert turns_of(bench).turn(key) == look_again, "nor can a new revision be tried"


def lose_the_rights_inside(bench, monkeypatch) -> None:
    """What is left is in the ClusterRole: our kinds, without their status, and the namespace."""
    ask = bench.kube._ask

    def refused(method, path, **more):
        is_ours = "/penstock.dev/" in path and not path.endswith("/status") and method != "POST"
        if is_ours or "/namespaces/" not in path or path.endswith(f"/namespaces/{bench.namespace}"):
            return ask(method, path, **more)
        raise Forbidden("no right", where=path)

    monkeypatch.setattr(bench.kube, "_ask", refused)


def test_a_namespace_that_took_the_operators_rights_along_waits_for_no_finalizer(
    bench, key, monkeypatch
):
    bench.make()
    orphan(bench)
    bench.do(effects.SetFinalizer(present=True))
    lose_the_rights_inside(bench, monkeypatch)
    turns = turns_of(bench)
    with pytest.raises(Forbidden):
        turns.turn(key)
    assert bench.find(STREAM_JOBS, "words")["metadata"]["finalizers"], "only its rights are gone"
    # Without controllers nothing in it is deleted, and it stays in Terminating.
    bench.server.kubectl("delete", "namespace", bench.namespace, "--wait=false")
    turns.turn(key)
    assert bench.find(STREAM_JOBS, "words")["metadata"]["finalizers"], "it is not deleted yet"
    for what in ("streamjob/words", "savepoint/left"):
        bench.server.kubectl("delete", what, "-n", bench.namespace, "--wait=false")
    assert turns.turn(key) is not None
    assert bench.find(STREAM_JOBS, "words") is None
    assert bench.find(SAVEPOINTS, "left") is None
    assert turns.turn(key) is None


def test_beneath_an_older_schema_nothing_is_done_and_that_is_said(bench, key):
    bench.make()

    def set_version(version):
        patch = {"metadata": {"annotations": {"penstock.dev/schema-version": version}}}
        bench.server.kubectl(
            "patch", "crd", "savepoints.penstock.dev", "--type=merge", "-p", json.dumps(patch)
        )

    known = bench.server.get("crd", "savepoints.penstock.dev")["metadata"]["annotations"]
    set_version("0")
    try:
        assert turns_of(bench, effects.Announce("Told", "never")).turn(key) == IDLE
    finally:
        set_version(known["penstock.dev/schema-version"])
    assert events(bench) == []
    line = json.loads(bench.log.getvalue().splitlines()[-1])
    assert line["level"] == "error"
    assert "savepoints.penstock.dev has version 0" in line["error"]
    assert "apply the CRDs" in line["error"]


def orphan(bench) -> None:
    manifest = {
        "apiVersion": "penstock.dev/v1alpha1",
        "kind": "Savepoint",
        "metadata": {
            "name": "left",
            "namespace": bench.namespace,
            "finalizers": [FINALIZER_SAVEPOINT],
        },
        "spec": {"jobName": bench.name, "disposeOnDelete": True},
    }
    bench.server.kubectl("apply", "-f", "-", given=manifest)


def test_a_savepoint_whose_job_is_gone_is_let_go_and_that_is_told(bench, key):
    orphan(bench)
    turns = turns_of(bench)
    assert turns.turn(key) is None, "nobody has deleted it"
    assert bench.find(SAVEPOINTS, "left")["status"] == {"phase": "Pending"}
    bench.server.kubectl("delete", "savepoint", "left", "-n", bench.namespace, "--wait=false")
    assert turns.turn(key) is not None
    eventually(lambda: bench.find(SAVEPOINTS, "left") is None)
    ((reason, message),) = events(bench)
    assert reason == "SavepointOrphaned"
    assert "its job is gone" in message
    assert turns.turn(key) is None
