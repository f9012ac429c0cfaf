"""Key groups: the unit in which keyed state is assigned, stored and moved.

`group = hash(key bytes) % G`, `subtask = group * p // G`; a subtask owns a half-open range of groups.
The same functions serve the exchange, the backends and the savepoint writer, so that they agree.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from penstock.core.errors import Rejected

HASH_NAME = "crc32/1"
MAX_PARALLELISM_LIMIT = 32768


@dataclass(frozen=True, slots=True, order=True)
class KeyGroupRange:
    """Half-open: `start <= group < stop`."""

    start: int
    stop: int

    def __contains__(self, group: int) -> bool:
        return self.start <= group < self.stop

    def __len__(self) -> int:
        return max(0, self.stop - self.start)

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.start, self.stop))

    def intersection(self, other: KeyGroupRange) -> KeyGroupRange:
        """The groups in both; empty (`start == stop`) when there are none."""
        start = max(self.start, other.start)
        return KeyGroupRange(start, max(start, min(self.stop, other.stop)))


def key_group(key: bytes, *, max_parallelism: int) -> int:
    """The group of a key, given its canonical bytes (`penstock.core.keys`)."""
    return zlib.crc32(key) % max_parallelism


def subtask_of(group: int, *, parallelism: int, max_parallelism: int) -> int:
    """Which subtask owns a group."""
    return group * parallelism // max_parallelism


def owned_range(subtask: int, *, parallelism: int, max_parallelism: int) -> KeyGroupRange:
    """The groups that a subtask owns: `[ceil(i G / p), ceil((i + 1) G / p))`."""
    assert 0 <= subtask < parallelism <= max_parallelism, (subtask, parallelism, max_parallelism)
    return KeyGroupRange(
        -(-subtask * max_parallelism // parallelism),
        -(-(subtask + 1) * max_parallelism // parallelism),
    )


def default_max_parallelism(parallelism: int) -> int:
    """`min(max(next_power_of_two(1.5 p), 128), 32768)`."""
    wanted = -(-3 * parallelism // 2)
    return min(max(1 << (wanted - 1).bit_length(), 128), MAX_PARALLELISM_LIMIT)


def check_parallelism(*, parallelism: int, max_parallelism: int) -> None:
    """Refuse what cannot be: parallelism outside `1..G`, G outside `1..32768`."""
    if not 1 <= max_parallelism <= MAX_PARALLELISM_LIMIT:
        raise Rejected(
            f"maxParallelism {max_parallelism} is not between 1 and {MAX_PARALLELISM_LIMIT}",
            where="spec.maxParallelism",
            fix="choose the largest number of subtasks the job may ever need; 128 suits most",
        )
    if not 1 <= parallelism <= max_parallelism:
        raise Rejected(
            f"parallelism {parallelism} is not between 1 and max parallelism {max_parallelism}",
            where="spec.parallelism",
            fix="lower parallelism; max parallelism is fixed for a job's life, as its state is cut by it",
        )
