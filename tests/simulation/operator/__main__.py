"""`python -m tests.simulation.operator 17`: one seed with its trace. `0 300`: those from 0 to 299."""

import sys

from tests.simulation.operator.simulation import COMMAND, Simulation
from tests.simulation.seeds import command_line

if __name__ == "__main__":
    sys.exit(command_line(Simulation, command=COMMAND))
