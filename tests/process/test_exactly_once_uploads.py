"""Uploads that fail, files that are damaged, and copies that are not to be trusted."""

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.process.support import JOB, Cluster, Settings, assert_same_lines, wait_for
from tests.process.support_jobs import counts_of, lines_of

from penstock.core.handles import FileHandle
from penstock.core.manifest import Manifest
from penstock.snapshots import Snapshot

pytestmark = pytest.mark.process

COUNT = 80_000


def _settings(*, interval: str = "300ms", more: str = "") -> Settings:
    return Settings(parameters={"count": COUNT, "per_second": 25_000}, interval=interval, more=more)


def _finishes(cluster: Cluster) -> None:
    cluster.wait_for_phase("Finished")
    assert_same_lines(cluster.output(), lines_of(COUNT))
    assert cluster.final_state() == counts_of(COUNT)


def _stop_workers(cluster: Cluster) -> None:
    for worker in cluster.workers:
        worker.is_kept = False
        worker.signal_all(signal.SIGKILL)
    wait_for(lambda: not any(w["connected"] for w in cluster.status()["workers"]), "no worker")


def _start_workers(cluster: Cluster) -> None:
    for worker in cluster.workers:
        worker.is_kept = True


def test_after_a_failover_what_the_confirmed_checkpoint_has_is_not_uploaded_again(
    tmp_path: Path,
) -> None:
    with Cluster(tmp_path, _settings(), parallelism=2) as cluster:
        cluster.start()
        cluster.wait_for_checkpoint(after=1)
        cluster.workers[0].signal(signal.SIGKILL)
        wait_for(lambda: cluster.newest_entry().attempt.number == 2, "the next attempt")
        wait_for(lambda: cluster.manifests()[-1].attempt == 2, "its first checkpoint")
        shared = [f.path for f in _shared(cluster.manifests()[-1])]
        assert any(path.startswith("shared/1-") for path in shared), shared
        assert any(path.startswith("shared/2-") for path in shared), shared
        _finishes(cluster)
        # A local name may mean other content after the failover; each file is what it is said to be.
        for ref in cluster.newest_entry().retained:
            found = Snapshot.open(f"{cluster.storage.checkpoints.url}/{ref.path}")
            assert found.damages(content=True) == []


def _shared(manifest: Manifest) -> Iterator[FileHandle]:
    return (file for file in manifest.files() if file.shared)


def test_what_a_declined_checkpoint_uploaded_is_deleted_and_the_job_goes_on(
    tmp_path: Path,
) -> None:
    job = tmp_path / "state/checkpoints" / JOB
    with Cluster(tmp_path, _settings(interval="200ms"), parallelism=2) as cluster:
        cluster.start()
        newest = cluster.wait_for_checkpoint()
        # A file where a checkpoint's own folder should be: shared files go up, private ones do not.
        blocked = [job / f"chk-{n}" for n in range(newest + 3, newest + 6)]
        for path in blocked:
            path.write_bytes(b"")
        cluster.wait_for_checkpoint(after=newest + 5)
        log = (tmp_path / "coordinator.log").read_text()
        assert f"checkpoint failed id={newest + 3}" in log
        assert cluster.newest_entry().attempt.number == 1
        _finishes(cluster)
        for path in blocked:
            path.unlink()
        wait_for(lambda: cluster.unreferenced() == (set(), set()), "files are as manifests say")


def test_a_damaged_local_copy_is_passed_over_for_the_store(tmp_path: Path) -> None:
    with Cluster(tmp_path, _settings(), parallelism=2) as cluster:
        cluster.start()
        cluster.wait_for_checkpoint()
        _stop_workers(cluster)
        tables = list(tmp_path.glob("local/*/copies/chk-*/*/data/*.sst"))
        assert tables
        for table in tables:
            _damage(table)
        _start_workers(cluster)
        _finishes(cluster)
        assert cluster.newest_entry().attempt.number == 2


@pytest.mark.slow
def test_a_damaged_file_in_the_store_ends_the_job_by_name(tmp_path: Path) -> None:
    with Cluster(tmp_path, _settings(), parallelism=2) as cluster:
        cluster.start()
        cluster.wait_for_checkpoint()
        _stop_workers(cluster)
        shutil.rmtree(tmp_path / "local")
        file = next(_shared(cluster.manifests()[-1]))
        _damage(tmp_path / "state/checkpoints" / JOB / file.path)
        _start_workers(cluster)
        status = cluster.wait_for_phase("Failed")
        assert f"{file.path} is damaged" in status["lastError"]["what"]
        entry = cluster.newest_entry()
        assert entry.end is not None
        assert entry.end.go_on_from in entry.retained


def test_a_missing_file_is_named_and_an_older_checkpoint_can_be_chosen(tmp_path: Path) -> None:
    with Cluster(tmp_path, _settings(), parallelism=2) as cluster:
        cluster.start()
        cluster.wait_for_checkpoint(after=2)
        assert cluster.order("cancel", "cancel")["phase"] == "Done"
        older, newest = cluster.newest_entry().retained[-2:]
        old, new = cluster.manifests()[-2:]
        kept = {file.path for file in old.files()}
        lost = next(file for file in new.files() if file.path not in kept)
        (tmp_path / "state/checkpoints" / JOB / lost.path).unlink()
        refused = _order(cluster, "go-on")
        assert lost.path in refused["body"] or lost.path in refused.get("error", ""), refused
        refused = _order(cluster, "named", restore={"from": f"chk-{newest.id}"})
        assert lost.path in refused["body"]
        assert f"chk-{older.id}" in refused["body"]
        cluster.start("older", restore={"from": f"chk-{older.id}"})
        cluster.wait_for_phase("Finished")
        # Output since the older one is written twice, which was asked for; state counts once.
        assert cluster.final_state() == counts_of(COUNT)
        assert set(cluster.output()) == set(lines_of(COUNT))


@pytest.mark.slow
def test_a_newest_checkpoint_whose_manifest_is_damaged_is_not_restored(tmp_path: Path) -> None:
    with Cluster(tmp_path, _settings(), parallelism=2) as cluster:
        cluster.start()
        cluster.wait_for_checkpoint(after=1)
        assert cluster.order("cancel", "cancel")["phase"] == "Done"
        newest = cluster.newest_entry().retained[-1]
        _damage(tmp_path / "state/checkpoints" / newest.path)
        refused = _order(cluster, "go-on")
        assert newest.path in refused["body"]
        assert cluster.status()["attempt"] == 1


def _order(cluster: Cluster, request_id: str, **fields: object) -> dict[str, str]:
    status = cluster.status()
    return cluster.order(
        "start", request_id, after=status["logSeq"], revision="r1", parallelism=2, **fields
    )


def _damage(file: Path) -> None:
    """Change one byte in the middle, as a disk may; a hard link elsewhere is left alone."""
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.unlink()
    file.write_bytes(data)
