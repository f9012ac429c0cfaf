"""Another parallelism without a stop, as conversations with the coordinator."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.checkpoint import effects as do
from penstock.checkpoint import events as told
from penstock.checkpoint import rescaling
from penstock.checkpoint.phases import Phase
from penstock.checkpoint.settings import NoRestart
from penstock.core.chains import subtasks_by_worker
from penstock.core.failure import Failure
from penstock.core.graph import JobGraph, Operator
from penstock.core.ids import OperatorId, SubtaskId, WorkerId
from penstock.core.keygroups import owned_range
from penstock.core.log import EndKind, EntryKind


def kinds(a) -> list[str]:
    return [e.entry.kind.value for e in a.effects if isinstance(e, do.Append)]


def running(new, *, workers: int = 4, parallelism: int = 2, **settings):
    """With one checkpoint complete."""
    a = new(workers=workers, **settings).run(parallelism=parallelism)
    a.say(told.CheckpointOrdered("first"))
    a.acknowledge()
    a.committed()
    return a


def rescale(a, parallelism: int, request_id: str = "up"):
    a.say(told.RescaleOrdered(request_id, parallelism))


def deployed(new, **settings):
    """The attempt at parallelism 4 is opened, and restores."""
    a = running(new, **settings)
    rescale(a, 4)
    a.wait(100)
    a.acknowledge()
    assert a.phase is Phase.DEPLOYING
    return a


def error(a, request_id: str = "up") -> str:
    answer = a.answer_to(request_id)
    assert not answer.ok
    return answer.detail["error"]


# ── how it goes ────────────────────────────────────────────────────────────────────────────────


def test_no_record_follows_the_checkpoint_and_the_next_attempt_opens_at_once(new):
    a = running(new)
    rescale(a, 4)
    trigger = a.last(do.Trigger)
    assert (trigger.stop, trigger.savepoint, trigger.base) == (True, None, 1)
    assert a.phase is Phase.RESCALING
    since = len(a.effects)
    a.acknowledge()
    assert kinds(a)[-2:] == ["completed", "opened"]
    assert not any(isinstance(e, do.ReadLog) for e in a.effects[since:])
    entry = a.job.entry
    assert (entry.attempt.number, entry.attempt.parallelism) == (2, 4)
    assert (entry.attempt.restored_from.id, entry.attempt.next_checkpoint) == (2, 3)
    assert entry.request_id == "start-0", "whoever ordered the start again gets the same answer"
    assert a.last(do.Prepare).committed == 2


def test_who_survives_keeps_what_lies_on_its_disk(new):
    a = deployed(new)
    old = {group: group * 2 // 128 for group in range(128)}
    stay = [
        group
        for index, worker in enumerate(a.job.entry.attempt.placement)
        for group in owned_range(index, parallelism=4, max_parallelism=128)
        if old[group] == worker
    ]
    assert len(stay) == 64, "as many as can be, from two to four"


def test_it_is_done_when_a_checkpoint_at_the_new_parallelism_is_complete_which_is_taken_at_once(
    new,
):
    a = deployed(new, interval_ms=0)
    a.now_ms += 250
    a.say(told.Tick(a.now_ms))
    a.ready(fetched=1_000)
    assert a.phase is Phase.RUNNING
    assert a.last(do.Trigger).checkpoint == 3
    assert not [e for e in a.effects if isinstance(e, do.Answer) and e.request_id == "up"]
    a.acknowledge()
    answer = a.answer_to("up")
    assert answer.ok
    assert (answer.detail["keyGroupsMoved"], answer.detail["bytesMoved"]) == (64, 4_000)
    assert answer.detail["pauseMs"] == 350
    a.wait(100_000)
    assert a.last(do.Trigger).checkpoint == 3, "no more than that one, without an interval"


def test_it_goes_down_the_same_way_and_who_is_not_needed_may_leave(new):
    a = running(new, parallelism=4)
    rescale(a, 1, "down")
    a.acknowledge()
    assert a.last(do.Prepare).subtasks.keys() == {0}
    a.ready()
    a.acknowledge()
    assert a.answer_to("down").ok
    a.say(*(told.WorkerLeft(WorkerId(w), "its pod was deleted") for w in (1, 2, 3)))
    assert a.phase is Phase.RUNNING


def test_a_worker_that_is_ready_twice_is_counted_once(new):
    a = deployed(new)
    a.say(told.WorkerReady(WorkerId(0), a.attempt, 7), told.WorkerReady(WorkerId(0), a.attempt, 7))
    assert a.job.run.fetched_bytes == 7


def test_in_a_hold_it_keeps_the_hold_and_commits_nothing(new):
    a = running(new)
    a.say(told.StopOrdered("stop"))
    a.acknowledge()
    a.committed()
    a.run(request_id="upgrade", hold_stable=2)
    rescale(a, 4)
    a.acknowledge()
    assert not a.last(do.NotifyCompleted).commit
    assert a.last(do.Prepare).committed == 2
    assert a.job.entry.hold.from_.id == 2
    a.ready()
    a.acknowledge()
    assert a.answer_to("up").ok
    assert a.job.entry.hold is not None, "checkpoints are counted anew"
    a.checkpoint()
    assert a.job.entry.kind is EntryKind.RELEASED


def test_it_waits_for_a_savepoint_and_the_checkpoint_behind_it(new):
    a = running(new)
    a.say(told.SavepointOrdered("sp"))
    rescale(a, 4)
    assert a.last(do.Trigger).savepoint is not None
    a.acknowledge()
    assert a.last(do.Trigger).savepoint is None
    a.acknowledge()
    assert a.answer_to("sp").ok
    if a.phase is Phase.RESCALING:
        a.acknowledge()
    assert a.job.entry.attempt.parallelism == 4


# ── what is refused ────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("parallelism", "says"),
    [
        (0, "less than 1"),
        (129, "above the job's max parallelism, which is 128"),
        (2, "runs at parallelism 2 already"),
        (6, "of workers 0 to 5 these are not registered: 4, 5"),
    ],
)
def test_what_cannot_be_is_refused_at_once(new, parallelism: int, says: str):
    a = running(new)
    trigger = a.last(do.Trigger)
    rescale(a, parallelism)
    assert says in error(a)
    assert a.last(do.Trigger) is trigger


def test_it_is_refused_while_nothing_runs(new):
    a = running(new)
    a.fail()
    rescale(a, 4)
    assert "backing off" in error(a)
    a.say(told.CancelOrdered("cancel"))
    a.committed(1)
    rescale(a, 4, "later")
    assert "ended" in error(a, "later")


def test_it_is_refused_while_the_job_is_about_to_stop(new):
    a = running(new)
    a.say(told.StopOrdered("stop"))
    rescale(a, 4)
    assert "about to stop" in error(a)


def test_a_second_one_is_refused_until_the_first_is_firm(new):
    a = running(new)
    rescale(a, 4)
    rescale(a, 3, "other")
    assert "being tried" in error(a, "other")
    a.acknowledge()
    a.ready()
    rescale(a, 3, "another")
    assert "being tried" in error(a, "another")
    a.acknowledge()
    rescale(a, 3, "then")
    assert a.phase is Phase.RESCALING


# ── what goes wrong ────────────────────────────────────────────────────────────────────────────


def test_when_its_checkpoint_fails_the_job_runs_on(new):
    a = running(new)
    rescale(a, 4)
    n = a.last(do.Trigger).checkpoint
    a.say(told.SubtaskDeclined(a.attempt, n, SubtaskId("counts", 1), "disk full"))
    assert a.last(do.Resume).checkpoint == n
    assert "disk full" in error(a)
    assert (a.phase, a.attempt) == (Phase.RUNNING, 1)


def test_when_a_new_worker_left_meanwhile_the_job_runs_on(new):
    a = running(new)
    rescale(a, 4)
    a.say(told.WorkerLeft(WorkerId(3), "its node is gone"))
    a.acknowledge()
    assert a.last(do.Resume).checkpoint == 2
    assert "not registered: 3" in error(a)
    assert (a.phase, a.attempt) == (Phase.RUNNING, 1)


def test_an_attempt_that_breaks_before_its_first_checkpoint_goes_back_without_delay(new):
    a = deployed(new)
    a.fail("worker 3 cannot restore")
    assert a.phase is Phase.DEPLOYING
    attempt = a.job.entry.attempt
    assert (attempt.number, attempt.parallelism) == (3, 2)
    assert (attempt.placement, attempt.restored_from.id) == ((0, 1), 2)
    assert error(a) == "worker 3 cannot restore"
    a.ready()
    assert a.phase is Phase.RUNNING
    rescale(a, 4)
    assert error(a) == "worker 3 cannot restore", "the same request, the same answer"


def test_a_strategy_that_never_restarts_lets_the_old_parallelism_run_on(new):
    a = deployed(new, restart=NoRestart())
    a.fail("worker 3 cannot restore")
    a.ready()
    assert (a.phase, a.job.entry.attempt.parallelism) == (Phase.RUNNING, 2)


def test_a_checkpoint_that_fails_at_the_new_parallelism_goes_back(new):
    a = deployed(new)
    a.ready()
    n = a.last(do.Trigger).checkpoint
    a.say(told.SubtaskDeclined(a.attempt, n, SubtaskId("counts", 3), "disk full"))
    assert a.job.entry.attempt.parallelism == 2
    assert "disk full" in error(a)


def test_after_its_first_checkpoint_it_stays_whatever_breaks(new):
    a = deployed(new)
    a.ready()
    a.acknowledge()
    a.fail()
    a.wait(1_000)
    assert a.job.entry.attempt.parallelism == 4
    assert a.answer_to("up").ok


def test_a_cancel_in_between_is_told_as_its_failure(new):
    a = deployed(new)
    a.say(told.CancelOrdered("cancel"))
    assert "cancelled" in error(a)
    a.committed(2)
    assert a.job.entry.end.go_on_from.id == 2


def test_a_cancel_in_between_is_committed_by_the_workers_of_the_old_parallelism(new):
    a = running(new)
    rescale(a, 4)
    a.acknowledge()
    a.held = {do.ReadLog}
    a.say(told.WorkerLeft(WorkerId(3), "its node is gone"), told.CancelOrdered("cancel"))
    a.held = set()
    a.answer(a.last(do.ReadLog))
    assert (a.job.entry.attempt.parallelism, a.job.entry.attempt.placement) == (2, (0, 1))
    prepare = a.last(do.Prepare)
    assert (prepare.commit_only, set(prepare.subtasks)) == (True, {0, 1})
    a.committed(2)
    assert a.answer_to("cancel").ok


def test_a_stop_in_between_makes_it_firm(new):
    a = deployed(new)
    a.say(told.StopOrdered("stop"))
    a.ready()
    a.acknowledge()
    assert a.job.entry.end.kind is EndKind.STOPPED
    assert a.answer_to("up").ok


# ── killed in the middle ───────────────────────────────────────────────────────────────────────


def test_killed_before_the_opening_nothing_happened_and_the_order_may_be_given_again(new):
    a = running(new)
    rescale(a, 4)
    a.held = {do.Append}
    a.acknowledge()
    b = a.crash(workers=4)
    b.ready()
    assert b.job.entry.attempt.parallelism == 2
    rescale(b, 4)
    assert b.phase is Phase.RESCALING


def test_killed_after_the_opening_the_next_coordinator_goes_back_and_says_so(new):
    b = deployed(new).crash(workers=4)
    attempt = b.job.entry.attempt
    assert (attempt.number, attempt.parallelism, attempt.placement) == (3, 2, (0, 1))
    rescale(b, 4)
    assert "started again before the first checkpoint" in error(b)
    c = b.crash(workers=4)
    rescale(c, 4)
    assert "started again before the first checkpoint" in error(c)


def test_killed_after_it_was_firm_the_next_coordinator_says_so(new):
    a = deployed(new)
    a.ready(fetched=10)
    a.acknowledge()
    b = a.crash(workers=4)
    rescale(b, 4)
    assert b.answer_to("up").ok
    assert b.answer_to("up").detail["bytesMoved"] == 40
    assert b.job.entry.attempt.parallelism == 4


def test_a_worker_that_leaves_while_it_is_opened_lets_it_go_back(new):
    a = running(new)
    rescale(a, 4)
    a.held = {do.Append}
    a.acknowledge()
    a.answer(a.last(do.Append))
    a.say(told.WorkerLeft(WorkerId(3), "gone"))
    a.held = set()
    a.answer(a.last(do.Append))
    assert a.job.entry.attempt.parallelism == 2
    assert "worker 3 left" in error(a)


def test_a_failure_of_the_old_attempt_that_comes_late_changes_nothing(new):
    a = running(new)
    rescale(a, 4)
    a.held = {do.Append}
    a.acknowledge()
    a.answer(a.last(do.Append))
    a.say(told.AttemptFailed(1, Failure("a channel was lost")))
    a.held = set()
    a.answer(a.last(do.Append))
    assert (a.phase, a.job.entry.attempt.parallelism) == (Phase.DEPLOYING, 4)


# ── what moved ─────────────────────────────────────────────────────────────────────────────────

KEYED, NARROW = OperatorId("keyed"), OperatorId("narrow")
TWO_KEYED = JobGraph(
    "job",
    (
        Operator(KEYED, "process", uid=True, key="k"),
        Operator(NARROW, "process", uid=True, key="k", parallelism=1),
        Operator(OperatorId("map"), "map"),
    ),
    (),
)


def by_hand(placement: tuple[int, ...], max_parallelism: int) -> dict[tuple[str, int], int]:
    """The worker of each key group of each keyed operator, from what workers are told to run."""
    found = {}
    for worker, subtasks in subtasks_by_worker(TWO_KEYED, placement=placement).items():
        for subtask in subtasks:
            if subtask.operator in (KEYED, NARROW):
                width = 1 if subtask.operator == NARROW else len(placement)
                for group in owned_range(
                    subtask.index, parallelism=width, max_parallelism=max_parallelism
                ):
                    found[subtask.operator, group] = worker
    return found


@given(st.data())
def test_key_groups_moved_are_those_that_another_worker_runs(data: st.DataObject):
    former, placement = (
        tuple(data.draw(st.permutations(range(data.draw(st.integers(1, 6)))))) for _ in range(2)
    )
    before, after = by_hand(former, 12), by_hand(placement, 12)
    wanted = sum(before[key] != after[key] for key in before)
    found = rescaling.groups_moved(TWO_KEYED, former, placement, max_parallelism=12)
    assert found == wanted
