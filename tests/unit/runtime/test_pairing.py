"""Triggers and snapshotted parts find each other in whatever order they come."""

from penstock.core.ids import AttemptNumber, CheckpointId, OperatorId, SubtaskId
from penstock.network.frames import Snapshotted, Trigger
from penstock.runtime.pairing import Pairing


def trigger(n: int) -> Trigger:
    return Trigger(attempt=AttemptNumber(1), checkpoint=CheckpointId(n), base=None)


def part(n: int) -> Snapshotted:
    subtask = SubtaskId(OperatorId("counts"), 0)
    return Snapshotted(AttemptNumber(1), CheckpointId(n), subtask, parts={})


def test_a_part_after_its_trigger_is_uploaded_at_once():
    pairing = Pairing()
    assert pairing.triggered(trigger(1)) == []
    assert pairing.snapshotted(part(1)) == [(part(1), trigger(1))]


def test_a_barrier_that_overtook_the_trigger_waits_for_it():
    pairing = Pairing()
    assert pairing.snapshotted(part(1)) == []
    assert pairing.triggered(trigger(1)) == [(part(1), trigger(1))]
    assert pairing.take_stale() == []


def test_an_early_part_waits_past_triggers_of_others():
    pairing = Pairing()
    assert pairing.snapshotted(part(2)) == []
    assert pairing.triggered(trigger(1)) == []
    assert pairing.triggered(trigger(2)) == [(part(2), trigger(2))]


def test_a_part_of_a_checkpoint_that_was_given_up_is_stale():
    pairing = Pairing()
    pairing.triggered(trigger(1))
    pairing.over(CheckpointId(1))
    assert pairing.snapshotted(part(1)) == []
    assert pairing.take_stale() == [part(1)]
    assert pairing.take_stale() == []


def test_an_early_part_whose_checkpoint_was_given_up_before_its_trigger_came_is_stale():
    pairing = Pairing()
    pairing.snapshotted(part(1))
    pairing.over(CheckpointId(1))
    assert pairing.take_stale() == [part(1)]
