"""Another parallelism, in place."""

from dataclasses import replace
from datetime import timedelta

from penstock.spec.orders import HoldStatus, JobPhase, RescaleOrder, StartOrder, StopOrder
from penstock_operator.reconcile import effects as do
from penstock_operator.reconcile.job import reconcile
from penstock_operator.resources.status import MoveKind, Phase, Step


def at(world, step):
    world.until(lambda w: w.status.move is not None and w.status.move.step is step)


def test_new_workers_are_registered_before_anything_moves(running):
    running.apply(parallelism=4)
    at(running, Step.ADDING_WORKERS)
    seen = running.observed()
    decision = reconcile(seen, running.now)
    assert do.EnsureWorkers(running.revision, 4) in decision.effects
    assert not running.orders(RescaleOrder)
    running.until(lambda w: w.orders(RescaleOrder))
    assert {w.id for w in running.answer().workers} == {0, 1, 2, 3}
    running.settle()
    assert running.status.parallelism == 4
    assert not running.orders(StopOrder)
    assert not running.orders(StartOrder)
    assert running.status.phase is Phase.RUNNING


def test_what_moved_and_how_long_the_pause_was_stands_in_status_and_event(running):
    running.apply(parallelism=4)
    running.settle()
    view = running.status.rescale
    assert (view.from_, view.to, view.step) == (2, 4, "Done")
    assert (view.key_groups_moved, view.bytes_moved, view.pause) == (42, 2048, "900ms")
    said = next(e.message for e in running.done if getattr(e, "reason", "") == "RescaleDone")
    assert "42 key groups moved, 2Ki fetched" in said
    assert "900ms" in said
    assert running.status.history[-1].message == said


def test_the_job_is_ready_while_it_is_rescaled(running):
    running.apply(parallelism=4)
    at(running, Step.ADDING_WORKERS)
    running.turn()
    assert running.condition("Ready") == ("True", "Running")
    assert running.condition("Reconciling")[0] == "True"


def test_workers_that_are_not_needed_go_last_and_their_volumes_after_the_first_checkpoint(running):
    running.apply(parallelism=1)
    at(running, Step.REMOVING_WORKERS)
    assert running.workers.replicas == 2
    assert running.claims == {0, 1}
    running.log.completed = 0
    seen = running.observed()
    assert do.EnsureWorkers(running.revision, 1) not in reconcile(seen, running.now).effects
    running.settle()
    assert running.workers.replicas == 1
    assert running.claims == {0}


def test_volumes_stay_when_they_are_told_to(running):
    running.apply(parallelism=1, worker={"volume": {"whenScaledDown": "Retain"}})
    running.settle()
    running.turn(10)
    assert running.claims == {0, 1}


def test_workers_that_cannot_come_leave_the_old_parallelism_and_back_off(running):
    running.apply(parallelism=4, rescale={"timeout": "20s", "cooldown": "0s"})
    at(running, Step.ADDING_WORKERS)
    waits = []
    for _ in range(4):
        running.seen = {"coordinator": lacking(running)}
        for _ in range(40):
            running.seen = {"coordinator": lacking(running)}
            running.turn()
            if running.status.move is None:
                break
        view = running.status.rescale
        assert view.step == "Failed"
        assert view.reason
        waits.append(view.retry_at - view.finished_at)
        running.seen = {}
        running.turn(2)
        assert running.workers.replicas == 2
        assert running.status.parallelism == 2
        running.now = view.retry_at
        running.turn()
    assert waits == [timedelta(minutes=m) for m in (1, 2, 4, 8)]
    running.settle()
    assert running.status.parallelism == 4


def lacking(world):
    """The coordinator's answer when new workers do not register."""
    answer = world.answer()
    return answer.model_copy(update={"workers": answer.workers[:2]})


def test_the_back_off_ends_with_one_hour(running):
    running.apply(parallelism=4)
    at(running, Step.ADDING_WORKERS)
    view = running.status.rescale.model_copy(update={"failures": 30})
    running.status = running.status.model_copy(update={"rescale": view})
    running.refuses[RescaleOrder] = "no"
    running.until(lambda w: w.status.move is None)
    view = running.status.rescale
    assert view.retry_at - view.finished_at == timedelta(hours=1)


def test_another_target_is_tried_at_once_after_a_failure(running):
    running.refuses[RescaleOrder] = "a worker left"
    running.apply(parallelism=4)
    running.settle()
    assert running.status.rescale.failures == 1
    running.turn(10)
    assert len(running.orders(RescaleOrder)) == 1
    running.refuses.clear()
    running.apply(parallelism=3)
    running.settle()
    assert running.status.parallelism == 3


def test_between_two_changes_lies_the_cooldown(running):
    running.apply(parallelism=3)
    running.settle()
    ready_at = running.status.rescale.finished_at + timedelta(minutes=2)
    running.apply(parallelism=2)
    running.turn(20)
    assert running.told().count("RescaleBegan") == 1
    running.now = ready_at
    running.settle()
    assert running.status.parallelism == 2


def test_while_commits_are_held_nothing_is_rescaled(running):
    running.log.hold = HoldStatus(after=1, stable=500, completed=0, path="s3://bucket/x")
    running.apply(parallelism=4)
    running.turn(10)
    assert "RescaleBegan" not in running.told()
    running.log.hold = None
    running.settle()
    assert running.status.parallelism == 4


def test_a_stronger_change_comes_before_a_rescale_that_waits_for_workers(running):
    running.apply(parallelism=4)
    at(running, Step.ADDING_WORKERS)
    running.seen = {"coordinator": lacking(running)}
    running.apply(image="words:2")
    running.turn(2)
    running.seen = {}
    running.until(lambda w: w.status.move and w.status.move.kind is MoveKind.UPGRADE)
    running.settle()
    assert running.status.stable_revision == running.revision
    assert running.status.parallelism == 4


def test_another_number_takes_the_place_of_one_that_waits_for_workers(running):
    running.apply(parallelism=4)
    at(running, Step.ADDING_WORKERS)
    running.apply(parallelism=3)
    running.settle()
    assert [order.parallelism for order in running.orders(RescaleOrder)] == [3]


def test_the_outcome_is_asked_again_of_a_coordinator_that_was_started_since(running):
    running.apply(parallelism=4)
    running.until(lambda w: w.orders(RescaleOrder))
    running.requests.clear()
    running.settle()
    ids = {order.request_id for order in running.orders(RescaleOrder)}
    assert len(ids) == 1
    assert running.status.rescale.step == "Done"


def test_no_worker_is_taken_away_while_a_change_may_be_taken_back(running):
    running.apply(parallelism=1)
    at(running, Step.MOVING)
    running.silent = True
    running.turn(5)
    assert running.workers.replicas == 2
    assert running.status.parallelism == 2


def test_an_attempt_that_nobody_sees_keeps_its_workers(running):
    running.turn()
    running.workers = replace(running.workers, replicas=3)
    running.silent = True
    running.turn(3)
    assert running.workers.replicas == 3
    running.silent = False
    running.turn(2)
    assert running.workers.replicas == 2


def test_a_change_that_never_ends_is_given_up(running):
    running.apply(parallelism=4, rescale={"timeout": "20s"})
    at(running, Step.MOVING)
    running._obey = lambda order: (None, None)
    stuck = running.answer

    def answer():
        found = stuck()
        told = tuple(r.model_copy(update={"phase": "Running"}) for r in found.requests)
        return found.model_copy(update={"requests": told})

    running.answer = answer
    running.until(lambda w: w.status.move is None)
    assert running.status.rescale.step == "Failed"


def test_a_job_that_ended_meanwhile_is_not_rescaled(running):
    running.apply(parallelism=4)
    at(running, Step.MOVING)
    running._end(JobPhase.FINISHED, "the end")
    running.settle()
    assert running.status.phase is Phase.FINISHED
    assert running.status.rescale.step == "Failed"
