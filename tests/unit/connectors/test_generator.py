"""The source `Generator`: the same records for the same seed, however it is run."""

from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock import sources
from penstock.core.errors import Rejected
from penstock.dataflow.connector import END, IDLE, Quiet, Reader, SourceContext, SourceState


def make(index: int, random: Random) -> tuple[int, float]:
    drawn = [random.random() for _ in range(index % 3)]
    return index, sum(drawn)


def oracle(count: int, seed: int) -> list[tuple[int, float]]:
    """One loop over all indices; a Random for each 1,024 of them."""
    records = []
    for index in range(count):
        if index % 1024 == 0:
            random = Random(f"{seed}:{index // 1024}")
        records.append(make(index, random))
    return records


def opened(source: Any, parallelism: int = 1, states: Any = None, clock: Any = None) -> list[Any]:
    readers: list[Reader[Any]] = []
    for subtask in range(parallelism):
        ctx = SourceContext(
            uid="numbers",
            subtask=subtask,
            parallelism=parallelism,
            now_ms=clock or (lambda: 0),
            folder=Path(),
            warn=lambda _: None,
        )
        readers.append(source.open(ctx))
    if states is not None:
        splits = [one for state in states for one in state.splits]
        for subtask, reader in enumerate(readers):
            reader.restore(SourceState(splits=splits[subtask::parallelism]))
    return readers


def drain(reader: Any, limit: int = 500) -> list[Any]:
    records: list[Any] = []
    while (polled := reader.poll(limit)) is not END:
        assert 0 < len(polled) <= limit
        records.extend(polled)
    return records


@settings(max_examples=40, deadline=None)
@given(
    count=st.integers(0, 9000),
    seed=st.integers(0, 5),
    turns=st.lists(st.tuples(st.integers(1, 5), st.integers(0, 4), st.integers(1, 1500))),
)
def test_every_record_comes_exactly_once_and_the_same_through_crashes_and_rescaling(
    count: int, seed: int, turns: list[tuple[int, int, int]]
):
    source = sources.Generator(make, count=count, seed=seed)
    got: list[Any] = []
    states: Any = None
    for parallelism, polls, limit in turns:
        readers = opened(source, parallelism, states)
        for i in range(polls):
            polled = readers[i % parallelism].poll(limit)
            got.extend(() if isinstance(polled, Quiet) else polled)
        states = [reader.snapshot() for reader in readers]
        readers[0].poll(limit)  # lost in the crash
    for reader in opened(source, 2, states):
        got.extend(drain(reader))
    assert sorted(got) == oracle(count, seed)


def test_one_subtask_makes_them_in_order():
    assert drain(opened(sources.Generator(make, count=5000))[0]) == oracle(5000, 0)


@pytest.mark.parametrize("parallelism", [2, 3, 7, 128, 200])
def test_the_work_is_divided(parallelism: int):
    count = parallelism * 2048
    shares = [
        len(drain(reader, 1024))
        for reader in opened(sources.Generator(lambda i, _: i, count=count), parallelism)
    ]
    assert sum(shares) == count
    assert max(shares) <= 4 * 1024


def test_without_a_count_it_never_ends():
    [reader] = opened(sources.Generator(lambda i, _: i))
    assert [one for _ in range(300) for one in reader.poll(1024)] == list(range(300 * 1024))


def test_a_count_that_is_raised_goes_on_where_it_ended():
    [reader] = opened(sources.Generator(make, count=1500))
    first = drain(reader)
    assert not reader.unread()
    [again] = opened(sources.Generator(make, count=4000), 1, [reader.snapshot()])
    assert again.unread()
    assert first + drain(again) == oracle(4000, 0)


def test_a_record_that_could_not_be_made_is_made_again_the_same():
    fails_at = 70

    def sometimes(index: int, random: Random) -> float:
        drawn = random.random()
        if index == fails_at:
            raise ConnectionError
        return drawn

    [reader] = opened(sources.Generator(sometimes, count=100))
    first = reader.poll(50)
    with pytest.raises(ConnectionError):
        reader.poll(50)
    fails_at = -1
    random = Random("0:0")
    assert [*first, *reader.poll(50)] == [random.random() for _ in range(100)]


def test_a_rate_is_shared_by_all_subtasks():
    now = [0]
    readers = opened(sources.Generator(lambda i, _: i, per_second=50), 4, clock=lambda: now[0])
    total = 0
    for now[0] in range(0, 10_001, 10):
        for reader in readers:
            polled = reader.poll(500)
            assert polled is not END
            total += 0 if polled is IDLE else len(polled)
    assert 495 <= total <= 500


def test_what_a_rate_did_not_use_is_kept_for_a_second_at_most():
    now = [0]
    [reader] = opened(sources.Generator(lambda i, _: i, per_second=10), clock=lambda: now[0])
    assert reader.poll(100) is IDLE
    now[0] = 3_600_000
    assert len(reader.poll(100)) == 10
    assert reader.poll(100) is IDLE
    now[0] -= 1000  # a clock that is set back gives nothing and takes nothing
    assert reader.poll(100) is IDLE


def test_a_record_is_told_by_its_number():
    [reader] = opened(sources.Generator(make, seed=7))
    reader.poll(1000)
    reader.poll(1000)
    assert reader.position(1) == "record 1,001 of Generator(seed=7)"


def test_what_cannot_be_is_refused():
    with pytest.raises(Rejected, match="count must not be below 0"):
        sources.Generator(make, count=-1)
    with pytest.raises(Rejected, match="per_second"):
        sources.Generator(make, per_second=-1)
    assert sources.Generator(make).label == "Generator(make)"
