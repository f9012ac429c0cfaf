"""The author's code raises, or never returns; a machine is paused, and wakes when others do its work."""

import signal
from pathlib import Path

import pytest
from tests.process.support import Cluster, Settings, assert_same_lines, wait_for
from tests.process.support_jobs import counts_of, lines_of

from penstock.core.log import EndKind

pytestmark = pytest.mark.process

POISON_NUMBER, POISON_INDEX = 90, 131_491
"""Record number 90 of key 0-3 is made from this index, some checkpoints after the start."""


@pytest.mark.parametrize(
    ("entrypoint", "operator", "position"),
    [
        ("poisoned_map", "stumble", f"records: record {POISON_INDEX:,} of Generator(seed=0)"),
        pytest.param(
            "poisoned_key",
            "check",
            f"records: record {POISON_INDEX:,} of Generator(seed=0)",
            marks=pytest.mark.slow,
        ),
        ("poisoned_process", "check", None),
    ],
)
def test_a_record_that_fails_three_times_ends_the_job_which_keeps_its_state(
    tmp_path: Path, entrypoint: str, operator: str, position: str | None
) -> None:
    settings = Settings(entrypoint, parameters={"at": POISON_NUMBER}, interval="300ms")
    with Cluster(tmp_path, settings, parallelism=2) as cluster:
        cluster.start()
        status = cluster.wait_for_phase("Failed")
        error = status["lastError"]
        assert error["what"].endswith("ValueError: no good")
        assert operator in error["operator"]
        assert error["record"] == f"['0-3', {POISON_NUMBER}]"
        assert error["position"] == position
        assert any("raise ValueError" in line for line in error["lines"])
        entry = cluster.newest_entry()
        assert entry.end is not None
        assert (entry.end.kind, entry.end.committed) == (EndKind.FAILED, True)
        assert entry.attempt.number == 3
        assert entry.retained[-1] == entry.end.go_on_from
        state = cluster.final_state()
        assert sum(state.values()) == len(cluster.output()) > 0
        assert state["0-3"] <= POISON_NUMBER


def test_code_that_never_returns_is_killed_and_the_job_goes_on(tmp_path: Path) -> None:
    settings = Settings(
        "never_returns", parameters={"at": 20}, more="  worker: {progressTimeout: 2s}\n"
    )
    with Cluster(tmp_path, settings, parallelism=2) as cluster:
        cluster.start()
        stuck = tmp_path / "stuck"
        wait_for(lambda: stuck.exists() and stuck.read_text(), "a child that is stuck")
        cluster.wait_for_phase("Finished")
        assert not Path(f"/proc/{stuck.read_text()}").exists()
        assert "made no progress for" in (tmp_path / "coordinator.log").read_text()
        assert_same_lines(cluster.output(), lines_of(40_000))


def test_a_worker_that_wakes_when_another_has_its_place_writes_nothing(tmp_path: Path) -> None:
    count = 100_000
    settings = Settings(
        parameters={"count": count, "per_second": 25_000},
        interval="200ms",
        more="  worker: {heartbeatTimeout: 2s}\n",
    )
    with Cluster(tmp_path, settings, parallelism=2) as cluster:
        cluster.start()
        paused = cluster.workers[0]
        cluster.wait_for_checkpoint()
        paused.is_kept = False
        paused.signal_all(signal.SIGSTOP)
        attempt = cluster.newest_entry().attempt.number
        wait_for(lambda: cluster.status().get("phase") != "Running", "its absence is noticed")
        cluster.add(cluster.worker(0, workdir="another-worker-0"))
        before = wait_for(
            lambda: cluster.status()["phase"] == "Running" and cluster.status(), "the next attempt"
        )
        paused.signal_all(signal.SIGCONT)
        cluster.wait_for_checkpoint(after=before["lastCheckpoint"]["id"])
        wait_for(lambda: "coordinator lost" in _log(tmp_path, "worker-0"), "the paused one wakes")
        cluster.wait_for_phase("Finished")
        assert cluster.newest_entry().attempt.number == attempt + 1
        assert_same_lines(cluster.output(), lines_of(count))
        assert cluster.final_state() == counts_of(count)


def _log(folder: Path, name: str) -> str:
    return (folder / f"{name}.log").read_text()
