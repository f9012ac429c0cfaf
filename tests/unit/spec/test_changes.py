"""What a changed field means, and which revision a spec is."""

import json
import subprocess
import sys

import pytest
from pydantic import BaseModel

from penstock.spec.changes import FIELD_CLASSES, Change, FieldClass, changes, class_of, revision_of
from penstock.spec.streamjob import StreamJobSpec
from penstock.spec.wording import part_of

BASE = {"entrypoint": "wordcount:job"}


def spec(**fields):
    return StreamJobSpec.model_validate(BASE | fields)


def leaves(model, above=""):
    for name, info in model.model_fields.items():
        path = f"{above}{info.alias or name}"
        part = part_of(info.annotation)
        if part is not None and issubclass(part, BaseModel):
            yield from leaves(part, f"{path}.")
        else:
            yield path


def test_every_field_has_a_class_and_every_class_a_field():
    paths = list(leaves(StreamJobSpec))
    assert all(isinstance(class_of(path), FieldClass) for path in paths)
    assert "checkpoints.interval" in paths
    for named in FIELD_CLASSES:
        assert any(p == named or p.startswith(f"{named}.") for p in paths), named


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("deletion.timeout", FieldClass.IGNORE),
        ("rescale.cooldown", FieldClass.IGNORE),
        ("upgrade.mode", FieldClass.IGNORE),
        ("checkpoints.interval", FieldClass.LIVE),
        ("checkpoints.mode", FieldClass.UPGRADE),
        ("checkpoints.storage", FieldClass.FORBIDDEN),
        ("savepoints.keep.age", FieldClass.LIVE),
        ("restart.strategy", FieldClass.LIVE),
        ("worker.heartbeatTimeout", FieldClass.LIVE),
        ("worker.resources", FieldClass.UPGRADE),
        ("parallelism", FieldClass.SCALE),
        ("desiredState", FieldClass.OWN),
        ("restore.from", FieldClass.OWN),
        ("jobId", FieldClass.FORBIDDEN),
        ("maxParallelism", FieldClass.FORBIDDEN),
        ("worker.volume.storageClassName", FieldClass.FORBIDDEN),
        ("image", FieldClass.UPGRADE),
        ("parameters", FieldClass.UPGRADE),
        ("state.rocksdb.memory", FieldClass.UPGRADE),
    ],
)
def test_classes_are_those_of_the_design(path, kind):
    assert class_of(path) is kind


def test_a_path_that_does_not_exist_has_no_class():
    with pytest.raises(KeyError):
        class_of("frobnicate.now")


def test_changes_compare_values_in_force_not_what_was_written():
    assert changes(spec(), spec(checkpoints={"interval": "10s"})) == ()
    assert changes(spec(), spec(checkpoints={"interval": "9s"}, image="b")) == (
        Change("image", FieldClass.UPGRADE),
        Change("checkpoints.interval", FieldClass.LIVE),
    )


def test_a_part_that_appears_or_goes_is_a_change():
    without, with_secret = spec(), spec(storageCredentials={"secretName": "s3"})
    for old, new in ((without, with_secret), (with_secret, without)):
        found = changes(old, new)
        assert Change("storageCredentials.secretName", FieldClass.UPGRADE) in found
        assert {c.kind for c in found} == {FieldClass.UPGRADE}


def test_a_volume_may_grow_and_not_shrink():
    small, large = (spec(worker={"volume": {"size": size}}) for size in ("10Gi", "20Gi"))
    assert changes(small, large) == (Change("worker.volume.size", FieldClass.OWN),)
    assert changes(large, small) == (Change("worker.volume.size", FieldClass.FORBIDDEN),)


def test_only_upgrade_fields_make_a_revision():
    revision = revision_of(spec())
    assert revision_of(spec(parallelism=4, checkpoints={"interval": "1s"}, jobId="x")) == revision
    assert revision_of(spec(checkpoints={"mode": "AtLeastOnce"})) != revision
    assert revision_of(spec(parameters={"a": 1})) != revision_of(spec(parameters={"a": 2}))
    assert revision_of(spec(state={"rocksdb": {"memory": "1Gi"}})) != revision


def test_a_default_that_is_written_out_is_what_the_user_set():
    assert revision_of(spec(state={"backend": "RocksDB"})) != revision_of(spec())
    assert revision_of(spec(state={"rocksdb": {"memory": "1Gi"}})) == revision_of(
        spec(state={"rocksdb": {"memory": "1024Mi"}})
    )


def test_a_revision_is_the_same_in_every_process():
    fields = BASE | {"parameters": {"b": 1, "a": [True, None, "ü"]}, "image": "x"}
    code = (
        "import json, sys; from penstock.spec.changes import revision_of;"
        "from penstock.spec.streamjob import StreamJobSpec;"
        "print(revision_of(StreamJobSpec.model_validate(json.loads(sys.argv[1]))))"
    )
    other = subprocess.run(
        [sys.executable, "-c", code, json.dumps(fields)],
        capture_output=True, text=True, check=True,
        env={"PYTHONPATH": ":".join(sys.path), "PYTHONHASHSEED": "7"},
    )  # fmt: skip
    assert other.stdout.strip() == revision_of(StreamJobSpec.model_validate(fields))
    assert len(other.stdout.strip()) == 12
