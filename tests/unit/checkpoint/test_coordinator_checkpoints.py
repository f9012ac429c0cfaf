"""Taking checkpoints and savepoints, as conversations with the coordinator."""

from penstock.checkpoint import effects as do
from penstock.checkpoint import events as told
from penstock.checkpoint.phases import Phase
from penstock.core import paths
from penstock.core.ids import AttemptNumber, CheckpointId, JobId, SubtaskId
from penstock.core.log import EntryKind

META = "wordcount/chk-{}/_metadata".format


def test_a_job_starts_when_it_is_ordered_and_all_its_workers_are_there(new):
    a = new(workers=1)
    assert a.phase is Phase.WAITING
    a.say(told.StartOrdered("go", after=0, revision="1", parallelism=2))
    assert a.phase is Phase.GATHERING
    a.say(told.WorkerJoined(1))
    assert a.phase is Phase.DEPLOYING
    assert a.last(do.Prepare).subtasks == {
        0: (SubtaskId("lines", 0), SubtaskId("counts", 0)),
        1: (SubtaskId("lines", 1), SubtaskId("counts", 1)),
    }
    a.ready()
    assert a.phase is Phase.RUNNING
    assert a.answer_to("go").ok


def test_the_interval_is_from_start_to_start(new):
    a = new(interval_ms=10_000).run()
    assert not any(isinstance(e, do.Trigger) for e in a.wait(9_999))
    assert a.wait(1)[0] == do.Trigger(AttemptNumber(1), CheckpointId(1), base=None)
    a.wait(4_000)
    a.acknowledge()
    assert a.wait(5_999) == []
    assert a.last(do.Trigger).checkpoint == 1
    a.wait(1)
    assert a.last(do.Trigger).checkpoint == 2


def test_the_min_pause_is_from_end_to_start(new):
    a = new(interval_ms=1_000, min_pause_ms=3_000).run()
    a.wait(3_000)
    a.wait(2_000)
    a.acknowledge()
    a.wait(2_999)
    assert a.last(do.Trigger).checkpoint == 1
    a.wait(1)
    assert a.last(do.Trigger).checkpoint == 2


def test_a_checkpoint_is_complete_by_its_entry_and_only_then_sinks_commit(new):
    a = new().run()
    a.held = {do.WriteManifest, do.Append}
    a.checkpoint()
    written = a.last(do.WriteManifest)
    assert written.path == META(1)
    a.answer(written)
    entry = a.last(do.Append).entry
    assert entry.kind is EntryKind.COMPLETED
    assert [ref.path for ref in entry.retained] == [META(1)]
    assert not any(isinstance(e, do.NotifyCompleted) for e in a.effects)
    a.answer(a.last(do.Append))
    assert a.last(do.NotifyCompleted) == do.NotifyCompleted(1, 1, commit=True)


def test_the_base_is_the_newest_completed_checkpoint_and_a_savepoint_does_not_move_it(new):
    a = new().run()
    a.checkpoint()
    a.say(told.SavepointOrdered("sp"))
    assert a.last(do.Trigger).base is None
    a.acknowledge()
    behind = a.last(do.Trigger)
    assert (behind.checkpoint, behind.base, behind.savepoint) == (3, 1, None)


def test_late_duplicate_and_unknown_acknowledgements_change_nothing(new):
    a = new().run()
    a.wait(10_000)
    trigger, first = a.last(do.Trigger), a.subtasks[0]
    ack = a.ack(trigger, first)
    a.say(ack)
    assert a.say(ack) == []
    stranger = told.SubtaskAcked(AttemptNumber(1), CheckpointId(7), first, {})
    assert a.say(stranger) == []
    a.acknowledge()
    assert a.job.entry.kind is EntryKind.COMPLETED
    assert a.say(ack) == []


def test_what_a_second_acknowledgement_uploaded_is_deleted(new):
    a = new().run()
    a.wait(10_000)
    trigger, counts = a.last(do.Trigger), SubtaskId("counts", 0)
    a.say(a.ack(trigger, counts))
    a.say(a.ack(trigger, counts, name="again"))
    assert a.last(do.DeleteFiles).paths == ("wordcount/chk-1/again",)


def test_a_pending_checkpoint_that_takes_too_long_is_given_up_with_its_files(new):
    a = new(timeout_ms=5_000, tolerable_failures=1).run()
    a.wait(10_000)
    trigger = a.last(do.Trigger)
    a.say(a.ack(trigger, SubtaskId("counts", 0)))
    a.wait(5_000)
    assert a.last(do.Abort).checkpoint == 1
    assert "wordcount/chk-1/1-1-0" not in a.store.objects
    late = a.say(a.ack(trigger, SubtaskId("counts", 1)))
    assert late == [do.DeleteFiles(("wordcount/chk-1/1-1-1",))]
    assert not [p for p in a.store.objects if "chk-1" in p]


def test_nothing_is_given_up_once_the_manifest_is_being_written(new):
    a = new(timeout_ms=5_000).run()
    a.held = {do.WriteManifest}
    a.checkpoint()
    assert a.wait(60_000) == []
    assert a.say(told.WorkerLeft(1, "gone")) == []
    a.answer(a.last(do.WriteManifest))
    assert a.job.entry.retained[-1].id == 1
    assert a.phase is Phase.BACKING_OFF


def test_while_an_entry_is_unknown_orders_and_failures_wait(new):
    a = new().run()
    a.held = {do.Append}
    a.checkpoint()
    assert a.fail() == []
    assert a.say(told.CancelOrdered("stop it")) == []
    append = a.last(do.Append)
    a.held = set()
    a.answer(append)
    assert a.job.entry.kind is EntryKind.ENDED
    assert a.job.entry.end.go_on_from.id == 1


def test_more_failures_in_a_row_than_tolerated_fail_the_attempt_and_success_resets(new):
    a = new(tolerable_failures=1).run()

    def decline() -> None:
        a.wait(10_000)
        n = a.last(do.Trigger).checkpoint
        a.say(told.SubtaskDeclined(AttemptNumber(1), n, SubtaskId("counts", 0), "disk full"))

    decline()
    a.checkpoint()
    decline()
    assert a.phase is Phase.RUNNING
    decline()
    assert a.phase is Phase.BACKING_OFF


def test_where_another_attempts_manifest_stands_the_next_number_is_taken(new):
    a = new().run()
    a.store.objects[META(1)] = b"another's"
    a.checkpoint()
    assert a.last(do.Abort).checkpoint == 1
    assert a.last(do.Trigger).checkpoint == 2
    a.acknowledge()
    assert a.job.entry.retained[-1].id == 2


def test_a_checkpoint_on_order_is_answered_when_complete(new):
    a = new().run()
    a.say(told.CheckpointOrdered("now"))
    a.acknowledge()
    assert a.answer_to("now") == do.Answer("now", True, {"checkpoint": 1})
    assert a.say(told.CheckpointOrdered("now")) == [a.answer_to("now")]
    assert a.last(do.Trigger).checkpoint == 1


# ── retention ──────────────────────────────────────────────────────────────────────────────────


def test_the_oldest_goes_only_after_an_entry_dropped_it_manifest_first(new):
    a = new(retained=1).run()
    a.checkpoint()
    a.held = {do.Append, do.DeleteSnapshot}
    a.checkpoint()
    assert META(1) in a.store.objects
    assert not any(isinstance(e, do.DeleteSnapshot) for e in a.effects)
    a.answer(a.last(do.Append))
    assert a.last(do.DeleteSnapshot).paths == (
        META(1),
        "wordcount/chk-1/1-1-0",
        "wordcount/chk-1/1-1-1",
    )


def test_a_shared_file_goes_with_the_last_checkpoint_that_uses_it(new):
    a = new(retained=1).run()
    a.wait(10_000)
    a.acknowledge(shared=["x", "y"])
    a.wait(10_000)
    a.acknowledge(shared=["y"])
    shared = {p for p in a.store.objects if "shared" in p}
    assert shared == {"wordcount/shared/y"}


def test_the_next_coordinator_deletes_what_was_dropped_and_still_lies_there(new):
    a = new(retained=1).run()
    a.held = {do.DeleteSnapshot}
    a.checkpoint()
    a.checkpoint()
    assert META(1) in a.store.objects
    b = a.crash(retained=1)
    assert META(1) not in b.store.objects
    assert not [p for p in b.store.objects if "chk-1/" in p]


def test_what_an_attempt_that_is_over_uploads_late_is_collected(new):
    a = new().run()
    a.wait(10_000)
    trigger = a.last(do.Trigger)
    a.fail()
    a.wait(1_000)
    assert a.attempt == 2
    a.say(a.ack(trigger, SubtaskId("counts", 0)))
    assert a.last(do.DeleteFiles).paths == ("wordcount/chk-1/1-1-0",)


def test_a_late_duplicate_never_deletes_what_a_retained_checkpoint_uses(new):
    a = new().run()
    a.checkpoint()
    trigger = a.last(do.Trigger)
    a.fail()
    a.wait(1_000)
    assert a.say(a.ack(trigger, SubtaskId("counts", 0))) == []


# ── savepoints ─────────────────────────────────────────────────────────────────────────────────


def savepoint_of(a) -> list[str]:
    return [p for p in a.store.objects if p.startswith("mem://") and p.endswith("_metadata")]


def test_a_savepoint_gets_its_manifest_when_the_checkpoint_behind_it_is_complete(new):
    a = new().run()
    a.say(told.SavepointOrdered("sp"))
    trigger = a.last(do.Trigger)
    assert trigger.savepoint == paths.savepoint_folder(JobId("wordcount"), "sp")
    a.acknowledge()
    assert a.store.newest().kind is EntryKind.OPENED
    assert savepoint_of(a) == []
    assert a.last(do.Trigger).checkpoint == 2
    a.acknowledge()
    (path,) = savepoint_of(a)
    assert a.manifest(path).checkpoint == 1
    assert [f.path for f in a.manifest(path).files()] == ["1-1-0", "1-1-1"]
    assert a.answer_to("sp").ok
    assert a.say(told.SavepointOrdered("sp")) == [a.answer_to("sp")]


def test_a_savepoint_subsumes_nothing(new):
    a = new(retained=1).run()
    a.checkpoint()
    a.say(told.SavepointOrdered("sp"))
    a.acknowledge()
    assert [ref.id for ref in a.job.entry.retained] == [1]


def test_savepoints_go_before_periodic_checkpoints(new):
    a = new().run()
    a.wait(10_000)
    a.say(told.SavepointOrdered("sp"))
    a.wait(10_000)
    a.acknowledge()
    assert a.last(do.Trigger).savepoint is not None


def test_a_savepoint_whose_attempt_fails_before_the_checkpoint_behind_it_is_taken_again(new):
    a = new().run()
    a.say(told.SavepointOrdered("sp"))
    a.acknowledge()
    a.fail()
    assert a.last(do.DeleteFiles).savepoints
    assert not [p for p in a.store.objects if p.startswith("mem://")]
    a.wait(1_000)
    a.ready()
    trigger = a.last(do.Trigger)
    assert trigger.attempt == 2
    assert trigger.savepoint is not None
    a.acknowledge()
    a.acknowledge()
    assert a.answer_to("sp").ok


def test_a_declined_savepoint_is_told_and_the_job_runs_on(new):
    a = new().run()
    a.say(told.SavepointOrdered("sp"))
    n = a.last(do.Trigger).checkpoint
    a.say(told.SubtaskDeclined(AttemptNumber(1), n, SubtaskId("counts", 1), "disk full"))
    assert not a.answer_to("sp").ok
    assert a.phase is Phase.RUNNING


def test_a_savepoint_that_was_published_before_is_the_answer(new):
    a = new().run()
    a.say(told.SavepointOrdered("sp"))
    a.acknowledge()
    a.acknowledge()
    (path,) = savepoint_of(a)
    b = a.crash()
    b.ready()
    b.say(told.SavepointOrdered("sp", published=b.manifest(path)))
    assert b.answer_to("sp").detail == a.answer_to("sp").detail


def test_too_many_orders_drop_the_least_important_and_say_so(new):
    a = new().run()
    a.wait(10_000)  # one is pending, so orders queue
    a.say(*(told.CheckpointOrdered(f"chk-{i}") for i in range(16)))
    a.say(told.SavepointOrdered("sp"))
    assert a.answer_to("chk-15") == do.Answer(
        "chk-15", False, {"error": "too many orders are waiting"}
    )
