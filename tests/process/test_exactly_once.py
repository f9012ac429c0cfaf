"""Every record counts once, whichever process is killed at whichever moment."""

import os
from pathlib import Path

import pytest
from tests.process.support import Cluster, Killer, Settings, assert_same_lines
from tests.process.support_jobs import counts_of, lines_of

pytestmark = pytest.mark.process

SEED = int(os.environ.get("PENSTOCK_SEED", "20240607"))


def _survives(folder: Path, *, count: int, per_second: int, kills: int) -> None:
    print(f"PENSTOCK_SEED={SEED} reproduces it")
    settings = Settings(parameters={"count": count, "per_second": per_second})
    with Cluster(folder, settings, parallelism=3) as cluster:
        cluster.start()
        killer = Killer(cluster, SEED)
        try:
            killer.kill(kills)
            cluster.wait_for_phase("Finished", within_s=120)
        finally:
            print("killed:", ", ".join(killer.killed))
        assert len(killer.killed) == kills
        assert_same_lines(cluster.output(), lines_of(count))
        assert cluster.final_state() == counts_of(count)


def test_no_record_is_lost_or_counted_twice_though_processes_are_killed(tmp_path: Path) -> None:
    _survives(tmp_path, count=100_000, per_second=20_000, kills=6)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_million_records_survive_more_than_twenty_kills(tmp_path: Path) -> None:
    _survives(tmp_path, count=1_000_000, per_second=40_000, kills=24)
