"""A revision is rendered once, and everything its pods are made from comes out of the record again."""

import json

from penstock.spec.changes import revision_of
from penstock.spec.streamjob import StreamJobSpec
from penstock_operator.manifests import names, short, workers
from penstock_operator.manifests.names import Job
from penstock_operator.manifests.record import Record

JOB = Job("ns", "words", "u-1")


def record_of(**spec) -> Record:
    found = StreamJobSpec.model_validate(
        {"entrypoint": "a:job", "checkpoints": {"storage": "s3://b/c"}} | spec
    )
    return Record.of(JOB, found, revision_of(found), default_image="default:1", cluster="c-1")


def container(template):
    (found,) = (c for c in template["spec"]["containers"] if c["name"] == names.CONTAINER)
    return found


def test_a_record_comes_back_as_it_was_kept():
    record = record_of(parameters={"n": 1})
    kept = json.loads(json.dumps(record.controller_revision(JOB, 3)))
    assert Record.read(kept) == record
    assert record.model().parameters == {"n": 1}


def test_both_kinds_of_pod_run_the_same_image():
    for record, image in (
        (record_of(), "default:1"),
        (record_of(image="registry.example/a:2"), "registry.example/a:2"),
    ):
        assert container(record.coordinator)["image"] == image
        assert container(record.worker)["image"] == image


def test_a_pod_template_cannot_take_our_labels_away():
    record = record_of(
        worker={"podTemplate": {"metadata": {"labels": {"penstock.dev/job": "x", "team": "y"}}}}
    )
    labels = record.worker["metadata"]["labels"]
    assert (labels["penstock.dev/job"], labels["team"]) == ("words", "y")
    selected = workers.stateful_set(JOB, "r", record.worker, replicas=1, claims=[])
    assert labels.items() >= selected["spec"]["selector"]["matchLabels"].items()


def test_every_container_of_ours_is_restricted():
    record = record_of(
        storageCredentials={"secretName": "k", "caBundle": {"configMapName": "certificates"}}
    )
    for pod in (
        record.coordinator,
        record.worker,
        short.check_pod(JOB, record, None),
        short.disposal_pod(JOB, record, None),
    ):
        security = pod["spec"]["securityContext"]
        assert security["runAsNonRoot"]
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["spec"]["automountServiceAccountToken"] is False
        for found in [*pod["spec"]["containers"], *pod["spec"]["initContainers"]]:
            assert found["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
                "readOnlyRootFilesystem": True,
            }


def test_only_an_account_that_was_named_has_its_token_in_the_pod():
    record = record_of(serviceAccountName="wordcount")
    assert record.worker["spec"]["serviceAccountName"] == "wordcount"
    assert record.worker["spec"]["automountServiceAccountToken"] is True


def test_a_short_pod_ends_by_itself():
    sidecar = {"spec": {"containers": [{"name": "proxy", "image": "p"}]}}
    record = record_of(coordinator={"podTemplate": sidecar})
    pod = short.check_pod(JOB, record, "latest")
    (found,) = pod["spec"]["containers"]
    assert found["args"] == ["check", "--against", "latest", "-o", "json"]
    assert not any(name.endswith("Probe") for name in found)
    assert pod["spec"]["restartPolicy"] == "Never"
    assert pod["spec"]["activeDeadlineSeconds"] > 0
    assert container(record.coordinator)["args"] == ["coordinator"], "the record is left as it was"


def test_short_pods_are_neither_behind_the_service_nor_of_the_deployment():
    record = record_of()
    selector = names.selector("words", names.Role.COORDINATOR)
    for pod in (short.check_pod(JOB, record, None), short.disposal_pod(JOB, record, None)):
        assert not pod["metadata"]["labels"].items() >= selector.items()


def test_claims_have_labels_that_never_change():
    record = record_of()
    (claim,) = workers.claim_templates(JOB, record.model().worker.volume)
    assert "penstock.dev/revision" not in claim["metadata"]["labels"]


def test_a_coordinator_that_waits_for_the_store_is_not_ready_and_not_killed():
    found = container(record_of().coordinator)
    paths = {probe: found[probe]["httpGet"]["path"] for probe in found if "Probe" in probe}
    assert paths == {
        "startupProbe": "/",
        "livenessProbe": "/",
        "readinessProbe": "/penstock/v1/status",
    }
