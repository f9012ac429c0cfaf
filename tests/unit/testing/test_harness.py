"""What an author's test of one function can do and see."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest

import penstock
from penstock import Rejected, aggregates, testing

BACKENDS = ["heap", "rocksdb"]


@dataclass
class Cart:
    items: list[str]


class Shop(penstock.KeyedFunction):
    """Does to its state what the record says."""

    total = penstock.ValueState(int, default=0)
    cart = penstock.ValueState(list[str])
    carts = penstock.ListState(Cart)
    by_name = penstock.MapState(str, list[int])
    longest = penstock.ReducingState(list[int], lambda a, b: max(a, b, key=len))
    mean = penstock.AggregatingState(aggregates.mean(float))
    seen = penstock.SideOutput(str)

    def process(self, record, ctx):
        return record(self, ctx)


def do(act):
    """A record that is an action."""
    return lambda shop, ctx: act(shop) and None


# ── records and outputs ───────────────────────────────────────────────────────────────────────────


class CountWords(penstock.KeyedFunction):
    count = penstock.ValueState(int, default=0)
    again = penstock.SideOutput(str)

    def process(self, word, ctx):
        self.count.value += 1
        if self.count.value > 1:
            self.again.emit(word)
        yield word, self.count.value


@pytest.mark.parametrize("backend", BACKENDS)
def test_each_key_has_its_own_state_and_a_crash_does_not_lose_it(backend):
    with testing.harness(CountWords(), backend=backend) as h:
        assert h.send("to", key="to") == [("to", 1)]
        assert h.send("be", key="be") == [("be", 1)]
        h.restart()
        assert h.send("to", key="to") == [("to", 2)]
        h.restart(backend="rocksdb" if backend == "heap" else "heap")
        assert h.send("to", key="to") == [("to", 3)]
        assert h.state(CountWords.count, key="to").value == 3
        assert h.side(CountWords.again) == ["to", "to"]
        assert h.side(CountWords.again) == []


def test_state_can_be_set_up_and_looked_at():
    with testing.harness(CountWords()) as h:
        h.state(CountWords.count, key="to").value = 41
        assert h.send("to", key="to") == [("to", 42)]
        assert h.state(CountWords.count, key="be").value == 0
        assert h.keys() == {"to"}
        h.state(CountWords.count, key="to").clear()
        assert h.keys() == set()


def test_keys_that_a_dict_takes_for_one_are_told_apart():
    with testing.harness(CountWords()) as h:
        h.send("x", key=(1,))
        h.send("x", key=(True,))
        h.restart()
        assert h.state(CountWords.count, key=(1,)).value == 1
        assert h.state(CountWords.count, key=(True,)).value == 1


def test_what_is_not_declared_is_refused():
    with testing.harness(CountWords()) as h:
        with pytest.raises(Rejected, match="CountWords declares no state cart") as caught:
            h.state(Shop.cart, key="k")
        assert caught.value.fix == "declared are: count"
        with pytest.raises(Rejected, match="declares no side output seen"):
            h.side(Shop.seen)


# ── changed but not written back ──────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("name", "act"),
    [
        ("cart", lambda s: s.cart.value.append("x")),
        ("cart", lambda s: (held := s.cart.value, held.append("x"))),
        ("cart", lambda s: (held := ["a"], setattr(s.cart, "value", held), held.append("b"))),
        ("carts", lambda s: next(iter(s.carts)).items.append("x")),
        ("carts", lambda s: (held := Cart([]), s.carts.append(held), held.items.append("x"))),
        ("by_name", lambda s: s.by_name["a"].append(5)),
        ("by_name", lambda s: s.by_name.get("a").append(5)),
        ("by_name", lambda s: [v.append(5) for v in s.by_name.values()]),
        ("by_name", lambda s: [v.append(5) for _, v in s.by_name.items()]),
        ("longest", lambda s: s.longest.value.append(5)),
    ],
)
def test_what_was_read_and_changed_but_not_written_back_is_an_error_that_says_so(name, act):
    with testing.harness(Shop()) as h:
        h.state(Shop.cart, key="k").value = ["a"]
        h.state(Shop.carts, key="k").append(Cart(["a"]))
        h.state(Shop.by_name, key="k")["a"] = [1]
        h.state(Shop.longest, key="k").add([1])
        with pytest.raises(Rejected, match=f"{name} was changed but not written back") as caught:
            h.send(do(act), key="k")
        assert caught.value.where == "Shop.process, key 'k'"


@pytest.mark.parametrize(
    "act",
    [
        lambda s: (held := s.cart.value, held.append("x"), setattr(s.cart, "value", held)),
        lambda s: (held := s.cart.value, held.append("x"), setattr(s.cart, "value", [*held])),
        lambda s: (held := s.cart.value, held.append("x"), s.cart.clear()),
        lambda s: (held := list(s.carts), held[0].items.append("x"), s.carts.replace(held)),
        lambda s: (held := s.by_name["a"], held.append(5), s.by_name.update({"a": held})),
        lambda s: (held := s.by_name["a"], held.append(5), s.by_name.pop("a")),
        lambda s: (held := s.longest.value, held.append(5), s.longest.add(held)),
        lambda s: s.cart.value == ["a"],
    ],
)
def test_what_is_written_back_or_thrown_away_is_no_error(act):
    with testing.harness(Shop()) as h:
        h.state(Shop.cart, key="k").value = ["a"]
        h.state(Shop.carts, key="k").append(Cart(["a"]))
        h.state(Shop.by_name, key="k")["a"] = [1]
        h.state(Shop.longest, key="k").add([1])
        h.send(do(act), key="k")


def test_values_go_through_their_serializer_at_once():
    with testing.harness(Shop()) as h:
        h.send(do(lambda s: s.mean.add(3)), key="k")
        h.send(do(lambda s: s.mean.add(4)), key="k")
        assert h.state(Shop.mean, key="k").value == 3.5
        with pytest.raises(
            Rejected, match=r"state total is declared int and was given 'x' \(str\)"
        ):
            h.send(do(lambda s: setattr(s.total, "value", "x")), key="k")


# ── the author's errors ───────────────────────────────────────────────────────────────────────────


def test_what_the_function_raises_comes_out_as_it_is_with_a_note():
    with testing.harness(Shop()) as h:
        with pytest.raises(ZeroDivisionError) as caught:
            h.send(lambda shop, ctx: 1 // 0, key="k")
        (note,) = caught.value.__notes__
        assert "operator  Shop (process, test_harness.py:" in note
        assert "key       'k'" in note


# ── time, life and what is not state ──────────────────────────────────────────────────────────────


class Clock(penstock.KeyedFunction):
    def process(self, record, ctx):
        return [ctx.now]


def test_the_clock_is_the_tests():
    start = datetime(2015, 5, 17, 12, tzinfo=UTC)
    with testing.harness(Clock(), start=start) as h:
        assert h.send("x", key="k") == [start]
        assert h.advance(timedelta(hours=1)) == []
        h.restart()
        assert h.send("x", key="k") == [start + timedelta(hours=1)] == [h.now]
        with pytest.raises(Rejected, match="time does not go back"):
            h.advance(timedelta(seconds=-1))
    with pytest.raises(Rejected, match="has no time zone"):
        testing.harness(Clock(), start=datetime(2015, 5, 17))  # noqa: DTZ001


class Forgetful(penstock.KeyedFunction):
    """Keeps something in an attribute that is no state."""

    def __init__(self, type_):
        self.last = penstock.ValueState(type_)
        self.memory = []
        self.events = []

    def open(self, ctx):
        self.events.append("open")

    def process(self, record, ctx):
        self.memory.append(record)
        self.last.value = record
        return [list(self.memory), list(self.events)]


def test_what_is_kept_beside_the_state_is_gone_after_a_restart():
    with testing.harness(Forgetful(str)) as h:
        assert h.send("a", key="k") == [["a"], ["open"]]
        assert h.send("b", key="k") == [["a", "b"], ["open"]]
        h.restart()
        assert h.send("c", key="k") == [["c"], ["open"]]


class Buffered(penstock.Function):
    kept = penstock.SplitListState(str)

    def __init__(self):
        self.buffer = []

    def initialize_state(self, ctx):
        self.buffer = list(self.kept)

    def process(self, record, ctx):
        self.buffer.append(record)
        return [len(self.buffer)]

    def snapshot_state(self, ctx):
        self.kept.replace(self.buffer)


def test_a_function_without_keys_keeps_its_operator_state():
    with testing.harness(Buffered()) as h:
        assert h.send("a", key=None) == [1]
        h.restart()
        assert h.send("b", key=None) == [2]
        assert list(h.state(Buffered.kept, key=None)) == ["a"]
        assert h.keys() == set()
