"""Every record counts once with everything in S3: checkpoints, savepoints and output."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.process.support import Cluster, Killer, Settings, assert_same_lines, wait_for
from tests.process.support_jobs import counts_of, lines_of
from tests.process.support_s3 import Relay, new_bucket, real_s3

pytestmark = [pytest.mark.process, pytest.mark.s3]

SEED = int(os.environ.get("PENSTOCK_SEED", "20240608"))


@pytest.fixture
def relay(monkeypatch: pytest.MonkeyPatch) -> Iterator[Relay]:
    """The way to the S3 server for all processes that a test starts."""
    with Relay(real_s3()) as relay:
        monkeypatch.setenv("AWS_ENDPOINT_URL", relay.url)
        yield relay


def _settings(relay: Relay, *, count: int, per_second: int, more: str = "") -> Settings:
    bucket = new_bucket(relay.url)
    return Settings(
        parameters={"count": count, "per_second": per_second},
        storage=f"s3://{bucket}/jobs",
        output=f"s3://{bucket}/out",
        more=more,
    )


def test_no_record_is_lost_or_counted_twice_with_everything_in_s3(
    tmp_path: Path, relay: Relay
) -> None:
    print(f"PENSTOCK_SEED={SEED} reproduces it")
    settings = _settings(relay, count=100_000, per_second=20_000)
    with Cluster(tmp_path, settings, parallelism=2) as cluster:
        cluster.start()
        cluster.wait_for_checkpoint()
        savepoint = cluster.order("savepoints", "before-the-kills")
        assert savepoint["path"].startswith(settings.storage)
        killer = Killer(cluster, SEED)
        killer.kill(5)
        answer = cluster.order("stop", "stop")
        assert answer["path"].startswith(settings.storage)
        assert sum(cluster.final_state().values()) == len(cluster.output())
        cluster.start("start-again")
        cluster.wait_for_phase("Finished")
        assert_same_lines(cluster.output(), lines_of(100_000))
        assert cluster.final_state() == counts_of(100_000)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_million_records_survive_twenty_kills_with_everything_in_s3(
    tmp_path: Path, relay: Relay
) -> None:
    print(f"PENSTOCK_SEED={SEED} reproduces it")
    settings = _settings(relay, count=1_000_000, per_second=30_000)
    with Cluster(tmp_path, settings, parallelism=3) as cluster:
        cluster.start()
        cluster.wait_for_checkpoint()
        killer = Killer(cluster, SEED)
        killer.kill(20)
        cluster.wait_for_phase("Finished", within_s=300)
        assert len(killer.killed) == 20
        assert_same_lines(cluster.output(), lines_of(1_000_000))
        assert cluster.final_state() == counts_of(1_000_000)


def test_while_s3_is_away_checkpoints_fail_and_records_flow_on(
    tmp_path: Path, relay: Relay
) -> None:
    settings = _settings(relay, count=200_000, per_second=25_000)
    settings.output = "out"  # an open upload of a sink does not survive it: that is the next test
    with Cluster(tmp_path, settings, parallelism=2) as cluster:
        cluster.start()
        cluster.wait_for_checkpoint()
        attempt = cluster.status()["attempt"]
        relay.cut()
        wait_for(lambda: "checkpoint failed" in _log(tmp_path), "a failed checkpoint")
        before = _records(cluster)
        wait_for(lambda: _records(cluster) > before, "records that flow on")
        relay.mend()
        cluster.wait_for_checkpoint(after=cluster.status()["lastCheckpoint"]["id"])
        assert cluster.status()["attempt"] == attempt
        cluster.wait_for_phase("Finished")
        assert_same_lines(cluster.output(), lines_of(200_000))
        wait_for(lambda: cluster.unreferenced() == (set(), set()), "files are as manifests say")


@pytest.mark.slow
def test_a_store_that_is_away_during_recovery_does_not_end_the_job(
    tmp_path: Path, relay: Relay
) -> None:
    settings = _settings(
        relay, count=100_000, per_second=20_000, more="  state: {localRecovery: false}\n"
    )
    with Cluster(tmp_path, settings, parallelism=2) as cluster:
        cluster.start()
        cluster.wait_for_checkpoint()
        relay.cut()
        cluster.workers[0].signal(9)
        cluster.coordinator.signal(9)
        wait_for(lambda: "store" in _log(tmp_path), "the store is missed")
        relay.mend()
        cluster.wait_for_phase("Finished")
        assert_same_lines(cluster.output(), lines_of(100_000))


@pytest.mark.slow
def test_a_download_that_takes_long_is_no_lack_of_progress(tmp_path: Path, relay: Relay) -> None:
    more = "  state: {localRecovery: false}\n  worker: {progressTimeout: 2s}\n"
    settings = _settings(relay, count=50_000, per_second=20_000, more=more)
    with Cluster(tmp_path, settings, parallelism=1) as cluster:
        cluster.start()
        cluster.wait_for_checkpoint()
        relay.hold(b"/shared/")
        cluster.workers[0].signal(9)
        wait_for(lambda: relay.is_holding and cluster.status()["attempt"] == 2, "a download")
        # Not waiting for a fact: that nothing happens for longer than the limit is the fact.
        threading.Event().wait(3.5)
        relay.release()
        cluster.wait_for_phase("Finished")
        assert cluster.newest_entry().attempt.number == 2


def _records(cluster: Cluster) -> int:
    return sum(o["recordsIn"] for o in cluster.status()["operators"] if o["id"] == "check")


def _log(folder: Path) -> str:
    return (folder / "coordinator.log").read_text()
