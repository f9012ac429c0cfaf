"""What `job(env, …)` may write, and what is refused before anything starts."""

from collections.abc import Iterator

import pytest

import penstock
from penstock import Rejected, aggregates, sinks, sources
from penstock.core.graph import first_difference


class CountWords(penstock.KeyedFunction):
    count = penstock.ValueState(int, default=0)
    rare = penstock.SideOutput(str)

    def process(self, word: str, ctx: penstock.Context[str]) -> Iterator[tuple[str, int]]:
        self.count.value += 1
        yield word, self.count.value


class Keeps(penstock.Function):
    kept = penstock.SplitListState(str)

    def process(self, record: str, ctx: penstock.Context[None]) -> list[str]:
        return [record]


def lines(env=None, uid="lines", **options):
    env = env or penstock.Environment("test")
    return env.source(sources.Files("x"), uid=uid, **options)


def operators(stream_or_env):
    env = getattr(stream_or_env, "_env", stream_or_env)
    return {str(o.id): o for o in env.graph().operators}


def edges(env):
    return [(str(e.source), str(e.target), str(e.exchange), e.side) for e in env.graph().edges]


# ── uids ──────────────────────────────────────────────────────────────────────────────────────────


def test_two_operators_of_one_uid_are_refused_with_both_places():
    words = lines()
    words.key_by(str).process(CountWords(), uid="counts")
    first = operators(words)["counts"].location
    with pytest.raises(Rejected, match="two operators have the uid counts") as caught:
        words.sink(sinks.Print(), uid="counts")
    assert caught.value.where.startswith(f"process at {first} and sink at test_builder.py:")
    assert first.startswith("test_builder.py:")


@pytest.mark.parametrize("uid", ["", "Counts", "a_b", "-a", "a-", "a/b", "a" * 64, None, 3, "ä"])
def test_a_uid_that_could_not_be_part_of_a_url_is_refused_where_it_stands(uid):
    env = penstock.Environment("test")
    with pytest.raises(Rejected, match="is not allowed") as caught:
        lines(env, uid=uid)
    assert "source, test_builder.py:" in caught.value.where


def test_where_state_hangs_on_it_a_uid_cannot_be_left_out():
    with pytest.raises(TypeError, match="uid"):
        penstock.Environment("test").source(sources.Files("x"))


@pytest.mark.parametrize("uid", ["a", "0", "a-1", "a" * 63])
def test_short_plain_uids_are_allowed(uid):
    assert uid in operators(lines(uid=uid))


# ── state ─────────────────────────────────────────────────────────────────────────────────────────


def test_keyed_state_without_a_key_is_refused():
    with pytest.raises(Rejected, match=r"CountWords declares keyed state \(count\)") as caught:
        lines().process(CountWords(), uid="counts")
    assert "key_by" in caught.value.fix


def test_operator_state_needs_no_key():
    (state,) = operators(lines().process(Keeps(), uid="keeps"))["keeps"].states
    assert (state.name, state.kind, state.schema) == ("kept", "split-list", "str")


@pytest.mark.parametrize(
    ("type_", "default"), [(int, "x"), (str, 0), (int, 1.5), (bool, 1), (list[int], ["a"])]
)
def test_a_default_of_another_type_is_refused_when_the_class_is_made(type_, default):
    with pytest.raises(Rejected, match="is not of the declared type"):
        penstock.ValueState(type_, default=default)


def test_state_assigned_in_init_is_known_to_the_graph():
    class Last(penstock.KeyedFunction):
        def __init__(self, type_):
            self.last = penstock.ValueState(type_)

        def process(self, record, ctx):
            return None

    stream = lines().key_by(str).process(Last(float), uid="last")
    (state,) = operators(stream)["last"].states
    assert (state.name, state.schema) == ("last", "float")


def test_one_state_object_under_two_names_is_refused():
    class Twice(penstock.KeyedFunction):
        a = b = penstock.ValueState(int)

        def process(self, record, ctx):
            return None

    with pytest.raises(Rejected, match="one state object as a and as b"):
        lines().key_by(str).process(Twice(), uid="twice")


def test_state_is_not_used_where_no_key_is():
    with pytest.raises(Rejected, match="state count has no key here"):
        CountWords().count.value += 1
    with pytest.raises(Rejected, match="side output rare goes nowhere here"):
        CountWords().rare.emit("x")


# ── functions ─────────────────────────────────────────────────────────────────────────────────────


def test_a_class_in_place_of_an_instance_is_refused():
    with pytest.raises(Rejected, match="the class CountWords cannot process records") as caught:
        lines().key_by(str).process(CountWords, uid="counts")
    assert "an instance" in caught.value.fix


@pytest.mark.parametrize("verb", ["map", "flat_map", "filter", "map_batches"])
def test_what_cannot_be_called_is_refused(verb):
    with pytest.raises(Rejected, match="cannot be called"):
        getattr(lines(), verb)("upper")


def test_what_is_no_source_and_no_sink_is_refused():
    with pytest.raises(Rejected, match="str is not a source"):
        penstock.Environment("test").source("x", uid="lines")
    with pytest.raises(Rejected, match="list is not a sink"):
        lines().sink([], uid="out")


def test_a_job_without_a_source_is_refused():
    with pytest.raises(Rejected, match="no source"):
        penstock.Environment("test").graph()


def unannotated(line):
    return line


def test_reduce_over_records_of_unknown_type_says_which_function_to_annotate():
    with pytest.raises(Rejected, match="their type is not known") as caught:
        lines().map(unannotated).filter(bool).key_by(str).reduce(max, uid="greatest")
    place = f"test_builder.py:{unannotated.__code__.co_firstlineno}"
    assert caught.value.fix == f"annotate the return type of unannotated ({place})"


def test_reduce_over_a_lambdas_records_asks_for_a_function():
    with pytest.raises(Rejected) as caught:
        lines().map(lambda line: line + "!").key_by(str).reduce(max, uid="greatest")
    assert caught.value.fix.startswith("in place of lambda line: line + '!' (test_builder.py:")
    assert caught.value.fix.endswith("give map a function whose return type is annotated")


def test_reduce_takes_its_type_from_the_source_through_filters():
    stream = lines().filter(bool).key_by(str.lower).reduce(max, uid="greatest")
    (state,) = operators(stream)["greatest"].states
    assert (state.kind, state.schema) == ("reducing", "str")


def test_an_aggregate_says_what_it_stores():
    class Mute:
        def create(self):
            return 0

        add = merge = result = max

    with pytest.raises(Rejected, match="the class Mute is not an aggregate"):
        lines().key_by(str).aggregate(Mute, uid="a")
    with pytest.raises(Rejected, match=r"is not an aggregate: it has no create\(\)"):
        lines().key_by(str).aggregate("count", uid="a")
    with pytest.raises(Rejected, match=r"Mute\.create does not say what it stores"):
        lines().key_by(str).aggregate(Mute(), uid="a")
    stream = lines().key_by(str).aggregate(aggregates.mean(float), uid="a")
    assert operators(stream)["a"].states[0].schema == "tuple[float, int]"


# ── side outputs ──────────────────────────────────────────────────────────────────────────────────


def test_a_side_output_is_an_edge_of_its_own():
    env = penstock.Environment("test")
    counts = lines(env).key_by(str).process(CountWords(), uid="counts")
    counts.side(CountWords.rare).sink(sinks.Print(), uid="rare")
    assert edges(env)[-1] == ("counts", "rare", "forward", "rare")
    assert operators(env)["counts"].side_outputs == ("rare",)


def test_a_side_output_of_another_operator_is_refused():
    counts = lines().key_by(str).process(CountWords(), uid="counts")
    for stream in (lines(), counts.map(str), counts.union(counts.map(str))):
        with pytest.raises(Rejected, match="declares no side output rare"):
            stream.side(CountWords.rare)


# ── exchanges and parallelism ─────────────────────────────────────────────────────────────────────


def test_edges_are_forward_until_somebody_says_otherwise():
    env = penstock.Environment("test")
    words = lines(env).flat_map(str.split)
    words.rebalance().map(len).sink(sinks.Print(), uid="lengths")
    words.key_by(str).count(uid="counts")
    assert edges(env) == [
        ("lines", "flat-map-1", "forward", None),
        ("flat-map-1", "map-1", "rebalance", None),
        ("map-1", "lengths", "forward", None),
        ("flat-map-1", "counts", "hash", None),
    ]


def test_a_union_has_an_edge_from_each_stream():
    env = penstock.Environment("test")
    both = lines(env, "a").union(lines(env, "b").map(len), lines(env, "c"))
    both.sink(sinks.Print(), uid="out")
    assert [e for e in edges(env) if e[1] == "out"] == [
        ("a", "out", "forward", None),
        ("map-1", "out", "forward", None),
        ("c", "out", "forward", None),
    ]


def test_a_union_with_a_rebalanced_stream_rebalances():
    env = penstock.Environment("test")
    lines(env, "a").rebalance().union(lines(env, "b")).sink(sinks.Print(), uid="out")
    assert {e[2] for e in edges(env)} == {"rebalance"}


def test_an_operator_has_a_parallelism_of_its_own_and_stateless_ones_follow_their_input():
    env = penstock.Environment("test")
    one = lines(env, "one", parallelism=1).map(len)
    many = lines(env, "many")
    one.union(many).map(str)
    one.rebalance().filter(bool)
    one.key_by(str).count(uid="counts")
    many.sink(sinks.Print(), uid="out", parallelism=2)
    widths = {uid: o.parallelism for uid, o in operators(env).items()}
    assert widths == {
        "one": 1,
        "map-1": 1,
        "many": None,
        "map-2": None,
        "filter-1": None,
        "counts": None,
        "out": 2,
    }


def test_a_socket_is_read_by_one_subtask():
    env = penstock.Environment("test")
    env.source(sources.Socket("localhost:1"), uid="lines")
    assert operators(env)["lines"].parallelism == 1


@pytest.mark.parametrize("parallelism", [0, -1, 1.5, "2"])
def test_a_parallelism_that_is_no_count_is_refused(parallelism):
    with pytest.raises(Rejected, match="is not a number above 0"):
        lines(parallelism=parallelism)


# ── the graph ─────────────────────────────────────────────────────────────────────────────────────


def job(env, longest=3):
    words = lines(env).flat_map(str.split).filter(lambda word: len(word) > longest)
    words.key_by(lambda word: word[0]).process(CountWords(), uid="counts").sink(
        sinks.Print(), uid="out"
    )


def built(longest=3, name="test"):
    env = penstock.Environment(name)
    job(env, longest)
    return env.graph()


def test_the_same_job_has_the_same_digest_whatever_it_is_called():
    assert built().digest == built(name="other").digest
    assert first_difference(built().to_json(), built(name="other").to_json()) is None


def test_a_graph_shows_functions_and_where_they_stand():
    graph = {str(o.id): o for o in built().operators}
    assert graph["flat-map-1"].label == "str.split"
    assert graph["filter-1"].label == "lambda word: len(word) > longest"
    assert graph["counts"].key == "lambda word: word[0]"
    assert graph["counts"].label == "CountWords"
    assert graph["lines"].record_schema == "str"
    assert graph["counts"].record_schema == "tuple[str, int]"


def test_the_first_difference_of_two_graphs_is_a_sentence():
    env = penstock.Environment("test")
    job(env)
    env.source(sources.Files("y"), uid="more")
    difference = first_difference(built().to_json(), env.graph().to_json())
    assert difference == "operator more (source) exists only there"
    assert built().digest != env.graph().digest
