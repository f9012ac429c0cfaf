"""Every effect on a real API server: carried out twice it is the same; what was changed is repaired."""

import base64
import json
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from tests.process.apiserver.deeds import (
    KEY,
    SPEC,
    WORKER_IMAGE,
    eventually,
    make_bench,
    playing_coordinator,
)

from penstock.core.errors import Rejected, Retryable
from penstock.spec.orders import RefusalKind, SavepointOrder
from penstock_operator.cluster.events import About, Recorder
from penstock_operator.cluster.execute import SchemaTooOld
from penstock_operator.cluster.keys import token_of
from penstock_operator.cluster.kube import (
    BUDGETS,
    CLAIMS,
    CONFIG_MAPS,
    DEPLOYMENTS,
    NETWORK_POLICIES,
    PODS,
    REVISIONS,
    SAVEPOINTS,
    SERVICE_ACCOUNTS,
    SERVICES,
    STATEFUL_SETS,
    Conflict,
)
from penstock_operator.cluster.memory import SAME_KEPT_S, Memory
from penstock_operator.manifests import names
from penstock_operator.reconcile import effects
from penstock_operator.reconcile.observed import Refusal
from penstock_operator.resources.names import (
    FINALIZER_SAVEPOINT,
    FINALIZER_STREAMJOB,
    LABEL_REVISION,
)
from penstock_operator.resources.status import (
    Move,
    MoveKind,
    Phase,
    SavepointPhase,
    SavepointSpec,
    SavepointStatus,
    Step,
    StreamJobStatus,
)

pytestmark = [pytest.mark.process, pytest.mark.kube]

NOW = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)


@pytest.fixture
def coordinator():
    with playing_coordinator() as played:
        yield played


@pytest.fixture
def bench(api_server, namespace, coordinator):
    return make_bench(api_server, namespace, coordinator)


@pytest.fixture
def job(bench):
    bench.make()
    return bench


def accepted(job) -> str:
    """The revision of the job, kept."""
    revision = job.observe().observed.job.revision
    job.do(effects.RecordRevision(revision, 1))
    return revision


def token_name(job) -> str:
    return names.token("words", job.observe().job.uid)


def token_alone(job) -> list[str]:
    """Secrets are not read, so they are written over each time."""
    return [f"PUT {token_name(job)}"]


def all_of(revision: str, replicas: int = 2):
    return (
        effects.EnsureShared(revision),
        effects.EnsureCoordinator(revision),
        effects.EnsureWorkers(revision, replicas),
    )


def test_a_revision_keeps_what_its_pods_are_made_from(job):
    revision = accepted(job)
    kept = job.find(REVISIONS, f"words-{revision}")
    assert kept["revision"] == 1
    assert kept["data"]["image"] == WORKER_IMAGE
    assert job.writes_of(effects.RecordRevision(revision, 1)) == ["POST controllerrevisions"]
    assert job.find(REVISIONS, f"words-{revision}") == kept
    job.do(effects.RecordRevision(revision, 7))
    assert [r.number for r in job.observe().observed.revisions] == [7]
    assert job.observe().observed.accepted.parallelism == 2


def test_what_pods_were_pulled_as_is_kept_with_the_revision_beside_its_data(job):
    revision = accepted(job)
    name, data = f"words-{revision}", job.find(REVISIONS, f"words-{revision}")["data"]
    digests = (("coordinator", ("sha256:a",)), ("worker", ("sha256:a", "sha256:b")))
    for _ in range(2):
        job.do(effects.RecordDigests(name, digests))
    (seen,) = job.observe().observed.revisions
    assert (seen.image, tuple(seen.digests.items())) == (WORKER_IMAGE, digests)
    kept = job.find(REVISIONS, name)
    assert kept["data"] == data
    assert kept["metadata"]["annotations"]["penstock.dev/image-digest"] == (
        '{"coordinator": ["sha256:a"], "worker": ["sha256:a", "sha256:b"]}'
    )
    job.do(effects.RecordRevision(revision, 7))
    assert job.observe().observed.revisions[0].digests == dict(digests)
    job.do(effects.ForgetRevision(name), effects.RecordDigests(name, digests))


def test_all_that_a_job_runs_on_is_made_once(job):
    revision = accepted(job)
    job.do(*all_of(revision))
    made = {
        DEPLOYMENTS: "words-coordinator",
        STATEFUL_SETS: "words-worker",
        CONFIG_MAPS: f"words-{revision}",
        SERVICE_ACCOUNTS: "words-job",
        BUDGETS: "words-worker",
        NETWORK_POLICIES: "words-job",
    }
    before = {resource: job.find(resource, name) for resource, name in made.items()}
    assert all(before.values())
    assert all(job.find(SERVICES, f"words-{part}") for part in ("coordinator", "worker"))
    for found in before.values():
        (owner,) = found["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["name"], owner["controller"]) == ("StreamJob", "words", True)
    assert job.writes_of(*all_of(revision)) == token_alone(job)
    assert {resource: job.find(resource, name) for resource, name in made.items()} == before


def test_volumes_of_a_job_from_an_older_operator_go_with_it_too_and_its_pods_stay_as_they_are(job):
    revision = accepted(job)
    job.do(*all_of(revision))
    made = job.find(STATEFUL_SETS, "words-worker")
    older = {
        "metadata": {"annotations": {names.APPLIED: "of older content"}},
        "spec": {"persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Retain"}},
    }
    job.kube.merge(STATEFUL_SETS, job.namespace, "words-worker", older)
    job.do(*all_of(revision))
    found = job.find(STATEFUL_SETS, "words-worker")
    policy = found["spec"]["persistentVolumeClaimRetentionPolicy"]
    assert policy == {"whenDeleted": "Delete", "whenScaled": "Retain"}
    assert found["spec"]["template"] == made["spec"]["template"]
    assert found["metadata"]["uid"] == made["metadata"]["uid"]


def test_the_token_is_derived_from_the_jobs_uid(job):
    revision = accepted(job)
    job.do(effects.EnsureShared(revision))
    secret = job.server.get("secret", token_name(job), "-n", job.namespace)
    expected = token_of(KEY, job.observe().job.uid)
    assert base64.b64decode(secret["data"]["token"]).decode() == expected
    version = secret["metadata"]["resourceVersion"]
    job.do(effects.EnsureShared(revision))
    again = job.server.get("secret", token_name(job), "-n", job.namespace)
    assert again["metadata"]["resourceVersion"] == version


def test_a_token_of_a_key_that_is_lost_is_written_over(job):
    revision = accepted(job)
    job.do(effects.EnsureShared(revision))
    job.tools = replace(job.tools, key=b"another")
    job.do(effects.EnsureShared(revision))
    secret = job.server.get("secret", token_name(job), "-n", job.namespace)
    expected = token_of(b"another", job.observe().job.uid)
    assert base64.b64decode(secret["data"]["token"]).decode() == expected


def test_a_secret_of_somebody_else_is_neither_changed_nor_taken_along(job):
    make = ("create", "secret", "generic", "words-token", "--from-literal=token=theirs")
    job.server.kubectl(*make, "-n", job.namespace)
    theirs = job.server.get("secret", "words-token", "-n", job.namespace)
    job.do(effects.EnsureShared(accepted(job)))
    assert job.server.get("secret", "words-token", "-n", job.namespace) == theirs


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("deployment", "words-coordinator"),
        ("statefulset", "words-worker"),
        ("service", "words-coordinator"),
        ("service", "words-worker"),
        ("secret", token_name),
        ("poddisruptionbudget", "words-worker"),
        ("networkpolicy", "words-job"),
        ("serviceaccount", "words-job"),
    ],
)
def test_what_was_deleted_is_made_again(job, kind, name):
    revision = accepted(job)
    job.do(*all_of(revision))
    name = name(job) if callable(name) else name
    job.server.kubectl("delete", kind, name, "-n", job.namespace)
    job.do(*all_of(revision))
    assert job.server.get(kind, name, "-n", job.namespace)["metadata"]["name"] == name


def test_what_was_just_seen_is_not_read_again_for_half_a_minute(job):
    clock = [1000.0]
    job.tools = replace(job.tools, memory=Memory(lambda: clock[0]))
    revision = accepted(job)
    job.do(*all_of(revision))
    assert job.writes_of(*all_of(revision)) == [], "nor is the token applied"
    job.server.kubectl("delete", "service", "words-worker", "-n", job.namespace)
    job.server.kubectl("delete", "deployment", "words-coordinator", "-n", job.namespace)
    assert job.writes_of(*all_of(revision)) == ["PATCH words-coordinator"], "what is watched"
    clock[0] += SAME_KEPT_S
    assert job.writes_of(*all_of(revision)) == [*token_alone(job), "PATCH words-worker"]


def test_replicas_that_somebody_changed_are_set_back(job):
    revision = accepted(job)
    job.do(*all_of(revision))
    job.server.kubectl("scale", "statefulset", "words-worker", "--replicas=5", "-n", job.namespace)
    assert job.observe().observed.worker_workload.replicas == 5
    job.do(effects.EnsureWorkers(revision, 2))
    assert job.observe().observed.worker_workload.replicas == 2


def test_a_larger_volume_leaves_the_claims_of_the_statefulset_alone(job):
    revision = accepted(job)
    job.do(*all_of(revision))
    job.patch({"spec": {"worker": {"volume": {"size": "20Gi"}}}})
    assert job.observe().observed.job.revision == revision
    job.do(effects.EnsureWorkers(revision, 3))
    (claim,) = job.find(STATEFUL_SETS, "words-worker")["spec"]["volumeClaimTemplates"]
    assert claim["spec"]["resources"]["requests"]["storage"] == "10Gi"
    assert job.observe().observed.worker_workload.replicas == 3


def test_another_default_image_touches_no_pod(job):
    revision = accepted(job)
    job.do(*all_of(revision))
    before = job.find(DEPLOYMENTS, "words-coordinator")
    job.tools = replace(
        job.tools, settings=replace(job.tools.settings, worker_image="registry.example/newer:2")
    )
    assert job.writes_of(*all_of(revision)) == token_alone(job)
    assert job.find(DEPLOYMENTS, "words-coordinator") == before


def test_live_fields_follow_the_spec_in_the_config_of_the_same_revision(job):
    revision = accepted(job)
    job.do(*all_of(revision))
    job.patch({"spec": {"checkpoints": {"interval": "3s"}, "parallelism": 4}})
    assert job.observe().observed.job.revision == revision
    job.do(*all_of(revision))
    text = job.find(CONFIG_MAPS, f"words-{revision}")["data"]["streamjob.yaml"]
    assert "interval: 3s" in text
    assert "parallelism: 2" in text, "parallelism goes by the coordinator's REST"


def test_an_object_that_somebody_else_made_is_not_taken_over(job):
    revision = accepted(job)
    job.server.kubectl("create", "serviceaccount", "words-job", "-n", job.namespace)
    with pytest.raises(Rejected, match="is there already and is not this StreamJob's"):
        job.do(effects.EnsureShared(revision))


def test_objects_of_the_streamjob_that_had_the_name_before_are_waited_for(job):
    revision = accepted(job)
    job.do(*all_of(revision))
    # No garbage collector runs beside this API server: what was owned stays.
    job.server.kubectl("delete", "streamjob", "words", "-n", job.namespace)
    job.make()
    observed = job.observe().observed
    assert observed.coordinator_workload is None
    assert observed.worker_workload is None
    assert observed.revisions == ()
    with pytest.raises(Retryable, match="still belongs to the StreamJob that had this name"):
        job.do(effects.EnsureCoordinator(revision))


def test_a_revision_is_forgotten_with_its_config(job):
    revision = accepted(job)
    job.do(effects.EnsureShared(revision))
    for _ in range(2):
        job.do(effects.ForgetRevision(f"words-{revision}"))
    assert job.find(REVISIONS, f"words-{revision}") is None
    assert job.find(CONFIG_MAPS, f"words-{revision}") is None


def test_a_revision_that_is_neither_kept_nor_wanted_is_not_rendered(job):
    with pytest.raises(Retryable, match="revision 0123456789ab is neither kept"):
        job.do(effects.EnsureCoordinator("0123456789ab"))


def test_the_finalizer_is_put_on_and_taken_away(job):
    for _ in range(2):
        job.do(effects.SetFinalizer(present=True))
        assert job.observe().observed.job.finalizers == (FINALIZER_STREAMJOB,)
    for _ in range(2):
        job.do(effects.SetFinalizer(present=False))
        assert job.observe().observed.job.finalizers == ()


def test_the_coordinator_is_removed_and_stays_away(job):
    revision = accepted(job)
    job.do(*all_of(revision))
    for _ in range(2):
        job.do(effects.RemoveCoordinator())
        assert job.find(DEPLOYMENTS, "words-coordinator") is None
    assert job.find(SERVICES, "words-coordinator") is not None


def test_a_pod_is_deleted_by_its_uid_alone(job):
    revision = accepted(job)
    job.do(effects.RunCheck(revision, None))
    check = job.observe().observed.check
    job.do(effects.DeletePods(((check.name, "another"),)))
    assert job.find(PODS, check.name)["metadata"]["uid"] == check.uid
    for _ in range(2):
        job.do(effects.DeletePods(((check.name, check.uid),), force=True))
        assert job.find(PODS, check.name) is None


def test_claims_are_deleted_by_name(job):
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {
            "name": "state-words-worker-3",
            "namespace": job.namespace,
            "labels": {"penstock.dev/job": "words", "penstock.dev/role": "worker"},
        },
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}},
        },
    }
    job.server.kubectl("apply", "-f", "-", given=claim)
    assert [c.ordinal for c in job.observe().observed.claims] == [3]
    for _ in range(2):
        job.do(effects.DeleteClaims(("state-words-worker-3",)))
        found = job.find(CLAIMS, "state-words-worker-3")
        assert found is None or "deletionTimestamp" in found["metadata"]


def test_a_check_pod_runs_the_new_revision_against_the_snapshot(job):
    revision = accepted(job)
    against = "s3://bucket/checkpoints/t.words/chk-7"
    job.do(effects.RunCheck(revision, against))
    check = job.observe().observed.check
    assert (check.purpose, check.against, check.has_ended) == (revision, against, False)
    (container,) = job.find(PODS, check.name)["spec"]["containers"]
    assert container["args"] == ["check", "--against", against, "-o", "json"]
    job.do(effects.RunCheck(revision, against))
    assert job.observe().observed.check.uid == check.uid


def test_a_check_against_another_snapshot_makes_a_pod_anew(job):
    revision = accepted(job)
    job.do(effects.RunCheck(revision, "latest"))
    first = job.observe().observed.check
    job.do(effects.RunCheck(revision, None))
    assert job.observe().observed.check is None, "the other one makes room"
    job.do(effects.RunCheck(revision, None))
    second = job.observe().observed.check
    assert second.uid != first.uid
    assert second.against is None


def test_what_a_check_reported_is_read_from_its_termination_message(job):
    revision = accepted(job)
    job.do(effects.RunCheck(revision, "latest"))
    name = job.observe().observed.check.name
    ended = {
        "exitCode": 0,
        "message": '{"fits": false, "what": "no operator takes counts"}',
        "reason": "Completed",
    }
    status = {
        "status": {
            "phase": "Succeeded",
            "containerStatuses": [
                {
                    "name": "penstock",
                    "image": "x",
                    "imageID": "",
                    "ready": False,
                    "restartCount": 0,
                    "state": {"terminated": ended},
                }
            ],
        }
    }
    job.kube.merge(PODS, job.namespace, name, status, part="status")
    check = job.observe().observed.check
    assert check.has_ended
    assert check.verdict == {"fits": False, "what": "no operator takes counts"}


def test_disposals_are_told_apart_by_what_they_dispose_of(job):
    revision = accepted(job)
    for _ in range(2):
        job.do(effects.RunDisposal(revision, "s3://bucket/savepoints/savepoint-a-b"))
        job.do(effects.RunDisposal(revision, None))
    found = {d.purpose for d in job.observe().observed.disposals}
    assert found == {"s3://bucket/savepoints/savepoint-a-b", "checkpoints"}


def test_an_order_goes_out_with_the_jobs_token(job, coordinator):
    job.do(effects.Send(SavepointOrder(request_id="r-1")))
    ((path, token, body),) = coordinator.orders
    assert path == "/penstock/v1/savepoints"
    assert token == f"Bearer {token_of(KEY, job.observe().job.uid)}"
    assert body == {"requestId": "r-1"}


def test_a_refused_order_is_among_what_is_observed_until_it_is_taken(job, coordinator):
    coordinator.refusal = (400, "the log has gone on")
    job.do(effects.Send(SavepointOrder(request_id="r-1")))
    said = Refusal(RefusalKind.OUTDATED, "the log has gone on; do otherwise")
    assert job.observe().observed.refusals == {"r-1": said}
    coordinator.refusal = None
    job.do(effects.Send(SavepointOrder(request_id="r-1")))
    assert job.observe().observed.refusals == {}


def test_an_order_that_cannot_be_taken_now_is_no_refusal(job, coordinator):
    coordinator.refusal = (503, "the store is away")
    job.do(effects.Send(SavepointOrder(request_id="r-1")))
    assert job.observe().observed.refusals == {}


def test_a_savepoint_is_created_with_what_is_known_of_it(job):
    spec = SavepointSpec(job_name="words")
    known = SavepointStatus(phase=SavepointPhase.COMPLETED, path="s3://b/s", started_at=NOW)
    for _ in range(2):
        job.do(effects.CreateSavepoint("words-1", spec, (("a", "b"),), known))
    (found,) = job.observe().observed.savepoints
    assert found.status == known
    assert found.annotations["a"] == "b"
    assert "ownerReferences" not in job.find(SAVEPOINTS, "words-1")["metadata"]
    job.do(effects.CreateSavepoint("words-1", spec, (), replace_path(known)))
    assert job.observe().observed.savepoints[0].status == known


def replace_path(status: SavepointStatus) -> SavepointStatus:
    return status.model_copy(update={"path": "s3://b/other"})


def test_a_savepoints_status_and_finalizer_are_levels(job):
    job.do(effects.CreateSavepoint("words-1", SavepointSpec(job_name="words")))
    status = SavepointStatus(phase=SavepointPhase.RUNNING, started_at=NOW)
    for _ in range(2):
        job.do(
            effects.WriteSavepointStatus("words-1", status),
            effects.SetSavepointFinalizer("words-1", present=True),
        )
    (found,) = job.observe().observed.savepoints
    assert (found.status, found.finalizers) == (status, (FINALIZER_SAVEPOINT,))
    assert job.writes_of(effects.WriteSavepointStatus("words-1", status)) == []
    job.do(effects.SetSavepointFinalizer("words-1", present=False))
    job.server.kubectl("delete", "savepoint", "words-1", "-n", job.namespace)
    job.do(
        effects.WriteSavepointStatus("words-1", status),
        effects.SetSavepointFinalizer("words-1", present=False),
    )


def test_the_same_words_are_one_event_that_counts(job):
    for _ in range(3):
        job.do(effects.Announce("Upgraded", "runs revision b now"))
    job.do(effects.Announce("Upgraded", "runs revision c now", is_warning=True))
    found = {(e["type"], e["message"], e["count"]) for e in events(job)}
    assert found == {
        ("Normal", "runs revision b now", 3),
        ("Warning", "runs revision c now", 1),
    }
    assert described(job) == ["runs revision b now", "runs revision c now"]


def described(job) -> list[str]:
    """The messages of Events, in the order in which a person reads them."""
    text = job.server.kubectl("describe", "streamjob", "words", "-n", job.namespace).stdout
    lines = text.partition("\nEvents:\n")[2].splitlines()[2:]
    return [re.split(r"\s{2,}", line.strip())[4] for line in lines]


def recorder(job, now: datetime) -> Recorder:
    """Of a process that has just begun, where it is always that time."""
    return Recorder(job.kube, now=lambda: now, log=job.tools.log)


@pytest.mark.parametrize("count", [4, 30])
def test_what_is_told_within_one_moment_is_read_in_the_order_in_which_it_was_told(job, count):
    job.tools = replace(job.tools, recorder=recorder(job, NOW))
    told = [f"step {number} of the story" for number in range(count)]
    job.do(*(effects.Announce("Told", message) for message in told))
    assert described(job) == told
    job.tools = replace(job.tools, recorder=recorder(job, NOW + timedelta(milliseconds=1)))
    job.do(effects.Announce("Told", "by another process in the same second"))
    assert described(job) == [*told, "by another process in the same second"]


def test_what_a_former_process_said_is_counted_on(job):
    job.do(effects.Announce("Told", "again and again"), effects.Announce("Told", "once"))
    for count in (2, 3):
        job.tools = replace(job.tools, recorder=recorder(job, datetime.now(UTC)))
        job.do(effects.Announce("Told", "again and again"))
        counts = {e["message"]: e["count"] for e in events(job)}
        assert counts == {"again and again": count, "once": 1}


def events(job) -> list[dict]:
    return job.server.get("events", "-n", job.namespace)["items"]


def test_an_event_is_one_request_and_one_that_has_expired_is_told_anew(job):
    job.do(effects.Announce("Told", "first"))

    def requests():
        job.kube.requests.clear()
        job.tools.recorder.tell(About.of(job.observe().job), effects.Announce("Told", "second"))
        return [
            request.partition(".")[0]
            for request in job.kube.requests
            if "event" in request or "words." in request
        ]

    assert requests() == ["POST events"]
    assert requests() == ["PATCH words"]
    job.server.kubectl("delete", "events", "--all", "-n", job.namespace)
    assert requests() == ["PATCH words", "POST events"]
    assert [(e["message"], e["count"]) for e in events(job)] == [("second", 1)]


def status_with_move() -> StreamJobStatus:
    move = Move(kind=MoveKind.START, step=Step.STARTING, id="m-1", started_at=NOW, since=NOW)
    return StreamJobStatus(phase=Phase.STARTING, move=move)


def test_a_status_is_written_when_it_differs_and_read_back_the_same(job):
    job.do(status=status_with_move())
    assert job.observe().observed.job.status == status_with_move()
    job.kube.writes.clear()
    job.do(status=status_with_move())
    assert job.kube.writes == []


def test_what_is_no_longer_in_the_status_is_gone_from_the_object(job):
    job.do(status=status_with_move())
    job.do(status=StreamJobStatus(phase=Phase.RUNNING))
    assert job.observe().observed.job.status.move is None


def test_nothing_is_done_from_a_streamjob_that_has_gone_on(job):
    seen = job.observe()
    job.patch({"metadata": {"annotations": {"a": "b"}}})
    decision = effects.Decision(
        status_with_move(), (effects.Announce("Told", "too late"),), look_again=timedelta()
    )
    from penstock_operator.cluster.execute import execute

    with pytest.raises(Conflict):
        execute(job.tools, seen, decision)
    assert events(job) == []


def test_a_status_that_an_older_schema_throws_away_stops_everything(job):
    path = "/spec/versions/0/schema/openAPIV3Schema/properties/status/properties/move"
    crd = job.server.get("crd", "streamjobs.penstock.dev")
    field = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"][
        "properties"
    ]["move"]

    def patch(op):
        import json

        job.server.kubectl(
            "patch", "crd", "streamjobs.penstock.dev", "--type=json", "-p", json.dumps([op])
        )

    patch({"op": "remove", "path": path})
    try:
        from tests.process.apiserver.deeds import eventually

        def refused():
            try:
                job.do(
                    effects.Announce("Told", "never"),
                    status=status_with_move().model_copy(
                        update={"attempt": (job.observe().observed.job.status.attempt or 0) + 1}
                    ),
                )
            except SchemaTooOld as e:
                return e
            return None

        told = eventually(refused)
        assert "the CRD is older than this operator" in str(told)
    finally:
        patch({"op": "add", "path": path, "value": field})


def test_pods_that_the_api_server_would_refuse_are_a_mistake_of_the_spec(bench):
    template = {"spec": {"containers": [{"name": "penstock", "imagePullPolice": "Always"}]}}
    bench.make(SPEC | {"worker": {"podTemplate": template}})
    job = bench.observe().observed.job
    assert job.spec is None
    (mistake,) = job.mistakes
    assert mistake.startswith("spec.worker: its pods are refused by the API server: ")
    assert 'unknown field "spec.template.spec.containers[0].imagePullPolice"' in mistake
    bench.kube.writes.clear()
    assert bench.find(STATEFUL_SETS, "words-worker") is None


def test_a_value_that_no_pod_may_have_is_a_mistake_of_the_spec(bench):
    bench.make(SPEC | {"coordinator": {"resources": {"requests": {"cpu": "many"}}}})
    (mistake,) = bench.observe().observed.job.mistakes
    assert mistake.startswith("spec.coordinator: its pods are refused by the API server: ")


def test_a_job_without_storage_is_told_what_to_write(bench):
    bench.make({"entrypoint": "wordcount:job"})
    assert bench.observe().observed.job.mistakes == (
        "spec.checkpoints.storage: is missing; on a cluster write s3://bucket/folder",
    )


def allow_deployments(job, number: int) -> None:
    """A quota, counted as its controller does; the API server notices it after a moment."""
    hard = {"count/deployments.apps": str(number)}
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "few", "namespace": job.namespace},
        "spec": {"hard": hard},
    }
    job.server.kubectl("apply", "-f", "-", given=quota)
    counted = json.dumps({"status": {"hard": hard, "used": hard}})
    where = ("-n", job.namespace, "--subresource=status", "--type=merge")
    job.server.kubectl("patch", "resourcequota", "few", *where, "-p", counted)
    another = ("create", "deployment", "another", "--image=x", "--dry-run=server")
    eventually(lambda: job.server.kubectl(*another, "-n", job.namespace, check=False).returncode)


def test_pods_that_a_quota_forbids_are_a_mistake_of_the_spec(job):
    allow_deployments(job, 0)
    (mistake,) = job.observe().observed.job.mistakes
    assert mistake.startswith("spec.coordinator: its pods are refused by the API server: ")
    assert "exceeded quota" in mistake


def test_a_quota_that_the_jobs_own_workloads_fill_refuses_no_new_revision(job):
    job.do(*all_of(accepted(job)))
    allow_deployments(job, 1)
    job.patch({"spec": {"image": "words:2", "worker": {"volume": {"size": "20Gi"}}}})
    seen = job.observe().observed.job
    assert seen.mistakes == ()
    assert seen.spec.image == "words:2"
    job.patch({"spec": {"worker": {"resources": {"requests": {"cpu": "many"}}}}})
    (mistake,) = job.observe().observed.job.mistakes
    assert mistake.startswith("spec.worker: its pods are refused by the API server: ")


def keep_what_nobody_can_read(job, number: int) -> None:
    """A revision of a newer operator's."""
    (live,) = job.kube.list(REVISIONS, job.namespace)
    data = live["data"] | {"spec": live["data"]["spec"] | {"fieldOfTomorrow": 1}}
    metadata = {k: live["metadata"][k] for k in ("labels", "ownerReferences", "namespace")}
    metadata |= {"name": "words-newer", "labels": metadata["labels"] | {LABEL_REVISION: "newer"}}
    newer = {"metadata": metadata, "revision": number, "data": data | {"revision": "newer"}}
    job.kube.create({"apiVersion": "apps/v1", "kind": "ControllerRevision"} | newer)


def test_a_revision_that_nobody_can_read_and_nobody_needs_counts_as_not_kept(job):
    revision = accepted(job)
    job.do(effects.RecordRevision(revision, 2))
    keep_what_nobody_can_read(job, 1)
    assert [r.id for r in job.observe().observed.revisions] == [revision]


def test_the_newest_revision_must_be_readable_unless_the_job_is_deleted(job):
    revision = accepted(job)
    keep_what_nobody_can_read(job, 2)
    with pytest.raises(Rejected, match="ControllerRevision words-newer cannot be read"):
        job.observe()
    job.patch({"metadata": {"finalizers": ["example.com/another"]}})
    job.server.kubectl("delete", "streamjob", "words", "-n", job.namespace, "--wait=false")
    seen = job.observe().observed
    assert (seen.accepted is None, [r.id for r in seen.revisions]) == (False, [revision])
