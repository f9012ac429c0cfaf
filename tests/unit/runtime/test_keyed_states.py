"""The cache of cells before a backend, against plain dicts: whatever is done in whatever order, what a
barrier copies out is the state at the barrier."""

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from penstock import aggregates
from penstock.core.errors import Rejected
from penstock.core.keygroups import KeyGroupRange
from penstock.dataflow.states import (
    AggregatingState,
    ListState,
    MapState,
    ReducingState,
    State,
    ValueState,
)
from penstock.state import cells, keyed
from penstock.state.backend import LocalPart
from penstock.state.heap import open_heap
from penstock.state.keyed import KeyedStates
from penstock.state.rocks import open_rocks

G = 4
GROUPS = KeyGroupRange(0, G)
BACKENDS = {"heap": open_heap, "rocks": open_rocks}


def states() -> dict[str, State]:
    declared: dict[str, State] = {
        "total": ValueState(int, default=0),
        "either": ValueState(int | bool | None, default=0),
        "cart": ValueState(list[str]),
        "seen": ListState(int),
        "by_name": MapState(str, int),
        "most": ReducingState(int, max),
        "mean": AggregatingState(aggregates.mean(float)),
    }
    for name, state in declared.items():
        state.name = name
    return declared


NAMES = list(states())


def opened(folder, backend, parts=(), capacity=3):
    folder.mkdir()
    made = BACKENDS[backend](folder, groups=GROUPS, max_parallelism=G, options={})
    made.restore(parts)
    specs = [state.spec() for state in states().values()]
    return KeyedStates(made, specs, groups=GROUPS, max_parallelism=G, capacity=capacity)


def part_of(copied):
    return LocalPart(copied.format, GROUPS, GROUPS, copied.path, offsets=copied.offsets)


class Model:
    """One key's state as plain values."""

    def __init__(self):
        self.total = 0
        self.either = 0
        self.cart = None
        self.seen = []
        self.by_name = {}
        self.most = None
        self.added = []

    def copied(self):
        other = Model()
        other.__dict__.update(self.__dict__)
        other.seen, other.by_name = list(self.seen), dict(self.by_name)
        other.added = list(self.added)
        return other

    def shown(self):
        mean = sum(self.added) / len(self.added) if self.added else 0.0
        by_name = sorted(self.by_name.items())
        either = (type(self.either), self.either)
        return (self.total, either, self.cart, self.seen, by_name, self.most, mean)


def shown(states, key):
    (lookup,) = states.bind([key])
    at = dict(zip(NAMES, (table[lookup] for table in states.cells), strict=True))
    by_name = list(at["by_name"].items())
    assert by_name == sorted(by_name), "entries come in the order of their keys' bytes"
    assert list(at["by_name"].keys()) == [name for name, _ in by_name]
    assert bool(at["by_name"]) == bool(by_name)
    assert bool(at["seen"]) == bool(list(at["seen"]))
    either = (type(at["either"].value), at["either"].value)
    return (
        at["total"].value,
        either,
        at["cart"].value,
        list(at["seen"]),
        by_name,
        at["most"].value,
        at["mean"].value,
    )


KEYS = [f"key-{i}" for i in range(8)]
keys = st.sampled_from(KEYS)
names = st.sampled_from(["a", "b", "c", "dd", ""])
numbers = st.integers(-3, 3)


class CellsAgainstDicts(RuleBasedStateMachine):
    backend = "heap"

    @initialize(capacity=st.sampled_from([1, 3, 100]))
    def begin(self, capacity):
        self.folder = Path(tempfile.mkdtemp(prefix="penstock-cells-"))
        self.opened = 0
        self.capacity = capacity
        self.model = {key: Model() for key in KEYS}
        self.at_barrier = None
        self.frozen = False
        self.states = self.open()

    def open(self, parts=()):
        self.opened += 1
        return opened(self.folder / str(self.opened), self.backend, parts, self.capacity)

    def teardown(self):
        if hasattr(self, "states"):
            self.states.backend.close()
            shutil.rmtree(self.folder)

    def change(self, key, act):
        """A batch of one record."""
        (lookup,) = self.states.bind([key])
        act({name: table[lookup] for name, table in zip(NAMES, self.states.cells, strict=True)})
        self.states.trim()

    # ── changes ──────────────────────────────────────────────────────────────────────────────────

    @rule(key=keys, n=numbers)
    def set_value(self, key, n):
        self.model[key].total = n
        self.change(key, lambda at: setattr(at["total"], "value", n))

    @rule(key=keys, value=st.sampled_from([0, 1, True, False, None]))
    def set_either(self, key, value):
        # None clears, which is the default again.
        self.model[key].either = 0 if value is None else value
        self.change(
            key,
            lambda at: (
                at["either"].clear() if value is None else setattr(at["either"], "value", value)
            ),
        )

    @rule(key=keys, value=st.none() | st.lists(st.sampled_from("xyz"), max_size=2))
    def set_mutable(self, key, value):
        self.model[key].cart = None if value is None else list(value)

        def act(at):
            at["cart"].value = value
            if value is not None:
                value.append("changed after it was given")
                at["cart"].value.append("changed after it was read")

        self.change(key, act)

    @rule(key=keys, items=st.lists(numbers, max_size=3))
    def extend(self, key, items):
        self.model[key].seen += items
        self.change(key, lambda at: at["seen"].extend(items))

    @rule(key=keys, items=st.lists(numbers, max_size=3), read_first=st.booleans())
    def replace(self, key, items, read_first):
        self.model[key].seen = list(items)

        def act(at):
            if read_first:
                list(at["seen"])
            at["seen"].replace(items)

        self.change(key, act)

    @rule(key=keys, name=names, n=numbers)
    def put(self, key, name, n):
        self.model[key].by_name[name] = n
        self.change(key, lambda at: at["by_name"].__setitem__(name, n))

    @rule(key=keys, name=names)
    def pop(self, key, name):
        expected = self.model[key].by_name.pop(name, "none")

        def act(at):
            assert at["by_name"].pop(name, "none") == expected

        self.change(key, act)

    @rule(key=keys, doomed=st.sets(names))
    def delete_while_iterating(self, key, doomed):
        expected = sorted(self.model[key].by_name.items())
        for name in doomed:
            self.model[key].by_name.pop(name, None)

        def act(at):
            passed = []
            for name, n in at["by_name"].items():
                passed.append((name, n))
                if name in doomed:
                    del at["by_name"][name]
            assert passed == expected

        self.change(key, act)

    @rule(key=keys)
    def clear_all(self, key):
        self.model[key] = Model()

        def act(at):
            for cell in at.values():
                cell.clear()

        self.change(key, act)

    @rule(key=keys, n=numbers)
    def fold(self, key, n):
        model = self.model[key]
        model.most = n if model.most is None else max(model.most, n)
        model.added.append(float(n))

        def act(at):
            at["most"].add(n)
            at["mean"].add(n)

        self.change(key, act)

    # ── reading ──────────────────────────────────────────────────────────────────────────────────

    @rule(key=keys)
    def read(self, key):
        assert shown(self.states, key) == self.model[key].shown()
        self.states.trim()

    @rule()
    def read_a_batch_with_a_key_twice(self):
        lookups = self.states.bind([*KEYS, KEYS[0]])
        table = self.states.cells[0]
        assert [table[at].value for at in lookups] == [
            self.model[key].total for key in (*KEYS, KEYS[0])
        ]
        self.states.trim()

    # ── barriers ─────────────────────────────────────────────────────────────────────────────────

    @precondition(lambda self: self.at_barrier is None)
    @rule()
    def barrier(self):
        self.at_barrier = {key: model.copied() for key, model in self.model.items()}
        self.states.freeze()
        self.frozen = True

    @precondition(lambda self: self.frozen)
    @rule()
    def slice(self):
        self.frozen = not self.states.write_slice()

    @precondition(lambda self: self.at_barrier is not None and not self.frozen)
    @rule(restart=st.booleans())
    def copied_out(self, restart):
        copied = self.states.copy_out(self.folder / f"snapshot-{self.opened}")
        self.states.copied_out()
        restored = self.open([part_of(copied)])
        for key, model in self.at_barrier.items():
            assert shown(restored, key) == model.shown()
        if restart:
            self.states, restored = restored, self.states
            self.model = self.at_barrier
        restored.backend.close()
        self.at_barrier = None

    @precondition(lambda self: self.at_barrier is None)
    @rule()
    def write_back(self):
        while self.states.write_back():
            pass

    @invariant()
    def cells_stay_within_the_capacity_between_barriers(self):
        if getattr(self, "at_barrier", 1) is None:
            self.states.trim()
            assert self.states.key_count <= self.capacity


class CellsAgainstDictsOnRocks(CellsAgainstDicts):
    backend = "rocks"


TestOnHeap = CellsAgainstDicts.TestCase
TestOnHeap.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestOnRocks = CellsAgainstDictsOnRocks.TestCase
TestOnRocks.settings = settings(
    max_examples=8,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)


@pytest.fixture
def small_slices(monkeypatch):
    """Slices of one row and maps of two cached entries: the edges are reached with few keys."""
    monkeypatch.setattr(keyed, "_ROWS_AT_ONCE", 1)
    monkeypatch.setattr(cells, "_MAP_CACHED_MAX", 2)


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_was_frozen_is_copied_out_though_it_is_changed_before_it_is_written(
    tmp_path, backend, small_slices
):
    states = opened(tmp_path / "a", backend, capacity=2)
    for key in KEYS:
        (lookup,) = states.bind([key])
        states.cells[0][lookup].value = 1
        states.cells[4][lookup].update({"x": 1, "y": 2, "z": 3})
    states.freeze()
    while not states.write_slice():
        for key in KEYS:
            (lookup,) = states.bind([key])
            assert dict(states.cells[4][lookup].items())["y"] in (2, 20)
            states.cells[0][lookup].value += 1
            states.cells[4][lookup]["y"] = 20
            states.trim()
    copied = states.copy_out(tmp_path / "snapshot")
    states.copied_out()
    restored = opened(tmp_path / "b", backend, [part_of(copied)])
    for key in KEYS:
        (lookup,) = restored.bind([key])
        assert restored.cells[0][lookup].value == 1
        assert dict(restored.cells[4][lookup].items()) == {"x": 1, "y": 2, "z": 3}
    restored.backend.close()
    states.backend.close()


def test_a_large_map_is_not_kept_at_hand(tmp_path, small_slices):
    states = opened(tmp_path / "a", "heap", capacity=100)
    (lookup,) = states.bind(["k"])
    cell = states.cells[4][lookup]
    assert not list(cell)  # complete, being empty
    cell.update({str(i): i for i in range(10)})
    while states.write_back():
        pass
    assert len(cell.entries) == 0
    assert dict(cell.items()) == {str(i): i for i in range(10)}


def test_text_that_cannot_be_stored_is_told_with_its_state(tmp_path):
    state = ValueState(str)
    state.name = "name"
    backend = open_heap(tmp_path, groups=GROUPS, max_parallelism=G, options={})
    states = KeyedStates(backend, [state.spec()], groups=GROUPS, max_parallelism=G, capacity=100)
    (lookup,) = states.bind(["k"])
    states.cells[0][lookup].value = "\ud800"
    states.freeze()
    with pytest.raises(Rejected, match=r"state name was given text that is not Unicode: '\\ud800'"):
        states.write_slice()


# ── keys ──────────────────────────────────────────────────────────────────────────────────────────


def only_value(folder, **options):
    folder.mkdir()
    backend = open_heap(folder, groups=GROUPS, max_parallelism=G, options={})
    spec = states()["total"].spec()
    return KeyedStates(backend, [spec], groups=GROUPS, max_parallelism=G, capacity=100, **options)


@pytest.mark.parametrize("mixed", [[1, True], [1, 1.0], ["a", b"a"], [(1,), "a"]])
def test_keys_of_two_types_are_refused_not_counted_as_one(tmp_path, mixed):
    states = only_value(tmp_path / "a")
    with pytest.raises(Rejected, match="the keys of this operator are"):
        states.bind(mixed)
    states = only_value(tmp_path / "b")
    states.bind(mixed[:1])
    with pytest.raises(Rejected, match="the keys of this operator are"):
        states.bind(mixed[1:])


def test_keys_of_another_type_than_the_declared_one_are_refused(tmp_path):
    states = only_value(tmp_path / "a", key_type=tuple[str, int])
    states.bind([("a", 1)])
    for key in (("a", True), ("a", "1"), "a", ("a", 1, 2)):
        with pytest.raises(Rejected, match=r"the keys of this operator are tuple\[str, int\]"):
            states.bind([key])


def test_keys_that_are_equal_to_a_dict_have_state_of_their_own(tmp_path):
    states = only_value(tmp_path / "a", key_type=tuple[int | bool | float])
    for value, key in enumerate([(1,), (True,), (1.0,)], start=1):
        (lookup,) = states.bind([key])
        states.cells[0][lookup].value = value
    found = [states.cells[0][at].value for at in states.bind([(1,), (True,), (1.0,)])]
    assert found == [1, 2, 3]


def test_after_a_restore_keys_keep_the_type_that_was_observed(tmp_path):
    states = only_value(tmp_path / "a", key_schema="int")
    with pytest.raises(Rejected, match="the keys of this operator are int"):
        states.bind(["1"])
    states = only_value(tmp_path / "b", key_schema="int")
    states.bind([1])
    assert states.key_schema == "int"


@pytest.mark.parametrize("value", [False, 0.0, -0.0, True, 0])
def test_a_value_that_only_equals_the_default_is_kept_as_what_it_is(tmp_path, value):
    state = ValueState(int | bool | float, default=0)
    state.name = "either"
    (tmp_path / "db").mkdir()
    backend = open_heap(tmp_path / "db", groups=GROUPS, max_parallelism=G, options={})
    made = KeyedStates(backend, [state.spec()], groups=GROUPS, max_parallelism=G, capacity=0)
    (lookup,) = made.bind(["k"])
    made.cells[0][lookup].value = value
    made.trim()
    (lookup,) = made.bind(["k"])
    assert repr(made.cells[0][lookup].value) == repr(value)
