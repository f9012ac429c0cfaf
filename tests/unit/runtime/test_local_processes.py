"""Processes that fall as soon as they are started: how often they are tried, and what is told of them."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from penstock.checkpoint.settings import FailureRate, FixedDelay, NoRestart, RestartStrategy
from penstock.runtime.local_processes import Death, LocalProcesses

DEADLINE_S = 60.0
MODULE = """
import os, signal, sys
from pathlib import Path

starts = Path("starts")
starts.write_text(starts.read_text() + "!" if starts.exists() else "!")
for i in range(20):
    print(f"line {i}", file=sys.stderr)
print("no such library: libgone.so", file=sys.stderr, flush=True)
if "killed" in sys.argv:
    os.kill(os.getpid(), signal.SIGKILL)
os._exit(3)
"""


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "falls.py").write_text(MODULE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))


def death_of(folder: Path, strategy: RestartStrategy, *arguments: str) -> Death:
    """What is told when a process is given up."""

    async def kept() -> Death:
        deaths: asyncio.Future[Death] = asyncio.get_running_loop().create_future()
        with (folder / "stderr").open("wb") as stderr:
            processes = LocalProcesses(
                folder,
                dict(os.environ),
                is_final=lambda _, code: code == 2,
                gave_up=deaths.set_result,
                strategy=strategy,
                stderr=stderr,
            )
            try:
                await processes.keep("worker 0", "falls", *arguments)
                return await asyncio.wait_for(deaths, DEADLINE_S)
            finally:
                await processes.end()

    return asyncio.run(kept())


def starts(folder: Path) -> int:
    return len((folder / "starts").read_text())


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [(NoRestart(), 1), (FixedDelay(1, attempts=2), 3), (FailureRate(1, failures=1), 2)],
)
def test_one_that_falls_at_once_is_started_as_often_as_the_strategy_says(
    tmp_path: Path, strategy: RestartStrategy, expected: int
) -> None:
    death = death_of(tmp_path, strategy)
    assert (death.name, death.how, death.at_once) == (
        "worker 0",
        "ended with exit code 3",
        expected,
    )
    assert starts(tmp_path) == expected


def test_its_last_lines_are_told_and_all_are_passed_on(tmp_path: Path) -> None:
    death = death_of(tmp_path, FixedDelay(1, attempts=1))
    all_lines = [*(f"line {i}" for i in range(20)), "no such library: libgone.so"]
    assert list(death.lines) == all_lines[-len(death.lines) :]
    assert 1 < len(death.lines) < 10
    assert (tmp_path / "stderr").read_text().splitlines() == all_lines * 2


def test_one_that_is_killed_at_once_is_told_by_its_signal(tmp_path: Path) -> None:
    death = death_of(tmp_path, NoRestart(), "killed")
    assert death.code == -signal.SIGKILL
    assert death.how == "was killed by signal 9"


def test_one_that_had_its_time_is_started_again_whatever_fell_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    had_its_time = iter([False, True, True, False, False])
    monkeypatch.setattr(
        "penstock.runtime.local_processes._has_had_its_time", lambda _: next(had_its_time)
    )
    assert death_of(tmp_path, FixedDelay(1, attempts=1)).at_once == 2
    assert starts(tmp_path) == 5
