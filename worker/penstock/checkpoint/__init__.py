"""Decisions about checkpoints, recovery and the end of a job: events in, effects out.

Pure: no I/O, no clock, no threads, no randomness. What is decided here is carried out by
`penstock.runtime` in production and by `penstock.testing` in the simulator, with the same code.
"""
