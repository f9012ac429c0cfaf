"""Annotations and their receipts; restarts and restores."""

from dataclasses import replace

import pytest

from penstock.spec.orders import CheckpointOrder, Origin, StartOrder, StopOrder, restore_id_of
from penstock_operator.reconcile.observed import SavepointObject
from penstock_operator.resources.status import (
    MoveKind,
    Phase,
    SavepointPhase,
    SavepointSpec,
    SavepointStatus,
    Step,
    StreamJobStatus,
)

PATH = "s3://bucket/savepoints/savepoint-0a1b2c-0123456789ab"


def test_a_checkpoint_is_taken_once_for_each_id(running):
    for id in ("a", "a", "b"):
        running.annotations["penstock.dev/checkpoint"] = id
        running.turn(4)
    assert len({o.request_id for o in running.orders(CheckpointOrder)}) == 2
    assert running.status.requests["checkpoint"].phase == "Done"


def test_annotations_of_two_kinds_have_a_receipt_each(running):
    running.annotations = {"penstock.dev/checkpoint": "one", "penstock.dev/savepoint": "one"}
    running.turn(10)
    assert {k: r.phase for k, r in running.status.requests.items()} == {
        "checkpoint": "Done",
        "savepoint": "Done",
    }


def test_a_checkpoint_of_a_job_that_does_not_run_fails_with_a_sentence(running):
    running.apply(desiredState="Suspended")
    running.settle()
    running.annotations["penstock.dev/checkpoint"] = "a"
    running.turn(2)
    receipt = running.status.requests["checkpoint"]
    assert (receipt.phase, "does not run" in receipt.error) == ("Failed", True)


def test_a_restart_is_a_new_attempt_on_new_pods_once_for_each_id(running):
    attempt, pods = running.log.attempt, {p.uid for p in running.pods.values()}
    running.annotations["penstock.dev/restart"] = "one"
    running.settle()
    assert running.log.attempt == attempt + 1
    assert pods.isdisjoint({p.uid for p in running.pods.values()})
    assert running.status.requests["restart"].phase == "Done"
    assert running.status.phase is Phase.RUNNING
    (order,) = running.orders(StartOrder)
    assert (order.origin, order.hold) == (Origin.LOG, None)
    running.turn(10)
    assert running.log.attempt == attempt + 1
    assert running.status.history[-1].move == "Restart"


def test_a_restart_that_comes_during_an_upgrade_waits_for_it(running):
    running.apply(image="words:2")
    running.until(lambda w: w.status.move is not None and w.status.move.step is Step.STABILIZING)
    running.annotations["penstock.dev/restart"] = "one"
    running.turn(2)
    assert running.status.requests["restart"].phase == "Pending"
    running.settle()
    assert [h.move for h in running.status.history][-2:] == ["Upgrade", "Restart"]


def test_a_changed_restore_stops_with_a_savepoint_and_starts_from_it_once(running):
    running.apply(restore={"from": PATH})
    running.settle()
    assert len(running.orders(StopOrder)) == 1
    (order,) = running.orders(StartOrder)
    assert order.restore.from_ == PATH
    assert running.log.restored_from == PATH
    assert running.status.restore_id == restore_id_of(running.spec.restore)
    running.turn(20)
    assert running.status.move is None
    assert running.status.history[-1].move == "Restore"


def test_a_standing_restore_does_not_rewind_later_starts(running):
    running.apply(restore={"from": PATH})
    running.settle()
    running.turn(5)
    running.annotations["penstock.dev/restart"] = "one"
    running.settle()
    assert running.log.restored_from != PATH


def test_going_back_to_latest_restarts_nothing(running):
    running.apply(restore={"from": PATH})
    running.settle()
    attempt = running.log.attempt
    running.apply(restore={"from": "Latest"})
    running.settle()
    assert running.log.attempt == attempt
    assert running.condition("SpecValid")[0] == "True"


def savepoint(world, **status):
    return SavepointObject(
        "mine",
        "uid-mine",
        SavepointSpec(job_name="other"),
        SavepointStatus(**status),
        {},
        (),
        world.now,
    )


def test_a_savepoint_is_restored_by_its_name(world):
    world.apply(restore={"from": "mine"})
    world.turn(3)
    assert not world.pods
    assert world.condition("SpecValid")[0] == "False"
    world.seen = {"restore_savepoint": savepoint(world, phase=SavepointPhase.RUNNING)}
    world.turn(3)
    assert not world.pods
    done = savepoint(world, phase=SavepointPhase.COMPLETED, path=PATH)
    world.seen = {"restore_savepoint": done}
    world.settle()
    (order,) = world.orders(StartOrder)
    assert order.restore.from_ == PATH


def test_a_name_that_was_obeyed_may_lead_nowhere_later(world):
    world.apply(restore={"from": "mine"})
    world.seen = {"restore_savepoint": savepoint(world, phase=SavepointPhase.COMPLETED, path=PATH)}
    world.settle()
    world.seen = {}
    world.annotations["penstock.dev/restart"] = "one"
    world.settle()
    assert world.condition("SpecValid")[0] == "True"
    assert world.status.phase is Phase.RUNNING
    assert world.orders(StartOrder)[-1].restore.from_ == "Latest"


@pytest.mark.parametrize(
    "place", ["None", "chk-8", PATH, "2026-08-22T10:00:00Z", "s3://bucket/x/", "2026-08-22"]
)
def test_what_is_no_savepoint_object_is_left_to_the_coordinator(world, place):
    world.apply(restore={"from": place})
    world.settle()
    assert world.orders(StartOrder)[0].restore.from_ == place


def test_a_restore_that_comes_with_another_version_is_checked_and_obeyed_by_it(running):
    running.apply(image="words:2", restore={"from": PATH})
    running.settle()
    checks = [e.against for e in running.done if type(e).__name__ == "RunCheck"]
    assert checks == [PATH]
    (order,) = running.orders(StartOrder)
    assert order.restore.from_ == PATH
    assert [h.move for h in running.status.history][-1] == "Upgrade"


def test_a_restore_that_changes_while_a_start_is_under_way_gets_a_move_of_its_own(running):
    running.annotations["penstock.dev/restart"] = "one"
    running.until(lambda w: w.status.move is not None and w.status.move.step is Step.STARTING)
    running.apply(restore={"from": PATH})
    running.settle()
    starts = running.orders(StartOrder)
    assert [s.restore.from_ for s in starts] == ["Latest", PATH]
    assert running.log.restored_from == PATH


def test_a_run_that_recovered_by_itself_is_stopped_before_it_is_restored_elsewhere(running):
    running.apply(restore={"from": PATH}, upgrade={"timeout": "20s"})
    running.until(lambda w: w.status.move is not None and w.status.move.kind is MoveKind.RESTORE)
    running.silent = True
    running.until(lambda w: w.status.move.step is not Step.STOPPING)
    running.silent = False
    running.settle()
    assert running.log.restored_from == PATH


def test_a_status_that_was_lost_is_made_again_without_touching_the_job(running):
    attempt, pods = running.log.attempt, dict(running.pods)
    running.status = StreamJobStatus()
    running.settle()
    running.turn(5)
    assert running.log.attempt == attempt
    assert running.pods == pods
    status = running.status
    assert (status.phase, status.stable_revision) == (Phase.RUNNING, running.revision)
    assert status.parallelism == 2
    assert not running.orders(StartOrder)


def test_paths_of_refusals_stand_in_one_line(running):
    running.refuses[CheckpointOrder] = "no\n  where  here\n  do     that"
    running.annotations["penstock.dev/checkpoint"] = "a"
    running.turn(4)
    assert running.status.requests["checkpoint"].error == "no where here do that"


def test_a_pod_that_restarts_between_two_looks_changes_no_receipt(running):
    running.annotations["penstock.dev/savepoint"] = "a"
    running.turn(2)
    running.pods = {n: replace(p, restarts=p.restarts + 1) for n, p in running.pods.items()}
    running.turn(8)
    assert running.status.requests["savepoint"].phase == "Done"


def test_an_error_of_any_length_fits_into_the_status(running):
    running.refuses[CheckpointOrder] = "no " * 5000
    running.refuses[StartOrder] = "never " * 5000
    running.annotations["penstock.dev/checkpoint"] = "a"
    running.apply(image="words:2", upgrade={"rollback": False})
    running.turn(30)
    again = StreamJobStatus.model_validate_json(running.status.model_dump_json())
    assert again == running.status
    assert running.condition("Stalled") == ("True", "StartRefused")
