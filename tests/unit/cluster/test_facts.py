"""What is read out of pods, claims and reports, as the kubelet and the controllers write them."""

from datetime import UTC, datetime

import pytest

from penstock_operator.cluster import facts
from penstock_operator.cluster.observe import status_of
from penstock_operator.reconcile.observed import Claim, PodPhase, Report, Revision
from penstock_operator.resources.status import Phase, StreamJobStatus

CREATED = "2026-03-01T12:00:00Z"
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def pod(role="worker", name="words-worker-3", annotations=None, **status):
    return {
        "metadata": {
            "name": name,
            "uid": "u",
            "creationTimestamp": CREATED,
            "labels": {
                "penstock.dev/job": "words",
                "penstock.dev/role": role,
                "penstock.dev/revision": "r1",
            },
            "annotations": annotations or {},
        },
        "spec": {"nodeName": "node-1"},
        "status": status,
    }


def container(state, name="penstock", **more):
    return {"name": name, "restartCount": 0, "state": state, **more}


def ended(message=None, code=0, reason="Completed"):
    found = {"exitCode": code, "reason": reason}
    return {"terminated": found | ({"message": message} if message else {})}


def test_a_running_pod():
    found = facts.pod(
        pod(
            phase="Running",
            conditions=[{"type": "Ready", "status": "True"}],
            containerStatuses=[container({"running": {}}, restartCount=2)],
        )
    )
    assert (found.phase, found.is_ready, found.restarts) == (PodPhase.RUNNING, True, 2)
    assert (found.ordinal, found.revision, found.node) == (3, "r1", "node-1")
    assert (found.waiting, found.message, found.created_at) == (None, None, NOW)


@pytest.mark.parametrize(
    ("image_id", "digest"),
    [
        ("registry.example/words@sha256:abc", "sha256:abc"),
        ("sha256:abc", "sha256:abc"),
        ("docker-pullable://words@sha256:abc", "sha256:abc"),
        ("", None),
    ],
)
def test_what_a_pod_runs_is_the_digest_of_our_containers_image(image_id, digest):
    other = container({"running": {}}, name="a-proxy", imageID="registry.example/proxy@sha256:def")
    ours = container({"running": {}}, imageID=image_id)
    found = facts.pod(pod(phase="Running", containerStatuses=[other, ours]))
    assert found.image_digest == digest
    assert facts.pod(pod(phase="Pending")).image_digest is None


@pytest.mark.parametrize(
    ("text", "digests"),
    [
        ('{"worker": ["sha256:a", "sha256:b"]}', {"worker": ("sha256:a", "sha256:b")}),
        (None, {}),
        ("", {}),
        ("{", {}),
        ("[]", {}),
        ('{"worker": 3}', {}),
    ],
)
def test_digests_that_are_kept_with_a_revision(text, digests):
    annotations = {} if text is None else {"annotations": {"penstock.dev/image-digest": text}}
    manifest = {
        "metadata": {"name": "words-r1", **annotations},
        "revision": 3,
        "data": {"revision": "r1", "image": "words:1"},
    }
    assert facts.revision(manifest) == Revision("r1", "words-r1", 3, "words:1", digests)


def test_an_image_that_cannot_be_pulled_is_what_a_pod_waits_for():
    waiting = {"reason": "ImagePullBackOff", "message": "Back-off pulling image x:1"}
    found = facts.pod(pod(phase="Pending", containerStatuses=[container({"waiting": waiting})]))
    assert (found.waiting, found.message) == ("ImagePullBackOff", "Back-off pulling image x:1")


def test_an_init_container_that_waits_comes_first():
    found = facts.pod(
        pod(
            phase="Pending",
            initContainerStatuses=[
                container({"waiting": {"reason": "ErrImagePull"}}, name="trust")
            ],
            containerStatuses=[container({"waiting": {"reason": "PodInitializing"}})],
        )
    )
    assert found.waiting == "ErrImagePull"


def test_a_pod_without_a_node_says_why():
    condition = {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": "0/3 nodes are available: 3 Insufficient memory.",
    }
    found = facts.pod(pod(phase="Pending", conditions=[condition]))
    assert found.waiting == "Unschedulable"
    assert "Insufficient memory" in found.message


def test_a_pod_that_was_evicted_says_why():
    found = facts.pod(pod(phase="Failed", reason="Evicted", message="The node was low on memory."))
    assert (found.phase, found.message) == (PodPhase.FAILED, "The node was low on memory.")


@pytest.mark.parametrize(
    ("truth", "failure"), [("True", "service account not found"), ("False", None)]
)
def test_a_deployment_whose_pods_are_refused_says_why(truth, failure):
    refused = {"type": "ReplicaFailure", "status": truth, "message": "service account not found"}
    found = facts.workload(pod() | {"spec": {}, "status": {"conditions": [refused]}})
    assert found.failure == failure


def test_the_last_words_of_a_container_that_runs_again_are_kept():
    status = container({"running": {}}, restartCount=1, lastState=ended('{"what": "x"}', 2))
    found = facts.pod(pod(phase="Running", containerStatuses=[status]))
    assert found.termination == '{"what": "x"}'


def test_a_sidecars_end_is_not_taken_for_ours():
    found = facts.pod(
        pod(
            phase="Running",
            containerStatuses=[
                container(ended("the proxy's", 1), name="a-proxy"),
                container(ended("ours", 2)),
            ],
        )
    )
    assert found.termination == "ours"


def check(**status) -> Report:
    annotations = {"penstock.dev/purpose": "r1", "penstock.dev/against": "latest"}
    return facts.report(pod("check", "words-check-r1", annotations, **status))


def test_a_check_that_runs_has_no_verdict():
    found = check(phase="Running", containerStatuses=[container({"running": {}})])
    assert (found.purpose, found.against) == ("r1", "latest")
    assert (found.has_ended, found.verdict) == (False, None)


def test_a_verdict_is_what_the_pod_reported():
    found = check(phase="Succeeded", containerStatuses=[container(ended('{"fits": true}'))])
    assert (found.has_ended, found.verdict, found.message) == (True, {"fits": True}, None)


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (
            {"containerStatuses": [container(ended(None, 137, "OOMKilled"))]},
            "OOMKilled, exit code 137",
        ),
        (
            {"reason": "DeadlineExceeded", "message": "Pod was active on the node longer than…"},
            "Pod was active on the node longer than…",
        ),
        ({"initContainerStatuses": [container(ended(None, 1, "Error"))]}, "Error, exit code 1"),
    ],
)
def test_a_pod_that_reported_nothing_says_how_it_ended(status, message):
    found = check(phase="Failed", **status)
    assert (found.has_ended, found.verdict, found.message) == (True, None, message)


@pytest.mark.parametrize(
    ("status", "has_run"),
    [
        ({"containerStatuses": [container(ended(None, 137, "OOMKilled"))]}, True),
        ({"containerStatuses": [container(ended(None, 137, "ContainerStatusUnknown"))]}, False),
        ({"containerStatuses": [container({"waiting": {"reason": "ImagePullBackOff"}})]}, False),
        ({"reason": "Evicted"}, False),
        ({"initContainerStatuses": [container(ended(None, 1, "Error"))]}, True),
        ({"initContainerStatuses": [container(ended(None, 0, "Completed"))]}, False),
    ],
)
def test_a_pod_that_never_ran_our_container_is_told_from_one_that_failed(status, has_run):
    assert check(phase="Failed", **status).has_run is has_run


def test_a_report_that_is_no_json_object_is_no_verdict():
    for text in ("[1]", "Killed", ""):
        found = check(phase="Failed", containerStatuses=[container(ended(text, 1))])
        assert found.verdict is None


def claim(name):
    return facts.claim({"metadata": {"name": name}}, "words")


def test_claims_are_those_of_the_jobs_own_workers():
    assert claim("state-words-worker-12") == Claim("state-words-worker-12", 12)
    assert claim("scratch-words-worker-1") is None
    assert claim("state-words-worker") is None
    assert claim("state-other-words-worker-1") is None


def test_the_report_about_the_wanted_revision_is_looked_at_first():
    def report(name, purpose, day):
        at = datetime(2026, 3, day, tzinfo=UTC)
        return Report(name, "u", purpose, None, at, has_ended=False)

    older, newer = report("a", "r1", 1), report("b", "r2", 2)
    assert facts.newest([older, newer], "r1") == older
    assert facts.newest([older, newer], "r3") == newer
    assert facts.newest([], "r1") is None


def test_statuses_that_an_older_operator_wrote_are_read():
    """Sizes were bytes without a unit, and nothing else told them."""
    made = {"path": "s3://b/s", "size": "12345678"}
    savepoint = {
        "metadata": {"name": "before", "uid": "u", "creationTimestamp": CREATED},
        "spec": {"jobName": "words"},
        "status": {"phase": "Completed", **made},
    }
    found = facts.savepoint(savepoint)
    assert found is not None
    assert (found.status.size, found.status.size_bytes) == ("12345678", None)
    last = {"id": 7, "completedAt": CREATED, "duration": "2s", **made}
    status = status_of({"status": {"phase": "Running", "lastCheckpoint": last}})
    assert status.phase is Phase.RUNNING
    assert status.last_checkpoint is not None
    assert status.last_checkpoint.size == "12345678"


def test_a_status_that_cannot_be_read_is_none_and_such_a_savepoint_is_left_alone():
    assert status_of({"status": {"phase": "Running", "attempt": "many"}}) == StreamJobStatus()
    metadata = {"name": "before", "uid": "u", "creationTimestamp": CREATED}
    status = {"phase": "Completed", "sizeBytes": "many"}
    savepoint = {"metadata": metadata, "spec": {"jobName": "words"}, "status": status}
    assert facts.savepoint(savepoint) is None
