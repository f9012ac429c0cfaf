"""The log is the only fence: its protocol, and what becomes of a coordinator that was overtaken."""

from dataclasses import replace

from penstock.checkpoint import effects as do
from penstock.checkpoint import events as told
from penstock.checkpoint import log, recovery
from penstock.checkpoint.phases import Phase
from penstock.core import paths
from penstock.core.ids import AttemptNumber, CheckpointId, JobId
from penstock.core.log import Attempt, Entry, EntryKind

JOB = JobId("wordcount")
ATTEMPT = Attempt(AttemptNumber(1), "1", 1, 128, (0,), CheckpointId(1))


def entry(seq: int = 1, nonce: str = "mine") -> Entry:
    return Entry(seq, nonce, 0, EntryKind.OPENED, "me", "first", ATTEMPT)


class Script:
    """Drives a generator over a store; some puts have another outcome than the store tells."""

    def __init__(self, store, *puts: str) -> None:
        self.store = store
        self.puts = list(puts)
        self.asked: list[str] = []

    def run(self, steps):
        answer = None
        while True:
            try:
                request = steps.send(answer)
            except StopIteration as stop:
                return stop.value
            self.asked.append(type(request).__name__)
            how = "told"
            if isinstance(request, log.PutIfAbsent) and self.puts:
                how = self.puts.pop(0)
            if how != "lost":
                answer = self.store.answer(request)
            if how != "told":
                answer = log.Unknown()


def test_an_entry_wins_when_it_was_created_and_no_higher_one_is_listed(store):
    script = Script(store)
    assert script.run(log.append(JOB, entry())) == log.Won(entry())
    assert script.asked == ["PutIfAbsent", "List"]


def test_a_put_that_happened_without_an_answer_is_found_again(store):
    script = Script(store, "silent")
    assert script.run(log.append(JOB, entry())) == log.Won(entry())
    assert script.asked[:2] == ["PutIfAbsent", "Get"]


def test_absent_is_no_answer_the_same_bytes_are_put_again(store):
    script = Script(store, "lost", "lost")
    assert script.run(log.append(JOB, entry())) == log.Won(entry())
    assert script.asked.count("PutIfAbsent") == 3


def test_another_nonce_under_the_number_is_lost(store):
    store.objects[paths.log_entry(JOB, 1)] = entry(nonce="other").to_bytes()
    outcome = Script(store).run(log.append(JOB, entry()))
    assert outcome == log.Lost(entry(nonce="other"))


def test_creating_a_number_that_was_trimmed_is_lost(store):
    store.objects[paths.log_entry(JOB, 101)] = entry(101, "other").to_bytes()
    outcome = Script(store).run(log.append(JOB, entry(1)))
    assert outcome == log.Lost(entry(101, "other"))


def test_the_newest_entry_is_the_one_with_the_greatest_number(store):
    assert Script(store).run(log.read_newest(JOB)) is None
    for seq in (9, 10, 11):
        store.objects[paths.log_entry(JOB, seq)] = entry(seq).to_bytes()
    assert Script(store).run(log.read_newest(JOB)) == entry(11)


def test_an_object_is_created_or_what_stands_there_is_told(store):
    assert Script(store, "lost").run(log.create("x", b"mine")) == b"mine"
    assert Script(store).run(log.create("x", b"other")) == b"mine"


# ── two at once ────────────────────────────────────────────────────────────────────────────────


def test_a_paused_coordinator_that_wakes_with_all_acknowledgements_loses(new):
    a = new().run()
    a.held = {do.WriteManifest, do.Append, do.DeleteFiles}
    a.checkpoint()
    b = a.crash()
    b.ready()
    assert b.attempt == 2
    a.answer(a.last(do.WriteManifest))
    effects = a.answer(a.last(do.Append))
    assert [type(e) for e in effects] == [do.StandDown]
    assert a.phase is Phase.STOOD_DOWN
    assert not any(isinstance(e, do.NotifyCompleted) for e in a.effects)


def test_a_paused_coordinator_loses_also_after_its_number_was_trimmed(new):
    a = new(log_entries=1).run()
    a.held = {do.WriteManifest, do.Append}
    a.checkpoint()
    b = a.crash(log_entries=1)
    b.ready()
    b.checkpoint()
    assert paths.log_entry(JOB, 2) not in b.store.objects
    a.answer(a.last(do.WriteManifest))
    a.answer(a.last(do.Append))
    assert a.phase is Phase.STOOD_DOWN


def test_who_gathers_workers_for_the_next_attempt_deletes_nothing_of_the_one_that_still_writes(new):
    a = new().run()
    a.wait(10_000)
    acks = [a.ack(a.last(do.Trigger), subtask) for subtask in a.subtasks]
    b = a.crash(workers=0)
    assert not [e for e in b.say(*acks) if isinstance(e, do.DeleteFiles)]
    a.say(*acks)
    assert a.job.entry.kind is EntryKind.COMPLETED
    files = a.manifest(f"{JOB}/chk-1/_metadata").files()
    assert all(f"{JOB}/{file.path}" in a.store.objects for file in files)


def test_who_lost_does_nothing_any_more(new):
    a = new().run()
    a.held = {do.Append}
    a.checkpoint()
    a.crash()
    a.answer(a.last(do.Append))
    assert a.say(told.CancelOrdered("x"), told.WorkerLeft(0, "x")) == []
    assert a.wait(100_000) == []


def test_a_coordinator_that_finds_another_in_the_log_when_it_recovers_stands_down(new):
    a = new().run()
    a.fail()
    b = a.crash()
    assert b.attempt == 2
    a.wait(1_000)
    assert a.phase is Phase.STOOD_DOWN


def test_numbers_are_above_everything_that_lies_in_the_store(new):
    a = new().run()
    a.store.objects["wordcount/chk-7/1-7-counts-0-x"] = b"orphan"
    a.store.objects["wordcount/shared/1-9-x"] = b"orphan"
    a.fail()
    a.wait(1_000)
    assert a.job.entry.attempt.next_checkpoint == 10


# ── what to do from the newest entry ───────────────────────────────────────────────────────────


def test_another_owners_job_is_refused_before_anything_is_written(new):
    a = new().run()
    before = dict(a.store.objects)
    b = new(a.store, name="B", owner="someone else", asks=[told.SavepointOrdered("sp")])
    assert not b.answer_to("sp").ok
    assert b.phase is Phase.STOOD_DOWN
    assert "me" in b.last(do.StandDown).reason
    assert a.store.objects == before


def test_another_revision_waits_for_an_order(new):
    a = new().run()
    b = new(a.store, name="B", revision="2")
    assert b.phase is Phase.WAITING
    b.run(revision="2", request_id="upgrade")
    assert b.job.entry.attempt.revision == "2"


def test_a_damaged_recovery_point_is_told_with_the_next_older_one(new):
    a = new().run()
    a.checkpoint()
    a.checkpoint()
    del a.store.objects["wordcount/chk-2/1-2-0"]
    b = a.crash()
    assert b.phase is Phase.WAITING
    damage = b.last(do.Tell)
    assert damage.fields["path"] == "wordcount/chk-2/_metadata"
    assert "chk-2/1-2-0 is missing" in damage.fields["reason"]
    assert damage.fields["older"].id == 1
    assert b.store.newest() == a.store.newest()


def test_a_manifest_that_is_not_the_completed_one_is_damage(new):
    a = new().run()
    a.checkpoint()
    path = "wordcount/chk-1/_metadata"
    manifest = a.manifest(path)
    a.store.objects[path] = replace(manifest, at_ms=manifest.at_ms + 1).to_bytes()
    read = a.store.drive(recovery.read_job(JOB))
    decision = recovery.recovery(read, owner="me", revision="1")
    assert isinstance(decision, recovery.Damaged)


def test_without_a_log_a_job_starts_fresh(store):
    read = store.drive(recovery.read_job(JOB))
    assert recovery.recovery(read, owner="me", revision="1") == recovery.StartFresh()


def test_adopting_takes_over_anothers_job(new):
    a = new().run()
    read = a.store.drive(recovery.read_job(JOB))
    decision = recovery.recovery(read, owner="other", revision="1", adopt=True)
    assert decision == recovery.Restore(None, None)
