"""Tasks and mailboxes with channels that hold one batch: barriers, ends and what lies between."""

import json
import random
from collections import Counter
from dataclasses import replace
from functools import partial

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.unit.runtime.cluster import Cluster, new_name

import penstock
from penstock import sinks, sources
from penstock.core.records import Barrier, Batch, EndOfInput
from penstock.network import frames


class CountWords(penstock.KeyedFunction):
    count = penstock.ValueState(int, default=0)

    def process(self, word, ctx):
        self.count.value += 1
        return ((word, self.count.value),)


def word_of(word: str) -> str:
    return word


def two_sources(env):
    a = env.source(sources.Files("a"), uid="a")
    b = env.source(sources.Files("b"), uid="b")
    counts = a.union(b).key_by(word_of).process(CountWords(), uid="counts")
    counts.sink(sinks.Print(), uid="out")


def at_the_end(env):
    words = env.source(sources.Files("a"), uid="a")
    words.key_by(word_of).count(uid="counts", emit="end").sink(sinks.Print(), uid="out")


def chain_of_keys(env):
    """Each worker sends to each other one twice: every channel can be full at once."""
    words = env.source(sources.Files("a"), uid="a").flat_map(lambda word: [word] * 5)
    first = words.key_by(word_of).process(CountWords(), uid="first")
    second = first.key_by(lambda pair: pair[1]).count(uid="second")
    second.sink(sinks.Print(), uid="out")


def words(n, seed):
    rng = random.Random(seed)
    return [f"w{rng.randrange(40)}" for _ in range(n)]


def numbered(counts):
    """Of every word, each count once: what an unbroken run writes, in whatever order."""
    return sorted((word, i) for word, n in counts.items() for i in range(1, n + 1))


seeds = st.integers(0, 2**32)
generous = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.mark.parametrize("parallelism", [1, 2, 3])
def test_workers_that_all_send_to_each_other_through_full_channels_come_to_an_end(
    tmp_path, parallelism
):
    sent = words(200, 1)
    cluster = Cluster(
        chain_of_keys, {"a": sent}, tmp_path, name=new_name(), parallelism=parallelism
    )
    out = cluster.end(1, random.Random(parallelism))
    assert sum(n == 1 for _, n in out) == len({i for _, i in numbered(Counter(sent * 5))})
    assert len(out) == 1000


@generous
@given(
    seed=seeds,
    lengths=st.tuples(st.integers(0, 60), st.integers(0, 60)),
    widths=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    triggers=st.lists(st.integers(0, 80), min_size=1, max_size=4),
    data=st.data(),
)
def test_from_any_checkpoint_at_any_parallelism_every_count_is_written_once(
    tmp_path_factory, seed, lengths, widths, triggers, data
):
    """Sources end at different times, so that barriers come after the end of some channels."""
    folder, rng, name = tmp_path_factory.mktemp("run"), random.Random(seed), new_name()
    given_ = {"a": words(lengths[0], seed), "b": words(lengths[1], seed + 1)}
    old = Cluster(two_sources, given_, folder, name=name, parallelism=widths[0])
    manifests = []
    for n, turns in enumerate(triggers, start=1):
        for _ in range(turns):
            old.turn(rng.randrange(widths[0]))
            if rng.random() < 0.2:
                old.help()
        manifests.append(old.checkpoint(n, rng))
    # A crash: what was read since the last one is read again.
    for _ in range(data.draw(st.integers(0, 50))):
        old.turn(rng.randrange(widths[0]))
    old.close()
    new = Cluster(
        two_sources,
        given_,
        folder,
        name=name,
        parallelism=widths[1],
        attempt=2,
        restored=manifests[-1],
    )
    out = new.end(len(triggers) + 1, rng)
    assert sorted(out) == numbered(Counter(given_["a"] + given_["b"]))


def has_emitted(cluster, groups):
    counts = [task for id, task in cluster.tasks().items() if "counts" in id]
    return cluster.finished() or sum(len(task._emitted) for task in counts) >= groups


@generous
@given(
    seed=seeds,
    widths=st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3)),
    progress=st.tuples(st.integers(0, 15), st.integers(0, 15)),
)
def test_results_at_the_end_are_written_once_though_it_is_broken_off_and_rescaled_in_the_middle(
    tmp_path_factory, seed, widths, progress
):
    folder, rng, name = tmp_path_factory.mktemp("run"), random.Random(seed), new_name()
    given_ = {"a": words(100, seed)}
    restored, n = None, 0
    for attempt, (width, groups) in enumerate(zip(widths, progress, strict=False), start=1):
        cluster = Cluster(
            at_the_end,
            given_,
            folder,
            name=name,
            parallelism=width,
            attempt=attempt,
            restored=restored,
        )

        cluster.run_until(partial(has_emitted, cluster, groups), rng)
        n += 1
        restored = cluster.checkpoint(n, rng)
        for _ in range(rng.randrange(30)):
            cluster.turn(rng.randrange(width))
        cluster.close()
    last = Cluster(
        at_the_end,
        given_,
        folder,
        name=name,
        parallelism=widths[2],
        attempt=9,
        restored=restored,
    )
    out = last.end(n + 1, rng)
    assert sorted(out) == sorted(Counter(given_["a"]).items())


def test_more_input_after_an_end_gives_the_changed_keys_anew(tmp_path):
    name = new_name()
    first = Cluster(at_the_end, {"a": ["x", "y"]}, tmp_path, name=name, parallelism=1)
    assert sorted(first.end(1)) == [("x", 1), ("y", 1)]
    manifest = first.manifest(1)
    first.close()
    more = {"a": ["x", "y", "x"]}
    second = Cluster(
        at_the_end, more, tmp_path, name=name, parallelism=2, attempt=2, restored=manifest
    )
    assert sorted(second.end(2)) == [("x", 1), ("x", 2), ("y", 1)]


def test_a_barrier_passes_a_full_channel_and_lies_behind_every_record(tmp_path):
    given_ = {"a": words(50, 3), "b": []}
    cluster = Cluster(two_sources, given_, tmp_path, name=new_name(), parallelism=2)
    for _ in range(20):
        cluster.turn(0)  # worker 1 takes nothing
    full = [c for c in cluster.channels.values() if c.is_full]
    assert full
    cluster.deliver(frames.Trigger(1, 1, None))
    for channel in full:
        assert [type(e) for e in channel._elements] == [Batch, Barrier]


def test_a_channel_that_ended_is_not_waited_for(tmp_path):
    given_ = {"a": ["x"] * 30, "b": []}
    cluster = Cluster(two_sources, given_, tmp_path, name=new_name(), parallelism=1)
    counts = cluster.tasks()["counts/0"]
    cluster.run_until(lambda: counts._open_inputs == 1)
    assert not cluster.tasks()["a/0"].has_finished
    manifest = cluster.checkpoint(1)
    (position,) = manifest.operators["a"].subtasks[0].lists["position"]
    read = json.loads(position)["next"]
    assert 0 < read < 30
    # The state is that of the records before the barrier, and of no others.
    rest = Cluster(
        two_sources,
        {"a": ["x"] * read, "b": []},
        tmp_path,
        name=new_name(),
        parallelism=1,
        attempt=2,
        restored=replace(manifest, operators={"counts": manifest.operators["counts"]}),
    )
    assert rest.end(2)[-1] == ("x", 2 * read)


def test_an_aborted_checkpoint_holds_no_channel_back(tmp_path):
    given_ = {"a": words(400, 1), "b": words(400, 2)}
    cluster = Cluster(two_sources, given_, tmp_path, name=new_name(), parallelism=2)
    # Only worker 0's sources hear of it, so half of the barriers do not come.
    cluster.mailboxes[0].deliver(frames.Trigger(1, 1, None))
    for _ in range(60):
        cluster.turn()
    source = cluster.tasks()["a/0"].stages["a"]
    before = source.records_out
    for _ in range(20):
        cluster.turn()
    assert source.records_out == before < 200  # its channels are full, and wait
    assert not cluster.finished()
    cluster.deliver(frames.Aborted(1, 1, "the test gave it up"))
    out = cluster.end(2)
    assert sorted(out) == numbered(Counter(given_["a"] + given_["b"]))


def test_after_the_barrier_of_a_stop_no_record_is_read_until_it_is_called_off(tmp_path):
    given_ = {"a": words(60, 1), "b": []}
    cluster = Cluster(two_sources, given_, tmp_path, name=new_name(), parallelism=1)
    for _ in range(5):
        cluster.turn()
    cluster.deliver(frames.Trigger(1, 1, None, stop=True))
    cluster.run_until(lambda: cluster.manifest(1) is not None)
    source = cluster.tasks()["a/0"].stages["a"]
    before = source.records_out
    for _ in range(50):
        cluster.turn()
        cluster.help()
    assert source.records_out == before < 60
    cluster.deliver(frames.Resume(1, 1))
    assert sorted(cluster.end(2)) == numbered(Counter(given_["a"]))


def test_the_end_goes_behind_the_barrier_and_nothing_follows_it(tmp_path):
    cluster = Cluster(at_the_end, {"a": ["x"]}, tmp_path, name=new_name(), parallelism=1)
    (channel,) = cluster.channels.values()
    source = cluster.tasks()["a/0"]
    while not source.has_finished:
        source.step()
    assert [type(e) for e in channel._elements] == [Batch, EndOfInput]
    source.trigger(1, stop=False)
    assert [type(e) for e in channel._elements] == [Batch, EndOfInput]


def test_a_job_that_builds_another_graph_in_another_process_is_refused(tmp_path):
    calls = []

    def job(env):
        calls.append(1)
        lines = env.source(sources.Files("a"), uid="a")
        lines.sink(sinks.Print(), uid=f"out-{len(calls)}")

    from penstock import testing

    with pytest.raises(penstock.Rejected, match="built another graph here") as caught:
        testing.run_job(job, sources={"a": ["x"]})
    assert "operator out-2 (sink): id is 'out-2' here and 'out-1' there" in caught.value.what
