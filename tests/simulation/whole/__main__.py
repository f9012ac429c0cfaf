"""`python -m tests.simulation.whole 17`: one seed with its trace. `0 48`: those from 0 to 47."""

import sys

from tests.simulation.whole.simulation import Simulation, failures


def main() -> int:
    """Exit code 1 when something that must never happen did."""
    numbers = [int(argument) for argument in sys.argv[1:]]
    if len(numbers) == 1:
        outcome = Simulation(numbers[0]).run()
        print("\n".join(outcome.trace))
        print(outcome.violation or "all held")
        return 0 if outcome.violation is None else 1
    first, stop = numbers
    failed = failures(range(first, stop))
    print("\n".join([*failed, f"{len(failed)} of {stop - first} seeds fail"]))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
