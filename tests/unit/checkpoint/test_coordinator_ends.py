"""Stopping, finishing, cancelling and failing, as conversations with the coordinator."""

from dataclasses import replace

import pytest

from penstock.checkpoint import effects as do
from penstock.checkpoint import events as told
from penstock.checkpoint import opening
from penstock.checkpoint.origin import RestoreFrom, RestoreRules
from penstock.checkpoint.phases import Phase
from penstock.checkpoint.restart import SAME_RECORD_MAX
from penstock.checkpoint.settings import FailureRate, FixedDelay, NoRestart, OnCancellation
from penstock.core.descriptors import StateDescriptor, StateKind
from penstock.core.errors import Rejected
from penstock.core.failure import Failure
from penstock.core.graph import JobGraph
from penstock.core.ids import AttemptNumber, CheckpointId, JobId, OperatorId, SubtaskId
from penstock.core.log import EndKind, EntryKind, SnapshotRef
from penstock.core.snapshots import OWN_SERIALIZER

META = "wordcount/chk-{}/_metadata".format


def published(a) -> list[str]:
    return [p for p in a.store.objects if p.startswith("mem://") and p.endswith("_metadata")]


# ── stop with savepoint ────────────────────────────────────────────────────────────────────────


def test_a_stop_is_an_entry_first_then_the_savepoint_then_the_commits_then_the_answer(new):
    a = new().run()
    a.say(told.StopOrdered("stop", drain=True))
    trigger = a.last(do.Trigger)
    assert (trigger.stop, trigger.drain) == (True, True)
    assert a.phase is Phase.STOPPING
    a.held = {do.WriteManifest, do.Append, do.PublishSavepoint}
    a.acknowledge()
    a.answer(a.last(do.WriteManifest))
    files = [f.path for f in a.manifest(META(1)).files()]
    assert all(f.startswith(f"mem://savepoints/{trigger.savepoint}") for f in files)
    assert published(a) == []
    a.answer(a.last(do.Append))
    assert (a.job.entry.kind, a.job.entry.end.committed) == (EntryKind.ENDED, False)
    a.committed()
    assert a.phase is Phase.ENDING
    a.answer(a.last(do.PublishSavepoint))
    a.answer(a.last(do.Append))
    assert a.job.entry.end.committed
    assert a.answer_to("stop").detail["path"] == f"mem://savepoints/{trigger.savepoint[:-1]}"
    assert isinstance(a.effects[-1], do.JobOver)


def test_a_run_after_an_end_that_is_committed_gives_sinks_nothing_to_commit_again(new):
    a = new().run()
    a.say(told.StopOrdered("stop"))
    a.acknowledge()
    a.committed()
    assert a.job.entry.end.committed
    b = a.crash()
    b.run()
    plan = b.last(do.Prepare).restore
    assert [part.lists for part in plan["out"].values()] == [{}, {}]
    assert plan["lines"][0].lists == {"offsets": (b"1",)}
    b.fail()
    b.wait(60_000)
    assert [part.lists for part in b.last(do.Prepare).restore["out"].values()] == [{}, {}]
    b.ready()
    b.checkpoint()
    b.fail()
    b.wait(60_000)
    assert all(part.lists["pending"] for part in b.last(do.Prepare).restore["out"].values())


def test_checkpoints_without_a_log_are_no_fresh_start(new):
    a = new().run()
    a.checkpoint()
    for path in [p for p in a.store.objects if "/log/" in p]:
        del a.store.objects[path]
    b = a.crash()
    b.say(told.StartOrdered("go", after=0, revision="1", parallelism=2))
    assert not b.answer_to("go").ok
    assert "no log" in b.answer_to("go").detail["error"]
    b.say(told.StartOrdered("anew", after=0, revision="1", parallelism=2, restore=RestoreFrom()))
    assert b.answer_to("anew").ok


def test_a_stop_whose_savepoint_fails_is_told_and_the_job_runs_on(new):
    a = new().run()
    a.say(told.StopOrdered("stop"))
    n = a.last(do.Trigger).checkpoint
    a.say(told.SubtaskDeclined(AttemptNumber(1), n, SubtaskId("counts", 1), "disk full"))
    assert a.last(do.Resume).checkpoint == n
    assert not a.answer_to("stop").ok
    assert a.phase is Phase.RUNNING
    a.checkpoint()
    assert a.job.entry.kind is EntryKind.COMPLETED


def test_a_stop_that_dies_after_its_manifest_did_not_happen(new):
    a = new().run()
    a.held = {do.Append}
    a.say(told.StopOrdered("stop"))
    a.acknowledge()
    b = a.crash()
    assert b.job.entry.kind is EntryKind.OPENED
    assert published(b) == []


def test_killed_between_the_end_and_the_answer_it_does_not_run_on(new):
    a = new().run()
    a.say(told.StopOrdered("stop"))
    a.acknowledge()
    b = a.crash(workers=0)
    assert b.phase is Phase.ENDING
    assert published(b)
    b.say(told.WorkerJoined(0), told.WorkerJoined(1))
    prepare = b.last(do.Prepare)
    assert prepare.commit_only
    assert prepare.committed == 1
    assert prepare.restore.keys() == {"out"}
    b.committed(1)
    assert b.phase is Phase.ENDED
    b.say(told.StopOrdered("stop"))
    assert b.answer_to("stop").ok


def test_commits_that_fail_after_the_end_are_tried_again_without_sources(new):
    a = new().run()
    a.say(told.StopOrdered("stop"))
    a.acknowledge()
    a.fail("the broker does not answer")
    a.wait(1_000)
    assert a.last(do.Prepare).commit_only
    a.fail("the broker does not answer")
    a.wait(1_999)
    assert a.phase is Phase.BACKING_OFF
    a.wait(1)
    a.committed(1)
    assert a.job.entry.end.committed


def test_a_run_is_not_over_while_its_output_is_missing_whatever_keeps_it_from_being_committed(new):
    a = new().run()
    a.say(told.StopOrdered("stop"))
    a.acknowledge()
    waits = []
    for _ in range(8):
        a.fail("what was prepared is gone", fatal=True, operator="out", position="the same")
        waited = 0
        while a.phase is Phase.BACKING_OFF:
            a.wait(500)
            waited += 500
        waits.append(waited)
    assert waits == [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000]
    assert a.last(do.Prepare).commit_only
    a.say(told.StopOrdered("stop"))
    assert not [e for e in a.effects if isinstance(e, do.Answer) and e.request_id == "stop"]
    assert not any(isinstance(e, do.JobOver) for e in a.effects)
    a.committed(1)
    assert a.answer_to("stop").ok


def test_a_start_waits_for_an_end_that_cannot_be_committed_and_tries_no_faster(new):
    a = new().run()
    a.say(told.StopOrdered("stop"))
    a.acknowledge()
    a.fail("what was prepared is gone", fatal=True)
    a.say(told.StartOrdered("go on", after=2, revision="1", parallelism=2))
    a.wait(999)
    assert not a.last(do.Prepare).commit_only
    a.wait(1)
    assert a.last(do.Prepare).commit_only
    a.fail("what was prepared is gone", fatal=True)
    assert a.phase is Phase.BACKING_OFF
    a.wait(2_000)
    a.committed(1)
    assert a.attempt == 2


def test_a_savepoint_that_stands_while_the_commits_are_tried_again_answers_no_stop(new):
    a = new().run()
    a.say(told.StopOrdered("stop"))
    a.held = {do.PublishSavepoint}
    a.acknowledge()
    a.fail("the broker does not answer")
    a.answer(a.last(do.PublishSavepoint))
    assert not [e for e in a.effects if isinstance(e, do.Answer) and e.request_id == "stop"]
    a.wait(1_000)
    a.committed(1)
    a.answer(a.last(do.PublishSavepoint))
    assert a.job.entry.end.committed
    assert a.answer_to("stop").detail["end"] == "stopped"


def with_other_sink(a) -> JobGraph:
    """Its graph with the sink under another uid."""
    graph, uid = a.job._graph, OperatorId("other")
    (read, count, old), (to_count, to_sink) = graph.operators, graph.edges
    edges = (to_count, replace(to_sink, target=uid))
    return replace(graph, operators=(read, count, replace(old, id=uid)), edges=edges)


def test_code_without_the_sink_commits_no_end_and_starts_nothing_that_would_lose_its_output(new):
    a = new().run()
    a.say(told.StopOrdered("stop"))
    a.acknowledge()
    b = a.crash(graph=with_other_sink(a), revision="2")
    assert (b.phase, b.last(do.Tell).kind) == (Phase.WAITING, "refused")
    b.say(told.StopOrdered("stop"), told.StartOrdered("go", after=2, revision="2", parallelism=2))
    assert not b.answer_to("stop").ok
    assert "the sink out" in b.answer_to("go").detail["error"]
    assert not any(isinstance(e, do.Prepare) for e in b.effects)
    c = b.crash()
    c.committed(1)
    assert c.job.entry.end.committed
    d = c.crash(graph=with_other_sink(a), revision="2")
    assert d.phase is Phase.ENDED


def test_an_operator_with_a_state_that_is_called_as_the_sinks_is_no_sink(new):
    a = new().run()
    a.say(told.StopOrdered("stop"))
    a.acknowledge()
    end = a.job.entry
    manifest = a.manifest(META(1))
    counts = manifest.operators["counts"]
    pending = StateDescriptor("pending", StateKind.SPLIT_LIST, "msgpack/1", "int")
    subtasks = tuple(replace(part, lists={"pending": (b"1",)}) for part in counts.subtasks)
    counts = replace(counts, states=(*counts.states, pending), subtasks=subtasks)
    manifest = replace(manifest, operators={**manifest.operators, "counts": counts})
    opening.check_commit_only(end, manifest, a.job._graph)
    own = StateDescriptor("pending", StateKind.UNION_LIST, OWN_SERIALIZER, "PendingFile v1")
    out = replace(manifest.operators["out"], states=(own,))
    manifest = replace(manifest, operators={**manifest.operators, "out": out})
    opening.check_commit_only(end, manifest, a.job._graph)
    with pytest.raises(Rejected, match="the sink out"):
        opening.check_commit_only(end, manifest, with_other_sink(a))


def test_the_files_of_a_stops_savepoint_outlive_its_checkpoint(new):
    a = new(retained=1).run()
    a.say(told.StopOrdered("stop"))
    a.acknowledge()
    a.committed()
    a.run(request_id="again")
    a.checkpoint()
    assert META(1) not in a.store.objects
    assert a.last(do.DeleteSnapshot).paths == (META(1),)
    assert len([p for p in a.store.objects if p.startswith("mem://")]) == 3


def test_an_ended_job_runs_only_by_an_order_that_has_seen_the_end(new):
    a = new().run()
    a.say(told.StopOrdered("stop"))
    a.acknowledge()
    a.committed()
    a.say(told.StartOrdered("old", after=0, revision="1", parallelism=2))
    assert not a.answer_to("old").ok
    assert a.phase is Phase.ENDED
    a.run(request_id="new", parallelism=1)
    assert a.attempt == 2
    assert a.job.entry.attempt.restored_from.id == 1


def test_the_same_start_order_twice_starts_once(new):
    a = new().run(request_id="go")
    a.say(told.StartOrdered("go", after=0, revision="1", parallelism=2))
    b = a.crash()
    b.ready()
    b.say(told.StartOrdered("go", after=0, revision="1", parallelism=2))
    assert b.answer_to("go").ok
    assert b.attempt == 2


def test_a_start_that_waits_for_workers_gives_way_to_one_that_fits(new):
    a = new()
    a.say(told.StartOrdered("wide", after=0, revision="1", parallelism=40))
    assert a.phase is Phase.GATHERING
    a.say(told.StartOrdered("narrow", after=0, revision="1", parallelism=2))
    assert not a.answer_to("wide").ok
    assert a.answer_to("narrow").ok
    assert (a.attempt, a.store.newest().attempt.parallelism) == (1, 2)


def test_a_recovery_that_waits_for_workers_gives_way_to_a_start_with_fewer(new):
    a = new().run()
    a.checkpoint()
    a.say(told.WorkerLeft(1, "its node is gone"))
    a.wait(1_000)
    assert a.phase is Phase.GATHERING
    newest = a.store.newest()
    a.say(told.StartOrdered("narrow", after=newest.seq, revision="1", parallelism=1))
    assert a.answer_to("narrow").ok
    opened = a.store.newest().attempt
    assert (opened.number, opened.parallelism) == (2, 1)
    assert opened.restored_from == newest.retained[-1]


def test_a_start_that_has_not_seen_the_newest_entry_takes_no_recovery_away(new):
    a = new().run()
    a.checkpoint()
    a.say(told.WorkerLeft(1, "gone"))
    a.wait(1_000)
    a.say(told.StartOrdered("late", after=1, revision="1", parallelism=1))
    assert not a.answer_to("late").ok
    a.say(told.WorkerJoined(1))
    assert (a.attempt, a.store.newest().attempt.parallelism) == (2, 2)


def test_orders_while_the_commits_of_an_end_are_tried_again_change_nothing(new):
    a = new().run()
    a.say(told.StopOrdered("stop"))
    a.acknowledge()
    a.fail("the broker does not answer")
    assert a.phase is Phase.BACKING_OFF
    a.say(told.CancelOrdered("cancel"), told.StopOrdered("again"))
    assert not a.answer_to("cancel").ok
    assert not a.answer_to("again").ok
    a.say(told.StartOrdered("go on", after=2, revision="1", parallelism=2))
    a.wait(1_000)
    a.committed(1)
    assert a.attempt == 2


def test_a_start_that_waits_for_the_end_before_it_is_taken_back_by_a_later_cancel(new):
    a = new().run()
    a.checkpoint()
    a.say(told.CancelOrdered("cancel"))
    assert a.phase is Phase.ENDING
    a.say(told.StartOrdered("go on", after=2, revision="1", parallelism=2))
    a.say(told.CancelOrdered("cancel"))  # asked once more, it is about the run before
    a.say(told.CancelOrdered("not now"))
    assert not a.answer_to("go on").ok
    a.committed(1)
    assert (a.phase, a.attempt) == (Phase.ENDED, 1)


def test_a_job_started_from_a_foreign_savepoint_numbers_its_checkpoints_above_it(new):
    a = new().run()
    a.say(told.StopOrdered("stop"))
    a.acknowledge()
    (path,) = published(a)
    far = replace(a.manifest(path), checkpoint=CheckpointId(500), job=JobId("other"))
    b = new()
    snapshot = SnapshotRef(CheckpointId(500), "mem://elsewhere/savepoint-x/_metadata", "")
    b.run(restore=RestoreFrom(snapshot, far))
    assert b.job.entry.attempt.next_checkpoint == 501
    (source, *_) = b.last(do.Prepare).restore["counts"][0].keyed
    assert source.folder == "mem://elsewhere/savepoint-x/"


def test_what_an_end_dropped_is_deleted_by_whoever_ends_it(new):
    a = new(retained=1).run()
    a.checkpoint()
    a.held = {do.DeleteSnapshot}
    a.say(told.StopOrdered("stop"))
    a.acknowledge()
    assert META(1) in a.store.objects
    b = a.crash(retained=1)
    b.committed(2)
    assert b.job.entry.end.committed
    assert META(1) not in b.store.objects


# ── finish ─────────────────────────────────────────────────────────────────────────────────────


def finish(a) -> None:
    a.say(*(told.SubtaskFinished(a.attempt, s) for s in a.subtasks))


def test_a_bounded_job_ends_with_a_final_checkpoint_that_commits_the_rest(new):
    a = new(interval_ms=0).run()
    finish(a)
    assert a.last(do.Trigger).checkpoint == 1
    a.acknowledge()
    end = a.job.entry.end
    assert (end.kind, end.go_on_from.id, end.committed) == (EndKind.FINISHED, 1, False)
    assert a.last(do.NotifyCompleted).commit
    a.committed()
    assert a.job.entry.end.committed


def test_a_checkpoint_that_began_before_the_last_end_is_not_the_final_one(new):
    a = new().run()
    a.wait(10_000)
    finish(a)
    a.acknowledge()
    assert a.job.entry.kind is EntryKind.COMPLETED
    assert a.last(do.Trigger).checkpoint == 2
    a.acknowledge()
    assert a.job.entry.end.kind is EndKind.FINISHED


def test_a_finished_job_whose_coordinator_starts_again_runs_nothing(new):
    a = new(interval_ms=0).run()
    finish(a)
    a.acknowledge()
    a.committed()
    b = a.crash()
    assert b.phase is Phase.ENDED
    assert not any(isinstance(e, do.Prepare) for e in b.effects)


def test_a_savepoint_taken_before_the_end_has_the_final_checkpoint_behind_it(new):
    a = new(interval_ms=0).run()
    a.say(told.SavepointOrdered("sp"))
    finish(a)
    a.acknowledge()
    a.acknowledge()
    assert a.job.entry.end.kind is EndKind.FINISHED
    assert published(a)
    assert a.answer_to("sp").ok


# ── cancel ─────────────────────────────────────────────────────────────────────────────────────


def test_a_cancel_commits_the_newest_checkpoint_before_it_is_over(new):
    a = new().run()
    a.checkpoint()
    a.say(told.CancelOrdered("cancel"))
    assert a.phase is Phase.ENDING
    assert a.last(do.Prepare).commit_only
    a.committed(1)
    assert (a.job.entry.end.kind, a.job.entry.end.committed) == (EndKind.CANCELLED, True)
    assert META(1) in a.store.objects
    assert a.answer_to("cancel").ok


def test_a_cancel_deploys_nothing_when_all_is_committed(new):
    a = new().run()
    a.checkpoint()
    a.committed()
    a.say(told.CancelOrdered("cancel"))
    assert a.phase is Phase.ENDED
    assert not a.last(do.Prepare).commit_only


def test_a_cancel_that_deletes_drops_everything_after_the_commits(new):
    a = new(on_cancellation=OnCancellation.DELETE).run()
    a.checkpoint()
    a.say(told.CancelOrdered("cancel"))
    assert META(1) in a.store.objects
    a.committed(1)
    assert a.job.entry.retained == ()
    assert not [p for p in a.store.objects if "chk-" in p]


def test_a_cancel_before_the_first_checkpoint_has_nothing_to_commit(new):
    a = new().run()
    a.say(told.CancelOrdered("cancel"))
    assert a.phase is Phase.ENDED
    assert a.job.entry.end.go_on_from is None


def test_a_cancel_before_anything_was_written_only_forgets_the_order(new):
    a = new(workers=1)
    a.say(told.StartOrdered("go", after=0, revision="1", parallelism=2))
    a.say(told.CancelOrdered("cancel"))
    assert a.phase is Phase.WAITING
    assert a.store.newest() is None


# ── failures ───────────────────────────────────────────────────────────────────────────────────


def test_a_failure_restores_the_newest_complete_checkpoint_in_the_next_attempt(new):
    a = new().run()
    a.checkpoint()
    a.fail()
    assert a.last(do.CancelWorkers).attempt == 1
    a.wait(1_000)
    entry = a.job.entry
    assert (entry.kind, entry.attempt.number, entry.attempt.restored_from.id) == (
        EntryKind.OPENED,
        2,
        1,
    )
    assert a.last(do.Prepare).committed == 1
    assert entry.attempt.next_checkpoint == 2


def test_delays_grow_up_to_a_minute(new):
    a = new().run()
    waits = []
    for _ in range(8):
        a.fail()
        waited = 0
        while a.phase is Phase.BACKING_OFF:
            a.wait(500)
            waited += 500
        waits.append(waited)
        a.ready()
    assert waits == [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000]


def test_a_worker_that_leaves_fails_the_attempt_and_is_waited_for(new):
    a = new().run()
    a.say(told.WorkerLeft(1, "its heartbeats stopped"))
    a.wait(1_000)
    assert a.phase is Phase.GATHERING
    a.say(told.WorkerJoined(1))
    assert a.attempt == 2


def test_a_worker_that_leaves_while_the_attempt_is_opened_fails_it(new):
    a = new()
    a.held = {do.Append}
    a.say(told.StartOrdered("go", after=0, revision="1", parallelism=2))
    a.say(told.WorkerLeft(0, "gone"))
    a.answer(a.last(do.Append))
    assert a.phase is Phase.BACKING_OFF


def test_a_start_that_was_obeyed_stays_so_though_another_comes_while_its_job_waits_for_workers(new):
    a = new().run(request_id="go")
    a.say(told.WorkerLeft(1, "its node is gone"))
    a.wait(1_000)
    assert a.phase is Phase.GATHERING
    a.say(told.StartOrdered("again", after=1, revision="1", parallelism=1))
    assert a.answer_to("go").ok
    assert a.answer_to("again").ok


def test_a_failure_of_an_attempt_that_is_over_is_ignored(new):
    a = new().run()
    a.fail()
    a.wait(1_000)
    a.ready()
    a.say(told.AttemptFailed(AttemptNumber(1), Failure("late")))
    assert a.phase is Phase.RUNNING


@pytest.mark.parametrize(
    ("strategy", "failures"),
    [(NoRestart(), 1), (FixedDelay(1_000, attempts=2), 3), (FailureRate(1_000, 2, 60_000), 3)],
)
def test_a_strategy_that_gives_up_ends_the_job(new, strategy, failures: int):
    a = new(restart=strategy).run()
    for _ in range(failures):
        assert a.phase is Phase.RUNNING
        a.fail()
        a.wait(1_000)
        if a.phase is Phase.DEPLOYING:
            a.ready()
    assert a.job.entry.end.kind is EndKind.FAILED


def test_a_record_that_fails_again_and_again_at_the_same_place_ends_the_job(new):
    a = new().run()
    a.checkpoint()
    a.committed()
    for _ in range(SAME_RECORD_MAX):
        assert a.phase is Phase.RUNNING
        a.fail(operator="parse", position="access.log, line 8,899")
        a.wait(60_000)
        if a.phase is Phase.DEPLOYING:
            a.ready()
    a.committed(1)
    assert a.job.entry.end.kind is EndKind.FAILED
    assert a.job.entry.end.go_on_from.id == 1
    assert META(1) in a.store.objects


def test_a_fatal_failure_ends_the_job_at_once(new):
    a = new().run()
    a.fail("the graph differs", fatal=True)
    assert a.job.entry.end.kind is EndKind.FAILED


@pytest.mark.parametrize("order", [told.StopOrdered("late"), told.SavepointOrdered("late")])
def test_what_was_ordered_of_a_run_that_does_not_go_on_is_refused_and_not_done_with_a_later_one(
    new, order
):
    a = new().run()
    a.checkpoint()
    a.fail()
    a.say(order)
    for path in [p for p in a.store.objects if "/chk-1/" in p and not p.endswith("_metadata")]:
        del a.store.objects[path]
    a.wait(1_000)
    assert a.phase is Phase.WAITING
    assert not a.answer_to("late").ok
    a.run(rules=RestoreRules(allow_empty=True), request_id="again")
    assert (a.phase, a.job.entry.attempt.restored_from) == (Phase.RUNNING, None)
    assert not any(isinstance(e, do.Trigger) and e.attempt == 2 for e in a.effects)


def test_a_stop_of_a_start_that_was_taken_back_stops_no_later_one(new):
    a = new(workers=0)
    a.say(told.StartOrdered("go", after=0, revision="1", parallelism=2))
    a.say(told.StopOrdered("stop"), told.CancelOrdered("cancel"))
    assert not a.answer_to("stop").ok
    a.say(told.WorkerJoined(0), told.WorkerJoined(1))
    a.run(request_id="again")
    assert a.phase is Phase.RUNNING


# ── holds ──────────────────────────────────────────────────────────────────────────────────────


def held_job(new):
    a = new(retained=1).run()
    a.say(told.StopOrdered("stop"))
    a.acknowledge()
    a.committed()
    return a.run(request_id="upgrade", hold_stable=2)


def test_in_a_hold_sinks_do_not_commit_until_enough_checkpoints_completed(new):
    a = held_job(new)
    a.checkpoint()
    assert a.last(do.NotifyCompleted) == do.NotifyCompleted(2, 2, commit=False)
    a.checkpoint()
    assert a.job.entry.kind is EntryKind.RELEASED
    assert a.last(do.NotifyCompleted) == do.NotifyCompleted(2, 3, commit=True)


def test_in_a_hold_what_it_goes_back_to_stays_beyond_the_count(new):
    a = held_job(new)
    a.checkpoint()
    assert [ref.id for ref in a.job.entry.retained] == [1, 2]


def test_a_recovery_in_a_hold_commits_nothing_above_it_and_counts_again(new):
    a = held_job(new)
    a.checkpoint()
    a.fail()
    a.wait(1_000)
    assert a.last(do.Prepare).committed == 1
    assert a.last(do.Prepare).attempt.restored_from.id == 2
    a.ready()
    a.checkpoint()
    assert a.job.entry.hold is not None


def test_a_savepoint_waits_for_the_end_of_a_hold(new):
    a = held_job(new)
    a.say(told.SavepointOrdered("sp"))
    a.checkpoint()
    assert a.last(do.Trigger).savepoint is None
    a.checkpoint()
    assert a.last(do.Trigger).savepoint is not None


def test_a_cancel_in_a_hold_commits_only_what_it_held_back_from(new):
    a = held_job(new)
    a.checkpoint()
    a.say(told.CancelOrdered("cancel"))
    assert a.last(do.Prepare).committed == 1
    assert a.job.entry.hold is not None


def test_an_ordered_stop_ends_a_hold(new):
    a = held_job(new)
    a.checkpoint()
    a.say(told.StopOrdered("stop it"))
    a.acknowledge()
    assert a.job.entry.hold is None
    assert a.last(do.NotifyCompleted).commit
