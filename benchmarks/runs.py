"""What all comparisons share: marginal rates, and commands that leave no process behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any


class TooClose(Exception):
    """The larger size took no longer than the smaller one: nothing can be said of the rate."""


def marginal(seconds_of: Callable[[int], float], records: Sequence[int]) -> dict[str, Any]:
    """The rate between two sizes, in which start-up does not count.

    Raises:
        TooClose: there is none; larger sizes are needed, or a quieter machine.
    """
    few, many = sorted(records)
    took = [seconds_of(few), seconds_of(many)]
    if took[1] <= took[0]:
        raise TooClose(f"{many:,} records took no longer than {few:,}: {took}")
    return {
        "records": [few, many],
        "seconds": [round(seconds, 3) for seconds in took],
        "records_per_second": round((many - few) / (took[1] - took[0])),
    }


def output_of(command: Sequence[str], env: Mapping[str, str] | None = None) -> tuple[str, str]:
    """What a command prints to its two outputs; whatever it started ends with it, however this ends."""
    with subprocess.Popen(
        command,
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            return process.communicate()
        finally:
            with contextlib.suppress(ProcessLookupError):  # all of them are gone
                os.killpg(process.pid, signal.SIGKILL)


def end_tidily() -> None:
    """A request to end is an exit like any other: what was started is ended, folders are removed."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


def said(message: str) -> None:
    """For the person who waits."""
    print(message, file=sys.stderr, flush=True)
