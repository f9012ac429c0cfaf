"""Every record counts once, whichever process is killed at whichever moment."""

import os
import signal
import threading
from pathlib import Path
from random import Random

import pytest
from tests.process.support import Cluster, Killer, Settings, assert_same_lines
from tests.process.support_jobs import counts_of, lines_of

from penstock.core.log import EndKind

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


def test_a_stop_is_carried_out_once_though_processes_are_killed_meanwhile(tmp_path: Path) -> None:
    print(f"PENSTOCK_SEED={SEED} reproduces it")
    random = Random(SEED)
    count = 100_000
    settings = Settings(parameters={"count": count, "per_second": 40_000}, interval="300ms")
    with Cluster(tmp_path, settings, parallelism=2) as cluster:
        for number in range(4):
            cluster.start(f"start-{number}")
            cluster.wait_for_phase("Running")
            cluster.call("POST", "stop?wait=0", {"requestId": f"stop-{number}"})
            threading.Event().wait(random.uniform(0.0, 0.5))
            victim = [cluster.coordinator, *cluster.workers][number % 3]
            victim.signal(signal.SIGKILL)
            answer = cluster.order("stop", f"stop-{number}")
            assert answer["phase"] == "Done", answer
            assert Path(answer["path"].removeprefix("file://"), "_metadata").exists()
            end = cluster.newest_entry().end
            assert end is not None
            assert (end.kind, end.committed) == (EndKind.STOPPED, True)
            assert sum(cluster.final_state().values()) == len(cluster.output())
        cluster.start("start-last")
        cluster.wait_for_phase("Finished")
        assert_same_lines(cluster.output(), lines_of(count))
        assert cluster.final_state() == counts_of(count)
