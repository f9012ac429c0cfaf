"""What a coordinator can tell, from the events and effects that pass by."""

from dataclasses import replace

from penstock.checkpoint import effects, events
from penstock.checkpoint.rescaling import Outcome, Rescale, noted
from penstock.checkpoint.settings import CheckpointSettings
from penstock.core.failure import Failure
from penstock.core.graph import JobGraph, Operator
from penstock.core.ids import AttemptNumber, CheckpointId, JobId, OperatorId, WorkerId
from penstock.core.log import Attempt, End, EndKind, Entry, EntryKind, SnapshotRef
from penstock.core.manifest import Manifest, SnapshotKind
from penstock.network.frames import Heartbeat, OperatorMetrics
from penstock.runtime.job_status import job_status
from penstock.runtime.job_view import CheckpointStatus, JobView
from penstock.spec.orders import JobPhase


def entry(kind, number=1, *, end=None, retained=(), seq=1):
    attempt = Attempt(AttemptNumber(number), "r", 1, 128, (0,), CheckpointId(1))
    return Entry(seq, "n", 0, kind, "o", "j", attempt, retained=retained, end=end)


def ref(id):
    return SnapshotRef(CheckpointId(id), f"job/chk-{id}/_metadata", "d")


def trigger(id, **fields):
    return effects.Trigger(AttemptNumber(1), CheckpointId(id), None, **fields)


def running():
    view = JobView(started_ms=0)
    view.saw_effect(effects.Append(entry(EntryKind.OPENED)), 1)
    view.saw_event(events.EntryWon(entry(EntryKind.OPENED)), 2)
    view.saw_effect(effects.Run(AttemptNumber(1)), 3)
    return view


def beat(attempt, **metrics):
    return Heartbeat(attempt, 5, metrics)


def test_a_checkpoint_is_completed_by_its_entry_and_not_before():
    view = running()
    view.saw_effect(trigger(1), 10)
    (record,) = view.checkpoints
    assert record.status is CheckpointStatus.IN_PROGRESS
    view.saw_event(events.EntryWon(entry(EntryKind.COMPLETED, retained=(ref(1),))), 15)
    assert (record.status, record.duration_ms) == (CheckpointStatus.COMPLETED, 5)
    assert view.checkpoints_completed == 1
    assert view.last_completed is record


def test_an_aborted_checkpoint_has_its_reason():
    view = running()
    view.saw_effect(trigger(1), 10)
    view.saw_effect(effects.Abort(AttemptNumber(1), CheckpointId(1), "declined"), 11)
    assert [(r.status, r.reason) for r in view.checkpoints] == [
        (CheckpointStatus.FAILED, "declined")
    ]
    view.saw_effect(effects.Abort(AttemptNumber(1), CheckpointId(1), "declined"), 12)
    assert view.checkpoints_failed == 1


def test_a_restart_is_counted_and_a_start_after_an_end_is_not():
    view = running()
    view.saw_event(events.EntryWon(entry(EntryKind.OPENED, 2)), 20)
    assert view.restarts == 1
    ended = entry(EntryKind.ENDED, 2, end=End(EndKind.STOPPED, committed=True))
    view.saw_event(events.EntryWon(ended), 21)
    view.saw_event(events.EntryWon(entry(EntryKind.OPENED, 3)), 22)
    assert view.restarts == 1


def test_an_attempt_that_is_being_opened_is_the_one_that_the_phase_is_about():
    view = JobView(started_ms=0)
    ended = entry(EntryKind.ENDED, 1, end=End(EndKind.STOPPED))
    view.saw_event(events.EntryWon(ended), 1)
    view.saw_effect(effects.Append(entry(EntryKind.OPENED, 2)), 2)
    assert (view.phase, view.attempt) == (JobPhase.DEPLOYING, 2)
    view.saw_event(events.EntryLost(ended), 3)
    assert view.attempt == 1


def test_phases_follow_a_stop_and_its_end():
    view = running()
    assert view.phase is JobPhase.RUNNING
    view.saw_effect(trigger(1, stop=True, savepoint="savepoint-a-b/"), 10)
    assert view.phase is JobPhase.STOPPING
    view.saw_effect(effects.Resume(AttemptNumber(1), CheckpointId(1)), 11)
    assert view.phase is JobPhase.RUNNING
    ended = entry(EntryKind.ENDED, end=End(EndKind.STOPPED, ref(1)))
    view.saw_event(events.EntryWon(ended), 12)
    assert view.phase is JobPhase.ENDING
    view.saw_effect(effects.JobOver(ended), 13)
    assert (view.phase, view.ended_ms) == (JobPhase.STOPPED, 13)


def test_metrics_are_summed_over_subtasks_and_begin_anew_with_an_attempt():
    view = running()
    one, two = OperatorMetrics(records_in=1), OperatorMetrics(records_in=2)
    view.heard(WorkerId(0), beat(1, **{"counts/0": one}), 0)
    view.heard(WorkerId(1), beat(1, **{"counts/1": two}), 0)
    assert view.operators()["counts"].records_in == 3
    view.heard(WorkerId(0), beat(2, **{"counts/0": one}), 1)
    assert view.operators()["counts"].records_in == 1
    view.heard(WorkerId(1), beat(1, **{"counts/1": two}), 2)
    assert view.operators()["counts"].records_in == 1


def test_rates_are_those_of_the_last_seconds():
    view = running()
    for second in range(11):
        metrics = OperatorMetrics(records_in=second * 100, busy_ms=second * 500)
        view.heard(WorkerId(0), beat(1, **{"counts/0": metrics}), second * 1000)
    rates = view.rates("counts", subtasks=1)
    assert (rates.records_per_second, rates.busy) == (100.0, 0.5)


def rescaled(outcome, number=2):
    rescale = Rescale("up", (0,), 2, outcome)
    return replace(entry(EntryKind.OPENED, number), settings=noted({}, rescale))


def test_a_change_of_parallelism_is_neither_a_stop_nor_a_restart():
    view = running()
    view.saw_effect(trigger(1, stop=True), 10)
    assert view.phase is JobPhase.RUNNING
    view.saw_event(events.EntryWon(rescaled(Outcome.TRYING)), 20)
    assert view.restarts == 0
    view.saw_event(events.EntryWon(rescaled(Outcome.FAILED, 3)), 30)
    assert view.restarts == 1, "going back is one"


def test_checkpoints_are_counted_by_attempt():
    view = running()
    for id in (1, 2):
        view.saw_event(events.EntryWon(entry(EntryKind.COMPLETED, retained=(ref(id),))), 15)
    assert view.completed_in_attempt == 2
    view.saw_event(events.EntryWon(entry(EntryKind.RELEASED, retained=(ref(2),))), 16)
    assert view.completed_in_attempt == 2
    view.saw_event(events.EntryWon(entry(EntryKind.OPENED, 2)), 20)
    assert view.completed_in_attempt == 0


def test_checkpoints_of_an_earlier_coordinator_are_known_from_the_log():
    manifest = Manifest(
        SnapshotKind.CHECKPOINT,
        JobId("job"),
        AttemptNumber(1),
        CheckpointId(2),
        at_ms=5_000,
        parallelism=1,
        max_parallelism=128,
        hash_name="h",
        key_format="k",
        row_format="r",
        operators={},
        duration_ms=300,
    )
    newest = entry(EntryKind.COMPLETED, retained=(ref(1), ref(2)))
    view = JobView(started_ms=0)
    for _ in range(2):
        read = events.LogRead(newest, CheckpointId(2), {ref(2).path: manifest}, {ref(1).path: "x"})
        view.saw_event(read, 9_000)
    (record,) = view.checkpoints
    assert (record.id, record.started_ms, record.ended_ms) == (2, 4_700, 5_000)
    assert view.last_completed is record


EVERY_10_S = CheckpointSettings(interval_ms=10_000)


def test_the_next_checkpoint_is_an_interval_after_the_last_ones_start_and_a_pause_after_its_end():
    view = running()
    assert view.next_checkpoint_in_ms(1_003, EVERY_10_S) == 9_000, "records flow since 3"
    view.saw_effect(trigger(1), 10_003)
    assert view.next_checkpoint_in_ms(10_004, EVERY_10_S) is None, "one is under way"
    view.saw_event(events.EntryWon(entry(EntryKind.COMPLETED, retained=(ref(1),))), 14_003)
    assert view.next_checkpoint_in_ms(14_003, EVERY_10_S) == 6_000
    paused = replace(EVERY_10_S, min_pause_ms=8_000)
    assert view.next_checkpoint_in_ms(14_003, paused) == 8_000
    assert view.next_checkpoint_in_ms(99_000, EVERY_10_S) == 0, "it is due"


def test_no_checkpoint_comes_next_where_the_clock_takes_none():
    view = running()
    assert view.next_checkpoint_in_ms(9, replace(EVERY_10_S, interval_ms=0)) is None
    view.saw_effect(effects.CancelWorkers(AttemptNumber(1)), 10)
    assert view.next_checkpoint_in_ms(11, EVERY_10_S) is None
    view.saw_event(events.EntryWon(entry(EntryKind.OPENED, 2)), 20)
    view.saw_effect(effects.Append(entry(EntryKind.OPENED, 2)), 20)
    view.saw_effect(effects.Run(AttemptNumber(2)), 5_000)
    assert view.next_checkpoint_in_ms(6_000, EVERY_10_S) == 9_000, "the interval began anew"


def test_the_live_settings_in_force_are_those_that_were_applied():
    view = running()
    assert view.live == {}
    view.saw_effect(effects.ApplySettings({"checkpoints": {"interval": "5s"}}), 4)
    assert view.live == {"checkpoints": {"interval": "5s"}}


def unread(files, bytes):
    return OperatorMetrics(unread_files=files, unread_bytes=bytes)


def test_what_is_unread_is_summed_over_the_subtasks_that_can_tell():
    view = running()
    view.heard(WorkerId(0), beat(1, **{"lines/0": unread(2, 500), "out/0": OperatorMetrics()}), 0)
    view.heard(WorkerId(1), beat(1, **{"lines/1": OperatorMetrics(), "lines/2": unread(1, 7)}), 0)
    lines, out = view.operators()["lines"], view.operators()["out"]
    assert (lines.unread_files, lines.unread_bytes) == (3, 507)
    assert (out.unread_files, out.unread_bytes) == (None, None)


GRAPH = JobGraph("job", (Operator(OperatorId("lines"), "source", uid=True),), ())


def status_of(view, now_ms):
    return job_status(
        view,
        job=JobId("job"),
        graph=GRAPH,
        revision="r",
        parallelism=1,
        workers=[],
        requests=(),
        holds_not=(),
        checkpoints_url="file:///c",
        savepoints_url="file:///s",
        settings_in_force=EVERY_10_S,
        now_ms=now_ms,
    )


def read_down(view, *bytes_by_second):
    for second, left in enumerate(bytes_by_second):
        view.heard(WorkerId(0), beat(1, **{"lines/0": unread(1, left)}), second * 1000)
    (lines,) = status_of(view, 9_000).operators
    return lines.unread_files, lines.unread_bytes, lines.unread_ms


def test_how_long_the_unread_takes_is_told_from_the_pace_of_the_last_seconds():
    assert read_down(running(), 10_000, 9_000, 8_000) == (1, 8_000, 8_000)


def test_no_time_is_told_while_nothing_is_read_or_more_is_found_or_nothing_is_left():
    assert read_down(running(), 10_000) == (1, 10_000, None)
    assert read_down(running(), 10_000, 10_000) == (1, 10_000, None)
    assert read_down(running(), 10_000, 50_000) == (1, 50_000, None)
    assert read_down(running(), 10_000, 0) == (1, 0, None)
    stopping = running()
    stopping.saw_effect(trigger(1, stop=True, savepoint="savepoint-a-b/"), 10)
    assert read_down(stopping, 10_000, 9_000) == (1, 9_000, None)


def test_the_status_says_how_many_checkpoints_the_log_keeps_and_when_the_next_is_due():
    view = running()
    assert status_of(view, 1_003).checkpoints_kept == 0
    view.saw_effect(trigger(2), 2_000)
    view.saw_event(events.EntryWon(entry(EntryKind.COMPLETED, retained=(ref(1), ref(2)))), 2_100)
    status = status_of(view, 3_000)
    assert (status.checkpoints_kept, status.next_checkpoint_in_ms) == (2, 9_000)


def failed(view, at_ms, what="what was prepared is gone"):
    view.saw_effect(effects.Tell("failed", {"failure": Failure(what, damaged=True)}), at_ms)


def test_why_an_ended_runs_output_is_not_committed_is_told_until_it_is():
    view = running()
    end = End(EndKind.FINISHED, ref(1))
    view.saw_event(events.EntryWon(entry(EntryKind.ENDED, end=end, seq=2)), 10)
    failed(view, 11)
    status = status_of(view, 12)
    assert (status.phase, status.uncommitted.what) == (JobPhase.ENDING, "what was prepared is gone")
    committed = entry(EntryKind.ENDED, end=replace(end, committed=True), seq=3)
    view.saw_event(events.EntryWon(committed), 20)
    view.saw_effect(effects.JobOver(committed), 20)
    status = status_of(view, 21)
    assert (status.phase, status.uncommitted) == (JobPhase.FINISHED, None)


def test_what_ended_a_run_is_no_reason_why_its_output_is_not_committed():
    view = running()
    failed(view, 9, "a worker's snapshot is damaged")
    end = End(EndKind.FAILED, ref(1))
    view.saw_event(events.EntryWon(entry(EntryKind.ENDED, end=end, seq=2)), 10)
    failed(view, 11, "another worker's, too")
    assert status_of(view, 12).uncommitted is None
    attempt = view.newest.attempt
    view.saw_effect(effects.Prepare(attempt, {}, {}, CheckpointId(1), "n", commit_only=True), 13)
    failed(view, 14)
    assert status_of(view, 15).uncommitted.what == "what was prepared is gone"
