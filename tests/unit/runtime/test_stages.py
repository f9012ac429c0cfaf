"""Operators, exchanges and endpoints by themselves: what comes out, and what an error says."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import penstock
from penstock import Rejected, Retryable
from penstock.core.errors import Corrupt, Denied
from penstock.core.ids import ChannelId, OperatorId, SubtaskId
from penstock.core.keygroups import KeyGroupRange, owned_range
from penstock.core.keygroups import key_group as group_of
from penstock.core.keys import encode_key
from penstock.core.records import Barrier, Batch
from penstock.core.snapshots import SINK_PENDING, OperatorRestore
from penstock.dataflow.connector import SourceContext
from penstock.dataflow.nodes import KeyBy, Node
from penstock.network.memory import MemoryChannel
from penstock.runtime import endpoints
from penstock.runtime.endpoints import SinkStage, SourceStage
from penstock.runtime.exchange import ByKey, InTurns, Straight
from penstock.runtime.failures import CannotCommit, UserError, failure_of
from penstock.runtime.functions import begin_function, keyed_specs
from penstock.runtime.mailbox import commit_all
from penstock.runtime.stages import STATELESS, KeyedStage, ProcessStage, fan
from penstock.runtime.task import Task, Wiring
from penstock.state.heap import open_heap
from penstock.state.keyed import KeyedStates

GROUPS = KeyGroupRange(0, 8)


def node(kind, runs, **fields):
    return Node(id=OperatorId(f"{kind}-1"), kind=kind, runs=runs, label=kind, **fields)


def stateless(kind, runs, **options):
    stage = STATELESS[kind](node(kind, runs, options=options))
    out = []
    stage.down = out.extend
    return stage, out


def keyed(function, tmp_path):
    made = node("process", function, key=KeyBy(str))
    begun = begin_function(made, subtask=0, parallelism=1, now_ms=lambda: 0, stored=None)
    backend = open_heap(tmp_path, groups=GROUPS, max_parallelism=8, options={})
    states = KeyedStates(backend, keyed_specs(made), groups=GROUPS, max_parallelism=8, capacity=100)
    stage = KeyedStage(made, begun.function, begun.context, states)
    out = []
    stage.down = out.extend
    stage.side_downs = dict.fromkeys(stage.side_names, out.extend)
    return stage, out


# ── stateless operators ───────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("kind", "runs", "expected"),
    [
        ("map", len, [1, 2, 0]),
        ("flat_map", list, ["a", "b", "c"]),
        ("filter", str.strip, ["a", "bc"]),
        ("of_type", str, ["a", "bc", ""]),
        ("of_type", int, []),
    ],
)
def test_what_comes_out_of_a_batch(kind, runs, expected):
    stage, out = stateless(kind, runs)
    stage(["a", "bc", ""])
    assert out == expected
    assert (stage.records_in, stage.records_out) == (3, len(expected))


@pytest.mark.parametrize(("size", "sizes"), [(1, [1] * 5), (2, [2, 2, 1]), (5, [5]), (9, [5])])
def test_batches_are_cut_to_the_size_that_was_asked_for(size, sizes):
    seen = []

    def fn(batch):
        seen.append(len(batch))
        return batch

    stage, out = stateless("map_batches", fn, max_size=size)
    stage([1, 2, 3, 4, 5])
    assert (seen, out) == (sizes, [1, 2, 3, 4, 5])


@pytest.mark.parametrize("kind", ["map", "flat_map", "filter"])
@pytest.mark.parametrize("values", [["1", "x", "2"], ("1", "x", "2")])
def test_an_error_names_the_record_and_its_place_in_the_batch(kind, values):
    stage, out = stateless(kind, lambda text: [int(text)])
    with pytest.raises(UserError) as caught:
        stage(values)
    assert (caught.value.record, caught.value.index) == ("x", 1)
    failure = failure_of(caught.value, folder=Path())
    assert failure.what.startswith(f"operator {kind} raised ValueError: invalid literal")
    assert (failure.record, failure.key) == ("'x'", None)
    assert out == []


@pytest.mark.parametrize("values", [["a", "no", "b"], ["a", "no"], ["no"]])
@pytest.mark.parametrize(
    ("kind", "options"),
    [("map", {}), ("flat_map", {}), ("filter", {}), ("map_batches", {"max_size": 1})],
)
def test_a_stop_iteration_of_the_authors_is_an_error_and_no_end_of_the_batch(kind, options, values):
    def runs(value):
        return next(iter(())) if "no" in value else [value]

    stage, out = stateless(kind, runs, **options)
    with pytest.raises(UserError) as caught:
        stage(values)
    assert out == []
    assert "StopIteration" in str(caught.value.__cause__) + type(caught.value.__cause__).__name__
    if kind != "map_batches":
        assert caught.value.record == "no"


def test_a_stop_iteration_of_a_key_function_is_an_error_with_its_record():
    made = node("process", None, key=KeyBy(lambda value: next(iter(value))))
    with pytest.raises(UserError) as caught:
        ByKey(channels(1), made, max_parallelism=8)(["a", "", "b"])
    assert (caught.value.record, caught.value.is_of_key) == ("", True)
    assert "StopIteration" in str(caught.value.__cause__)


def test_an_error_inside_a_generator_names_its_record_too():
    def halves(n):
        yield n
        yield 1 / n

    stage, _ = stateless("flat_map", halves)
    with pytest.raises(UserError) as caught:
        stage([2, 1, 0, 3])
    assert (caught.value.record, caught.value.index) == (0, 2)


@pytest.mark.parametrize("text", ["abc", b"abc"])
def test_text_out_of_a_flat_map_is_refused_at_the_first_record(text):
    stage, _ = stateless("flat_map", lambda _: text)
    with pytest.raises(UserError) as caught:
        stage([1])
    cause = caught.value.__cause__
    assert isinstance(cause, Rejected)
    assert "which would become characters" in cause.what
    assert "did you mean map?" in cause.fix


def test_a_function_that_is_a_context_manager_is_entered_before_its_first_record_and_left():
    events = []

    class Model:
        def __enter__(self):
            events.append("entered")

        def __exit__(self, *error):
            events.append("left")

        def __call__(self, record):
            events.append(record)
            return record

    stage, _ = stateless("map", Model())
    stage([1])
    stage.close()
    assert events == ["entered", 1, "left"]


def test_all_readers_of_a_stream_get_its_records():
    a, b = [], []
    fan([a.extend, b.extend])([1, 2])
    assert a == b == [1, 2]


# ── functions with state ──────────────────────────────────────────────────────────────────────────


class Totals(penstock.KeyedFunction):
    total = penstock.ValueState(int, default=0)
    last = penstock.ValueState(str | None)
    big = penstock.SideOutput(int)

    def process(self, record, ctx):
        if record == "fail":
            raise ValueError("failed")
        if record == "text":
            return "text"
        if record == "wrong":
            self.total.value = "x"
            return None
        if record == "wrong union":
            self.last.value = 5
            return None
        self.total.value += record
        if self.total.value > 9:
            self.big.emit(self.total.value)
        return [(ctx.key, self.total.value)]


def test_each_key_has_its_own_state_and_side_outputs_go_out_after_the_batch(tmp_path):
    stage, out = keyed(Totals(), tmp_path)
    stage.handle(["a", "b", "a"], [1, 2, 10])
    assert out == [("a", 1), ("b", 2), ("a", 11), 11]


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ("fail", "raised ValueError: failed"),
        ("text", "process returned str"),
        ("wrong", "state total is declared int and was given 'x' (str)"),
        ("wrong union", "state last is declared str | None and was given 5 (int)"),
    ],
)
def test_an_error_in_a_keyed_function_names_operator_key_and_record(tmp_path, record, words):
    stage, _ = keyed(Totals(), tmp_path)
    with pytest.raises(UserError) as caught:
        stage.handle(["a", "b"], [1, record])
    failure = failure_of(caught.value, tmp_path)
    assert words in failure.what
    assert failure.operator.startswith("process (process")
    assert (failure.key, failure.record) == ("'b'", repr(record))


def test_a_bool_is_no_int_where_an_int_is_declared(tmp_path):
    class Flag(penstock.KeyedFunction):
        count = penstock.ValueState(int, default=0)

        def process(self, record, ctx):
            self.count.value = record

    stage, _ = keyed(Flag(), tmp_path)
    with pytest.raises(UserError):
        stage.handle(["a"], [True])


def test_an_author_may_call_a_method_process_batch(tmp_path):
    class Own(Totals):
        def process_batch(self, records):
            raise AssertionError

    stage, out = keyed(Own(), tmp_path)
    stage.handle(["a"], [1])
    assert out == [("a", 1)]


def test_a_function_without_keys_has_no_current_key():
    class Asks(penstock.Function):
        def process(self, record, ctx):
            return [ctx.key]

    made = node("process", Asks())
    begun = begin_function(made, subtask=0, parallelism=1, now_ms=lambda: 0, stored=None)
    with pytest.raises(UserError) as caught:
        ProcessStage(made, begun.function, begun.context)([1])
    assert "there is no current key here" in caught.value.__cause__.what


def test_subtasks_of_one_function_have_operator_state_of_their_own():
    class Keeps(penstock.Function):
        kept = penstock.SplitListState(str)

        def initialize_state(self, ctx):
            self.was = (ctx.is_restored, list(self.kept))

    made = node("process", Keeps())
    a, b = (
        begin_function(made, subtask=i, parallelism=2, now_ms=lambda: 0, stored=stored)
        for i, stored in enumerate([None, {"kept": (b"\xa1x",)}])
    )
    a.function.kept.append("y")
    assert a.function.was == (False, [])
    assert b.function.was == (True, ["x"])
    assert list(b.function.kept) == ["x"]
    with pytest.raises(Rejected, match=r"state kept is a list of str and was given 5 \(int\)"):
        a.function.kept.append(5)


@pytest.mark.parametrize("method", ["initialize_state", "open"])
def test_what_a_function_raises_before_its_first_record_is_told_with_its_operator(method):
    def fail(self, ctx):
        raise OSError("no model")

    function = type("Fails", (penstock.Function,), {method: fail})()
    with pytest.raises(UserError) as caught:
        begin_function(
            node("process", function), subtask=0, parallelism=1, now_ms=lambda: 0, stored=None
        )
    failure = failure_of(caught.value, Path())
    assert failure.what == "operator process raised OSError: no model"
    assert (failure.record, failure.key) == (None, None)


# ── exchanges ─────────────────────────────────────────────────────────────────────────────────────


def channels(n, capacity=1000):
    return [MemoryChannel(ChannelId(0, 0, i), capacity) for i in range(n)]


def taken(channel):
    found = []
    while (element := channel.next()) is not None:
        found.append(element)
    return found


KEYS = st.one_of(
    st.text(max_size=3),
    st.integers(-5, 5),
    st.booleans(),
    st.sampled_from([0.0, 1.0, -2.5]),
    st.binary(max_size=2),
    st.tuples(st.integers(0, 1), st.booleans()),
    st.just(datetime(2020, 1, 1, tzinfo=UTC)),
)


@given(batches=st.lists(st.lists(KEYS, max_size=20), max_size=6), width=st.integers(1, 4))
def test_a_record_goes_to_the_owner_of_its_keys_group_in_order(batches, width):
    outputs = channels(width)
    made = node("count", None, key=KeyBy(lambda record: record[0]))
    exchange = ByKey(outputs, made, max_parallelism=8)
    records = [[(key, (b, i)) for i, key in enumerate(keys)] for b, keys in enumerate(batches)]
    for batch in records:
        exchange(batch)
    exchange.control(Barrier(1))
    arrived = 0
    for index, channel in enumerate(outputs):
        *parts, last = taken(channel)
        assert last == Barrier(1)
        got = [record for part in parts for record in part.values]
        assert [k for part in parts for k in part.keys] == [key for key, _ in got]
        owned = owned_range(index, parallelism=width, max_parallelism=8)
        assert all(group_of(encode_key(key), max_parallelism=8) in owned for key, _ in got)
        assert [at for _, at in got] == sorted(at for _, at in got)
        arrived += len(got)
    assert arrived == sum(map(len, batches))


def test_one_and_one_point_nought_and_true_are_three_keys():
    outputs = channels(8)
    exchange = ByKey(outputs, node("count", None, key=KeyBy(lambda r: r)), max_parallelism=8)
    for batch in ([1], [True], [1.0], [1, True, 1.0]):
        exchange(batch)
    exchange.flush()
    for index, channel in enumerate(outputs):
        for part in taken(channel):
            for key in part.keys:
                assert group_of(encode_key(key), max_parallelism=8) == index
    assert len({group_of(encode_key(k), max_parallelism=8) for k in (1, True, 1.0)}) > 1


@pytest.mark.parametrize("key", [None, float("nan"), [1], {"a": 1}])
def test_what_cannot_be_a_key_is_refused_with_its_record(key):
    exchange = ByKey(channels(2), node("count", None, key=KeyBy(lambda r: r[0])), max_parallelism=8)
    with pytest.raises(UserError) as caught:
        exchange([("a", 1), (key, 2)])
    assert caught.value.record == (key, 2)
    assert "cannot be a key" in caught.value.__cause__.what


def test_a_key_function_that_raises_is_told_with_its_record():
    exchange = ByKey(
        channels(2), node("count", None, key=KeyBy(lambda r: 1 / r)), max_parallelism=8
    )
    with pytest.raises(UserError) as caught:
        exchange([2, 0, 1])
    assert (caught.value.record, caught.value.index) == (0, 1)


def test_small_batches_wait_for_more_and_large_ones_go_at_once():
    (output,) = channels(1)
    exchange = Straight([output])
    exchange([1, 2])
    exchange([3])
    assert exchange.is_waiting
    assert taken(output) == []
    exchange.flush()
    assert not exchange.is_waiting
    assert taken(output) == [Batch([1, 2, 3])]
    many = list(range(512))
    exchange(many)
    assert taken(output) == [Batch(many)]


def test_batches_go_to_each_channel_in_turn_from_the_subtasks_own_on():
    outputs = channels(3)
    exchange = InTurns(outputs, start=4)
    for n in range(5):
        exchange([n])
    exchange.flush()
    assert [[b.values for b in taken(c)] for c in outputs] == [[[2]], [[0, 3]], [[1, 4]]]


# ── sinks ─────────────────────────────────────────────────────────────────────────────────────────


class Desk:
    """A writer whose commits fail when they are told to."""

    def __init__(self):
        self.written, self.committed, self.kept, self.broken = [], [], None, set()
        self.gone = set()

    def write(self, records):
        self.written.extend(records)

    def prepare(self, checkpoint):
        prepared, self.written = self.written, []
        return [json.dumps(record).encode() for record in prepared]

    def commit(self, transaction):
        if transaction in self.broken:
            raise Retryable("not now")
        if transaction in self.gone:
            raise Corrupt("it is gone")
        self.committed.append(transaction)

    def abort_except(self, transactions):
        self.kept = list(transactions)

    def close(self):
        pass


def sink(restored=None, index=0, of=1):
    desk = Desk()
    return desk, SinkStage(node("sink", None), desk, restored, index, of)


def pending(lists):
    return [
        (item["checkpoint"], item["transaction"]) for item in map(json.loads, lists[SINK_PENDING])
    ]


def test_a_sink_commits_up_to_a_checkpoint_and_keeps_the_rest():
    desk, stage = sink()
    stage(["a"])
    stage.snapshot(1)
    stage(["b"])
    assert pending(stage.snapshot(2)) == [(1, "a"), (2, "b")]
    stage.commit(1)
    assert desk.committed == [b'"a"']
    assert pending(stage.snapshot(3)) == [(2, "b")]


def test_what_storage_denies_a_sink_is_no_records_fault(monkeypatch):
    desk, stage = sink()

    def denied(records):
        raise Denied("the token has expired")

    monkeypatch.setattr(desk, "write", denied)
    with pytest.raises(Denied):
        stage(["a"])


def test_what_a_given_up_checkpoint_prepared_is_committed_with_the_next():
    desk, stage = sink()
    stage(["a"])
    stage.snapshot(1)  # aborted: nobody says more about it
    stage(["b"])
    stage.snapshot(2)
    stage.commit(2)
    assert desk.committed == [b'"a"', b'"b"']


def test_a_commit_that_failed_is_tried_again_and_the_others_are_not():
    desk, stage = sink()
    stage(["a", "b", "c"])
    stage.snapshot(1)
    desk.broken = {b'"b"'}
    with pytest.raises(Retryable):
        stage.commit(1)
    assert desk.committed == [b'"a"', b'"c"']
    desk.broken = set()
    stage.commit(1)
    assert desk.committed == [b'"a"', b'"c"', b'"b"']
    assert pending(stage.snapshot(2)) == []


def test_what_is_gone_keeps_no_other_transaction_from_being_committed():
    desk, stage = sink()
    stage(["a", "b", "c"])
    stage.snapshot(1)
    desk.gone = {b'"a"'}
    with pytest.raises(CannotCommit, match="gone"):
        stage.commit(1)
    assert desk.committed == [b'"b"', b'"c"']
    assert pending(stage.snapshot(2)) == [(1, "a")]


def test_what_one_sink_lost_keeps_no_other_sink_from_committing():
    (lossy, first), (desk, second) = sink(), sink()
    for stage in (first, second):
        stage(["a", "b"])
        stage.snapshot(1)
    lossy.gone, desk.broken = {b'"a"'}, {b'"b"'}
    with pytest.raises(Retryable):  # what may still be done is tried again first
        commit_all([first, second], 1)
    assert (lossy.committed, desk.committed) == ([b'"b"'], [b'"a"'])
    desk.broken = set()
    with pytest.raises(CannotCommit):
        commit_all([first, second], 1)
    assert desk.committed == [b'"a"', b'"b"']


def test_restored_transactions_are_dealt_out_and_only_the_first_subtask_clears_up():
    stored = tuple(json.dumps({"checkpoint": 1, "transaction": n}).encode() for n in range(5))
    restored = OperatorRestore(lists={SINK_PENDING: stored})
    desks = [sink(restored, i, 2) for i in range(2)]
    shares = [pending(stage.snapshot(2)) for _, stage in desks]
    assert sorted(shares[0] + shares[1]) == [(1, n) for n in range(5)]
    assert desks[0][0].kept == [b"0", b"1", b"2", b"3", b"4"]
    assert desks[1][0].kept is None


def test_a_snapshot_misses_no_transaction_while_another_one_is_committed(monkeypatch):
    desk, stage = sink()
    for n in range(1, 4):
        stage([n])
        stage.snapshot(n)
    stored_form = endpoints._stored_form

    def meanwhile(checkpoint, transaction):
        stage.commit(1)  # as the helper's thread does, in the middle
        return stored_form(checkpoint, transaction)

    monkeypatch.setattr(endpoints, "_stored_form", meanwhile)
    stage([4])
    assert {n for n, _ in pending(stage.snapshot(4))} >= {2, 3, 4}
    assert desk.committed == [b"1"]


# ── sources ───────────────────────────────────────────────────────────────────────────────────────


def source_stage(source, folder):
    ctx = SourceContext("lines", 0, 1, lambda: 0, folder, lambda _: None)
    return SourceStage(node("source", source), source.open(ctx), None)


def test_a_source_tells_what_it_has_still_to_read_with_its_counts(tmp_path):
    (tmp_path / "a").write_text("1\n2\n")
    (tmp_path / "b").write_text("3\n")
    stage = source_stage(penstock.sources.Files("*"), tmp_path)
    assert stage.metrics().unread_files is None
    stage.records_out += len(stage.reader.poll(10))
    found = stage.metrics()
    assert (found.records_out, found.unread_files, found.unread_bytes) == (2, 2, 2)
    stage.close()


def test_a_source_that_cannot_tell_what_is_unread_says_nothing_of_it(tmp_path):
    stage = source_stage(penstock.sources.Generator(lambda i, r: i, count=3), tmp_path)
    stage.reader.poll(1)
    found = stage.metrics()
    assert (found.unread_files, found.unread_bytes) == (None, None)
    stage.close()


@pytest.mark.parametrize(
    ("refused", "told"), [(Rejected("no line"), UserError), (Denied("expired"), Denied)]
)
def test_a_source_that_is_denied_what_it_reads_has_met_no_record_that_cannot_be_read(
    monkeypatch, tmp_path, refused, told
):
    stage = source_stage(penstock.sources.Generator(lambda i, r: i, count=3), tmp_path)
    task = Task(
        Wiring(SubtaskId(stage.node.id, 0), {stage.node.id: stage}, [], [], {}, {}, tmp_path)
    )

    def refuse(limit):
        raise refused

    monkeypatch.setattr(stage.reader, "poll", refuse)
    with pytest.raises(told):
        task.step()
    task.close()
