"""A status that was lost at any moment: what the world tells is learnt, and nothing is done before."""

import pytest

from penstock.spec.orders import JobPhase, Origin, StartOrder, StopOrder
from penstock_operator.reconcile import effects as do
from penstock_operator.resources.status import MoveKind, Phase, Step, StopWay, StreamJobStatus

TEMPLATES = (do.EnsureWorkers, do.EnsureCoordinator, do.DeletePods, do.RemoveCoordinator)


def lose(world):
    world.status = StreamJobStatus()
    world.done.clear()


def changes_of_templates(world):
    """What touches pods of another revision than the one that was applied."""
    revision = world.workers.revision
    return [
        e
        for e in world.done
        if isinstance(e, TEMPLATES) and getattr(e, "revision", None) != revision
    ]


def test_a_new_job_is_known_never_to_have_run(world):
    world.turn()
    assert world.status.attempt == 0


def test_a_job_with_a_revision_may_have_run_until_its_coordinator_has_read_the_log(world):
    world.until(lambda w: w.coordinator is not None)
    world.silent = True
    lose(world)
    world.turn(20)
    assert world.status.attempt is None
    assert world.status.move is None
    world.silent = False
    world.turn()
    assert world.status.attempt == 0
    world.settle()
    assert world.status.phase is Phase.RUNNING


def test_an_open_run_is_stopped_first_also_when_nobody_answers_and_the_status_is_lost(running):
    old = running.revision
    running.apply(image="words:2")
    running.until(lambda w: w.status.move is not None and w.status.move.step is Step.STOPPING)
    running.silent = True
    lose(running)
    running.turn(60)
    assert running.status.move.step is Step.STOPPING
    assert not changes_of_templates(running)
    running.silent = False
    running.settle()
    assert running.orders(StopOrder)
    assert running.status.revision == running.revision != old


def test_no_worker_is_taken_away_while_nobody_says_how_many_the_run_has(running):
    running.apply(parallelism=1)
    running.silent = True
    lose(running)
    running.turn(30)
    assert not [e for e in running.done if isinstance(e, do.EnsureWorkers)]
    running.silent = False
    running.settle()
    assert running.status.parallelism == 1
    assert not running.orders(StartOrder)


def test_an_upgrade_whose_status_was_lost_between_two_versions_goes_on_under_its_hold(running):
    old = running.revision
    running.apply(image="words:2")
    running.until(lambda w: w.coordinator.revision == w.revision and w.answer() is not None)
    assert running.log.end is JobPhase.STOPPED
    lose(running)
    running.until(lambda w: w.status.move is not None)
    move = running.status.move
    assert (move.kind, move.step, move.way) == (MoveKind.UPGRADE, Step.REPLACING, StopWay.NOTHING)
    assert (running.status.upgrade.from_, running.status.upgrade.to) == (old, running.revision)
    running.settle()
    (order,) = running.orders(StartOrder)
    assert (order.origin, order.hold) == (Origin.LOG, 2)
    assert running.status.stable_revision == running.revision


def test_a_suspended_job_whose_status_was_lost_learns_when_it_is_resumed(running):
    running.apply(desiredState="Suspended")
    running.settle()
    lose(running)
    running.settle()
    assert running.status.phase is Phase.SUSPENDED
    running.apply(desiredState="Running")
    running.settle()
    assert running.status.phase is Phase.RUNNING
    assert running.status.attempt == 2


def test_a_restore_that_the_log_obeyed_is_not_obeyed_again_after_the_status_was_lost(running):
    running.apply(restore={"from": "s3://bucket/savepoints/mine"})
    running.settle()
    obeyed = running.status.restore_id
    lose(running)
    running.settle()
    assert running.status.restore_id == obeyed
    assert not running.orders(StartOrder)


def test_a_restore_that_changes_after_the_status_was_lost_is_obeyed(running):
    running.apply(restore={"from": "s3://bucket/savepoints/mine"})
    running.settle()
    lose(running)
    running.apply(restore={"from": "s3://bucket/savepoints/another"})
    running.settle()
    (order,) = running.orders(StartOrder)
    assert order.restore.from_ == "s3://bucket/savepoints/another"


@pytest.mark.parametrize("policy", ["Delete", "Savepoint"])
def test_a_deletion_whose_status_was_lost_counts_with_state(running, policy):
    running.apply(deletion={"policy": policy})
    running.turn(3)
    running.deleted_at = running.now
    running.silent = True
    lose(running)
    running.turn(20)
    assert running.status.move.step is Step.STOPPING
    assert do.SetFinalizer(False) not in running.done
