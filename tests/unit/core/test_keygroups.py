from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.errors import Rejected
from penstock.core.keygroups import (
    KeyGroupRange,
    check_parallelism,
    default_max_parallelism,
    key_group,
    owned_range,
    subtask_of,
)
from penstock.core.keys import encode_key


@st.composite
def parallelisms(draw: st.DrawFn) -> tuple[int, int]:
    """Max parallelism G, and a parallelism p of at most G."""
    max_parallelism = draw(st.integers(1, 32768) | st.sampled_from([1, 127, 128, 129, 32768]))
    return max_parallelism, draw(st.integers(1, min(max_parallelism, 300)))


@given(parallelisms())
def test_the_ranges_of_all_subtasks_cover_every_group_once(shape: tuple[int, int]):
    G, p = shape
    ranges = [owned_range(i, parallelism=p, max_parallelism=G) for i in range(p)]

    assert ranges[0].start == 0
    assert ranges[-1].stop == G
    assert all(a.stop == b.start for a, b in pairwise(ranges))
    assert max(map(len, ranges)) - min(map(len, ranges)) <= 1


@given(parallelisms(), st.integers(0))
def test_a_group_lies_in_the_range_of_the_subtask_it_is_sent_to(shape: tuple[int, int], n: int):
    G, p = shape
    group = n % G
    owner = subtask_of(group, parallelism=p, max_parallelism=G)

    for i in range(p):
        assert (group in owned_range(i, parallelism=p, max_parallelism=G)) == (i == owner)


@pytest.mark.parametrize(
    ("p", "G", "expected"),
    [
        (1, 1, [(0, 1)]),
        (3, 10, [(0, 4), (4, 7), (7, 10)]),
        (4, 128, [(0, 32), (32, 64), (64, 96), (96, 128)]),
        (5, 8, [(0, 2), (2, 4), (4, 5), (5, 7), (7, 8)]),
    ],
)
def test_ranges_are_what_snapshots_say(p: int, G: int, expected: list[tuple[int, int]]):
    ranges = [owned_range(i, parallelism=p, max_parallelism=G) for i in range(p)]
    assert [(r.start, r.stop) for r in ranges] == expected


@pytest.mark.parametrize("subtask", [-1, 4])
def test_a_subtask_that_is_none_owns_nothing(subtask: int):
    with pytest.raises(AssertionError):
        owned_range(subtask, parallelism=4, max_parallelism=128)


def test_sequential_keys_spread_evenly():
    counts = [0] * 1024
    for n in range(100_000):
        counts[key_group(encode_key(f"user-{n}"), max_parallelism=1024)] += 1
    assert min(counts) > 0
    assert max(counts) < 2 * 100_000 / 1024


@given(st.binary(max_size=40), st.integers(1, 32768))
def test_a_group_is_below_max_parallelism(key: bytes, G: int):
    assert 0 <= key_group(key, max_parallelism=G) < G


@pytest.mark.parametrize(
    ("p", "expected"),
    [(1, 128), (85, 128), (86, 256), (128, 256), (171, 512), (21845, 32768), (32768, 32768)],
)
def test_default_max_parallelism_is_the_next_power_of_two_above_one_and_a_half(
    p: int, expected: int
):
    assert default_max_parallelism(p) == expected


def test_an_intersection_holds_the_groups_of_both():
    a = KeyGroupRange(10, 20)
    for b in (KeyGroupRange(15, 30), KeyGroupRange(0, 12), KeyGroupRange(12, 14), a):
        both = a.intersection(b)
        assert list(both) == sorted(set(a) & set(b))
        assert both == b.intersection(a)
    for b in (KeyGroupRange(20, 30), KeyGroupRange(0, 10), KeyGroupRange(40, 50)):
        assert len(a.intersection(b)) == 0
        assert list(a.intersection(b)) == []


def test_a_range_is_half_open():
    groups = KeyGroupRange(3, 6)
    assert [g for g in range(10) if g in groups] == list(groups) == [3, 4, 5]
    assert len(groups) == 3


@pytest.mark.parametrize(
    ("p", "G", "where"),
    [
        (0, 128, "spec.parallelism"),
        (129, 128, "spec.parallelism"),
        (1, 0, "spec.maxParallelism"),
        (1, 32769, "spec.maxParallelism"),
    ],
)
def test_parallelism_that_cannot_be_is_rejected(p: int, G: int, where: str):
    with pytest.raises(Rejected) as e:
        check_parallelism(parallelism=p, max_parallelism=G)
    assert e.value.where == where
    assert e.value.fix


def test_parallelism_up_to_the_limits_is_accepted():
    check_parallelism(parallelism=1, max_parallelism=1)
    check_parallelism(parallelism=32768, max_parallelism=32768)
