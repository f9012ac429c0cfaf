"""Local directories for working state: which of several a new backend lies in."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from random import Random

from penstock.core.errors import Rejected

_log = logging.getLogger(__name__)


class Strategy(StrEnum):
    """How to choose among several directories; the string is what a manifest says."""

    ROUND_ROBIN = "RoundRobin"
    RANDOM = "Random"
    LEAST_USED = "LeastUsed"


class LocalDirectories:
    """The usable ones of several directories. One per process, shared by all its backends.

    `seed` is for Random: the same gives the same choices.
    """

    def __init__(
        self, paths: Sequence[Path], *, strategy: Strategy = Strategy.ROUND_ROBIN, seed: int = 0
    ) -> None:
        self.usable = _usable(paths)
        self._strategy = strategy
        self._random = Random(seed)
        self._turn = 0

    def choose(self) -> Path:
        """The directory for the next backend."""
        match self._strategy:
            case Strategy.ROUND_ROBIN:
                self._turn += 1
                return self.usable[(self._turn - 1) % len(self.usable)]
            case Strategy.RANDOM:
                return self._random.choice(self.usable)
            case Strategy.LEAST_USED:
                return max(self.usable, key=_free_bytes)


def _usable(paths: Sequence[Path]) -> list[Path]:
    problems: list[str] = []
    usable: list[Path] = []
    for path in paths:
        problem = _problem(path)
        if problem is None:
            usable.append(path)
        else:
            problems.append(problem)
    if not usable:
        raise Rejected(
            f"no local directory can be used: {'; '.join(problems) or 'none is given'}",
            where="state.localDirectories",
            fix="give absolute paths on volumes that the process may write to",
        )
    for problem in problems:
        _log.warning("local directory skipped: %s", problem)
    return usable


def _problem(path: Path) -> str | None:
    """Why a directory cannot be used: it is made, written to and read from."""
    if not path.is_absolute():
        return f"{path} is not an absolute path"
    probe = path / f".probe-{os.getpid()}"
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"penstock")
        readable = probe.read_bytes() == b"penstock"
        probe.unlink()
    except OSError as e:
        return f"{path}: {e.strerror}"
    return None if readable else f"{path} does not give back what was written"


def _free_bytes(path: Path) -> int:
    try:
        return shutil.disk_usage(path).free
    except OSError:  # its volume went away since it was probed: the last to be chosen
        return -1
