"""From an applied manifest to a running job, and through suspension to its end."""

from penstock.spec.orders import JobPhase, StartOrder, StopOrder
from penstock_operator.reconcile import effects as do
from penstock_operator.resources.status import Phase


def test_an_applied_job_runs(world):
    world.settle()
    assert world.status.phase is Phase.RUNNING
    assert world.phase is JobPhase.RUNNING
    (order,) = world.orders(StartOrder)
    assert (order.parallelism, order.hold, order.after) == (2, None, 0)
    assert world.condition("Ready") == ("True", "Running")


def test_upgrade(running):
    running.apply(image="words:2")
    running.settle()
    assert running.status.upgrade.step == "Stable", running.status
    assert running.status.stable_revision == running.revision


def test_rollback(running):
    old = running.revision
    running.apply(image="words:2")
    running.broken.add(running.revision)
    running.settle()
    assert running.status.upgrade.step == "RolledBack", running.status
    assert running.log.revision == old


def test_rescale(running):
    running.apply(parallelism=4)
    running.settle()
    assert running.log.parallelism == 4
    running.now += running.decision.look_again * 3
    running.apply(parallelism=1)
    running.settle()
    assert running.claims == {0}


def test_suspend_resume(running):
    running.apply(desiredState="Suspended")
    running.settle()
    assert running.status.phase is Phase.SUSPENDED
    assert not running.pods
    running.turn(5)
    running.apply(desiredState="Running")
    running.settle()
    assert running.status.phase is Phase.RUNNING
    assert len(running.orders(StopOrder)) == 1


def test_delete(running):
    running.deleted_at = running.now
    running.until(lambda w: not w.finalizers)
    assert running.last(do.SetFinalizer).present is False
    (savepoint,) = running.savepoints.values()
    assert savepoint.status.phase == "Completed"
