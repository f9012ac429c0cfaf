"""Savepoints: by annotation, as objects, of stops; and what becomes of their files."""

from dataclasses import replace
from datetime import timedelta

import pytest

from penstock.spec.orders import DisposeOrder, JobPhase, SavepointOrder
from penstock_operator.reconcile import effects as do
from penstock_operator.reconcile.observed import Report, SavepointObject
from penstock_operator.reconcile.savepoint import orphaned
from penstock_operator.resources.names import FINALIZER_SAVEPOINT
from penstock_operator.resources.status import (
    Phase,
    SavepointPhase,
    SavepointSpec,
    SavepointStatus,
    Step,
)

ANNOTATION = "penstock.dev/savepoint"


def create(world, name, **spec):
    world.savepoints[name] = SavepointObject(
        name,
        f"uid-{name}",
        SavepointSpec(job_name="wordcount", **spec),
        SavepointStatus(),
        {},
        (),
        world.now,
    )


def delete(world, name):
    world.savepoints[name] = replace(world.savepoints[name], deleted_at=world.now)


def phase(world, name):
    return world.savepoints[name].status.phase


def test_an_annotation_makes_one_savepoint_object_with_a_receipt(running):
    running.annotations[ANNOTATION] = "before the sale"
    running.turn(10)
    (savepoint,) = running.savepoints.values()
    receipt = running.status.requests["savepoint"]
    assert (receipt.id, receipt.phase) == ("before the sale", "Done")
    assert receipt.path == savepoint.status.path
    assert savepoint.status.phase == "Completed"
    assert savepoint.status.checkpoint_id == running.log.last_savepoint.id
    sizes = {(s.size, s.size_bytes) for s in (savepoint.status, running.status.last_savepoint)}
    assert sizes == {("11.8Mi", 12_345_678)}


def test_one_id_makes_one_savepoint_however_often_it_is_annotated(running):
    for id in ("a", "a", None, "a", "b"):
        running.annotations = {} if id is None else {ANNOTATION: id}
        running.turn(8)
    assert len(running.savepoints) == 2
    assert len({o.request_id for o in running.orders(SavepointOrder)}) == 2


def test_an_id_that_a_forerunner_of_the_same_name_had_makes_a_savepoint_of_its_own(running):
    running.annotations[ANNOTATION] = "a"
    running.turn(8)
    (first,) = running.savepoints
    running.uid, running.status = "uid-2", running.status.model_copy(update={"requests": {}})
    running.turn(8)
    (second,) = running.savepoints.keys() - {first}
    assert running.status.requests["savepoint"].path == running.savepoints[second].status.path


def test_the_receipt_is_written_before_the_object_is_made(running):
    running.annotations[ANNOTATION] = "a"
    decision = running.turn()
    assert not [e for e in decision.effects if isinstance(e, do.CreateSavepoint)]
    assert running.status.requests["savepoint"].phase == "Running"
    decision = running.turn()
    assert [e for e in decision.effects if isinstance(e, do.CreateSavepoint)]


def test_a_savepoint_that_fails_says_why_in_object_and_receipt(running):
    running.refuses[SavepointOrder] = "a worker left"
    running.annotations[ANNOTATION] = "a"
    running.turn(10)
    (savepoint,) = running.savepoints.values()
    assert (savepoint.status.phase, savepoint.status.error) == ("Failed", "a worker left")
    receipt = running.status.requests["savepoint"]
    assert (receipt.phase, receipt.error) == ("Failed", "a worker left")


def test_a_savepoint_object_is_taken(running):
    create(running, "mine")
    running.turn(5)
    assert phase(running, "mine") is SavepointPhase.COMPLETED
    assert running.savepoints["mine"].status.path
    assert running.savepoints["mine"].status.started_at
    assert "SavepointCompleted" in running.told()


def test_it_is_retried_under_its_id_when_the_coordinator_was_started_again(running):
    take = running.take
    running.take = lambda order: None if isinstance(order, SavepointOrder) else take(order)
    create(running, "mine")
    running.turn(4)
    assert phase(running, "mine") is SavepointPhase.RUNNING
    running.take = take
    running.turn(3)
    assert phase(running, "mine") is SavepointPhase.COMPLETED
    assert len({o.request_id for o in running.orders(SavepointOrder)}) == 1


@pytest.mark.parametrize("end", [JobPhase.FINISHED, JobPhase.FAILED])
def test_a_savepoint_of_a_job_that_is_over_fails_with_a_sentence(running, end):
    running._end(end, "the end")
    running.turn(3)
    create(running, "mine")
    running.turn(3)
    assert phase(running, "mine") is SavepointPhase.FAILED
    assert str(running.status.phase) in running.savepoints["mine"].status.error


def test_a_savepoint_of_a_suspended_job_fails_with_a_sentence(running):
    running.apply(desiredState="Suspended")
    running.settle()
    create(running, "mine")
    running.turn(3)
    assert phase(running, "mine") is SavepointPhase.FAILED
    assert "Suspended" in running.savepoints["mine"].status.error


def test_it_waits_while_a_move_is_under_way_that_ends_in_a_running_job(running):
    running.apply(image="words:2")
    running.until(lambda w: w.status.move is not None and w.status.move.step is Step.REPLACING)
    create(running, "mine")
    running.turn(2)
    assert phase(running, "mine") is SavepointPhase.PENDING
    running.settle()
    running.turn(5)
    assert phase(running, "mine") is SavepointPhase.COMPLETED


def test_it_waits_for_a_job_that_restarts_or_does_not_answer(running):
    running.silent = True
    create(running, "mine")
    running.turn(5)
    assert phase(running, "mine") is SavepointPhase.PENDING
    running.silent = False
    running.turn(5)
    assert phase(running, "mine") is SavepointPhase.COMPLETED


def test_the_savepoint_of_a_stop_is_an_object_and_is_found_by_a_later_coordinator(running):
    running.apply(desiredState="Suspended")
    running.until(lambda w: w.phase is JobPhase.STOPPED)
    running.requests.clear()
    running.log.last_savepoint = None
    running.settle()
    assert running.status.phase is Phase.SUSPENDED
    (savepoint,) = running.savepoints.values()
    assert savepoint.status.phase == "Completed"
    assert savepoint.status.checkpoint_id == running.log.newest
    assert running.status.next_restore == savepoint.status.path


def completed(world, name, **spec):
    create(world, name, **spec)
    world.turn(6)
    assert phase(world, name) is SavepointPhase.COMPLETED
    world.turn(60)  # others are newer by now
    return world.savepoints[name].status.path


def test_only_a_savepoint_that_disposes_of_its_files_has_a_finalizer(running):
    completed(running, "kept")
    completed(running, "disposed", dispose_on_delete=True)
    assert running.savepoints["kept"].finalizers == ()
    assert running.savepoints["disposed"].finalizers == (FINALIZER_SAVEPOINT,)


def test_disposal_is_asked_of_the_coordinator_and_then_the_object_goes(running):
    path = completed(running, "mine", dispose_on_delete=True)
    delete(running, "mine")
    running.turn(4)
    (order,) = running.orders(DisposeOrder)
    assert order.path == path
    assert running.savepoints["mine"].finalizers == ()


def test_the_intention_to_dispose_is_written_first(running):
    completed(running, "mine", dispose_on_delete=True)
    delete(running, "mine")
    running.turn()
    assert phase(running, "mine") is SavepointPhase.DISPOSING
    assert not running.orders(DisposeOrder)


def test_without_a_coordinator_a_short_pod_disposes_of_it(running):
    path = completed(running, "mine", dispose_on_delete=True)
    running.apply(desiredState="Suspended")
    running.settle()
    delete(running, "mine")
    running.turn(4)
    assert running.last(do.RunDisposal).path == path
    report = Report("d", "uid-d", path, None, running.now, True, {"disposed": True})
    running.seen = {"disposals": (report,)}
    running.turn(2)
    assert running.savepoints["mine"].finalizers == ()
    assert running.last(do.DeletePods).pods == (("d", "uid-d"),)


def test_what_the_job_would_go_on_from_is_not_deleted(running):
    running.apply(desiredState="Suspended")
    running.settle()
    (name,) = running.savepoints
    made = running.savepoints[name]
    running.savepoints[name] = replace(
        made,
        spec=made.spec.model_copy(update={"dispose_on_delete": True}),
        finalizers=(FINALIZER_SAVEPOINT,),
        deleted_at=running.now,
    )
    running.turn(20)
    assert running.last(do.RunDisposal) is None
    running.now += timedelta(minutes=5)
    running.turn(3)
    assert running.savepoints[name].finalizers == ()
    assert "SavepointOrphaned" in running.told()


def test_a_disposal_that_cannot_run_gives_up_and_tells_what_stays(running):
    path = completed(running, "mine", dispose_on_delete=True)
    running.refuses[DisposeOrder] = "the store is away"
    delete(running, "mine")
    running.turn(10)
    assert running.savepoints["mine"].finalizers == (FINALIZER_SAVEPOINT,)
    running.now += timedelta(minutes=5)
    running.turn(2)
    assert running.savepoints["mine"].finalizers == ()
    said = next(e for e in running.done if getattr(e, "reason", "") == "SavepointOrphaned")
    assert path in said.message


def test_a_savepoint_whose_job_is_gone_is_released_after_the_same_time(running):
    completed(running, "mine", dispose_on_delete=True)
    delete(running, "mine")
    savepoint = running.savepoints["mine"]
    assert orphaned(savepoint, running.now + timedelta(minutes=1)) == ()
    told, released = orphaned(savepoint, running.now + timedelta(minutes=6))
    assert released == do.SetSavepointFinalizer("mine", False)
    assert savepoint.status.path in told.message


def test_time_in_which_nobody_looked_does_not_count_for_a_disposal(running):
    completed(running, "mine", dispose_on_delete=True)
    delete(running, "mine")
    running.now += timedelta(minutes=6)
    running.seen = {"watched_since": running.now}
    running.turn(3)
    assert "SavepointOrphaned" not in running.told()
    assert running.orders(DisposeOrder)
    assert running.savepoints["mine"].finalizers == ()


def test_in_a_namespace_that_goes_nothing_is_disposed_of(running):
    path = completed(running, "mine", dispose_on_delete=True)
    delete(running, "mine")
    running.deleted_at, whole = running.now, running.observed

    def observed():
        seen = whole()
        return replace(seen, job=replace(seen.job, is_namespace_terminating=True))

    running.observed = observed
    running.turn()
    assert running.savepoints["mine"].finalizers == ()
    assert not running.orders(DisposeOrder)
    said = next(e for e in running.done if getattr(e, "reason", "") == "SavepointOrphaned")
    assert path in said.message
