"""A manifest's values: defaults, units, and the same reading as on Kubernetes."""

import json

import pytest
import yaml
from pydantic import ValidationError

from penstock.spec.loading import load_manifest, validate
from penstock.spec.parts.moves import RestartStrategy
from penstock.spec.parts.snapshots import CheckpointMode
from penstock.spec.streamjob import StreamJob, json_schema

SMALLEST = """\
apiVersion: penstock.dev/v1alpha1
kind: StreamJob
metadata: {name: wordcount}
spec:
  entrypoint: wordcount:job
"""

EVERYTHING = """\
apiVersion: penstock.dev/v1alpha1
kind: StreamJob
metadata: {name: wordcount}
spec:
  image: registry.example/wordcount:1.4.0
  entrypoint: wordcount:job
  parameters: {input: "s3://corpus/"}
  parallelism: 4
  maxParallelism: 128
  desiredState: Running
  serviceAccountName: wordcount
  jobId: shop-wordcount
  state:
    backend: RocksDB
    localRecovery: true
    rocksdb: {memory: 512Mi, incremental: true, localDirectories: [], directoryStrategy: RoundRobin}
  checkpoints: {storage: "s3://bucket/checkpoints", interval: 10s, mode: ExactlyOnce, timeout: 10m,
                minPause: 0s, maxConcurrent: 1, tolerableFailures: 0, retained: 3, onCancellation: Retain}
  savepoints:  {storage: "s3://bucket/savepoints", schedule: "0 3 * * *", keep: {count: 10, age: 168h}}
  storageCredentials: {secretName: s3-credentials, endpoint: "https://s3.example", caBundle: {configMapName: ca}}
  upgrade:     {mode: Savepoint, approval: Automatic, allowNonRestoredState: false,
                stableAfter: {checkpoints: 2}, whenUnhealthy: LatestCheckpoint, holdCommits: true, rollback: true, timeout: 10m}
  rescale:     {cooldown: 2m, timeout: 10m}
  restore:     {from: Latest, policy: RequireState, claimMode: NoClaim, allowOlder: false, adopt: false, rename: {}}
  errors:      {policy: Fail, deadLetters: null}
  restart:     {strategy: ExponentialDelay, initialDelay: 1s, maxDelay: 1m}
  deletion:    {policy: Savepoint, timeout: 5m}
  worker:      {heartbeatTimeout: 30s, progressTimeout: 5m, resources: {}, podTemplate: {}, volume: {size: 10Gi, storageClassName: null, whenScaledDown: Delete}}
  coordinator: {resources: {}, podTemplate: {}}
"""


def job_of(text):
    draft = validate(text, source="streamjob.yaml")
    assert draft.mistakes == []
    return draft.complete()


def test_what_is_left_out_has_the_value_that_the_design_shows():
    """The full manifest says every default, but for the fields that have none."""
    default, full = job_of(SMALLEST).spec, job_of(EVERYTHING).spec
    own = {
        "image", "parameters", "parallelism", "max_parallelism", "service_account_name", "job_id",
        "storage_credentials",
    }  # fmt: skip
    for name in type(full).model_fields:
        if name in own:
            continue
        ours, theirs = getattr(default, name), getattr(full, name)
        if name in {"checkpoints", "savepoints"}:
            theirs = theirs.model_copy(update={"storage": None})
        if name == "savepoints":
            theirs = theirs.model_copy(update={"schedule": None})
        assert ours == theirs, name
    assert default.parallelism == 1
    assert default.max_parallelism is None


def test_durations_are_milliseconds_and_sizes_bytes():
    spec = job_of(EVERYTHING).spec
    assert spec.checkpoints.interval_ms == 10_000
    assert spec.savepoints.keep.age_ms == 168 * 3_600_000
    assert spec.state.rocksdb.memory_bytes == 512 << 20
    assert spec.worker.volume.size_bytes == 10 << 30
    assert spec.checkpoints.mode is CheckpointMode.EXACTLY_ONCE


def test_the_document_of_a_job_is_read_back_as_the_same_job():
    job = job_of(EVERYTHING)
    again = job_of(yaml.safe_dump(job.document()))
    assert again == job
    assert again.model_fields_set == job.model_fields_set
    assert job_of(json.dumps(job.document())) == job


def test_the_document_has_no_defaults():
    assert job_of(SMALLEST).document()["spec"] == {"entrypoint": "wordcount:job"}


def test_a_job_cannot_be_changed_in_place():
    with pytest.raises(ValidationError):
        job_of(SMALLEST).spec.parallelism = 3


def test_an_object_read_from_a_cluster_is_a_manifest_too():
    text = SMALLEST.replace(
        "{name: wordcount}",
        "{name: wordcount, namespace: shop, uid: 1-2, generation: 3, creationTimestamp: "
        "2026-11-21T02:58:04Z, managedFields: [{manager: kubectl}]}",
    )
    job = job_of(text + "status: {phase: Running}\n")
    assert job.metadata.namespace == "shop"
    assert "status" not in job.document()


def test_values_are_read_as_kubernetes_reads_them():
    text = SMALLEST + (
        "  parameters: {day: 2026-11-21, at: 12:30, big: 1e6, small: .5, n: -3, flag: yes, hex: 0x10,"
        " dot: ., dash: '-', plus: +}\n"
    )
    assert job_of(text).spec.parameters == {
        "day": "2026-11-21",
        "at": "12:30",
        "big": 1e6,
        "small": 0.5,
        "n": -3,
        "flag": True,
        "hex": 16,
        "dot": ".",
        "dash": "-",
        "plus": "+",
    }


def test_anchors_and_merged_blocks_work():
    text = SMALLEST + (
        "  worker: {resources: &small {cpu: 1}}\n"
        "  coordinator:\n"
        "    resources: {<<: *small, memory: 1Gi}\n"
    )
    assert job_of(text).spec.coordinator.resources == {"cpu": 1, "memory": "1Gi"}


def test_the_job_id_may_be_what_a_job_of_another_namespace_is_called_by_default():
    named = SMALLEST.replace("spec:", "spec:\n  jobId: other-shop.wordcount")
    assert job_of(named).job_id(namespace="shop") == "other-shop.wordcount"


def test_the_job_id_is_the_name_on_a_laptop_and_has_the_namespace_on_a_cluster():
    assert job_of(SMALLEST).job_id() == "wordcount"
    assert job_of(SMALLEST).job_id(namespace="shop") == "shop.wordcount"
    assert job_of(EVERYTHING).job_id(namespace="shop") == "shop-wordcount"


def test_a_backend_may_be_a_factory_of_the_authors_own():
    text = SMALLEST + "  state: {backend: 'my.backends:make'}\n"
    assert job_of(text).spec.state.backend == "my.backends:make"


def test_each_restart_strategy_takes_its_own_fields():
    for block in (
        "{strategy: FixedDelay, delay: 5s, attempts: 3}",
        "{strategy: FailureRate, delay: 5s, attempts: 3, window: 1m}",
        "{strategy: None}",
    ):
        restart = job_of(f"{SMALLEST}  restart: {block}\n").spec.restart
        assert restart.strategy in RestartStrategy


def test_schedules_take_lists_ranges_and_steps():
    for schedule in ("*/15 * * * *", "0 3,15 1-7 * 0", "5 4 * * 1-5"):
        text = f"{SMALLEST}  savepoints: {{schedule: '{schedule}'}}\n"
        assert job_of(text).spec.savepoints.schedule == schedule


def test_every_field_has_a_description_and_none_is_free_but_the_free_forms():
    schema = json_schema()
    free = set()
    for name, part in schema["$defs"].items():
        for field, value in part.get("properties", {}).items():
            shared = schema["$defs"].get(value.get("$ref", "").rpartition("/")[2], {})
            assert value.get("description") or shared.get("description"), f"{name}.{field}"
            if value.get("additionalProperties") is True:
                free.add(f"{name}.{field}")
        if "properties" in part and name != "Metadata":
            assert part["additionalProperties"] is False, name
    assert free == {
        "StreamJobSpec.parameters",
        "Worker.resources",
        "Worker.podTemplate",
        "Coordinator.resources",
        "Coordinator.podTemplate",
    }


def test_defaults_in_the_schema_are_written_as_in_yaml():
    schema = json_schema()["$defs"]
    assert schema["Checkpoints"]["properties"]["interval"]["default"] == "10s"
    assert schema["RocksDb"]["properties"]["memory"]["default"] == "512Mi"


def test_a_loaded_manifest_knows_its_folder_and_lines(tmp_path):
    path = tmp_path / "streamjob.yaml"
    path.write_text(SMALLEST)
    loaded = load_manifest(path)
    assert loaded.folder == tmp_path
    assert isinstance(loaded.job, StreamJob)
    assert loaded.line_of("spec", "entrypoint") == 5
    assert loaded.line_of("spec", "checkpoints", "interval") == 4
