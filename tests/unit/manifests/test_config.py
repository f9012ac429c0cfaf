"""What pods read: frozen with the revision, but for what may change while it runs."""

import yaml

from penstock.spec.changes import revision_of
from penstock.spec.streamjob import StreamJobSpec
from penstock_operator.manifests.config import config_map
from penstock_operator.manifests.names import Job

JOB = Job("ns", "words", "u-1")
SPEC = {
    "entrypoint": "wordcount:job",
    "parallelism": 2,
    "parameters": {"input": "s3://corpus/"},
    "checkpoints": {"storage": "s3://b/c", "interval": "10s"},
    "worker": {"podTemplate": {"spec": {"nodeName": "x"}}, "heartbeatTimeout": "20s"},
}


def spec(**changes) -> StreamJobSpec:
    return StreamJobSpec.model_validate(SPEC | changes)


def seen_by_pods(recorded, current):
    found = config_map(JOB, revision_of(recorded), recorded, current)
    return yaml.safe_load(found["data"]["streamjob.yaml"])["spec"]


def test_what_makes_a_revision_is_as_it_was_recorded():
    found = seen_by_pods(spec(), spec(parameters={"input": "s3://other/"}, entrypoint="b:job"))
    assert found["parameters"] == {"input": "s3://corpus/"}
    assert found["entrypoint"] == "wordcount:job"


def test_live_fields_are_those_of_the_current_spec():
    current = spec(checkpoints={"storage": "s3://b/c", "interval": "3s"})
    assert seen_by_pods(spec(), current)["checkpoints"]["interval"] == "3s"
    assert seen_by_pods(spec(), None)["checkpoints"]["interval"] == "10s"


def test_a_live_field_that_was_taken_out_is_gone():
    current = spec(checkpoints={"storage": "s3://b/c"})
    assert "interval" not in seen_by_pods(spec(), current)["checkpoints"]


def test_what_the_check_and_the_restore_go_by_follows_the_current_spec():
    current = spec(upgrade={"allowNonRestoredState": True}, restore={"from": "None"})
    found = seen_by_pods(spec(), current)
    assert found["upgrade"] == {"allowNonRestoredState": True}
    assert found["restore"] == {"from": "None"}


def test_storage_and_parallelism_are_never_changed_under_running_pods():
    current = spec(parallelism=8, checkpoints={"storage": "s3://elsewhere/c"})
    found = seen_by_pods(spec(), current)
    assert found["parallelism"] == 2
    assert found["checkpoints"]["storage"] == "s3://b/c"


def test_what_only_the_api_server_reads_is_left_out():
    found = seen_by_pods(spec(), None)
    assert found["worker"] == {"heartbeatTimeout": "20s"}


def test_what_pods_read_is_a_manifest_of_the_same_revision_but_for_pod_templates():
    plain = spec(worker={"heartbeatTimeout": "20s"})
    again = StreamJobSpec.model_validate(seen_by_pods(plain, None))
    assert revision_of(again) == revision_of(plain)


def test_names_are_those_of_the_revision():
    recorded = spec()
    revision = revision_of(recorded)
    found = config_map(JOB, revision, recorded, None)
    assert found["metadata"]["name"] == f"words-{revision}"


def test_a_script_is_a_file_of_its_own():
    code = "def job(env): ...\n"
    recorded = StreamJobSpec.model_validate(
        {"script": code, "checkpoints": {"storage": "s3://b/c"}}
    )
    assert config_map(JOB, "r", recorded, None)["data"]["job.py"] == code
