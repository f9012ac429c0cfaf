"""The end of a StreamJob: its state, its pods, its finalizer."""

from dataclasses import replace
from datetime import timedelta

import pytest

from penstock.spec.orders import CancelOrder, JobPhase, StopOrder
from penstock_operator.reconcile import effects as do
from penstock_operator.reconcile.observed import Report
from penstock_operator.resources.names import FINALIZER_STREAMJOB
from penstock_operator.resources.status import Phase, Step


def delete(world):
    world.deleted_at = world.now
    world.done.clear()


def gone(world):
    world.until(lambda w: FINALIZER_STREAMJOB not in w.finalizers)


@pytest.mark.parametrize(
    ("policy", "wanted"), [("Savepoint", True), ("Delete", True), ("Retain", False)]
)
def test_a_finalizer_stands_only_where_something_is_to_be_done_first(running, policy, wanted):
    running.apply(deletion={"policy": policy})
    running.turn(2)
    assert (FINALIZER_STREAMJOB in running.finalizers) is wanted


def test_policy_savepoint_stops_with_one_that_is_an_object_and_then_lets_go(running):
    delete(running)
    gone(running)
    assert len(running.orders(StopOrder)) == 1
    (savepoint,) = running.savepoints.values()
    assert savepoint.status.phase == "Completed"
    assert running.status.phase is Phase.DELETING
    assert running.phase is JobPhase.STOPPED


def test_the_finalizer_goes_only_once_that_was_written_down(running):
    delete(running)
    running.until(lambda w: w.status.move is not None and w.status.move.step is Step.RELEASING)
    assert not [e for e in running.done if isinstance(e, do.SetFinalizer)]
    running.turn()
    assert running.last(do.SetFinalizer) == do.SetFinalizer(False)


def test_what_cannot_be_read_deletes_nothing_on_the_word_of_an_older_spec(running):
    running.apply(image="words:2", deletion={"policy": "Delete"})
    running.settle()
    running.apply(deletion={"policy": "Retain"})
    running.turn(2)
    running.mistakes = ("spec.entrypoint: is no module:function",)
    running.finalizers.add(FINALIZER_STREAMJOB)
    running.turn(2)
    delete(running)
    gone(running)
    assert not running.orders(CancelOrder)
    assert len(running.orders(StopOrder)) == 1
    assert running.log.next_restore is not None


def test_policy_delete_lets_the_coordinator_delete_all_checkpoints(running):
    running.apply(deletion={"policy": "Delete"})
    running.turn(2)
    delete(running)
    gone(running)
    (order,) = running.orders(CancelOrder)
    assert order.retain is False
    assert not running.savepoints
    assert running.last(do.RunDisposal) is None


def test_policy_delete_of_a_suspended_job_runs_a_pod_that_deletes_them(running):
    running.apply(deletion={"policy": "Delete"}, desiredState="Suspended")
    running.settle()
    delete(running)
    running.until(lambda w: w.last(do.RunDisposal) is not None)
    assert running.last(do.RunDisposal).path is None
    assert FINALIZER_STREAMJOB in running.finalizers
    report = Report("d", "d", "checkpoints", None, running.now, True, {"disposed": True})
    running.seen = {"disposals": (report,)}
    gone(running)


def test_policy_retain_that_is_set_after_the_deletion_lets_go(running):
    running.apply(deletion={"policy": "Retain"})
    delete(running)
    gone(running)
    assert not running.orders(StopOrder)


def test_a_job_that_never_ran_is_let_go_at_once(world):
    world.until(lambda w: FINALIZER_STREAMJOB in w.finalizers and w.coordinator is not None)
    world.silent = True
    delete(world)
    world.turn(4)
    assert not world.finalizers


def test_a_deletion_does_not_wait_for_a_job_that_cannot_run(running):
    running.phase = JobPhase.RESTARTING
    delete(running)
    running.until(lambda w: w.orders(CancelOrder))
    (order,) = running.orders(CancelOrder)
    assert order.retain is True


def test_after_the_time_out_the_object_goes_and_it_is_told_where_state_stays(running):
    running.silent = True
    delete(running)
    running.turn(5)
    assert running.finalizers
    running.now += timedelta(minutes=5)
    gone(running)
    said = next(e for e in running.done if getattr(e, "reason", "") == "DeleteReleasing")
    assert said.is_warning
    assert running.status.next_restore in said.message


def test_a_person_can_force_it(running):
    running.silent = True
    running.annotations["penstock.dev/deletion"] = "force"
    delete(running)
    running.turn(4)
    assert not running.finalizers


def test_in_a_namespace_that_goes_the_policy_is_retain_at_once_and_told(running):
    whole = running.observed

    def observed():
        seen = whole()
        return replace(seen, job=replace(seen.job, is_namespace_terminating=True))

    running.observed = observed
    delete(running)
    running.turn(4)
    assert not running.finalizers
    assert not running.orders(StopOrder)
    said = next(e for e in running.done if getattr(e, "reason", "") == "DeleteReleasing")
    assert "namespace" in said.message


def test_a_foreground_deletion_that_took_the_coordinator_away_does_not_hang(running):
    delete(running)
    running.coordinator, running.pods = None, {}
    carry_out = running.carry_out
    running.carry_out = lambda e: None if isinstance(e, do.EnsureCoordinator) else carry_out(e)
    running.turn(6)
    assert not running.finalizers


def releasing(world):
    """The Event that tells how the object goes."""
    return next(e for e in world.done if getattr(e, "reason", "") == "DeleteReleasing")


def taken_down(world):
    """The garbage collector takes what belongs to the object before the object."""
    world.coordinator = world.workers = None
    world.pods.clear()
    world.live = lambda: None


def test_a_foreground_deletion_warns_that_no_savepoint_was_taken(running):
    delete(running)
    taken_down(running)
    running.turn(6)
    assert not running.finalizers
    assert not running.savepoints
    said = releasing(running)
    assert said.is_warning
    assert "policy Retain" in said.message
    assert f"{running.status.next_restore}, or newer beside it" in said.message


def test_a_job_that_was_never_begun_is_deleted_without_a_warning(world):
    world.finalizers.add(FINALIZER_STREAMJOB)
    delete(world)
    gone(world)
    assert not releasing(world).is_warning


def test_a_suspended_job_is_deleted_without_a_warning(running):
    running.apply(desiredState="Suspended")
    running.settle()
    delete(running)
    gone(running)
    assert not releasing(running).is_warning
    assert releasing(running).message.endswith(f"stays at {running.status.next_restore}")


def test_a_deletion_comes_before_any_other_move(running):
    running.apply(image="words:2")
    running.until(lambda w: w.status.move is not None and w.status.move.step is Step.STABILIZING)
    delete(running)
    gone(running)
    assert running.phase is JobPhase.STOPPED


def test_without_our_finalizer_nothing_is_done(running):
    running.finalizers.clear()
    delete(running)
    running.turn(3)
    assert running.status.phase is Phase.DELETING
    assert not running.done


def test_a_spec_with_mistakes_is_no_reason_to_hang(running):
    running.mistakes = ("spec.deletion.policy: is wrong",)
    delete(running)
    gone(running)
    assert running.phase is JobPhase.STOPPED
