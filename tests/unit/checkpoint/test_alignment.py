"""Barriers, ends and triggers of one subtask, in every order."""

from itertools import permutations

import pytest

from penstock.checkpoint.alignment import Alignment
from penstock.core.ids import ChannelId

A, B = ChannelId(0, 0, 0), ChannelId(0, 1, 0)


def test_a_snapshot_is_taken_when_the_last_barrier_comes():
    alignment = Alignment([A, B])
    assert alignment.barrier(A, 1) is None
    assert alignment.barrier(B, 1) == 1


def test_a_channel_waits_from_its_barrier_to_the_last_one():
    alignment = Alignment([A, B])
    alignment.barrier(A, 1)
    assert alignment.blocked(A)
    assert not alignment.blocked(B)
    alignment.barrier(B, 1)
    assert not alignment.blocked(A)


def test_one_channel_needs_no_blocking():
    alignment = Alignment([A])
    assert alignment.barrier(A, 1) == 1
    assert not alignment.blocked(A)


def test_duplicate_and_outdated_barriers_are_ignored():
    alignment = Alignment([A, B])
    alignment.barrier(A, 2)
    assert alignment.barrier(A, 2) is None
    assert alignment.barrier(B, 1) is None
    assert alignment.barrier(B, 2) == 2
    assert alignment.barrier(B, 2) is None
    assert alignment.barrier(A, 1) is None
    assert not alignment.blocked(A)


def test_a_newer_barrier_ends_the_older_alignment():
    alignment = Alignment([A, B])
    alignment.barrier(A, 1)
    assert alignment.barrier(B, 2) is None
    assert not alignment.blocked(A)
    assert alignment.blocked(B)
    assert alignment.barrier(A, 2) == 2


def test_an_abort_lets_waiting_channels_go_on():
    alignment = Alignment([A, B])
    alignment.barrier(A, 1)
    alignment.abort(1)
    assert not alignment.blocked(A)
    assert alignment.barrier(B, 1) is None


def test_a_barrier_that_comes_after_the_abort_of_its_checkpoint_blocks_no_channel():
    alignment = Alignment([A, B])
    alignment.barrier(A, 1)
    alignment.abort(1)
    assert alignment.barrier(B, 1) is None
    assert not alignment.blocked(B)
    assert alignment.barrier(A, 1) is None


def test_an_abort_of_an_older_checkpoint_leaves_the_newer_one_alone():
    alignment = Alignment([A, B])
    alignment.barrier(A, 2)
    alignment.abort(1)
    assert alignment.blocked(A)
    assert alignment.barrier(B, 2) == 2


def test_a_newer_trigger_leaves_the_older_checkpoint_behind():
    alignment = Alignment([A, B])
    alignment.barrier(A, 1)
    alignment.trigger(2)
    assert not alignment.blocked(A)
    assert alignment.barrier(B, 1) is None


def test_a_source_snapshots_at_the_trigger_and_once():
    alignment = Alignment([])
    assert alignment.trigger(1) == 1
    assert alignment.trigger(1) is None
    assert alignment.trigger(2) == 2


def test_end_of_input_counts_as_a_barrier_also_when_it_is_the_last_one_missing():
    alignment = Alignment([A, B])
    alignment.barrier(A, 1)
    assert alignment.ended(B) == 1


def test_a_subtask_whose_inputs_all_ended_snapshots_at_the_trigger():
    alignment = Alignment([A, B])
    alignment.ended(A)
    alignment.ended(B)
    assert alignment.trigger(1) == 1


def test_a_trigger_before_the_last_end_is_answered_at_that_end():
    alignment = Alignment([A, B])
    assert alignment.trigger(1) is None
    assert alignment.ended(A) is None
    assert alignment.ended(B) == 1


def test_an_end_after_an_abort_snapshots_nothing():
    alignment = Alignment([A])
    alignment.trigger(1)
    alignment.abort(1)
    assert alignment.ended(A) is None
    assert alignment.trigger(2) == 2


ORDERS = [
    order
    for order in permutations(["barrier A", "end A", "end B", "trigger"])
    if order.index("barrier A") < order.index("end A")  # nothing follows an end
]


@pytest.mark.parametrize("order", ORDERS)
def test_whatever_the_order_exactly_one_snapshot_is_taken(order: tuple[str, ...]):
    alignment = Alignment([A, B])
    do = {
        "barrier A": lambda: alignment.barrier(A, 1),
        "end A": lambda: alignment.ended(A),
        "end B": lambda: alignment.ended(B),
        "trigger": lambda: alignment.trigger(1),
    }
    taken = [result for step in order if (result := do[step]()) is not None]
    assert taken == [1]
