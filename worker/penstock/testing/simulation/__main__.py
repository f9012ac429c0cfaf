"""`python -m penstock.testing.simulation --seeds 300`: run seeds, print one line for each that fails."""

from __future__ import annotations

import argparse
import sys

from penstock.testing.simulation.simulation import Simulation

COMMAND = "python -m penstock.testing.simulation"


def main() -> int:
    """Exit code 1 when something that must never happen did."""
    parser = argparse.ArgumentParser(prog=COMMAND)
    parser.add_argument("--seeds", type=int, default=300, help="how many, from 0 on")
    parser.add_argument("--seed", type=int, help="only this one, with its trace")
    args = parser.parse_args()
    seeds = range(args.seeds) if args.seed is None else [args.seed]
    failed = 0
    for seed in seeds:
        outcome = Simulation(seed).run()
        if args.seed is not None:
            print("\n".join(outcome.trace))
        if outcome.violation is not None:
            failed += 1
            print(f"seed={seed} {outcome.violation} · {COMMAND} --seed {seed}")
    print(f"{len(seeds) - failed} of {len(seeds)} seeds hold")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
