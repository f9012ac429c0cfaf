"""Keyed state carried from one parallelism to the next: each worker fetches what its disk has not.

Real databases, a real store, and a disk for each worker; a plain dict is the oracle.
"""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import shake_128
from pathlib import Path

import pytest

from penstock.core.errors import Corrupt
from penstock.core.handles import KeyedHandle, SubtaskSnapshot
from penstock.core.ids import AttemptNumber, CheckpointId, JobId, OperatorId, SubtaskId
from penstock.core.keygroups import key_group, owned_range
from penstock.core.keys import encode_key
from penstock.core.rows import row_prefix
from penstock.core.snapshots import KeyedSource, OperatorPart, OperatorRestore
from penstock.network import frames
from penstock.runtime.job_storage import JobStorage
from penstock.runtime.transfers import LocalCopies, Upload, Uploader, bring
from penstock.state.backend import KeyedBackend, LocalPart
from penstock.state.heap import open_heap
from penstock.state.rocks import open_rocks
from penstock.storage.local import LocalStore

JOB, OPERATOR, TABLE = JobId("counting"), OperatorId("check"), "seen"
G = 128
KEYS = 3_000
FACTORIES = {"rocks": open_rocks, "heap": open_heap}


@dataclass
class Job:
    """A job's state on the disks of its workers and in the store; worker i runs subtask i."""

    folder: Path
    backend: str
    model: dict[int, bytes] = field(default_factory=dict)
    handles: list[KeyedHandle] = field(default_factory=list)
    attempt: int = 0
    checkpoint: int = 0

    @property
    def storage(self) -> JobStorage:
        store = LocalStore(self.folder / "store")
        return JobStorage(JOB, store, store, self.folder)

    def copies(self, worker: int) -> LocalCopies:
        return LocalCopies(self.folder / f"disk-{worker}" / "copies", JOB)

    def run(self, parallelism: int) -> list[int]:
        """One attempt: restores, changes a third of the keys, takes a checkpoint; the bytes that
        each worker fetched."""
        self.attempt += 1
        self.checkpoint += 1
        fetched, handles = [], []
        for worker in range(parallelism):
            backend, brought = self.restored(worker, parallelism)
            fetched.append(brought)
            backend.open_table(TABLE)
            mine = owned_range(worker, parallelism=parallelism, max_parallelism=G)
            changed = [k for k in range(self.attempt % 3, KEYS, 3) if _group(k) in mine]
            for key in changed:
                self.model[key] = _value(key, self.attempt)
            backend.write(TABLE, sorted((_row(k), self.model[k]) for k in changed))
            handles.append(self.snapshot(worker, parallelism, backend))
            backend.close()
        self.handles = handles
        for worker in range(parallelism):
            self.copies(worker).drop_before(CheckpointId(self.checkpoint))
        return fetched

    def restored(self, worker: int, parallelism: int) -> tuple[KeyedBackend, int]:
        """A worker's part of the newest checkpoint in a database of its own."""
        mine = owned_range(worker, parallelism=parallelism, max_parallelism=G)
        sources = tuple(
            KeyedSource(handle, handle.groups.intersection(mine), JOB)
            for handle in self.handles
            if handle.groups.intersection(mine)
        )
        disk = self.folder / f"disk-{worker}"
        plan = {OPERATOR: {worker: OperatorRestore(keyed=sources)}}
        brought = bring(self.storage, self.copies(worker), plan, disk / f"fetched-{self.attempt}")
        paths = brought.paths[OPERATOR][worker]
        backend = FACTORIES[self.backend](
            disk / f"db-{self.attempt}-{parallelism}", groups=mine, max_parallelism=G, options={}
        )
        if sources:
            backend.restore(
                [
                    LocalPart(
                        s.handle.format,
                        s.handle.groups,
                        s.groups,
                        Path(path) if path else None,
                        s.handle.inline,
                        s.handle.offsets,
                    )
                    for s, path in zip(sources, paths, strict=True)
                ]
            )
        return backend, brought.fetched_bytes

    def snapshot(self, worker: int, parallelism: int, backend: KeyedBackend) -> KeyedHandle:
        """Upload a worker's part, and keep its copy."""
        groups = owned_range(worker, parallelism=parallelism, max_parallelism=G)
        copy = self.folder / f"disk-{worker}" / f"chk-{self.attempt}-{self.checkpoint}"
        copy.parent.mkdir(exist_ok=True)
        copied = backend.copy_out(copy)
        handle = KeyedHandle(copied.format, groups, offsets=copied.offsets)
        n, attempt = CheckpointId(self.checkpoint), AttemptNumber(self.attempt)
        part = frames.Snapshotted(
            attempt,
            n,
            SubtaskId(OPERATOR, worker),
            {OPERATOR: OperatorPart(SubtaskSnapshot(handle))},
            {OPERATOR: str(copy)},
        )
        uploader = Uploader(
            self.storage, attempt, max_parallelism=G, is_incremental=True, keeps_in_manifest=False
        )
        acked = uploader.run(Upload(part, frames.Trigger(attempt, n, None)))
        self.copies(worker).keep(acked, part.copies)
        done = acked.parts[OPERATOR].snapshot.keyed
        assert done is not None
        return done

    def check(self, parallelism: int) -> list[int]:
        """See that the newest checkpoint restores to the model; the bytes that each fetched."""
        self.attempt += 1
        found: dict[bytes, bytes] = {}
        fetched = []
        for worker in range(parallelism):
            backend, brought = self.restored(worker, parallelism)
            for group in owned_range(worker, parallelism=parallelism, max_parallelism=G):
                found |= dict(backend.scan(TABLE, group.to_bytes(1, "big")))
            backend.close()
            fetched.append(brought)
        assert found == {_row(key): value for key, value in self.model.items()}
        return fetched


@pytest.fixture(params=FACTORIES)
def job(request: pytest.FixtureRequest, tmp_path: Path) -> Job:
    return Job(tmp_path, request.param)


def test_a_change_of_parallelism_keeps_all_state_and_fetches_only_what_others_had(job: Job) -> None:
    assert job.run(1) == [0]
    [one] = [handle.size_bytes for handle in job.handles]
    assert job.run(3) == [0, one, one]
    sizes = [handle.size_bytes for handle in job.handles]
    # Of three ranges, the middle one goes to both: each survivor has its own and wants one more.
    assert job.check(2) == [sizes[1], sizes[2]]
    assert job.run(2) == [sizes[1], sizes[2]]
    assert job.check(2) == [0, 0]


def test_a_lost_disk_is_fetched_whole(job: Job) -> None:
    job.run(2)
    shutil.rmtree(job.folder / "disk-1")
    assert job.check(2) == [0, job.handles[1].size_bytes]


def test_a_damaged_copy_is_fetched_again(job: Job) -> None:
    job.run(2)
    _flip(max(_files(job.folder / "disk-0" / "copies"), key=lambda path: path.stat().st_size))
    assert job.check(3) == [
        job.handles[0].size_bytes,
        job.handles[0].size_bytes,
        job.handles[1].size_bytes,
    ]


def test_the_copy_of_an_attempt_that_lost_its_number_is_not_used(job: Job) -> None:
    job.run(1)
    committed, model = job.handles, dict(job.model)
    job.checkpoint -= 1
    job.run(1)
    # The second attempt's checkpoint has the same number, its copy lies on the disk; the first won.
    job.handles, job.model = committed, model
    assert job.check(1) == [committed[0].size_bytes]


def test_a_damaged_file_of_the_store_is_not_restored(job: Job) -> None:
    job.run(1)
    shutil.rmtree(job.folder / "disk-0")
    files = [job.folder / "store" / JOB / file.path for file in job.handles[0].files]
    _flip(max(files, key=lambda path: path.stat().st_size))
    with pytest.raises(Corrupt, match="damaged"):
        job.check(1)


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _group(key: int) -> int:
    return key_group(encode_key(key), max_parallelism=G)


def _row(key: int) -> bytes:
    return row_prefix(_group(key), encode_key(key), width=1)


def _value(key: int, version: int) -> bytes:
    return shake_128(f"{key} {version}".encode()).digest(100)
