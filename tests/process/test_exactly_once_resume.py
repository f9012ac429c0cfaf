"""A job that was stopped goes on where it was, with any number of workers and on any backend."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.process.support import Cluster, Settings, assert_same_lines
from tests.process.support_jobs import counts_of, lines_of

pytestmark = pytest.mark.process

COUNT = 100_000


@dataclass(frozen=True)
class Leg:
    """One run: where state lives, on how many workers, and how it ends."""

    backend: str
    parallelism: int
    end: str


def _settings(backend: str) -> Settings:
    return Settings(
        parameters={"count": COUNT, "per_second": 30_000},
        interval="300ms",
        more=f"  state: {{backend: {backend}}}\n",
    )


def _run(folder: Path, leg: Leg, number: int) -> None:
    with Cluster(folder, _settings(leg.backend), parallelism=leg.parallelism) as cluster:
        before = (cluster.status().get("lastCheckpoint") or {}).get("id", 0)
        cluster.start(f"start-{number}")
        if leg.end == "finish":
            cluster.wait_for_phase("Finished")
        else:
            cluster.wait_for_checkpoint(after=before + 1)
            answer = cluster.order(leg.end, f"end-{number}")
            assert answer["phase"] == "Done", answer
        end = cluster.newest_entry().end
        assert end is not None
        assert end.committed
        # What was committed is exactly what the state has seen.
        counted = Counter(line.split('"')[1] for line in cluster.output())
        assert counted == cluster.final_state()
        if leg.end == "finish":
            assert_same_lines(cluster.output(), lines_of(COUNT))
            assert cluster.final_state() == counts_of(COUNT)
        else:
            assert 0 < counted.total() < COUNT


def test_stopped_with_a_savepoint_it_goes_on_at_any_parallelism_on_any_backend(
    tmp_path: Path,
) -> None:
    legs = [
        Leg("RocksDB", 2, "stop"),
        Leg("FileSystem", 1, "stop"),
        Leg("RocksDB", 5, "stop"),
        Leg("Memory", 2, "stop"),
        Leg("RocksDB", 1, "finish"),
    ]
    for number, leg in enumerate(legs):
        _run(tmp_path, leg, number)


@pytest.mark.slow
def test_from_a_retained_checkpoint_it_goes_on_at_any_parallelism_on_any_backend(
    tmp_path: Path,
) -> None:
    legs = [
        Leg("RocksDB", 2, "cancel"),
        Leg("RocksDB", 5, "cancel"),
        Leg("Memory", 1, "cancel"),
        Leg("FileSystem", 2, "cancel"),
        Leg("RocksDB", 2, "finish"),
    ]
    for number, leg in enumerate(legs):
        _run(tmp_path, leg, number)
