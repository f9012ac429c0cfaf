"""From an applied manifest to a running job, through suspension and back; what is kept in between."""

from dataclasses import replace
from datetime import timedelta

import pytest

from penstock.spec.orders import (
    CancelOrder,
    JobPhase,
    RefusalKind,
    SettingsOrder,
    StartOrder,
    StopOrder,
)
from penstock_operator.reconcile import effects as do
from penstock_operator.reconcile.job import reconcile
from penstock_operator.reconcile.observed import Claim, PodPhase, Refusal
from penstock_operator.resources.status import MoveKind, Phase, Step, StreamJobStatus


def test_an_applied_job_runs(world):
    world.settle()
    assert world.status.phase is Phase.RUNNING
    assert world.phase is JobPhase.RUNNING
    (order,) = world.orders(StartOrder)
    assert (order.parallelism, order.hold, order.after) == (2, None, 0)
    assert world.condition("Ready") == ("True", "Running")
    assert world.condition("Reconciling")[0] == "False"
    assert [h.move for h in world.status.history] == ["Start"]


def test_a_start_that_was_refused_for_state_nobody_takes_is_ordered_with_what_is_allowed_now(world):
    refused = "operator old has state in the snapshot and is not in the job"
    world.refuses, world.refusal = {StartOrder: refused}, RefusalKind.REJECTED
    world.turn(10)
    assert world.condition("Stalled") == ("True", "StartRefused")
    world.refuses = {}
    world.apply(upgrade={"allowNonRestoredState": True})
    world.settle()
    assert [o.allow_non_restored_state for o in world.orders(StartOrder)][-1]
    assert world.status.phase is Phase.RUNNING


def test_a_revision_is_recorded_before_anything_is_made_from_it(world):
    decision = world.turn()
    assert do.RecordRevision(world.revision, 1) in decision.effects
    assert not any(isinstance(e, do.EnsureCoordinator) for e in decision.effects)


def test_the_accepted_revision_has_the_highest_number_also_when_it_is_an_older_one(running):
    first = running.revision
    running.apply(image="words:2")
    running.settle()
    running.apply(image="words:1")
    running.done.clear()
    running.settle()
    assert running.last(do.RecordRevision) == do.RecordRevision(first, 3)


def test_a_start_is_ordered_only_from_the_only_ready_coordinator_of_the_revision(world):
    world.until(lambda w: w.status.move is not None and w.status.move.step is Step.STARTING)
    (pod,) = (p for p in world.pods.values() if p.ordinal is None)
    for pods in (
        (replace(pod, revision="another"),),
        (replace(pod, is_ready=False),),
        (replace(pod, is_deleting=True),),
        (pod, replace(pod, name="second", uid="second")),
    ):
        seen = replace(world.observed(), coordinator_pods=pods)
        assert not [e for e in reconcile(seen, world.now).effects if isinstance(e, do.Send)], pods
    going = replace(pod, name="old", uid="old", revision="another", is_deleting=True)
    seen = replace(world.observed(), coordinator_pods=(going, pod))
    assert [e for e in reconcile(seen, world.now).effects if isinstance(e, do.Send)]


def test_a_coordinator_that_recovers_by_itself_needs_no_order(running):
    running.status = StreamJobStatus()
    running.settle()
    assert running.status.phase is Phase.RUNNING
    assert not running.orders(StartOrder)
    assert running.status.revision == running.revision


def test_a_version_that_cannot_commit_what_the_run_before_it_left_is_told_of(running):
    running.apply(desiredState="Suspended")
    running.settle()
    running.apply(desiredState="Running")
    running.until(lambda w: w.status.move is not None and w.status.move.step is Step.STARTING)
    running.done.clear()
    running.phase = JobPhase.ENDING
    running.turn(60)
    assert running.condition("Stalled")[0] == "False", "sinks may have much to commit"
    running.turn(20, each=timedelta(seconds=20))
    assert running.condition("Stalled") == ("True", "EndNotCommitted")
    assert running.orders(StartOrder) == []
    running.phase = JobPhase.STOPPED
    running.settle()
    assert running.condition("Stalled")[0] == "False"
    assert running.status.phase is Phase.RUNNING


def test_a_start_that_the_log_has_overtaken_is_ordered_anew_under_another_id(world):
    world.refuses[StartOrder], world.refusal = "the log has gone on", RefusalKind.OUTDATED
    world.until(lambda w: w.orders(StartOrder))
    world.turn(2)
    world.refuses.clear()
    world.settle()
    assert world.status.phase is Phase.RUNNING
    ids = [order.request_id for order in world.orders(StartOrder)]
    assert len(ids) == len(set(ids)) > 1


def test_who_does_not_tell_whether_a_refused_start_is_outdated_is_asked_a_second_time(running):
    running.apply(image="words:2")
    running.refuses[StartOrder], running.refusal = "no", None
    running.until(lambda w: w.orders(StartOrder))
    running.turn(2)
    assert running.status.move.kind is MoveKind.UPGRADE
    running.turn(10)
    assert len({o.request_id for o in running.orders(StartOrder)}) > 1
    assert running.status.upgrade.step == "Failed"


def test_a_refused_start_is_told_and_tried_again_later_and_later(world):
    world.refuses[StartOrder] = "the snapshots of the log are gone"
    world.turn(30)
    assert world.condition("Stalled") == ("True", "StartRefused")
    assert world.condition("Ready")[0] == "False"
    assert 1 < len(world.orders(StartOrder)) < 5
    assert world.status.phase is Phase.STARTING
    world.refuses.clear()
    world.now += timedelta(minutes=5)
    world.settle()
    assert world.condition("Stalled")[0] == "False"


def test_an_order_that_was_refused_before_it_began_is_refused(world):
    world.until(lambda w: w.orders(StartOrder))
    (order,) = world.orders(StartOrder)
    world.requests.clear()
    world.log, world.phase = type(world.log)(), JobPhase.WAITING
    refused = Refusal(RefusalKind.REJECTED, "no snapshot: s3://bucket/nowhere")
    world.seen = {"refusals": {order.request_id: refused}}
    world.turn()
    stalled = next(c for c in world.status.conditions if c.type == "Stalled")
    assert "s3://bucket/nowhere" in stalled.message


def test_a_wrong_image_of_the_first_version_is_replaced_at_once(world):
    world.until(lambda w: w.coordinator is not None)
    world.silent = True
    world.turn(3)
    wrong = world.revision
    world.apply(image="words:right")
    world.turn(3)
    world.silent = False
    world.settle()
    assert world.status.phase is Phase.RUNNING
    assert world.status.revision == world.revision != wrong


def test_suspended_means_a_savepoint_no_pods_and_all_volumes(running):
    running.apply(desiredState="Suspended")
    running.settle()
    assert running.status.phase is Phase.SUSPENDED
    assert running.condition("Ready") == ("True", "Suspended")
    assert not running.pods
    assert running.claims == {0, 1}
    (savepoint,) = running.savepoints.values()
    assert savepoint.status.phase == "Completed"
    assert running.status.next_restore == savepoint.status.path
    assert len(running.orders(StopOrder)) == 1


def test_a_suspended_job_stays_so_and_goes_on_from_its_savepoint(running):
    running.apply(desiredState="Suspended")
    running.settle()
    running.done.clear()
    running.turn(10)
    assert not running.pods
    assert not [e for e in running.done if isinstance(e, do.Send)]
    running.apply(desiredState="Running")
    running.settle()
    assert running.status.phase is Phase.RUNNING
    (order,) = running.orders(StartOrder)
    assert order.origin == "Log"
    (savepoint,) = running.savepoints.values()
    assert running.status.restored_from == savepoint.status.path


def test_a_job_that_is_suspended_before_it_ever_ran_makes_nothing(world):
    world.apply(desiredState="Suspended")
    world.turn(5)
    assert world.status.phase is Phase.SUSPENDED
    assert not world.pods


def test_a_job_that_was_stopped_by_somebody_else_is_started_as_the_spec_says(running):
    running.take(CancelOrder(request_id="by hand"))
    running.settle()
    assert running.status.phase is Phase.RUNNING
    assert len(running.orders(StartOrder)) == 1


def test_a_finished_job_keeps_its_coordinator_and_no_workers(running):
    running._end(JobPhase.FINISHED, "the end")
    running.turn(3)
    assert running.status.phase is Phase.FINISHED
    assert running.condition("Ready") == ("True", "Finished")
    assert [p.ordinal for p in running.pods.values()] == [None]


def test_a_finished_job_whose_coordinator_is_gone_does_not_run_again(running):
    running._end(JobPhase.FINISHED, "the end")
    running.turn(3)
    running.done.clear()
    running.coordinator, running.pods = None, {}
    running.turn(5)
    assert running.status.phase is Phase.FINISHED
    assert [p.ordinal for p in running.pods.values()] == [None]
    assert not running.orders(StartOrder)


def test_a_failed_job_waits_for_another_version_or_a_restart(running):
    running._end(JobPhase.FAILED, "the end")
    running.turn(10)
    assert running.status.phase is Phase.FAILED
    assert running.condition("Stalled") == ("True", "JobFailed")
    assert running.condition("Ready")[0] == "False"
    assert not running.orders(StartOrder)
    running.annotations["penstock.dev/restart"] = "again"
    running.settle()
    assert running.status.phase is Phase.RUNNING


def test_pods_services_and_config_that_are_gone_are_made_again(running):
    running.coordinator = running.workers = None
    running.pods.clear()
    running.turn(3)
    assert running.phase is JobPhase.RUNNING or running.turn(2)
    assert running.coordinator is not None
    assert running.workers is not None
    assert running.workers.replicas == 2


def test_a_worker_that_has_not_begun_lets_go_of_a_volume_that_is_being_deleted(running):
    pods = tuple(p for p in running.pods.values() if p.ordinal is not None)
    going = tuple(Claim(f"state-{p.name}", p.ordinal, is_deleting=p.ordinal == 1) for p in pods)
    waiting = tuple(replace(p, phase=PodPhase.PENDING, is_ready=False) for p in pods)

    def deleted(pods):
        seen = replace(running.observed(), worker_pods=pods, claims=going)
        effects = reconcile(seen, running.now).effects
        return [e.pods for e in effects if isinstance(e, do.DeletePods)]

    assert deleted(waiting) == [((pods[1].name, pods[1].uid),)]
    assert deleted(pods) == [], "one that runs keeps it as long as it runs"
    assert deleted(tuple(replace(p, is_deleting=True) for p in waiting)) == []


def test_a_spec_with_mistakes_is_told_and_the_last_valid_one_keeps_running(running):
    running.mistakes = ("spec.parallelism is 0; write desiredState: Suspended",)
    running.generation += 1
    running.pods.clear()
    running.turn(5)
    assert running.condition("SpecValid") == ("False", "Invalid")
    assert running.condition("Stalled") == ("True", "SpecInvalid")
    assert running.phase is JobPhase.RUNNING
    assert len(running.pods) == 3
    running.take(CancelOrder(request_id="by hand"))
    running.settle()
    assert running.status.phase is Phase.RUNNING


def test_nothing_is_made_from_a_first_spec_with_mistakes(world):
    world.mistakes = ("spec.checkpoints.storage: is missing",)
    world.turn(5)
    assert not [e for e in world.done if not isinstance(e, do.Announce)]
    assert world.condition("Ready") == ("False", "SpecInvalid")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"checkpoints": {"storage": "s3://elsewhere/x"}}, "checkpoints.storage"),
        ({"jobId": "another"}, "jobId"),
        ({"maxParallelism": 64}, "maxParallelism"),
        ({"parallelism": 200}, "more than maxParallelism"),
        ({"worker": {"volume": {"size": "1Gi"}}}, "worker.volume.size"),
        ({"restore": {"from": "mine"}}, "no Savepoint of that name"),
    ],
)
def test_what_cannot_be_changed_is_a_mistake_and_the_job_runs_on(running, fields, said):
    running.apply(**fields)
    running.turn(5)
    assert running.status.phase is Phase.RUNNING
    found = next(c for c in running.status.conditions if c.type == "SpecValid")
    assert found.status == "False"
    assert said in found.message
    assert not running.orders(StopOrder)


def test_max_parallelism_may_be_written_down_as_it_is(running):
    running.apply(maxParallelism=128)
    running.turn(3)
    assert running.condition("SpecValid")[0] == "True"


def test_live_settings_restart_nothing(running):
    attempt = running.log.attempt
    running.apply(checkpoints={"storage": "s3://bucket/checkpoints", "interval": "1s"})
    running.turn(3)
    (order,) = running.orders(SettingsOrder)
    assert order.settings == {"checkpoints": {"interval": "1s"}}
    assert running.log.attempt == attempt
    assert running.status.move is None


def test_settings_that_are_taken_away_have_their_defaults(running):
    running.apply(checkpoints={"storage": "s3://bucket/checkpoints", "interval": "1s"})
    running.turn(3)
    running.apply(checkpoints={"storage": "s3://bucket/checkpoints"})
    running.turn(3)
    assert running.log.settings == {"checkpoints": {"interval": "10s"}}


def test_a_paused_job_is_told_about_and_left_alone(running):
    running.annotations["penstock.dev/reconcile"] = "paused"
    running.apply(image="words:2")
    running.done.clear()
    running.complete()
    running.turn(5)
    assert not running.done
    assert running.condition("Paused")[0] == "True"
    assert running.status.observed_generation == running.generation
    running.annotations.clear()
    running.settle()
    assert running.status.stable_revision == running.revision


def test_a_fail_point_holds_the_world_before_its_step(running):
    running.seen = {"fail_points": True}
    running.annotations["penstock.dev/hold-at"] = "Stopping"
    running.apply(image="words:2")
    running.turn(20)
    assert running.status.move is not None
    assert running.status.move.step is Step.STOPPING
    assert running.phase is JobPhase.RUNNING
    running.seen = {}
    running.settle()
    assert running.status.stable_revision == running.revision


def test_ten_revisions_are_kept_and_those_in_use(running):
    first = running.revision
    for i in range(14):
        running.apply(image=f"words:{i + 2}")
        running.verdict = {"fits": False, "what": "no"}
        running.settle()
    assert first in running.revisions
    assert len(running.revisions) <= 11


def test_an_idle_job_is_looked_at_once_a_minute_and_its_status_stands(running):
    running.turn(3)
    before = running.status
    decision = running.turn()
    assert decision.look_again == timedelta(minutes=1)
    assert running.status == before


@pytest.mark.parametrize(("interval", "seconds"), [("10s", 10), ("1s", 2), ("0s", 60)])
def test_a_version_that_has_not_proved_itself_is_looked_at_with_each_checkpoint(
    world, interval, seconds
):
    world.apply(checkpoints={"storage": "s3://bucket/checkpoints", "interval": interval})
    world.until(lambda w: w.status.phase is Phase.RUNNING and w.status.move is None)
    assert world.status.stable_revision is None
    assert world.turn().look_again == timedelta(seconds=seconds)


def test_the_newest_checkpoint_is_written_once_a_minute(running):
    written = {running.turn().status.last_checkpoint.id for _ in range(50)}
    assert len(written) <= 2
    running.turn(20)
    assert running.status.last_checkpoint.id not in written


def test_an_unknown_or_halved_intention_is_dropped(running):
    running.apply(image="words:2")
    running.until(lambda w: w.status.move and w.status.move.step is Step.STOPPING)
    whole = running.status.move
    for fields in ({"step": Step.DISPOSING}, {"step": Step.STARTING, "to_parallelism": None}):
        running.status = running.status.model_copy(update={"move": whole.model_copy(update=fields)})
        assert running.turn().status.move is None
    running.settle()
    assert running.status.stable_revision == running.revision


def test_a_deletion_that_was_taken_back_is_forgotten(running):
    running.deleted_at = running.now
    running.turn()
    assert running.status.move.kind is MoveKind.DELETE
    running.deleted_at = None
    running.settle()
    assert running.status.phase is Phase.RUNNING


def test_a_coordinator_that_does_not_answer_is_told_and_waited_for(running):
    running.silent = True
    running.turn(3)
    assert running.condition("Ready") == ("False", "CoordinatorUnreachable")
    assert running.status.phase is Phase.RUNNING
    running.silent = False
    running.turn(2)
    assert running.condition("Ready") == ("True", "Running")


def test_foreign_state_is_told_in_the_words_of_the_coordinator(world):
    world.until(lambda w: any(p.ordinal is None for p in w.pods.values()))
    (pod,) = (p for p in world.pods.values() if p.ordinal is None)
    words = '{"what": "the folder belongs to c/other/job", "fix": "restore.adopt", "exitCode": 5}'
    world.pods[pod.name] = replace(
        pod, is_ready=False, waiting="CrashLoopBackOff", termination=words
    )
    world.turn(3)
    assert world.condition("Stalled") == ("True", "ForeignState")
    stalled = next(c for c in world.status.conditions if c.type == "Stalled")
    assert "c/other/job" in stalled.message
    assert world.decision.look_again >= timedelta(seconds=10)


def test_of_a_status_that_was_lost_the_applied_revision_is_known_by_the_workloads(running):
    applied = running.revision
    running.apply(desiredState="Suspended")
    running.settle()
    for i in range(14):
        running.apply(image=f"words:{i + 2}")
        running.turn(2)
    running.status = StreamJobStatus()
    running.turn(3)
    assert applied in running.revisions
    assert running.status.revision == applied
    assert running.status.phase is Phase.SUSPENDED


@pytest.mark.parametrize("refusal", [RefusalKind.REJECTED, None])
def test_a_coordinator_that_refuses_to_end_the_run_is_told_and_fenced_after_the_time_out(
    running, refusal
):
    why = "the job's token is missing or wrong"
    running.refuses, running.refusal = {StopOrder: why, CancelOrder: why}, refusal
    running.apply(desiredState="Suspended")
    running.turn(15, each=timedelta(seconds=30))
    assert running.condition("Stalled") == ("True", "StopRefused")
    assert running.pods
    running.turn(15, each=timedelta(seconds=30))
    assert running.status.phase is Phase.SUSPENDED
    assert running.condition("Stalled")[0] == "False"
    assert not running.pods


def test_a_cancellation_that_comes_too_early_is_ordered_again_however_often(running):
    running.refuses, running.refusal = {CancelOrder: "not now"}, RefusalKind.OUTDATED
    running.apply(image="words:2", upgrade={"mode": "LastState"})
    running.turn(60, each=timedelta(seconds=30))
    assert running.status.move.step is Step.STOPPING
    running.refuses.clear()
    running.settle()
    assert running.status.stable_revision == running.revision
