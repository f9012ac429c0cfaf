"""The job's log in every store: what is damaged there is told, never believed and never overwritten."""

import itertools
from dataclasses import replace
from pathlib import Path

import pytest
from tests.unit.core.samples import ENTRY

from penstock.checkpoint import log, recovery
from penstock.core import paths
from penstock.core.errors import Corrupt
from penstock.core.ids import JobId
from penstock.core.log import Entry
from penstock.runtime.job_storage import JobStorage
from penstock.runtime.snapshot_files import read_newest_entry
from penstock.storage.local import LocalStore
from penstock.storage.location import open_store
from penstock.storage.memory import MemoryStore
from penstock.storage.store import Store

JOB = JobId("words")
NEWEST = paths.log_entry(JOB, ENTRY.seq)


@pytest.fixture(params=["memory", "local", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> JobStorage:
    store: Store
    match request.param:
        case "memory":
            store = MemoryStore(itertools.count(1).__next__)
        case "local":
            store = LocalStore(tmp_path / "state")
        case _:
            store = open_store(f"s3://{request.getfixturevalue('new_bucket')()}/state")
    return JobStorage(JOB, store, store, tmp_path)


def put(storage: JobStorage, *entries: Entry) -> None:
    for entry in entries:
        assert storage.run(log.append(JOB, entry)) == log.Won(entry)


def damage(storage: JobStorage) -> dict[str, bytes]:
    """One bit of the newest entry is another; all that lies there now."""
    data = storage.checkpoints.get(NEWEST)
    assert data is not None
    place = data.index(b'"nextCheckpoint": 10') + len(b'"nextCheckpoint": 1')
    flipped = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
    storage.checkpoints.put(NEWEST, flipped)
    assert b'"nextCheckpoint": 11' in flipped
    return content(storage)


def content(storage: JobStorage) -> dict[str, bytes]:
    store = storage.checkpoints
    return {info.path: store.get(info.path) or b"" for info in store.list("")}


def test_the_newest_entry_is_read_back(storage: JobStorage):
    put(storage, replace(ENTRY, seq=39, nonce="39"), ENTRY)
    assert read_newest_entry(storage) == ENTRY


def test_a_flipped_bit_of_the_newest_entry_is_told_with_the_objects_address(storage: JobStorage):
    put(storage, replace(ENTRY, seq=39, nonce="39"), ENTRY)
    damage(storage)
    for steps in (log.read_newest(JOB), recovery.read_job(JOB)):
        with pytest.raises(Corrupt, match="entry of the job's log is damaged") as e:
            storage.run(steps)  # type: ignore[arg-type]
        assert e.value.where == f"{storage.checkpoints.url}/{NEWEST}"


def test_nobody_wins_the_number_of_a_damaged_entry_and_nothing_is_written(storage: JobStorage):
    put(storage, ENTRY)
    there = damage(storage)
    with pytest.raises(Corrupt, match="damaged"):
        storage.run(log.append(JOB, replace(ENTRY, nonce="another")))
    assert content(storage) == there


def test_an_older_entry_under_the_name_of_the_newest_is_not_believed(storage: JobStorage):
    older = replace(ENTRY, seq=39, nonce="39")
    put(storage, older, ENTRY)
    storage.checkpoints.put(NEWEST, older.to_bytes())
    with pytest.raises(Corrupt, match="entry 39 of the job's log lies under the name of entry 40"):
        read_newest_entry(storage)


def test_an_older_entry_may_be_damaged_nobody_reads_it(storage: JobStorage):
    put(storage, ENTRY)
    damage(storage)
    newer = replace(ENTRY, seq=ENTRY.seq + 1, nonce="41")
    storage.checkpoints.put(paths.log_entry(JOB, newer.seq), newer.to_bytes())
    assert read_newest_entry(storage) == newer
