"""Placement: which worker runs which subtask, so that as little as possible must be fetched.

Old and new key-group ranges are two ways to cut the same line. Which of them overlap forms a
staircase, and on a staircase the assignment of greatest overlap is found in one pass.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from penstock.core.ids import WorkerId
from penstock.core.keygroups import owned_range


@dataclass(frozen=True, slots=True)
class Former:
    """The placement that a snapshot was taken under, and the workers that still have their copy."""

    placement: tuple[int, ...]
    with_copy: Collection[WorkerId] = ()


def place(*, parallelism: int, max_parallelism: int, former: Former | None) -> tuple[int, ...]:
    """Worker of each subtask: a permutation of `0..parallelism`.

    First as many key groups as possible stay where a copy of them is, then where they ran before;
    the rest goes to the free workers in order.
    """
    kept = {} if former is None else _keep(former, parallelism, max_parallelism)
    free = iter(sorted(set(range(parallelism)) - set(kept.values())))
    return tuple(kept[i] if i in kept else next(free) for i in range(parallelism))


def overlap(new: int, old: int, *, parallelism: int, former: int, max_parallelism: int) -> int:
    """How many key groups a subtask has in common with one of another parallelism."""
    mine = owned_range(new, parallelism=parallelism, max_parallelism=max_parallelism)
    theirs = owned_range(old, parallelism=former, max_parallelism=max_parallelism)
    return len(mine.intersection(theirs))


def _keep(former: Former, parallelism: int, max_parallelism: int) -> dict[int, int]:
    """New subtask → worker, for those that stay."""
    many = max_parallelism + 1  # one group with a copy outweighs all without
    pairs: list[tuple[int, int, int]] = []
    for new, old in _staircase(parallelism, len(former.placement), max_parallelism):
        worker = WorkerId(former.placement[old])
        if worker < parallelism:
            common = overlap(
                new,
                old,
                parallelism=parallelism,
                former=len(former.placement),
                max_parallelism=max_parallelism,
            )
            pairs.append((new, old, common * (many if worker in former.with_copy else 1)))
    return {new: former.placement[old] for new, old in _heaviest_matching(pairs)}


def _staircase(new_count: int, old_count: int, max_parallelism: int) -> list[tuple[int, int]]:
    pairs: list[tuple[int, int]] = []
    new = old = 0
    while new < new_count and old < old_count:
        pairs.append((new, old))
        new_stop = owned_range(new, parallelism=new_count, max_parallelism=max_parallelism).stop
        old_stop = owned_range(old, parallelism=old_count, max_parallelism=max_parallelism).stop
        new += new_stop <= old_stop
        old += old_stop <= new_stop
    return pairs


def _heaviest_matching(pairs: list[tuple[int, int, int]]) -> list[tuple[int, int]]:
    """Pairs (new, old, weight) in staircase order, of which no two share a side.

    Only neighbours in a run with the same new or the same old conflict. `best[i]` is the best choice
    among the first i pairs; with pair i taken, the pairs before it that share a side are skipped.
    """
    weight = [0]
    chosen: list[tuple[int, bool]] = [(0, False)]
    for i, (new, old, common) in enumerate(pairs):
        first = i
        while first and (pairs[first - 1][0] == new or pairs[first - 1][1] == old):
            first -= 1
        taken = weight[first] + common
        if taken > weight[i]:
            weight.append(taken)
            chosen.append((first, True))
        else:
            weight.append(weight[i])
            chosen.append((i, False))
    matching: list[tuple[int, int]] = []
    at = len(pairs)
    while at:
        before, is_taken = chosen[at]
        if is_taken:
            matching.append(pairs[at - 1][:2])
        at = before
    return matching[::-1]
