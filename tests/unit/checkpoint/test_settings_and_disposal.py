"""Settings that change without a restart, and savepoints that are not wanted any more."""

from dataclasses import replace

from penstock.checkpoint import effects as do
from penstock.checkpoint import events as told
from penstock.checkpoint.origin import Origin, RestoreFrom
from penstock.checkpoint.phases import Phase
from penstock.core import paths
from penstock.core.failure import Failure
from penstock.core.ids import JobId, WorkerId
from penstock.core.log import EntryKind, SnapshotRef

JOB = JobId("wordcount")
ROOT = "mem://savepoints"


def order(a, request_id: str = "set", **live) -> None:
    a.say(told.SettingsOrdered(request_id, live))


# ── settings ───────────────────────────────────────────────────────────────────────────────────


def test_settings_are_an_entry_first_and_then_in_force_without_a_restart(new):
    a = new().run()
    a.held = {do.Append}
    order(a, interval_ms=500)
    a.wait(600)
    assert not any(isinstance(e, do.Trigger) for e in a.effects)
    a.held = set()
    a.answer(a.last(do.Append))
    assert a.job.entry.kind is EntryKind.SETTINGS
    assert a.last(do.ApplySettings).live == {"interval_ms": 500}
    assert a.answer_to("set").ok
    assert (a.attempt, a.last(do.Trigger).checkpoint) == (1, 1)


def test_how_many_are_retained_and_when_it_restarts_change_at_once(new):
    a = new(retained=3).run()
    a.checkpoint()
    order(a, retained=1, delay_ms=7_000)
    a.checkpoint()
    assert [ref.id for ref in a.job.entry.retained] == [2]
    a.fail()
    a.wait(6_999)
    assert a.phase is Phase.BACKING_OFF
    a.wait(1)
    assert a.phase is Phase.DEPLOYING


def test_a_coordinator_that_starts_again_takes_them_from_the_log(new):
    a = new().run()
    order(a, interval_ms=500)
    b = a.crash()
    assert b.last(do.ApplySettings).live == {"interval_ms": 500}
    b.ready()
    b.wait(500)
    assert b.last(do.Trigger).checkpoint == 1


def test_settings_replace_those_ordered_before_and_none_are_the_manifests(new):
    a = new(interval_ms=10_000).run()
    order(a, "first", interval_ms=500)
    order(a, "second", min_pause_ms=1)
    assert a.job.entry.settings["live"] == {"min_pause_ms": 1}
    order(a, "none")
    assert a.last(do.ApplySettings).live == {}
    a.wait(9_999)
    assert not any(isinstance(e, do.Trigger) for e in a.effects)


def test_a_start_brings_its_settings(new):
    a = new().run(live={"interval_ms": 500})
    assert a.last(do.ApplySettings).live == {"interval_ms": 500}
    a.wait(500)
    assert a.last(do.Trigger).checkpoint == 1


def test_wrong_settings_change_nothing_and_are_told(new):
    a = new().run()
    order(a, wrong=1)
    assert a.answer_to("set").detail["error"] == "spec.wrong is no field"
    assert a.job.entry.kind is EntryKind.OPENED
    b = new()
    b.say(told.StartOrdered("go", 0, "1", 2, live={"wrong": 1}))
    assert b.answer_to("go").detail["error"] == "spec.wrong is no field"


def test_settings_that_a_later_coordinator_cannot_read_are_told_and_the_manifests_apply(new):
    a = new().run()
    order(a, interval_ms=500)
    (path,) = [p for p in a.store.objects if p.endswith(paths.log_entry(JOB, 2))]
    entry = replace(a.job.entry, settings={"live": {"wrong": 1}})
    a.store.objects[path] = entry.to_bytes()
    b = a.crash()
    assert b.last(do.Tell).fields["error"] == "spec.wrong is no field"
    b.ready()
    assert b.phase is Phase.RUNNING


def test_while_nothing_runs_settings_come_with_the_start(new):
    a = new()
    order(a, interval_ms=500)
    assert "with the order to start" in a.answer_to("set").detail["error"]


def test_settings_for_a_run_that_never_came_are_not_those_of_the_next(new):
    a = new(workers=1)
    a.say(told.StartOrdered("go", after=0, revision="1", parallelism=2))
    order(a, interval_ms=500)
    a.say(told.CancelOrdered("cancel"))
    assert not a.answer_to("set").ok
    a.say(told.WorkerJoined(WorkerId(1)))
    a.run(request_id="again")
    assert "live" not in a.job.entry.settings


def test_settings_and_a_checkpoint_under_way_do_not_get_into_each_others_way(new):
    a = new().run()
    a.wait(10_000)
    a.held = {do.Append}
    order(a, interval_ms=500)
    a.acknowledge()
    a.held = set()
    a.answer(a.last(do.Append))
    assert [ref.id for ref in a.job.entry.retained] == [1]
    assert a.job.entry.settings["live"] == {"interval_ms": 500}


def test_settings_can_be_changed_while_the_attempt_fails_again_and_again(new):
    a = new().run()
    a.say(told.AttemptFailed(a.attempt, Failure("broken")))
    order(a, delay_ms=3_000)
    assert a.job.entry.kind is EntryKind.SETTINGS
    a.wait(1_000)
    assert a.phase is Phase.DEPLOYING


# ── disposal ───────────────────────────────────────────────────────────────────────────────────


def savepoint(a, request_id: str = "sp") -> told.DisposeOrdered:
    """Take one; the order to delete it."""
    a.say(told.SavepointOrdered(request_id))
    a.acknowledge()
    a.acknowledge()
    assert a.answer_to(request_id).ok
    return disposal(a, request_id)


def disposal(a, request_id: str) -> told.DisposeOrdered:
    folder = paths.savepoint_folder(JOB, request_id).rstrip("/")
    return told.DisposeOrdered("dispose", folder, a.manifest(f"{ROOT}/{folder}/_metadata"))


def under(a, folder: str) -> list[str]:
    return [path for path in a.store.objects if path.startswith(f"{ROOT}/{folder}/")]


def test_a_savepoint_goes_with_its_metadata_first_and_only_what_that_names(new):
    a = new().run()
    wanted = savepoint(a)
    a.store.objects[f"{ROOT}/{wanted.folder}/notes.txt"] = b"a person's"
    a.say(wanted)
    gone = a.last(do.DisposeSavepoint).paths
    assert gone[0] == f"{wanted.folder}/_metadata"
    assert len(gone) == 3
    assert under(a, wanted.folder) == [f"{ROOT}/{wanted.folder}/notes.txt"]
    assert a.answer_to("dispose").ok


def test_it_is_deleted_by_who_has_the_job_and_nobody_else(new):
    a = new().run()
    wanted = savepoint(a)
    b = a.crash()
    a.say(wanted)
    assert a.phase is Phase.STOOD_DOWN
    assert under(b, wanted.folder)


def test_a_savepoint_that_is_not_there_is_disposed_of(new):
    a = new().run()
    a.say(told.DisposeOrdered("dispose", "savepoint-000000-000000000000"))
    assert a.answer_to("dispose").ok


def refused(a, wanted: told.DisposeOrdered) -> str:
    a.say(wanted)
    answer = a.answer_to("dispose")
    assert not answer.ok
    assert under(a, wanted.folder)
    return answer.detail["error"]


def test_one_that_is_being_taken_is_not_called_gone(new):
    a = new().run()
    a.held = {do.PublishSavepoint}
    folder = paths.savepoint_folder(JOB, "sp").rstrip("/")
    a.say(told.SavepointOrdered("sp"))
    for n in range(3):
        a.say(told.DisposeOrdered(f"dispose-{n}", folder))
        assert "is being taken" in a.answer_to(f"dispose-{n}").detail["error"]
        a.acknowledge()
    a.answer(a.last(do.PublishSavepoint))
    a.say(told.DisposeOrdered("then", folder, a.manifest(f"{ROOT}/{folder}/_metadata")))
    assert a.answer_to("then").ok


def test_another_jobs_savepoint_stays(new):
    a = new().run()
    wanted = savepoint(a)
    foreign = replace(wanted, manifest=replace(wanted.manifest, job=JobId("other")))
    assert "a savepoint of other, not of wordcount" in refused(a, foreign)


def test_a_checkpoint_stays(new):
    a = new().run()
    wanted = savepoint(a)
    checkpoint = replace(wanted, manifest=a.manifest("wordcount/chk-2/_metadata"))
    assert "is a checkpoint" in refused(a, checkpoint)


def stopped(new):
    a = new(retained=1).run()
    a.say(told.StopOrdered("stop"))
    a.acknowledge()
    a.committed()
    return a


def test_the_one_that_the_job_would_go_on_from_stays(new):
    a = stopped(new)
    assert "still needed" in refused(a, disposal(a, "stop"))


def test_the_one_that_a_hold_goes_back_to_stays_until_the_hold_is_over(new):
    a = stopped(new).run(request_id="upgrade", hold_stable=2)
    a.checkpoint()
    assert "still needed" in refused(a, disposal(a, "stop"))
    a.checkpoint()
    a.checkpoint()
    a.say(replace(disposal(a, "stop"), request_id="then"))
    assert a.answer_to("then").ok


def test_nothing_is_deleted_while_another_revisions_run_stands(new):
    a = new().run()
    wanted = savepoint(a)
    b = new(a.store, name="B", revision="2")
    assert "is not this coordinator's" in refused(b, wanted)


def stopped_with_a_savepoint(a) -> tuple[str, told.DisposeOrdered]:
    """The folder of a savepoint behind which the job was stopped, and an order to dispose of it."""
    a.say(told.SavepointOrdered("sp"))
    a.acknowledge()
    a.wait(0)
    a.acknowledge()
    a.committed()
    url = a.answer_to("sp").detail["path"]
    a.say(told.StopOrdered("stop"))
    a.acknowledge()
    a.committed()
    folder = url.removeprefix(f"{ROOT}/")
    return url, told.DisposeOrdered("gone", folder, a.manifest(f"{url}/_metadata"))


def start_from(a, url: str) -> told.StartOrdered:
    manifest = a.manifest(f"{url}/_metadata")
    return told.StartOrdered(
        "go",
        after=a.store.newest().seq,
        revision="1",
        parallelism=2,
        origin=Origin.RESTORE,
        restore=RestoreFrom(SnapshotRef(manifest.checkpoint, f"{url}/_metadata", ""), manifest),
    )


def test_a_savepoint_that_a_start_is_about_to_restore_stays(new):
    a = new().run()
    url, dispose = stopped_with_a_savepoint(a)
    b = a.crash(workers=0)
    b.say(start_from(b, url), dispose)
    assert not b.answer_to("gone").ok
    assert f"{url}/_metadata" in b.store.objects


def test_a_savepoint_that_is_being_deleted_is_not_restored(new):
    a = new().run()
    url, dispose = stopped_with_a_savepoint(a)
    b = a.crash()
    b.held = {do.DisposeSavepoint}
    b.say(dispose)
    b.say(start_from(b, url))
    assert not b.answer_to("go").ok
    assert b.phase is Phase.ENDED


def test_a_start_that_saw_the_end_before_something_was_deleted_looks_again(new):
    a = new().run()
    url, dispose = stopped_with_a_savepoint(a)
    b = a.crash()
    order = start_from(b, url)
    b.say(dispose)
    assert b.answer_to("gone").ok
    b.say(order)
    assert b.answer_to("go").detail["outdated"]
    assert b.phase is Phase.ENDED
