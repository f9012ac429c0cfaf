"""What an ordered start begins from."""

from dataclasses import replace

import pytest

from penstock.checkpoint import effects as do
from penstock.checkpoint import events as told
from penstock.checkpoint.origin import Origin, RestoreFrom, RestoreRules
from penstock.checkpoint.phases import Phase
from penstock.core.log import EndKind, EntryKind, SnapshotRef

META = "wordcount/chk-{}/_metadata".format


def stopped(new, **settings):
    a = new(**settings).run()
    a.checkpoint()
    a.committed()
    a.say(told.StopOrdered("stop"))
    a.acknowledge()
    a.committed()
    assert a.phase is Phase.ENDED
    return a


def older(a, n: int) -> RestoreFrom:
    """A checkpoint as somebody named it."""
    (ref,) = (ref for ref in a.job.entry.retained if ref.id == n)
    return RestoreFrom(ref, a.manifest(ref.path))


def restored(a) -> int | None:
    ref = a.job.entry.attempt.restored_from
    return None if ref is None else ref.id


def refused(a, request_id: str) -> str:
    answer = a.answer_to(request_id)
    assert not answer.ok
    return f"{answer.detail['error']} · {answer.detail['fix']}"


# ── which snapshot ─────────────────────────────────────────────────────────────────────────────


def test_a_start_goes_on_from_the_newest_of_the_log(new):
    a = stopped(new)
    a.run(request_id="on")
    assert restored(a) == 2


def test_a_standing_restore_acts_when_the_log_has_no_snapshot(new):
    a = stopped(new)
    other = new()
    other.run(restore=older(a, 1), restore_id="chk-1")
    assert restored(other) == 1


def test_a_standing_restore_acts_once_and_not_again_at_every_start(new):
    a = stopped(new)
    a.run(request_id="back", restore=older(a, 1), restore_id="x")
    assert restored(a) == 1
    a.checkpoint()
    newest = a.job.entry.retained[-1].id
    a.say(told.CancelOrdered("cancel"))
    a.committed(newest)
    a.run(request_id="again", restore=older(a, 1), restore_id="x")
    assert restored(a) == newest


def test_what_restore_was_obeyed_outlives_restarts_of_attempt_and_coordinator(new):
    a = stopped(new)
    a.run(request_id="back", restore=older(a, 1), restore_id="x")
    a.checkpoint()
    a.fail()
    a.wait(1_000)
    b = a.crash()
    assert b.job.entry.settings["restoreId"] == "x"


def test_another_restore_than_the_one_obeyed_acts(new):
    a = stopped(new)
    a.run(request_id="x", restore=older(a, 1), restore_id="x")
    a.checkpoint()
    a.say(told.CancelOrdered("cancel"))
    a.committed(a.job.entry.retained[-1].id)
    a.run(request_id="y", restore=older(a, 2), restore_id="y")
    assert restored(a) == 2


def test_a_wish_of_this_moment_acts_in_any_case_and_is_no_standing_one(new):
    a = stopped(new)
    a.run(request_id="x", restore=older(a, 1), restore_id="standing")
    a.say(told.CancelOrdered("cancel"))
    a.committed(1)
    wish = {"origin": Origin.RESTORE, "restore": older(a, 2), "restore_id": "wish"}
    a.run(request_id="y", **wish)
    assert restored(a) == 2
    assert a.job.entry.settings["restoreId"] == "standing"


def test_empty_begins_from_nothing_although_there_is_state(new):
    a = stopped(new)
    a.run(request_id="anew", origin=Origin.EMPTY)
    assert restored(a) is None
    assert a.last(do.Prepare).restore == {}
    a.fail()
    a.wait(1_000)
    assert restored(a) is None


def test_a_rename_that_the_newest_snapshot_obeyed_already_is_passed_over(new):
    a = stopped(new)
    rules = RestoreRules(rename={"totals": "counts"})
    a.run(request_id="on", rules=rules)
    assert restored(a) == 2


# ── what is refused ────────────────────────────────────────────────────────────────────────────


def test_a_start_for_another_revision_than_the_coordinators_is_refused(new):
    a = new()
    a.say(told.StartOrdered("go", after=0, revision="2", parallelism=2))
    assert "revision 2, this coordinator runs 1" in refused(a, "go")
    assert a.answer_to("go").detail["outdated"]
    assert a.store.newest() is None


def test_another_max_parallelism_than_the_states_is_refused(new):
    a = stopped(new)
    a.run(request_id="wider", max_parallelism=64)
    assert "maxParallelism is 64, the snapshot's is 128" in refused(a, "wider")
    assert not a.answer_to("wider").detail["outdated"]
    assert a.phase is Phase.ENDED


def lose(a, n: int) -> None:
    """A file of a checkpoint is gone."""
    (path, *_) = (p for p in a.store.objects if p.startswith(f"wordcount/chk-{n}/1-"))
    del a.store.objects[path]


def running_then_gone(new):
    """The newest checkpoint, 2, is damaged; nothing runs."""
    a = new().run()
    a.checkpoint()
    a.checkpoint()
    lose(a, 2)
    b = a.crash()
    assert b.phase is Phase.WAITING
    return b


def start(a, request_id: str, **rules) -> None:
    seq = a.job.entry.seq if a.job.entry else 0
    order = told.StartOrdered(request_id, seq, "1", 2, rules=RestoreRules(**rules))
    a.say(order)


def test_a_damaged_snapshot_is_refused_with_what_is_missing_and_which_older_one_is_whole(new):
    b = running_then_gone(new)
    start(b, "go")
    assert "its file wordcount/chk-2/" in refused(b, "go")
    assert META(1) in refused(b, "go")


def test_an_older_one_that_is_damaged_too_is_not_called_whole(new):
    a = new().run()
    for _ in range(3):
        a.checkpoint()
    lose(a, 3)
    lose(a, 2)
    b = a.crash()
    start(b, "go")
    assert META(1) in refused(b, "go")
    assert META(2) not in refused(b, "go")


def test_an_older_one_is_taken_when_that_is_allowed_and_what_came_after_it_is_dropped(new):
    b = running_then_gone(new)
    start(b, "go", allow_older=True)
    assert restored(b) == 1
    assert [ref.id for ref in b.job.entry.retained] == [1]
    assert META(2) not in b.store.objects


def test_a_job_whose_snapshots_are_all_gone_starts_empty_only_when_that_is_allowed(new):
    a = new().run()
    a.checkpoint()
    lose(a, 1)
    b = a.crash()
    start(b, "go", allow_older=True)
    assert "AllowEmpty" in refused(b, "go")
    start(b, "empty", allow_empty=True)
    assert b.answer_to("empty").ok
    assert restored(b) is None


def test_as_long_as_an_older_one_is_whole_nothing_starts_empty(new):
    b = running_then_gone(new)
    start(b, "go", allow_empty=True)
    assert META(1) in refused(b, "go")


def test_checkpoints_without_a_log_start_empty_only_when_that_is_allowed(new):
    a = new().run()
    a.checkpoint()
    for path in [p for p in a.store.objects if "/log/" in p]:
        del a.store.objects[path]
    b = a.crash()
    start(b, "go")
    assert "no log" in refused(b, "go")
    start(b, "empty", allow_empty=True)
    assert b.answer_to("empty").ok
    assert b.job.entry.attempt.next_checkpoint == 2


def test_a_fresh_job_with_nothing_in_storage_starts_empty(new):
    a = new()
    start(a, "go")
    assert a.answer_to("go").ok


# ── a rollback ─────────────────────────────────────────────────────────────────────────────────


def held(new, **settings):
    """Version 2 runs in a hold, has completed checkpoint 3, and is cancelled."""
    a = stopped(new, **settings)
    b = new(a.store, name="B", revision="2", **settings)
    b.run(revision="2", request_id="upgrade", hold_stable=2)
    b.checkpoint()
    b.say(told.CancelOrdered("cancel", retain=True))
    b.committed(2)
    assert (b.phase, b.job.entry.hold.from_.id) == (Phase.ENDED, 2)
    return b


def go_back(a) -> None:
    a.say(told.StartOrdered("back", a.job.entry.seq, "1", 2, origin=Origin.HOLD))


def test_a_rollback_opens_from_where_the_hold_goes_back_to_and_drops_what_came_after(new):
    b = held(new)
    c = new(b.store, name="C")
    c.held = {do.Append}
    go_back(c)
    entry = c.last(do.Append).entry
    assert [ref.id for ref in entry.retained] == [1, 2]
    assert [ref.id for ref in entry.dropping] == [3]
    assert META(3) in c.store.objects, "deleted before the entry stands"
    c.held = set()
    c.answer(c.last(do.Append))
    assert META(3) not in c.store.objects
    assert (restored(c), c.job.entry.hold, c.job.entry.attempt.revision) == (2, None, "1")
    assert c.job.entry.attempt.next_checkpoint == 4


def test_a_rollback_gives_sinks_nothing_that_the_stop_before_the_upgrade_committed(new):
    c = new(held(new).store, name="C")
    c.run(request_id="back", origin=Origin.HOLD)
    assert [part.lists for part in c.last(do.Prepare).restore["out"].values()] == [{}, {}]


def test_a_rollback_ordered_again_gets_the_same_answer(new):
    c = new(held(new).store, name="C")
    c.run(request_id="back", origin=Origin.HOLD)
    seq, d = c.job.entry.seq, c.crash()
    d.say(told.StartOrdered("back", after=1, revision="1", parallelism=2, origin=Origin.HOLD))
    assert d.answer_to("back").ok
    assert d.job.entry.seq == seq + 1, "its own recovery, no second rollback"


def test_a_rollback_without_a_hold_is_refused(new):
    a = stopped(new)
    go_back(a)
    assert "no hold stands" in refused(a, "back")


def test_a_rollback_after_the_release_is_refused(new):
    b = held(new)
    b.run(revision="2", request_id="on", hold_stable=2)
    b.checkpoint()
    b.checkpoint()
    assert b.job.entry.kind is EntryKind.RELEASED
    b.say(told.CancelOrdered("cancel again"))
    b.committed(b.job.entry.end.go_on_from.id)
    c = new(b.store, name="C")
    go_back(c)
    assert "no hold stands" in refused(c, "back")


def test_a_rollback_to_a_damaged_snapshot_is_refused(new):
    b = held(new)
    (path, *_) = (p for p in b.store.objects if p.startswith("mem://savepoints/"))
    del b.store.objects[path]
    c = new(b.store, name="C")
    go_back(c)
    assert "goes back to is damaged" in refused(c, "back")


def test_what_a_hold_withholds_is_restored_after_a_cancel(new):
    b = held(new)
    b.run(revision="2", request_id="on")
    assert b.job.entry.hold.after == 2
    prepare = b.last(do.Prepare)
    assert (prepare.attempt.restored_from.id, prepare.committed) == (3, 2)
    assert all(part.lists["pending"] for part in prepare.restore["out"].values())


def test_a_hold_that_stands_goes_on_with_the_same_revision(new):
    b = held(new)
    b.run(revision="2", request_id="on", hold_stable=5)
    assert (b.job.entry.hold.from_.id, b.job.entry.hold.stable) == (2, 5)


def test_another_revision_does_not_go_on_from_what_a_hold_withholds(new):
    c = new(held(new).store, name="C", revision="3")
    c.say(told.StartOrdered("next", c.job.entry.seq, "3", 2, hold_stable=5))
    assert "sinks hold what revision 2 wrote" in refused(c, "next")
    c.run(revision="3", request_id="before", origin=Origin.HOLD, hold_stable=5)
    assert (restored(c), c.job.entry.hold.from_.id, c.job.entry.hold.stable) == (2, 2, 5)


def test_a_new_hold_withholds_all_numbers_of_the_attempts_to_come(new):
    a = stopped(new)
    a.store.objects["wordcount/chk-7/1-7-counts-0-x"] = b"orphan"
    a.run(request_id="upgrade", hold_stable=2)
    assert (a.job.entry.hold.from_.id, a.job.entry.hold.after) == (2, 7)
    assert a.job.entry.attempt.next_checkpoint == 8


def test_the_first_start_of_a_job_has_nothing_to_hold_back_from(new):
    a = new().run(hold_stable=2)
    assert a.job.entry.hold is None


# ── cancel: what is kept ───────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("retain", [True, False])
def test_a_cancel_keeps_or_deletes_checkpoints_as_it_was_told(new, retain: bool):
    a = new().run()
    a.checkpoint()
    a.say(told.CancelOrdered("cancel", retain))
    assert META(1) in a.store.objects
    a.committed(1)
    assert (META(1) in a.store.objects) is retain
    assert bool(a.job.entry.retained) is retain


def test_what_a_cancel_was_told_is_known_to_the_coordinator_that_ends_it(new):
    a = new().run()
    a.checkpoint()
    a.say(told.CancelOrdered("cancel", retain=False))
    b = a.crash()
    b.committed(1)
    assert META(1) not in b.store.objects
    b.say(told.CancelOrdered("cancel", retain=False))
    assert b.answer_to("cancel").ok


def test_a_cancel_that_deletes_is_answered_when_all_is_gone(new):
    a = new().run()
    a.checkpoint()
    a.held = {do.DeleteSnapshot}
    a.say(told.CancelOrdered("cancel", retain=False))
    a.committed(1)
    assert a.job.entry.end.committed
    assert a.phase is Phase.ENDING
    b = a.crash()
    assert b.phase is Phase.ENDED, "the next coordinator deletes the rest"
    assert not [p for p in b.store.objects if "chk-" in p]
    a.held = set()
    a.answer(a.last(do.DeleteSnapshot))
    assert a.answer_to("cancel").ok
    assert a.phase is Phase.ENDED


def test_an_ended_jobs_checkpoints_are_deleted_by_a_cancel_that_says_so(new):
    a = stopped(new)
    savepoints = {p for p in a.store.objects if p.startswith("mem://")}
    a.say(told.CancelOrdered("delete", retain=False))
    assert a.answer_to("delete").ok
    assert a.job.entry.end.kind is EndKind.CANCELLED
    assert not [p for p in a.store.objects if "chk-" in p]
    assert {p for p in a.store.objects if p.startswith("mem://")} == savepoints
    a.say(told.CancelOrdered("delete it again", retain=False))
    assert a.answer_to("delete it again").ok


def test_of_a_job_that_never_ran_there_is_nothing_to_delete(new):
    a = new()
    a.say(told.CancelOrdered("delete", retain=False))
    assert a.answer_to("delete").ok


def test_a_cancel_of_what_ended_keeps_it_unless_it_says_otherwise(new):
    a = stopped(new)
    a.say(told.CancelOrdered("cancel", retain=True))
    assert not a.answer_to("cancel").ok
    assert META(2) in a.store.objects


def test_a_foreign_snapshot_below_the_jobs_own_numbers_is_held_back_from(new):
    a = stopped(new)
    foreign = replace(a.manifest(META(1)), job="other")
    ref = SnapshotRef(1, "mem://elsewhere/savepoint-x/_metadata", "")
    a.run(request_id="x", restore=RestoreFrom(ref, foreign), hold_stable=2)
    a.checkpoint()
    a.say(told.CancelOrdered("cancel", retain=True))
    a.committed(a.job.entry.hold.after)
    assert [r.id for r in a.job.entry.retained] == [1, 2, 3]
    assert a.job.entry.hold.after == 2, "3 came after it, 1 and 2 did not"
