"""Elements as bytes: exactly what went in comes out."""

import enum
import math
import pickle
import threading
import uuid
import zlib
from collections import OrderedDict
from dataclasses import dataclass, field, fields, is_dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from typing import Any, Generic, NamedTuple, TypeVar
from zoneinfo import ZoneInfo

import msgspec
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.core.errors import Rejected
from penstock.core.ids import CheckpointId
from penstock.core.records import END_OF_INPUT, Barrier, Batch, Watermark
from penstock.network import codec
from penstock.network.shapes import shape_of

T = TypeVar("T")


class Colour(enum.Enum):
    RED = 1
    BLUE = "b"


class Level(enum.IntEnum):
    LOW = 1


class Point(NamedTuple):
    x: int
    y: float | None = None


@dataclass
class Plain:
    name: str
    n: int = 0


@dataclass(frozen=True, slots=True)
class Slotted:
    name: str
    at: datetime
    inner: Plain | None = None


@dataclass
class Derived(Plain):
    more: list[int] = field(default_factory=list)
    seen: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.seen += 1


@dataclass
class Boxed(Generic[T]):
    item: T


@dataclass(slots=True)
class SlottedChild(Plain):
    extra: int = 0


class Slots:
    __slots__ = ("hidden",)


@dataclass(slots=True)
class HidesASlot(Slots):
    shown: int


@dataclass
class KeepsASlot(Slots):
    shown: int


@dataclass
class Reduced:
    a: int

    def __reduce__(self) -> tuple[Any, ...]:
        return Reduced, (self.a + 1,)


@dataclass
class Bag(dict[str, int]):
    a: int


def bag() -> Bag:
    made = Bag(1)
    made["more"] = 2
    return made


@dataclass(frozen=True)
class Frozen:
    a: int
    b: str = "x"


class Outer:
    @dataclass(frozen=True)
    class Inner:
        a: int


class Order(pydantic.BaseModel):
    customer: str
    amount: Decimal
    tags: list[str] = []


class Strict(pydantic.BaseModel, frozen=True, validate_assignment=True):
    inner: Order
    n: int = 0


class Open(pydantic.BaseModel, extra="allow"):
    a: int


class Private(pydantic.BaseModel):
    a: int
    _seen: int = 0


class Root(pydantic.RootModel[list[int]]):
    pass


class Custom(pydantic.BaseModel):
    a: int

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__()


def private(seen: int) -> Private:
    made = Private(a=1)
    made._seen = seen
    return made


class Text(str):
    pass


def same(left: Any, right: Any) -> bool:
    """Equal, and of the same types all the way down; a NaN is a NaN."""
    if type(left) is not type(right):
        return False
    if isinstance(left, float) and math.isnan(left):
        return math.isnan(right)
    if isinstance(left, float):
        return left == right and math.copysign(1, left) == math.copysign(1, right)
    if isinstance(left, Decimal):
        return left.as_tuple() == right.as_tuple()
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict):
        return same(list(left), list(right)) and same(list(left.values()), list(right.values()))
    if isinstance(left, datetime):
        return (left, repr(left.tzinfo), left.fold) == (right, repr(right.tzinfo), right.fold)
    if is_dataclass(left) and hasattr(type(left), "__slots__"):
        return all(same(getattr(left, f.name), getattr(right, f.name)) for f in fields(left))
    if isinstance(left, pydantic.BaseModel):
        return same(left.__getstate__(), right.__getstate__())
    if hasattr(left, "__dict__") and not isinstance(left, enum.Enum | type):
        return same(vars(left), vars(right))
    return bool(left == right)


def assert_survives(values: list[Any]) -> None:
    out = codec.decode(codec.encode(Batch(values)))
    assert isinstance(out, Batch)
    assert type(out.values) is list
    assert same(values, out.values), (values, out.values)


NOON = datetime(2024, 5, 6, 12, 0, 0, 123456)  # noqa: DTZ001
COLUMNS: dict[str, list[Any]] = {
    "bool, int and float stay apart": [True, 1, 1.0, False, 0, -0.0, None],
    "ints beyond 64 bits": [2**63 - 1, -(2**63), 2**64 - 1, 2**64, -(2**63) - 1, 10**40],
    "big ints inside of tuples": [("a", 1), ("b", 2**70)],
    "floats": [0.1, math.inf, -math.inf, math.nan, 5e-324],
    "text": ["", "é", "\0", "😀"],
    "text with lone surrogates": ["\ud800", "b"],
    "text with lone surrogates in pairs": [("\udfff", 1)],
    "bytes": [b"", b"\0\xff"],
    "bytes and text": [b"a", "a"],
    "tuples": [("a", 1), ("b", 2)],
    "tuples of one": [("a",), ("b",)],
    "empty tuples": [(), ()],
    "tuples of different lengths": [(), (1,), (1, 2)],
    "lists": [[1], [], [2, 3]],
    "empty lists": [[], []],
    "lists and tuples": [[1], (1,)],
    "nested": [("a", (1, [2, (3, {"k": (4,)})])), ("b", (1, [2, (3, {"k": (5,)})]))],
    "dicts of one shape": [{"a": 1, "b": None}, {"a": 2, "b": "x"}],
    "dicts in another order": [{"a": 1, "b": 2}, {"b": 2, "a": 1}],
    "empty dicts": [{}, {}],
    "dicts with keys that are equal but not the same": [{1: "a"}, {True: "a"}, {1.0: "a"}],
    "dicts with text keys of another class": [{"a": 1}, {Text("a"): 1}],
    "dicts with tuple keys": [{("a", 1): 1, ("b", 2): 2}],
    "decimals": [Decimal("1.10"), Decimal("-0"), Decimal("NaN"), Decimal("1E+30")],
    "optional decimals": [Decimal(1), None, Decimal(2), 3],
    "dates": [date(1, 1, 1), date(9999, 12, 31)],
    "naive datetimes": [NOON, datetime.min, datetime.max],  # noqa: DTZ901
    "datetimes in UTC": [NOON.replace(tzinfo=UTC)],
    "datetimes in another zone": [NOON.replace(tzinfo=ZoneInfo("Europe/Berlin"))],
    "datetimes at an offset": [NOON.replace(tzinfo=timezone(timedelta(hours=2), "here"))],
    "folded datetimes": [NOON.replace(fold=1)],
    "times and durations": [time(1, 2, 3), timedelta(days=-1, microseconds=1)],
    "uuids": [uuid.UUID(int=7)],
    "enums": [Colour.RED, Colour.BLUE, Colour.RED],
    "int enums": [Level.LOW, 1],
    "subclasses of text": [Text("a"), "a"],
    "sets": [{1, 2}, frozenset({3})],
    "bytearrays": [bytearray(b"a")],
    "complex and fractions": [1j, Fraction(1, 3)],
    "ordered dicts": [OrderedDict(a=1)],
    "named tuples": [Point(1, 2.0), Point(2)],
    "named tuples and tuples": [Point(1, 2.0), (1, 2.0)],
    "dataclasses": [Plain("a"), Plain("b", 2)],
    "slotted frozen dataclasses": [Slotted("a", NOON), Slotted("b", NOON, Plain("c"))],
    "frozen dataclasses": [Frozen(1), Frozen(2, "y")],
    "lists of scalars": [[1, True, 1.0], [], ["a", None, b"b"]],
    "lists of big ints": [[2**70], [1]],
    "dicts of big ints": [{"a": 2**70}, {"a": 1}],
    "dicts of lone surrogates": [{"\ud800": 1}],
    "dicts of tuples": [{"a": (1,), "b": 1}, {"a": (2,), "b": 2}],
    "dataclasses that are dicts": [bag(), bag()],
    "derived dataclasses": [Derived("a", 1, [1]), Derived("b")],
    "generic dataclasses": [Boxed(1), Boxed("a")],
    "dataclasses with and without slots": [SlottedChild("a", 1, 2)],
    "nested classes": [Outer.Inner(1)],
    "pydantic models": [Order(customer="a", amount=Decimal("1.0")), Order(customer="b", amount=1)],
    "frozen pydantic models": [
        Strict(inner=Order(customer="a", amount=1)),
        Strict.model_construct(n=1),
    ],
    "pydantic models that were not checked": [Order.model_construct(customer=5, amount="x")],
    "pydantic models with extra attributes": [Open(a=1, b=2), Open(a=1)],
    "pydantic models with private attributes": [private(5), private(6)],
    "pydantic root models": [Root([1]), Root([])],
    "pydantic models with a state of their own": [Custom(a=1)],
    "classes": [int, Plain],
    "many types": [1, "a", b"a", 1.0, None, (1,), [1], {"a": 1}, Decimal(1), Colour.RED, {1}, NOON],
}


@pytest.mark.parametrize("name", COLUMNS)
def test_exactly_what_went_in_comes_out(name: str):
    assert_survives(COLUMNS[name])
    assert_survives(COLUMNS[name][:1])
    assert_survives([(value, 1) for value in COLUMNS[name]])
    assert_survives([[value] for value in COLUMNS[name]])


scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(categories=None))
    | st.binary()
    | st.decimals()
    | st.datetimes(timezones=st.none() | st.just(UTC))
    | st.dates()
    | st.sampled_from(Colour)
)
records = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.tuples(inner)
        | st.dictionaries(st.text(max_size=3) | st.integers() | st.booleans(), inner, max_size=3)
        | st.builds(Plain, inner, inner)
        | st.builds(Slotted, inner, inner)
        | st.builds(Point, inner, inner)
    ),
    max_leaves=6,
)


@given(st.lists(records, min_size=1, max_size=6))
@settings(max_examples=300, deadline=None)
def test_any_records_survive(values: list[Any]):
    assert_survives(values)


@given(st.data())
@settings(max_examples=50, deadline=None)
def test_keys_and_timestamps_travel_with_their_records(data: st.DataObject):
    values = data.draw(st.lists(st.tuples(st.text(), st.integers()), min_size=1, max_size=5))
    times = [data.draw(st.integers(-(2**63), 2**63 - 1)) for _ in values]
    batch = Batch(values, [key for key, _ in values], times)
    assert codec.decode(codec.encode(batch)) == batch
    without_keys = Batch(values, None, times)
    assert codec.decode(codec.encode(without_keys)) == without_keys


@pytest.mark.parametrize(
    "element", [Watermark(-5), Watermark(2**62), Barrier(CheckpointId(7)), END_OF_INPUT]
)
def test_control_elements_are_a_few_bytes(element: Any):
    data = codec.encode(element)
    assert len(data) <= 12
    assert codec.decode(data) == element


def test_deep_nesting_survives():
    value: Any = 1
    for _ in range(300):
        value = (value,)
    assert_survives([value, value])


def test_dataclasses_come_back_without_a_call_of_their_init():
    order = Derived("a")
    order.seen = 41
    assert_survives([order])


def test_an_instance_with_more_than_its_fields_keeps_the_rest():
    plain = Plain("a")
    plain.cached = 5  # type: ignore[attr-defined]
    assert_survives([plain, Plain("b")])


def test_slots_that_are_no_fields_are_kept():
    keeps = KeepsASlot(1)
    keeps.hidden = 7  # type: ignore[attr-defined]
    out = codec.decode(codec.encode(Batch([keeps])))
    assert isinstance(out, Batch)
    assert (out.values[0].shown, out.values[0].hidden) == (1, 7)


def test_a_class_that_pickles_in_its_own_way_does_so():
    out = codec.decode(codec.encode(Batch([Reduced(1)])))
    assert out == Batch([Reduced(2)])
    assert shape_of(Reduced) is None
    assert shape_of(HidesASlot) is None
    assert shape_of(Custom) is None


def test_common_classes_have_a_shape():
    kinds = [Point, Plain, Slotted, Derived, Boxed, Frozen, Outer.Inner, Order, Strict]
    assert all(shape_of(kind) is not None for kind in kinds)


def test_what_cannot_travel_is_rejected_with_a_sentence():
    @dataclass
    class Local:
        lock: Any

    for value in (Local(1), threading.Lock(), lambda: 1):
        with pytest.raises(Rejected, match="cannot travel between workers"):
            codec.encode(Batch([value]))


@given(st.binary(max_size=200))
@settings(max_examples=300, deadline=None)
def test_garbage_is_a_value_error(data: bytes):
    try:
        codec.decode(data)
    except ValueError:
        return


wire = st.recursive(
    st.integers(-2, 12) | st.none() | st.text(max_size=3) | st.binary(max_size=3) | st.booleans(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.booleans(), inner, max_size=2),
    max_leaves=12,
)


@given(wire)
@settings(max_examples=500, deadline=None)
def test_well_formed_msgpack_that_is_no_element_is_a_value_error(value: Any):
    for data in (value, [0, value, None, None], [0, [0, [1]], value, None]):
        try:
            codec.decode(msgspec.msgpack.encode(data))
        except ValueError:
            continue


@given(st.sampled_from(sorted(COLUMNS)), st.data())
@settings(max_examples=500, deadline=None)
def test_damaged_bytes_are_a_value_error_or_another_element(name: str, data: st.DataObject):
    good = bytearray(codec.encode(Batch(COLUMNS[name])))
    for _ in range(data.draw(st.integers(1, 3))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    try:
        codec.decode(bytes(good[: data.draw(st.integers(0, len(good)))]) or bytes(good))
    except ValueError:
        return


def test_columns_in_columns_without_end_are_a_value_error():
    deep = b"\x94\x00" + b"\x92\x01\x91" * 100_000 + b"\x92\x00\x91\x01" + b"\xc0\xc0"
    with pytest.raises(ValueError):
        codec.decode(deep)


@pytest.mark.parametrize(
    "value",
    [
        [0, [2, "builtins:int", [[0, [1]]]], None, None],
        [0, [2, "builtins:len", [[0, [1]]]], None, None],
        [0, [2, f"{__name__}:Order", [[0, ["a"]], [0, [1]], [0, [[]]]]], None, None],
        [0, [2, f"{__name__}:Order", [[0, ["a"]], [0, [1]], [0, [[]]], [0, [0]]]], None, None],
        [
            0,
            [2, f"{__name__}:Order", [[0, ["a"]], [0, [1]], [0, [1]], [0, [5]], [0, [[]]]]],
            None,
            None,
        ],
        [0, [2, f"{__name__}:Order", []], None, None],
        [0, [2, "no.such.module:C", [[0, [1]]]], None, None],
        [0, [2, "", [[0, [1]]]], None, None],
        [0, [2, f"{__name__}:Plain", [[0, [1]]]], None, None],
        [0, [2, f"{__name__}:Plain", [[0, [1]], [0, [1, 2]]]], None, None],
        [0, [3, True, [2, -1], [0, [1]]], None, None],
        [0, [3, True, [5], [0, [1]]], None, None],
        [0, [5, [1], [3, False, [0], [0, []]], [0, [1]]], None, None],
        [0, [9, [0, 0], [[0, [1]]]], None, None],
        [0, [9, [3], [[0, [1]]]], None, None],
        [0, [6, ["x"]], None, None],
        [0, [7, [0]], None, None],
        [0, [10, 5, pickle.dumps([1])], None, None],
        [0, [10, zlib.crc32(b"x"), b"x"], None, None],
        [0, [10, zlib.crc32(pickle.dumps(5)), pickle.dumps(5)], None, None],
        [0, [0, [1]], [0, []], None],
        [0, [0, [1]], None, [1, 2]],
        [0, [0, []], None, None],
    ],
)
def test_columns_that_contradict_themselves_are_a_value_error(value: Any):
    with pytest.raises(ValueError):
        codec.decode(msgspec.msgpack.encode(value))
