"""Whole jobs in one process: crashes anywhere, and what their sinks committed."""

from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import penstock
from penstock import Rejected, sinks, sources, testing

LINES = ["to be", "or not to be", "that is", "the question", "whether it is nobler to suffer"]
WORDS = Counter(" ".join(LINES).split())


class CountWords(penstock.KeyedFunction):
    count = penstock.ValueState(int, default=0)

    def process(self, word: str, ctx: penstock.Context[str]):
        if word == "fail":
            raise ValueError("this word is not counted")
        self.count.value += 1
        yield word, self.count.value


def job(env, *, shout=False):
    words = env.source(sources.Socket("localhost:1"), uid="lines").flat_map(str.split)
    words = words.map(str.upper) if shout else words
    counts = words.rebalance().key_by(lambda word: word).process(CountWords(), uid="counts")
    counts.sink(sinks.Print(), uid="out")


def final(job_run):
    return dict(sorted(job_run.sink("out")))


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(crashes=st.lists(st.integers(1, 5), max_size=3), parallelism=st.integers(1, 3))
def test_a_job_that_crashes_anywhere_writes_what_an_unbroken_one_writes(crashes, parallelism):
    crashes = sorted(crashes)
    run = testing.run_job(
        job, sources={"lines": LINES}, parallelism=parallelism, crash_after=crashes
    )
    expected = [(word, i) for word, n in WORDS.items() for i in range(1, n + 1)]
    assert sorted(run.sink("out")) == sorted(expected)


def test_parameters_go_to_the_job():
    assert final(testing.run_job(job, sources={"lines": ["a"]}, shout=True)) == {"A": 1}


def test_a_job_of_no_records_ends_with_nothing():
    assert testing.run_job(job, sources={"lines": []}).sink("out") == []


def test_what_the_job_raises_comes_out_as_it_is_with_operator_record_and_key():
    with pytest.raises(ValueError, match="this word is not counted") as caught:
        testing.run_job(job, sources={"lines": ["a", "b fail"]})
    (note,) = caught.value.__notes__
    assert "operator  counts (process, test_run_job.py:" in note
    assert "record    'fail'" in note
    assert "key       'fail'" in note


def test_a_record_that_a_key_function_fails_on_is_told_with_its_position():
    def by_length(env):
        lines = env.source(sources.Files("x"), uid="lines")
        lines.key_by(lambda line: 1 / len(line)).count(uid="c").sink(sinks.Print(), uid="out")

    with pytest.raises(ZeroDivisionError) as caught:
        testing.run_job(by_length, sources={"lines": ["a", ""]})
    (note,) = caught.value.__notes__
    assert "position  lines: record 1 of the test's lines" in note


def test_a_source_or_sink_that_is_not_there_is_refused():
    with pytest.raises(Rejected, match="the job has no source line") as caught:
        testing.run_job(job, sources={"line": []})
    assert caught.value.fix == "its sources are: lines"
    run = testing.run_job(job, sources={"lines": []})
    with pytest.raises(Rejected, match="the job has no sink output") as caught:
        run.sink("output")
    assert caught.value.fix == "its sinks are: out"


def test_a_crash_that_never_comes_is_an_error_because_it_tested_nothing():
    with pytest.raises(Rejected, match=r"crash_after=\[9\] never came: 3 records were read"):
        testing.run_job(job, sources={"lines": ["a", "b"]}, crash_after=[1, 9])


def test_a_source_that_is_not_replaced_is_read_itself():
    def generated(env):
        numbers = env.source(sources.Generator(lambda i, random: i % 3, count=300), uid="numbers")
        counts = numbers.key_by(lambda n: n, key_type=int).count(uid="c", emit="end")
        counts.sink(sinks.Print(), uid="out")

    run = testing.run_job(generated, parallelism=2, crash_after=[100, 250])
    assert sorted(run.sink("out")) == [(0, 100), (1, 100), (2, 100)]
