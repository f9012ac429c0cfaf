"""Which worker runs which subtask."""

from itertools import permutations

from hypothesis import given
from hypothesis import strategies as st

from penstock.checkpoint.placement import Former, overlap, place

G = 24


def moved(placement: tuple[int, ...], former: Former) -> int:
    """Groups that stay on a worker with a copy, and that stay anywhere."""
    copied = stayed = 0
    for new, worker in enumerate(placement):
        for old, other in enumerate(former.placement):
            if worker == other:
                common = overlap(
                    new,
                    old,
                    parallelism=len(placement),
                    former=len(former.placement),
                    max_parallelism=G,
                )
                stayed += common
                copied += common * (worker in former.with_copy)
    return copied * (G + 1) + stayed


def test_a_fresh_job_is_placed_in_order():
    assert place(parallelism=3, max_parallelism=G, former=None) == (0, 1, 2)


def test_an_unchanged_parallelism_changes_nothing():
    assert place(parallelism=3, max_parallelism=G, former=Former((2, 0, 1))) == (2, 0, 1)


def test_from_four_to_eight_half_of_the_groups_stay():
    former = Former((0, 1, 2, 3), with_copy={0, 1, 2, 3})
    placement = place(parallelism=8, max_parallelism=128, former=former)
    stay = sum(
        overlap(new, worker, parallelism=8, former=4, max_parallelism=128)
        for new, worker in enumerate(placement)
        if worker < 4
    )
    assert stay == 64


def test_a_worker_that_lost_its_copy_gives_way():
    former = Former((0, 1), with_copy={1})
    assert place(parallelism=1, max_parallelism=G, former=Former((0, 1), {0})) == (0,)
    placement = place(parallelism=3, max_parallelism=G, former=former)
    assert moved(placement, former) == max(moved(p, former) for p in permutations(range(3)))


@given(st.data())
def test_the_overlap_is_the_greatest_there_is(data: st.DataObject):
    old = data.draw(st.permutations(range(data.draw(st.integers(1, 5)))))
    former = Former(tuple(old), data.draw(st.sets(st.sampled_from(old))))
    parallelism = data.draw(st.integers(1, 5))
    placement = place(parallelism=parallelism, max_parallelism=G, former=former)
    assert sorted(placement) == list(range(parallelism))
    best = max(moved(p, former) for p in permutations(range(parallelism)))
    assert moved(placement, former) == best
