"""From one version to the next, and back."""

from dataclasses import replace
from datetime import timedelta

import pytest

from penstock.spec.orders import CancelOrder, JobPhase, Origin, StartOrder, StopOrder
from penstock_operator.reconcile import effects as do
from penstock_operator.reconcile.job import reconcile
from penstock_operator.reconcile.observed import Report
from penstock_operator.resources.status import MoveKind, Phase, Step


def at(world, step, kind=MoveKind.UPGRADE):
    """Turn until the move is intended to take this step."""
    world.until(
        lambda w: (
            w.status.move is not None and (w.status.move.kind, w.status.move.step) == (kind, step)
        )
    )


def steps(world):
    """Steps that were announced, in order."""
    names = [*map(str, Step), "Stable", "Done", "Failed", "Began"]
    return [t for t in world.told() if any(t.endswith(name) for name in names)]


def test_an_upgrade_goes_step_by_step_and_its_sinks_hold_their_commits(running):
    old = running.revision
    running.apply(image="words:2")
    running.settle()
    assert steps(running) == [
        "UpgradeBegan",
        "UpgradeStopping",
        "UpgradeReplacing",
        "UpgradeStarting",
        "UpgradeStabilizing",
        "UpgradeStable",
    ]
    (order,) = running.orders(StartOrder)
    assert (order.revision, order.origin, order.hold) == (running.revision, Origin.LOG, 2)
    status = running.status
    assert (status.upgrade.from_, status.upgrade.to) == (old, running.revision)
    assert status.upgrade.step == "Stable"
    assert status.stable_revision == status.revision == running.revision
    (savepoint,) = running.savepoints.values()
    assert status.upgrade.snapshot == status.restored_from == savepoint.status.path
    assert status.history[-1].move == "Upgrade"


def test_the_plan_says_what_changed_and_from_what_it_goes_on(running):
    running.apply(image="words:2", parameters={"a": 1})
    running.turn(2)
    assert "image" in running.status.upgrade.reason
    assert "parameters" in running.status.upgrade.reason
    assert "savepoint" in running.status.upgrade.reason


def test_while_the_new_version_is_checked_the_old_one_is_ready(running):
    running.verdict = None
    running.apply(image="words:2")
    running.turn(5)
    assert running.status.move.step is Step.CHECKING
    assert running.condition("Ready") == ("True", "Running")
    assert running.condition("StateCompatible")[0] == "Unknown"
    assert running.last(do.RunCheck) == do.RunCheck(running.revision, "latest")


def test_a_version_that_cannot_read_the_state_is_refused_and_the_old_one_runs_on(running):
    attempt, old = running.log.attempt, running.revision
    running.verdict = {"fits": False, "what": "state seen has another type", "exitCode": 2}
    running.apply(image="words:2")
    running.settle()
    assert running.condition("StateCompatible") == ("False", "Incompatible")
    assert running.condition("Stalled") == ("True", "StateIncompatible")
    assert running.condition("Ready") == ("True", "Running")
    assert running.status.failed_revision == running.revision
    assert (running.status.revision, running.log.attempt) == (old, attempt)
    assert not running.orders(StopOrder)
    assert not running.checks
    running.turn(10)
    assert running.status.move is None


def test_a_refused_version_is_tried_again_once_when_it_is_asked_for(running):
    running.verdict = {"fits": False, "what": "no", "exitCode": 2}
    running.apply(image="words:2")
    running.settle()
    running.annotations["penstock.dev/retry"] = "once"
    running.settle()
    assert running.status.failed_revision == running.revision
    assert running.told().count("UpgradeBegan") == 2
    running.verdict = {"fits": True}
    running.annotations["penstock.dev/retry"] = "twice"
    running.settle()
    assert running.status.stable_revision == running.revision
    assert running.status.requests["retry"].id == "twice"


def test_another_version_is_tried_although_the_last_one_was_refused(running):
    running.verdict = {"fits": False, "what": "no", "exitCode": 2}
    running.apply(image="words:2")
    running.settle()
    running.verdict = {"fits": True}
    running.apply(image="words:3")
    running.settle()
    assert running.status.stable_revision == running.revision
    assert running.condition("Stalled")[0] == "False"


def test_a_check_that_could_not_say_is_run_again(running):
    running.verdict = {"what": "the store is away", "exitCode": 3}
    running.apply(image="words:2")
    running.turn(40)
    assert running.status.move.step is Step.CHECKING
    assert 2 <= running.status.move.tries <= 5
    running.verdict = {"fits": True}
    running.settle()
    assert running.status.stable_revision == running.revision


def test_an_image_that_cannot_be_pulled_is_told_after_two_minutes_and_the_old_version_runs(running):
    running.verdict = None
    running.apply(image="nowhere:1")
    running.turn(3)
    (check,) = running.checks.values()
    running.seen = {
        "check": replace(check, waiting="ImagePullBackOff", message='Back-off "nowhere:1"')
    }
    running.turn(5)
    assert running.condition("Stalled")[0] == "False"
    running.now += timedelta(minutes=2)
    running.turn(2)
    assert running.condition("Stalled") == ("True", "ImagePull")
    stalled = next(c for c in running.status.conditions if c.type == "Stalled")
    assert "nowhere:1" in stalled.message
    assert running.condition("Ready")[0] == "True"
    running.seen = {}
    running.apply(image="words:1")
    running.settle()
    assert running.status.phase is Phase.RUNNING
    assert not running.orders(StopOrder)


def test_a_change_that_is_taken_back_before_the_stop_changes_nothing(running):
    attempt = running.log.attempt
    running.verdict = None
    running.apply(image="words:2")
    running.turn(4)
    running.apply(image="words:1")
    running.settle()
    assert running.log.attempt == attempt
    assert running.status.upgrade.step == "Withdrawn"


def test_a_newer_version_takes_the_place_of_one_that_is_being_checked(running):
    running.verdict = None
    running.apply(image="words:2")
    running.turn(4)
    running.verdict = {"fits": True}
    running.apply(image="words:3")
    running.settle()
    assert running.status.stable_revision == running.revision
    assert len(running.orders(StopOrder)) == 1


def test_a_version_that_comes_after_the_stop_is_checked_and_taken_instead(running):
    running.apply(image="words:2")
    at(running, Step.STOPPING)
    skipped = running.revision
    running.apply(image="words:3")
    running.settle()
    assert running.status.stable_revision == running.revision
    assert skipped not in {order.revision for order in running.orders(StartOrder)}
    assert len(running.orders(StopOrder)) == 1


def test_a_job_whose_change_is_taken_back_after_the_stop_goes_on_as_before(running):
    old = running.revision
    running.apply(image="words:2")
    at(running, Step.STOPPING)
    running.apply(image="words:1")
    running.settle()
    assert [order.revision for order in running.orders(StartOrder)] == [old]
    assert running.status.phase is Phase.RUNNING


def test_a_version_that_comes_while_another_proves_itself_waits_for_it(running):
    running.apply(image="words:2")
    at(running, Step.STABILIZING)
    first = running.revision
    running.apply(image="words:3")
    running.settle()
    assert [order.revision for order in running.orders(StartOrder)] == [first, running.revision]


def test_last_state_is_a_cancellation_that_keeps_the_newest_checkpoint(running):
    running.apply(image="words:2", upgrade={"mode": "LastState"})
    running.settle()
    (cancel,) = running.orders(CancelOrder)
    assert cancel.retain is True
    assert not running.orders(StopOrder)
    assert "chk-" in running.status.restored_from
    assert running.status.stable_revision == running.revision


def test_stateless_begins_empty_and_holds_nothing(running):
    running.apply(image="words:2", upgrade={"mode": "Stateless"})
    running.settle()
    (order,) = running.orders(StartOrder)
    assert (order.origin, order.hold) == (Origin.EMPTY, None)
    assert running.last(do.RunCheck) is None or running.done
    assert [e.against for e in running.done if isinstance(e, do.RunCheck)] == [None]


def test_a_stateless_version_that_completed_nothing_gives_the_state_before_it_back(running):
    old, newest = running.revision, running.log.next_restore
    running.apply(image="words:2", upgrade={"mode": "Stateless"})
    running.broken.add(running.revision)
    at(running, Step.STARTING, MoveKind.ROLLBACK)
    snapshot = running.status.move.snapshot
    assert running.log.next_restore is None
    assert snapshot not in (None, newest)
    running.until(lambda w: w.status.move is None)
    back = running.orders(StartOrder)[-1]
    assert (back.revision, back.origin, back.restore.from_) == (old, Origin.RESTORE, snapshot)
    assert running.log.restored_from == snapshot


def cannot_commit(world):
    """From now on a run that is ended stays so: its sinks cannot be opened."""
    end = world._end

    def stays(phase, request_id):
        end(phase, request_id)
        world.phase = JobPhase.ENDING

    world._end = stays


def test_a_version_whose_sinks_cannot_commit_leaves_that_to_the_version_before_it(running):
    old = running.revision
    running.apply(image="words:2")
    running.broken.add(running.revision)
    at(running, Step.STOPPING, MoveKind.ROLLBACK)
    cannot_commit(running)
    running.turn(30)
    assert running.status.move.step is Step.STOPPING
    running.settle()
    assert (running.log.revision, running.phase) == (old, JobPhase.RUNNING)


def test_an_upgrade_from_a_version_whose_sinks_cannot_commit_is_told_then_goes_on(running):
    cannot_commit(running)
    running.apply(image="words:2")
    at(running, Step.STOPPING)
    running.turn(25, each=timedelta(seconds=30))
    assert running.condition("Stalled") == ("True", "EndNotCommitted")
    assert running.status.move.step is Step.STOPPING
    running.turn(25, each=timedelta(seconds=30))
    running.settle()
    assert running.status.stable_revision == running.revision


def test_a_pause_waits_until_all_is_committed_and_says_so(running):
    cannot_commit(running)
    running.apply(desiredState="Suspended")
    running.turn(100, each=timedelta(seconds=30))
    assert running.condition("Stalled") == ("True", "EndNotCommitted")
    assert running.status.move.step is Step.STOPPING
    running.apply(desiredState="Running", image="words:2")
    running.turn(60, each=timedelta(seconds=30))
    running.settle()
    assert running.status.stable_revision == running.revision


def test_a_job_is_not_called_unhealthy_for_time_in_which_nobody_looked(running):
    running.apply(image="words:2")
    at(running, Step.STOPPING)
    running.phase = JobPhase.RESTARTING
    running.now += timedelta(minutes=5)
    running.seen = {"watched_since": running.now}
    running.turn(20)
    assert "SavepointNotTaken" not in running.told()


def test_without_hold_commits_nothing_is_held(running):
    running.apply(image="words:2", upgrade={"holdCommits": False})
    running.settle()
    (order,) = running.orders(StartOrder)
    assert order.hold is None
    assert running.status.stable_revision == running.revision


def test_a_job_that_is_not_healthy_goes_on_from_its_newest_checkpoint(running):
    running.apply(image="words:2")
    at(running, Step.STOPPING)
    running.phase = JobPhase.RESTARTING
    running.turn(20)
    assert not running.orders(CancelOrder)
    running.turn(15)
    assert not running.orders(StopOrder)
    running.phase = JobPhase.DEPLOYING
    running.broken.add(running.log.revision)
    running.until(lambda w: w.orders(CancelOrder))
    running.settle()
    assert running.status.stable_revision == running.revision
    assert "SavepointNotTaken" in running.told()


def test_a_job_that_is_not_healthy_is_waited_for_when_the_spec_says_so(running):
    running.apply(image="words:2", upgrade={"whenUnhealthy": "Wait"})
    at(running, Step.STOPPING)
    running.phase = JobPhase.RESTARTING
    running.turn(60)
    assert not running.orders(CancelOrder)
    assert running.status.move.step is Step.STOPPING
    running.phase = JobPhase.RUNNING
    running.settle()
    assert len(running.orders(StopOrder)) == 1


def test_while_sinks_still_commit_nothing_more_is_ordered(running):
    running.apply(image="words:2")
    at(running, Step.STOPPING)
    running.until(lambda w: w.orders(StopOrder))
    running.phase = JobPhase.ENDING
    running.turn(100)
    assert running.status.move.step is Step.STOPPING
    assert not running.orders(CancelOrder)
    running.phase = JobPhase.STOPPED
    running.settle()
    assert running.status.stable_revision == running.revision


def test_a_stop_that_fails_is_followed_by_a_cancellation_and_its_savepoint_is_failed(running):
    running.refuses[StopOrder] = "a worker left"
    running.apply(image="words:2")
    running.settle()
    assert running.status.stable_revision == running.revision
    assert len(running.orders(CancelOrder)) == 1
    (savepoint,) = running.savepoints.values()
    assert (savepoint.status.phase, savepoint.status.error) == ("Failed", "a worker left")


def test_a_coordinator_that_answers_no_more_is_waited_for_and_then_fenced(running):
    running.apply(image="words:2", upgrade={"timeout": "60s"})
    at(running, Step.STOPPING)
    running.silent = True
    running.turn(50)
    assert running.status.move.step is Step.STOPPING
    running.until(lambda w: w.status.move.step is Step.REPLACING)
    running.silent = False
    running.settle()
    assert running.status.stable_revision == running.revision


def test_a_coordinator_that_was_killed_as_it_stopped_is_given_time_to_tell(running):
    running.apply(desiredState="Suspended")
    running.until(lambda w: w.phase is JobPhase.STOPPED)
    (name,) = (n for n, p in running.pods.items() if p.ordinal is None)
    whole = running.pods[name]
    running.pods[name] = replace(whole, is_ready=False, waiting="CrashLoopBackOff")
    running.turn(30)
    assert running.status.move.step is Step.STOPPING
    running.pods[name] = whole
    running.settle()
    (savepoint,) = running.savepoints.values()
    assert savepoint.status.phase == "Completed"


def test_time_in_which_nobody_looked_counts_for_no_time_out(running):
    running.apply(image="words:2")
    at(running, Step.STARTING)
    running.now += timedelta(hours=2)
    running.seen = {"watched_since": running.now}
    running.settle()
    assert running.status.stable_revision == running.revision


def test_old_workers_are_gone_before_the_new_version_starts(running):
    running.apply(image="words:2")
    at(running, Step.REPLACING)
    seen = running.observed()
    decision = reconcile(seen, running.now)
    (deletion,) = (e for e in decision.effects if isinstance(e, do.DeletePods))
    assert {name for name, _ in deletion.pods} == {"wordcount-0", "wordcount-1"}
    ensured = [type(e) for e in decision.effects]
    assert ensured.index(do.EnsureWorkers) < ensured.index(do.DeletePods)
    at(running, Step.STARTING)
    assert {p.revision for p in running.pods.values()} == {running.revision}


def test_an_old_worker_that_is_slow_to_go_is_waited_for(running):
    running.apply(image="words:2")
    at(running, Step.REPLACING)
    old = replace(running.pods["wordcount-0"], is_deleting=True)
    running.seen = {"worker_pods": (old,)}
    running.turn(5)
    assert running.status.move.step is Step.REPLACING
    running.seen = {}
    running.settle()
    assert running.status.stable_revision == running.revision


def test_templates_change_only_once_the_job_has_stopped(running):
    running.apply(image="words:2")
    old = running.status.revision
    while running.status.move is None or running.status.move.step is not Step.REPLACING:
        running.turn()
        if running.status.move is None or running.status.move.step is not Step.REPLACING:
            assert running.workers.revision == old
    assert running.phase is JobPhase.STOPPED


def test_a_version_whose_attempts_fail_is_rolled_back_from_the_hold(running):
    old = running.revision
    running.apply(image="words:2")
    running.broken.add(running.revision)
    running.settle()
    starts = running.orders(StartOrder)
    assert [(s.revision, s.origin) for s in starts] == [
        (running.revision, Origin.LOG),
        (old, Origin.HOLD),
    ]
    assert starts[1].hold is None
    status = running.status
    assert (status.revision, status.stable_revision) == (old, old)
    assert status.failed_revision == running.revision
    assert status.upgrade.step == "RolledBack"
    assert running.condition("Ready") == ("True", "RolledBack")
    assert running.condition("Stalled") == ("True", "RolledBack")
    running.turn(20)
    assert running.status.move is None
    assert [h.move for h in status.history][-2:] == ["Upgrade", "Rollback"]


def crashing(world, **changes):
    """Pods of the new revision as the cluster shows them when they do not run."""
    for name, pod in world.pods.items():
        if pod.revision == world.revision:
            world.pods[name] = replace(pod, is_ready=False, **changes)


@pytest.mark.parametrize("step", [Step.REPLACING, Step.STARTING, Step.STABILIZING])
def test_a_crash_loop_is_rolled_back_at_once(running, step):
    old = running.revision
    running.apply(image="words:2")
    at(running, step)
    running.until(lambda w: any(p.revision == w.revision for p in w.pods.values()))
    crashing(running, waiting="CrashLoopBackOff", termination="Segmentation fault")
    running.turn(1)
    if running.status.move.step is Step.STARTING and step is Step.REPLACING:
        running.turn(1)
    assert running.status.move.kind is MoveKind.ROLLBACK
    assert "Segmentation fault" in running.status.move.reason
    running.settle()
    assert running.status.revision == old
    assert running.phase is JobPhase.RUNNING


def test_a_store_that_is_away_is_not_the_fault_of_the_version(running):
    running.apply(image="words:2")
    at(running, Step.STARTING)
    words = '{"what": "the store is away", "exitCode": 3}'
    crashing(running, waiting="CrashLoopBackOff", termination=words)
    running.turn(20)
    assert running.status.move.kind is MoveKind.UPGRADE


def test_an_image_that_workers_cannot_pull_has_two_minutes_of_grace(running):
    running.apply(image="words:2")
    at(running, Step.STARTING)
    crashing(running, waiting="ErrImagePull", message="not found")
    running.turn(60)
    assert running.status.move.kind is MoveKind.UPGRADE
    at(running, Step.STOPPING, MoveKind.ROLLBACK)
    assert running.now - running.status.move.started_at < timedelta(minutes=1)
    assert "not found" in running.status.move.reason


def test_a_restore_error_is_rolled_back_at_once(running):
    old = running.revision
    running.apply(image="words:2")
    at(running, Step.STARTING)
    running.refuses[StartOrder] = "operator counts has no taker"
    running.turn(3)
    assert running.status.move.kind is MoveKind.ROLLBACK
    running.refuses.clear()
    running.settle()
    assert running.status.revision == old
    (_, back) = running.orders(StartOrder)
    assert back.origin is Origin.LOG  # nothing was opened, so nothing is held


def test_a_step_that_takes_longer_than_the_time_out_is_rolled_back(running):
    running.apply(image="words:2", upgrade={"timeout": "30s"})
    at(running, Step.STARTING)
    crashing(running)
    running.turn(40)
    assert running.status.move.kind is MoveKind.ROLLBACK
    assert "longer than 30s" in running.status.upgrade.reason


def test_a_failed_revision_is_tried_again_when_it_is_asked_for_and_when_another_came(running):
    running.apply(image="words:2")
    running.broken.add(running.revision)
    running.settle()
    running.annotations["penstock.dev/retry"] = "once more"
    running.settle()
    assert running.told().count("RollbackDone") == 2
    running.broken.clear()
    running.apply(image="words:3")
    running.settle()
    assert running.status.stable_revision == running.revision
    assert running.condition("Stalled")[0] == "False"


def test_scale_and_live_fields_come_from_the_spec_of_now_also_in_a_rollback(running):
    running.apply(image="words:2")
    running.broken.add(running.revision)
    at(running, Step.STOPPING, MoveKind.ROLLBACK)
    running.apply(
        parallelism=3, checkpoints={"storage": "s3://bucket/checkpoints", "interval": "1s"}
    )
    running.settle()
    back = running.orders(StartOrder)[-1]
    assert back.parallelism == 3
    assert back.settings == {"checkpoints": {"interval": "1s"}}
    assert running.status.parallelism == 3


def test_a_first_version_that_does_not_run_is_told_and_a_change_takes_its_place(world):
    world.broken.add(world.revision)
    world.until(lambda w: w.log.attempt > 6)
    world.turn(2)
    assert world.status.stable_revision is None
    world.apply(image="words:2")
    world.settle()
    assert world.status.phase is Phase.RUNNING
    assert world.log.revision == world.revision


def test_without_a_way_back_the_upgrade_says_so_and_another_version_takes_its_place(running):
    running.apply(image="words:2", upgrade={"rollback": False})
    running.broken.add(running.revision)
    running.turn(60)
    assert running.status.move.kind is MoveKind.UPGRADE
    assert running.condition("Stalled") == ("True", "CrashLoop")
    running.apply(image="words:3")
    running.settle()
    assert running.status.stable_revision == running.revision
    # What the unproven version made of the state is not carried on.
    assert running.orders(StartOrder)[-1].origin is Origin.HOLD


def committed_without_hold(world):
    """A new version that could hold nothing, has completed a checkpoint and crashes now."""
    world.holds = False
    world.apply(image="words:2", upgrade={"stableAfter": {"checkpoints": 50}})
    at(world, Step.STABILIZING)
    world.turn(3)
    assert world.log.completed > 0
    world.broken.add(world.revision)
    world.phase = JobPhase.DEPLOYING
    world.checks.clear()


def test_a_rollback_without_hold_goes_on_from_the_newest_checkpoint_if_the_old_code_can(running):
    old = running.revision
    committed_without_hold(running)
    running.settle()
    back = running.orders(StartOrder)[-1]
    assert (back.revision, back.origin) == (old, Origin.LOG)
    checks = [e for e in running.done if isinstance(e, do.RunCheck)]
    assert checks[-1].revision == old
    assert "chk-" in checks[-1].against


def test_a_rollback_that_would_write_output_twice_waits_for_an_approval(running):
    old = running.revision
    committed_without_hold(running)
    running.verdict = {"fits": False, "what": "state of a newer type", "exitCode": 2}
    running.turn(60)
    assert running.status.move.kind is MoveKind.ROLLBACK
    assert running.condition("Stalled") == ("True", "RollbackWouldDuplicate")
    assert running.log.revision != old
    running.annotations["penstock.dev/rollback"] = "yes"
    running.settle()
    back = running.orders(StartOrder)[-1]
    assert (back.revision, back.origin) == (old, Origin.RESTORE)
    assert back.restore.allow_older
    assert "savepoint-" in back.restore.from_
    assert running.status.requests["rollback"].phase == "Done"


def test_a_rollback_that_waits_for_an_approval_gives_way_to_another_version(running):
    old = running.revision
    committed_without_hold(running)
    running.verdict = {"fits": False, "what": "state of a newer type", "exitCode": 2}
    running.turn(60)
    assert running.condition("Stalled") == ("True", "RollbackWouldDuplicate")
    running.verdict = {"fits": True}
    running.apply(image="words:3")
    running.settle()
    assert running.status.stable_revision == running.revision != old
    last = running.orders(StartOrder)[-1]
    assert (last.revision, last.origin) == (running.revision, Origin.LOG)


def test_a_rollback_whose_version_does_not_start_gives_way_to_another_version_and_to_a_pause(
    running,
):
    old = running.revision
    running.apply(image="words:2")
    running.broken |= {old, running.revision}
    running.turn(300)
    assert running.condition("Stalled") == ("True", "RollbackFailed")
    running.apply(desiredState="Suspended")
    running.settle()
    assert running.status.phase is Phase.SUSPENDED
    running.apply(image="words:3", desiredState="Running")
    running.settle()
    assert running.status.stable_revision == running.revision
    assert running.condition("Stalled")[0] == "False"


def rolled_back_from(world, image):
    """A version that does not run, and its end."""
    world.apply(image=image)
    world.broken.add(world.revision)
    world.settle()
    return world.revision


def test_a_version_that_failed_is_tried_again_after_another_one_was_stable(running):
    failed = rolled_back_from(running, "words:2")
    running.apply(image="words:3")
    running.settle()
    running.until(lambda w: w.status.stable_revision == w.revision)
    assert running.status.failed_revision is None
    running.broken.clear()
    running.apply(image="words:2")
    running.settle()
    assert running.status.stable_revision == running.log.revision == failed


def test_a_version_that_failed_before_is_not_passed_over_in_silence(running):
    stable, failed = running.revision, rolled_back_from(running, "words:2")
    running.verdict = None
    running.apply(image="words:3")
    at(running, Step.CHECKING)
    running.apply(image="words:2")
    running.settle()
    assert (running.revision, running.status.revision) == (failed, stable)
    assert running.condition("Stalled") == ("True", "FailedBefore")


def test_a_rollback_can_be_asked_for_while_the_new_version_proves_itself(running):
    old = running.revision
    running.apply(image="words:2", upgrade={"stableAfter": {"checkpoints": 50}})
    at(running, Step.STABILIZING)
    running.annotations["penstock.dev/rollback"] = "now"
    running.settle()
    assert running.status.revision == old
    assert running.orders(StartOrder)[-1].origin is Origin.HOLD


def test_a_rollback_that_is_asked_for_without_an_upgrade_is_refused_in_a_sentence(running):
    running.annotations["penstock.dev/rollback"] = "now"
    running.turn(2)
    receipt = running.status.requests["rollback"]
    assert receipt.phase == "Failed"
    assert "no upgrade" in receipt.error


def test_a_hold_that_was_seen_and_is_over_makes_the_version_stable(running):
    running.apply(image="words:2")
    at(running, Step.STABILIZING)
    running.turn(1)
    assert running.status.move.held
    running.log.hold, running.log.completed = None, 0
    running.phase = JobPhase.RESTARTING
    running.turn(1)
    assert running.status.stable_revision == running.revision


def test_a_coordinator_that_has_not_read_the_log_makes_no_version_stable(running):
    running.apply(image="words:2")
    at(running, Step.STABILIZING)
    running.turn(1)
    assert running.status.move.held
    running.log.hold, running.log.completed, running.log.attempt = None, 0, 0
    running.phase = JobPhase.WAITING
    running.turn(1)
    assert running.status.stable_revision != running.revision
    assert running.status.move is not None


def test_a_version_without_periodic_checkpoints_is_given_all_the_time_it_needs(running):
    running.apply(
        image="words:2", checkpoints={"storage": "s3://bucket/checkpoints", "interval": "0s"}
    )
    at(running, Step.STABILIZING)
    running.phase = JobPhase.STOPPING  # nothing is completed
    running.now += timedelta(hours=3)
    running.turn(3)
    assert running.status.move.step is Step.STABILIZING


def test_a_job_that_was_changed_while_suspended_resumes_as_the_new_version(running):
    running.apply(desiredState="Suspended")
    running.settle()
    running.apply(image="words:2", parallelism=3)
    running.turn(5)
    assert not running.pods
    running.apply(desiredState="Running")
    running.settle()
    (order,) = running.orders(StartOrder)
    assert (order.revision, order.parallelism, order.hold) == (running.revision, 3, 2)
    assert running.status.stable_revision == running.revision


def test_a_suspended_job_whose_new_version_does_not_fit_resumes_as_the_old_one(running):
    old = running.revision
    running.apply(desiredState="Suspended")
    running.settle()
    running.verdict = {"fits": False, "what": "no", "exitCode": 2}
    running.apply(desiredState="Running", image="words:2")
    running.settle()
    assert running.log.revision == old
    assert running.status.phase is Phase.RUNNING
    assert running.condition("StateCompatible")[0] == "False"


def test_a_suspension_that_comes_after_the_stop_of_an_upgrade_is_taken_up_there(running):
    running.apply(image="words:2")
    at(running, Step.STOPPING)
    running.apply(desiredState="Suspended")
    running.settle()
    assert running.status.phase is Phase.SUSPENDED
    assert not running.orders(StartOrder)


def test_parallelism_that_changes_with_the_code_is_one_upgrade(running):
    running.apply(image="words:2", parallelism=4)
    running.settle()
    (order,) = running.orders(StartOrder)
    assert order.parallelism == 4
    assert "RescaleBegan" not in running.told()


def end_checks(world, **how):
    """Every check pod that is there has ended, without a verdict."""
    world.checks = {k: replace(c, has_ended=True, **how) for k, c in world.checks.items()}


def test_a_check_whose_container_never_ran_is_no_verdict_however_often(running):
    old, running.verdict = running.revision, None
    running.apply(image="words:2")
    for _ in range(400):
        running.turn(each=timedelta(seconds=30))
        end_checks(running, has_run=False, message="Pod was active longer than its deadline")
    assert running.status.failed_revision is None
    assert running.status.move.step is Step.CHECKING
    assert running.condition("Stalled") == ("True", "CheckWaits")
    assert running.log.revision == old
    assert len([e for e in running.done if isinstance(e, do.RunCheck)]) > 10
    running.verdict = {"fits": True}
    running.checks.clear()
    running.turn(10, each=timedelta(seconds=30))
    running.settle()
    assert running.status.stable_revision == running.revision


def test_a_check_that_dies_without_a_word_is_told_as_that_and_not_as_incompatible(running):
    old, running.verdict = running.revision, None
    running.apply(image="words:2")
    for _ in range(60):
        running.turn(each=timedelta(seconds=10))
        end_checks(running, message="OOMKilled, exit code 137")
    assert running.status.failed_revision == running.revision
    assert running.condition("Stalled") == ("True", "CheckFailed")
    assert running.condition("StateCompatible") == ("Unknown", "CheckFailed")
    assert running.log.revision == old


def test_a_check_of_another_version_makes_room(running):
    stale = Report("old-check", "uid-old", "another", "latest", running.now, has_ended=False)
    running.apply(image="words:2")
    running.seen = {"check": stale}
    running.turn(4)
    assert running.last(do.DeletePods).pods == (("old-check", "uid-old"),)
