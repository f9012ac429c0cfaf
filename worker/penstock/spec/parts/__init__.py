"""The parts of a StreamJob, and the fields and rules they are made of."""
