"""`python -m tests.simulation.whole 17`: one seed with its trace. `0 48`: those from 0 to 47."""

import sys

from tests.simulation.seeds import command_line
from tests.simulation.whole.simulation import COMMAND, Simulation

if __name__ == "__main__":
    sys.exit(command_line(Simulation, command=COMMAND))
