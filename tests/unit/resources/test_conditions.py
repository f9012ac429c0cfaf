"""Conditions: when a transition time moves, and what stays."""

from datetime import UTC, datetime, timedelta

import pytest

from penstock_operator.resources.conditions import (
    ConditionStatus,
    ConditionType,
    Finding,
    merged,
)
from penstock_operator.resources.status import Condition

THEN = datetime(2026, 1, 1, tzinfo=UTC)
NOW = THEN + timedelta(minutes=5)
READY = Finding(ConditionType.READY, ConditionStatus.TRUE, "Running", "4 workers run.")


def one(finding, generation=1, now=THEN, old=()):
    return merged(old, [finding], generation=generation, now=now)


def test_a_first_finding_becomes_a_condition_of_this_moment():
    assert one(READY) == (
        Condition(
            type="Ready",
            status="True",
            reason="Running",
            message="4 workers run.",
            last_transition_time=THEN,
            observed_generation=1,
        ),
    )


def test_the_transition_time_stays_while_the_status_does():
    later = Finding(ConditionType.READY, ConditionStatus.TRUE, "Suspended", "It is suspended.")
    (condition,) = one(later, generation=2, now=NOW, old=one(READY))
    assert condition.last_transition_time == THEN
    assert (condition.reason, condition.message) == ("Suspended", "It is suspended.")
    assert condition.observed_generation == 2


@pytest.mark.parametrize("status", [ConditionStatus.FALSE, ConditionStatus.UNKNOWN])
def test_the_transition_time_moves_with_the_status(status):
    later = Finding(ConditionType.READY, status, "Starting")
    (condition,) = one(later, now=NOW, old=one(READY))
    assert (condition.status, condition.last_transition_time) == (status, NOW)


def test_what_nothing_was_found_about_stays_as_it_was():
    old = one(READY)
    stalled = Finding(ConditionType.STALLED, ConditionStatus.FALSE, "Progressing")
    assert one(stalled, generation=9, now=NOW, old=old)[0] == old[0]


def test_the_same_findings_again_change_nothing():
    old = one(READY)
    assert one(READY, now=NOW, old=old) == old


def test_ours_come_in_their_order_and_foreign_ones_after():
    foreign = Condition(type="Audited", status="True", reason="Yes", last_transition_time=THEN)
    kinds = reversed(ConditionType)
    found = [Finding(kind, ConditionStatus.UNKNOWN, "Unknown") for kind in kinds]
    conditions = merged([foreign], found, generation=1, now=NOW)
    assert [c.type for c in conditions] == [*map(str, ConditionType), "Audited"]


def test_truth_becomes_a_status():
    assert [ConditionStatus.of(t) for t in (True, False, None)] == ["True", "False", "Unknown"]
