"""What simulations of the operator have in common: the outcome of a seed, and a command line."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one seed gave; `violation` is None when all held."""

    seed: int
    violation: str | None
    trace: tuple[str, ...]
    seconds: int


class Simulated(Protocol):
    """A simulation of one seed."""

    def run(self) -> Outcome:
        """Until all is quiet, or something is wrong."""
        ...


def failures(
    simulation: Callable[[int], Simulated], seeds: Iterable[int], *, command: str
) -> list[str]:
    """One line for each seed that fails, with the command that shows it."""
    outcomes = (simulation(seed).run() for seed in seeds)
    return [f"{o.violation} · {command} {o.seed}" for o in outcomes if o.violation is not None]


def command_line(simulation: Callable[[int], Simulated], *, command: str) -> int:
    """`17`: one seed with its trace. `0 300`: those from 0 to 299. Exit code 1 when something that must
    never happen did."""
    numbers = [int(argument) for argument in sys.argv[1:]]
    if len(numbers) == 1:
        outcome = simulation(numbers[0]).run()
        print("\n".join(outcome.trace))
        print(outcome.violation or "all held")
        return 0 if outcome.violation is None else 1
    first, stop = numbers
    failed = failures(simulation, range(first, stop), command=command)
    print("\n".join([*failed, f"{len(failed)} of {stop - first} seeds fail"]))
    return 1 if failed else 0
