"""`penstock snapshots` and `penstock state` read S3 as they read a folder."""

import json
from pathlib import Path

import pytest

from penstock.cli.main import run
from penstock.core.ids import AttemptNumber, CheckpointId, JobId
from penstock.core.keygroups import HASH_NAME
from penstock.core.keys import KEY_FORMAT
from penstock.core.manifest import Manifest, SnapshotKind
from penstock.core.paths import savepoint_folder
from penstock.core.rows import ROW_FORMAT
from penstock.snapshots import Snapshot
from penstock.storage.location import open_store


@pytest.fixture
def savepoint(new_bucket) -> str:
    """The URL of a savepoint without state, three folders down in a bucket."""
    store = open_store(f"s3://{new_bucket()}/some/where/savepoints")
    job = JobId("wordcount")
    manifest = Manifest(
        kind=SnapshotKind.SAVEPOINT,
        job=job,
        attempt=AttemptNumber(1),
        checkpoint=CheckpointId(3),
        at_ms=0,
        parallelism=1,
        max_parallelism=128,
        hash_name=HASH_NAME,
        key_format=KEY_FORMAT,
        row_format=ROW_FORMAT,
        request_id="mine",
    )
    folder = savepoint_folder(job, "mine")
    store.put(f"{folder}_metadata", manifest.to_bytes())
    return f"{store.url}/{folder.rstrip('/')}"


def test_a_savepoint_is_opened_by_its_url(savepoint):
    assert Snapshot.open(savepoint).manifest.request_id == "mine"
    assert Snapshot.open(f"{savepoint}/_metadata").url == savepoint


def test_a_bucket_is_listed_from_any_folder_above(savepoint, capsys):
    bucket = savepoint.removeprefix("s3://").partition("/")[0]
    for storage in (f"s3://{bucket}", f"s3://{bucket}/some", savepoint.rpartition("/")[0]):
        assert run(["snapshots", storage, "-o", "json"]) == 0
        (found,) = json.loads(capsys.readouterr().out)
        assert found["path"] == savepoint
        assert found["name"] == Path(savepoint).name
    assert run(["state", "verify", savepoint]) == 0


def test_a_bucket_that_is_not_there_is_a_wrong_request(s3_endpoint, capsys):
    assert run(["snapshots", "s3://penstock-absent"]) == 2
    assert "error: bucket penstock-absent does not exist" in capsys.readouterr().err
