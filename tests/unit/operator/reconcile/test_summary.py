"""What the status says to who looks at it."""

from penstock.spec.orders import StartOrder


def test_a_job_that_cannot_start_says_why_where_one_looks_first(world):
    world.refuses[StartOrder] = "the snapshots of the log are gone"
    world.turn(30)
    assert world.condition("Stalled") == ("True", "StartRefused")
    ready = next(c for c in world.status.conditions if c.type == "Ready")
    assert (ready.status, ready.reason) == ("False", "Starting")
    assert ready.message == "the snapshots of the log are gone"
