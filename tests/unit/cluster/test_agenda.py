"""When a job is looked at: one turn at a time, sooner after an event, later and later after failures."""

from datetime import timedelta

import pytest

from penstock_operator.cluster.loop.agenda import BACKOFF_MAX_S, SETTLE_S, Agenda

NOON = 1000.0


@pytest.fixture
def agenda():
    return Agenda(random=lambda: 0.5)


def test_a_job_is_due_once_its_events_have_settled(agenda):
    agenda.add("a", NOON)
    agenda.add("a", NOON + 0.05)
    assert agenda.take(NOON) is None
    assert agenda.next_due_s() == NOON + SETTLE_S
    assert agenda.take(NOON + SETTLE_S) == "a"
    assert agenda.take(NOON + SETTLE_S) is None


def test_one_turn_of_a_job_runs_at_a_time(agenda):
    agenda.add("a", NOON)
    assert agenda.take(NOON + 1) == "a"
    agenda.add("a", NOON + 2)
    assert agenda.take(NOON + 10) is None, "it still runs"
    agenda.done("a", NOON + 11, timedelta(minutes=1))
    assert agenda.take(NOON + 11 + SETTLE_S) == "a", "what happened during the turn is looked at"


def test_without_events_it_is_looked_at_again_when_the_turn_said(agenda):
    agenda.add("a", NOON)
    agenda.take(NOON + 1)
    agenda.done("a", NOON + 2, timedelta(seconds=30))
    assert agenda.take(NOON + 31.9) is None
    assert agenda.take(NOON + 32) == "a"


def test_the_most_overdue_job_comes_first(agenda):
    agenda.add("late", NOON)
    agenda.add("later", NOON + 1)
    assert [agenda.take(NOON + 5), agenda.take(NOON + 5)] == ["late", "later"]


def test_a_job_that_is_gone_is_forgotten(agenda):
    agenda.add("a", NOON)
    agenda.take(NOON + 1)
    agenda.done("a", NOON + 2, None)
    assert len(agenda) == 0
    assert agenda.next_due_s() is None


def test_a_job_that_was_made_again_during_the_last_turn_is_not_forgotten(agenda):
    agenda.add("a", NOON)
    agenda.take(NOON + 1)
    agenda.add("a", NOON + 2)
    agenda.done("a", NOON + 3, None)
    assert agenda.take(NOON + 3 + SETTLE_S) == "a"


def test_failures_back_off_up_to_half_a_minute(agenda):
    now_s, waits = NOON, []
    agenda.add("a", now_s)
    for _ in range(8):
        now_s = agenda.next_due_s()
        assert agenda.take(now_s) == "a"
        waits.append(agenda.failed("a", now_s))
    assert waits == [1, 2, 4, 8, 16, BACKOFF_MAX_S, BACKOFF_MAX_S, BACKOFF_MAX_S]


def test_a_turn_that_went_well_ends_the_backing_off(agenda):
    agenda.add("a", NOON)
    for _ in range(4):
        now_s = agenda.next_due_s()
        agenda.take(now_s)
        agenda.failed("a", now_s)
    now_s = agenda.next_due_s()
    agenda.take(now_s)
    agenda.done("a", now_s, timedelta(0))
    agenda.take(now_s)
    assert agenda.failed("a", now_s) == 1


def test_an_event_hastens_a_failing_job_but_not_within_a_second(agenda):
    agenda.add("a", NOON)
    for _ in range(5):
        now_s = agenda.next_due_s()
        agenda.take(now_s)
        agenda.failed("a", now_s)
    agenda.add("a", now_s + 0.1)
    assert agenda.next_due_s() == now_s + 1


def test_another_jobs_failures_are_no_matter(agenda):
    agenda.add("bad", NOON)
    agenda.take(NOON + 1)
    agenda.failed("bad", NOON + 1)
    agenda.add("good", NOON + 1)
    assert agenda.take(NOON + 1 + SETTLE_S) == "good"


@pytest.mark.parametrize(("drawn", "expected_s"), [(0.0, 54), (1.0, 66)])
def test_look_agains_are_spread_by_a_tenth(drawn, expected_s):
    agenda = Agenda(random=lambda: drawn)
    agenda.add("a", NOON)
    agenda.take(NOON + 1)
    agenda.done("a", NOON, timedelta(minutes=1))
    assert agenda.next_due_s() == pytest.approx(NOON + expected_s)
