"""Declared types of state: what is accepted is read back equal, what cannot be is refused at once."""

import collections.abc
import dataclasses
import enum
import math
import typing
import uuid
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any, Generic, Literal, NamedTuple, NotRequired, TypedDict

import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.errors import Corrupt, Rejected
from penstock.state.schemas import readable
from penstock.state.serializers import incompatibility, serializer_for

NOW = datetime(2026, 2, 3, 4, 5, 6, 789, tzinfo=UTC)
T = typing.TypeVar("T")


class Color(enum.Enum):
    RED = 1
    BLUE = 2


class Level(enum.StrEnum):
    LOW = "low"
    HIGH = "high"


@dataclass(frozen=True)
class Request:
    host: str
    at: datetime
    size: int = 0


@dataclass
class Cart:
    owner: str
    items: list[Request] = field(default_factory=list)


@dataclass
class Tree:
    value: int
    children: "list[Tree]" = field(default_factory=list)


@dataclass(frozen=True)
class Box(Generic[T]):
    content: T


class Point(NamedTuple):
    x: int
    y: float = 0.0


class Options(TypedDict):
    name: str
    retries: NotRequired[int]


class Created(msgspec.Struct, frozen=True, tag="created"):
    at: datetime


class Deleted(msgspec.Struct, frozen=True, tag="deleted"):
    why: str | None = None


class Packed(msgspec.Struct, array_like=True):
    a: int
    b: str = ""


class Order(pydantic.BaseModel):
    id: uuid.UUID
    total: Decimal
    lines: list[Point] = []
    request: Request | None = None


class FrozenOrder(pydantic.BaseModel, frozen=True):
    id: int


UserId = typing.NewType("UserId", int)
ORDER = Order(id=uuid.UUID(int=7), total=Decimal("1.10"), lines=[Point(1, 2.5)])

M = "tests.unit.state.test_serializers"

# type, a value, its schema (… stands for this module), whether values can never change
TYPES: list[tuple[Any, Any, str, bool]] = [
    (int, 5, "int", True),
    (int, 2**64, "int", True),
    (int, -(2**63) - 1, "int", True),
    (float, 1.5, "float", True),
    (float, math.inf, "float", True),
    (str, "größe\x00", "str", True),
    (bytes, b"\x00\xff", "bytes", True),
    (bool, True, "bool", True),
    (None, None, "None", True),
    (date, date(2026, 1, 2), "date", True),
    (datetime, NOW, "datetime", True),
    (datetime, NOW.replace(tzinfo=None), "datetime", True),
    (datetime, NOW.astimezone(timezone(timedelta(hours=5))), "datetime", True),
    (time, time(1, 2, 3, 4), "time", True),
    (timedelta, timedelta(days=-1, microseconds=1), "timedelta", True),
    (Decimal, Decimal("1.10"), "Decimal", True),
    (uuid.UUID, uuid.UUID(int=1 << 100), "UUID", True),
    (Color, Color.BLUE, "….Color<RED=1, BLUE=2>", True),
    (Level, Level.LOW, '….Level<LOW="low", HIGH="high">', True),
    (Literal["a", 1, None], 1, 'Literal["a", 1, None]', True),  # noqa: PYI061
    (int | None, None, "int | None", True),
    (typing.Optional[str], "x", "str | None", True),  # noqa: UP045
    (int | str, 2**70, "int | str", True),
    (int | float, 3, "int | float", True),
    (int | float, 3.0, "int | float", True),
    (list[float], [1.5, 2.5], "list[float]", False),
    (list[int], [1, 2**80], "list[int]", False),
    (tuple[int, str], (1, "a"), "tuple[int, str]", True),
    (tuple[int, ...], (1, 2), "tuple[int, ...]", True),
    (tuple[()], (), "tuple[()]", True),
    (tuple[list[int], ...], ([1],), "tuple[list[int], ...]", False),
    (set[str], {"a", "b"}, "set[str]", False),
    (frozenset[int], frozenset({1, 2**65}), "frozenset[int]", True),
    (dict[str, int], {"a": 1}, "dict[str, int]", False),
    (dict[tuple[int, int], str], {(2**70, 1): "a"}, "dict[tuple[int, int], str]", False),
    (dict[Request, int], {Request("a", NOW): 1}, "dict[….Request{…}, int]", False),
    (collections.abc.Sequence[int], [1], "list[int]", False),
    (collections.abc.Mapping[str, bool], {"a": True}, "dict[str, bool]", False),
    (UserId, 4, "int", True),
    (Request, Request("a", NOW, 2**66), "….Request{host: str, at: datetime, size?: int}", True),
    (Cart, Cart("a", [Request("a", NOW)]), "….Cart{owner: str, items?: list[….Request{…}]}", False),
    (Tree, Tree(1, [Tree(2**70)]), "….Tree{value: int, children?: list[….Tree]}", False),
    (Box[int], Box(1), "….Box[int]{content: int}", True),
    (Box[list[int]], Box([1]), "….Box[list[int]]{content: list[int]}", False),
    (Point, Point(1, 2.0), "….Point(x: int, y?: float)", True),
    (Options, {"name": "a"}, "….Options{name: str, retries?: int}", False),
    (Packed, Packed(2**64, "b"), "….Packed(a: int, b?: str)", False),
    (
        Created | Deleted,
        Deleted("x"),
        (
            '….Created{type: Literal["created"], at: datetime} | '
            '….Deleted{type: Literal["deleted"], why?: str | None}'
        ),
        True,
    ),
    (FrozenOrder, FrozenOrder(id=1), "….FrozenOrder{id: int}", True),
    (Order, ORDER, "….Order{…}", False),
    (list[Order | None], [ORDER, None], "list[….Order{…} | None]", False),
    (Order, ORDER.model_copy(update={"lines": [Point(2**90)]}), "….Order{…}", False),
]
INNER = {
    "….Request{…}": "….Request{host: str, at: datetime, size?: int}",
    "….Order{…}": "….Order{id: UUID, total: Decimal, lines?: list[….Point(x: int, y?: float)], "
    "request?: ….Request{…} | None}",
}


def full(schema):
    while any(short in schema for short in INNER):
        for short, long in INNER.items():
            schema = schema.replace(short, long)
    return schema.replace("….", f"{M}.")


@pytest.mark.parametrize(("type_", "value", "schema", "immutable"), TYPES)
def test_a_value_comes_back_equal_and_of_its_type(type_, value, schema, immutable):
    serializer = serializer_for(type_)
    assert serializer.accepts(value)
    again = serializer.decode(serializer.encode(value))
    assert again == value
    assert again.__class__ is value.__class__
    assert serializer.name == "msgpack/1"
    assert serializer.schema == full(schema)
    assert serializer.immutable is immutable
    if serializer.exact_class is not None:
        assert value.__class__ is serializer.exact_class


@pytest.mark.parametrize(("type_", "value", "schema", "immutable"), TYPES)
def test_every_schema_is_read_by_its_own_type(type_, value, schema, immutable):
    serializer = serializer_for(type_)
    assert incompatibility(serializer, name=serializer.name, schema=serializer.schema) is None
    assert readable(serializer.schema, serializer.schema) is None
    assert readable(serializer.schema, f"{serializer.schema} | None") is None


@dataclass
class SubRequest(Cart):
    pass


@pytest.mark.parametrize(
    ("type_", "value"),
    [
        (int, True),
        (int, 1.0),
        (float, True),
        (float, 2**53 + 1),
        (str, b"a"),
        (bool, 1),
        (date, NOW),
        (Color, 1),
        (Literal["a", 1], True),
        (Literal["a", 1], "b"),
        (int | None, "x"),
        (list[int], (1,)),
        (list[int], [1, True]),
        (list[int], [1, None]),
        (tuple[int, str], (1, "a", 2)),
        (tuple[int, ...], [1]),
        (set[int], frozenset({1})),
        (dict[str, int], {1: 1}),
        (dict[str, int], {"a": "b"}),
        (Request, Request("a", "yesterday")),  # type: ignore[arg-type]
        (Cart, SubRequest("a")),
        (Cart, Cart("a", [Cart("b")])),  # type: ignore[list-item]
        (Tree, Tree(1, [Tree("x")])),  # type: ignore[arg-type]
        (Box[int], Box("x")),
        (Point, (1, 2.0)),
        (Options, {"retries": 1}),
        (Options, {"name": "a", "more": 1}),
        (Order, Order.model_construct(id=1, total=Decimal(1))),
        (dict[Request, int], {Request("a", NOW, 2**70): 1}),
    ],
)
def test_a_value_of_another_type_is_not_accepted(type_, value):
    assert not serializer_for(type_).accepts(value)


def test_an_int_given_where_a_float_is_declared_is_read_as_a_float():
    serializer = serializer_for(float)
    assert serializer.accepts(3)
    assert serializer.decode(serializer.encode(3)).__class__ is float


@dataclass
class Computed:
    a: int
    b: int = field(init=False, default=0)


@dataclass
class Initial:
    a: int
    b: dataclasses.InitVar[int] = 0


class Open(pydantic.BaseModel, extra="allow"):
    a: int


class Mixed(enum.Enum):
    A = 1
    B = "b"


class Bits(enum.Flag):
    A = 1


Untyped = collections.namedtuple("Untyped", "a b")  # noqa: PYI024


@pytest.mark.parametrize(
    ("type_", "sentence"),
    [
        (list, "list does not say what is in it"),
        (typing.List, "list does not say what is in it"),  # noqa: UP006
        (dict, "dict does not say what is in it"),
        (tuple, "tuple does not say what is in it"),
        (Any, "Any says nothing about what is stored"),
        (list[Any], "Any says nothing about what is stored"),
        (object, "object says nothing about what is stored"),
        (complex, "values of complex cannot be stored"),
        (bytearray, "values of bytearray cannot be stored"),
        (collections.abc.Callable[[int], int], "cannot be stored"),
        (collections.abc.Iterator[int], "cannot be stored"),
        ("Request", "does not say what is stored"),
        (T, "the type parameter ~T stands for no type"),
        (Box, "the type parameter ~T stands for no type"),
        (list[int] | set[int], "cannot be told apart"),
        (date | str, "cannot be told apart"),
        (Request | Cart, "cannot be told apart"),
        (Order | Request, "cannot be told apart"),
        (Literal[True], "contains True"),
        (Mixed, "not an enum of only str or only int values"),
        (Bits, "not an enum of only str or only int values"),
        (dict[Cart, int], "cannot be the key of a dict"),
        (set[list[int]], "cannot be the key of a dict or an element of a set"),
        (dict[FrozenOrder, int], "cannot be the key of a dict"),
        (dict[Request, Order], "records as keys of a dict beside pydantic models"),
        (Computed, "field 'b' of .*Computed is not set by its constructor"),
        (Initial, "field 'b' of .*Initial is an InitVar"),
        (Open, "takes extra fields"),
        (Untyped, "does not say the types of its fields"),
        (typing.Annotated[int, msgspec.Meta(gt=0)], "has constraints"),
    ],
)
def test_a_type_that_cannot_be_stored_exactly_is_refused_with_advice(type_, sentence):
    with pytest.raises(Rejected, match=sentence) as refused:
        serializer_for(type_, where="cart.items")
    assert refused.value.where == "cart.items"
    assert refused.value.fix


# old type, new type, None or why not
CHANGES: list[tuple[str, str, str | None]] = [
    ("int", "float", None),
    ("int", "int | None", None),
    ("list[int]", "list[float] | None", None),
    ("int | str", "str | None | float", None),
    ('Literal["a", 1]', "str | int", None),
    ('Literal["a"]', 'Literal["a", "b"]', None),
    ("m.A{a: int}", "n.B{a: float, b?: str}", None),
    ("m.A{a: int, b: str}", "m.A{b: str, a: int}", None),
    ("m.A{a: int}", "m.A{a?: int}", None),
    ("m.P(a: int)", "m.P(a: int, b?: str)", None),
    ("m.E<A=1>", "m.E<B=2, A=1>", None),
    ("m.T{c?: list[m.T]}", "m.T{c?: list[m.T], d?: int}", None),
    ("float", "int", "it was float and is int"),
    ("int | None", "int", "it was int | None and is int"),
    ("int | str", "int", "it was int | str and is int"),
    ("list[int]", "set[int]", "it was list and is set"),
    ("dict[str, int]", "dict[int, int]", "an item was str and is int"),
    ("list[list[int]]", "list[list[str]]", "an item of an item was int and is str"),
    ("tuple[int, str]", "tuple[int]", "it was tuple and is tuple"),
    ("m.A{a: int}", "m.A{a: int, b: str}", "field 'b' of m.A is new and has no default"),
    ("m.A{a: int, b: str}", "m.A{a: int}", "m.A has no field 'b' any more"),
    ("m.A{a?: int}", "m.A{a: int}", "field 'a' of m.A has lost its default"),
    ("m.A{a: int}", "m.A{a: str}", "field 'a' of m.A was int and is str"),
    ("m.P(a: int, b: int)", "m.P(b: int, a: int)", "field 'a' of m.P has moved"),
    ("m.P(a: int)", "m.P{a: int}", "it was m.P and is m.P"),
    ("m.E<A=1, B=2>", "m.E<A=1>", "it has lost or changed B=2"),
    ("m.E<A=1, B=2>", "m.E<A=2, B=1>", "it has lost or changed A=1, B=2"),
    ('Literal["a", "b"]', 'Literal["a"]', 'it was "b" and is "a"'),
    ('m.A{type: Literal["a"]}', 'm.A{type: Literal["b"]}', "field 'type' of m.A was \"a\""),
]


@pytest.mark.parametrize(("old", "new", "why"), CHANGES)
def test_a_changed_type_is_readable_or_says_why_not(old, new, why):
    problem = readable(old, new)
    if why is None:
        assert problem is None
    else:
        assert problem is not None
        assert problem.startswith(why)


@pytest.mark.parametrize("text", ["list[int", "m.A{a}", "int |", "int int", "m.A{a: int", "$"])
def test_what_is_no_schema_is_corrupt(text):
    with pytest.raises(Corrupt, match="not a schema"):
        readable(text, "int")


@dataclass
class Wider:
    host: str
    at: datetime | None
    size: float = 0
    extra: list[str] = field(default_factory=list)


@pytest.mark.parametrize(
    ("old", "new", "value", "expected"),
    [
        (int, float, 2**70, float(2**70)),
        (int, int | None, 2**70, 2**70),
        (list[int], list[float] | None, [1, 2**64], [1.0, float(2**64)]),
        (Literal["a"], str, "a", "a"),
        (Request, Wider, Request("a", NOW, 3), Wider("a", NOW, 3.0)),
        (Request, Wider, Request("a", NOW, 2**70), Wider("a", NOW, float(2**70))),
        (FrozenOrder, Order | None, None, None),
    ],
)
def test_readable_means_that_old_bytes_are_read(old, new, value, expected):
    before, after = serializer_for(old), serializer_for(new)
    if value is not None:
        assert incompatibility(after, name=before.name, schema=before.schema) is None
        assert after.decode(before.encode(value)) == expected


def test_an_incompatible_type_names_both_schemas_and_the_place():
    error = incompatibility(
        serializer_for(int), name="msgpack/1", schema="str", where="counts.total"
    )
    assert error is not None
    assert error.what == "state was written as str and cannot be read as int: it was str and is int"
    assert error.where == "counts.total"


class Reversed:
    name = "reversed"
    version = 2

    def encode(self, value):
        return value[::-1].encode()

    def decode(self, data, version):
        return data.decode() if version == 1 else data.decode()[::-1]


class ReversedBefore(Reversed):
    version = 1

    def encode(self, value):
        return value.encode()


def test_an_authors_serializer_reads_values_of_each_of_its_versions():
    before = serializer_for(str, custom=ReversedBefore())
    after = serializer_for(str, custom=Reversed())
    assert after.name == "reversed/2"
    assert after.decode(after.encode("abc")) == "abc"
    assert after.decode(before.encode("abc")) == "abc"
    assert incompatibility(after, name=before.name, schema=before.schema) is None
    newer = incompatibility(before, name=after.name, schema=after.schema)
    assert newer is not None
    assert "newer serializer reversed/2" in newer.what
    other = incompatibility(after, name="msgpack/1", schema="str")
    assert other is not None
    assert "msgpack/1" in other.what


@pytest.mark.parametrize("type_", [int, list[int], Request, Order])
@pytest.mark.parametrize("data", [b"", b"\xc1", b"\xc1\xa1x", b"\xa1x", b"\xc4"])
def test_damaged_bytes_are_corrupt(type_, data):
    with pytest.raises(Corrupt, match="stored bytes are not"):
        serializer_for(type_).decode(data)


def test_what_bytes_cannot_hold_is_refused_when_it_is_written():
    with pytest.raises(Rejected, match="cannot be written as list"):
        serializer_for(list[str]).encode(["\ud800"])


numbers = st.integers() | st.integers(-(2**70), 2**70)
texts = st.text(max_size=5)
moments = st.datetimes(timezones=st.just(UTC))
requests = st.builds(Request, texts, moments, numbers)
trees = st.recursive(
    st.builds(Tree, numbers), lambda kids: st.builds(Tree, numbers, st.lists(kids, max_size=3))
)
orders = st.builds(
    Order,
    id=st.uuids(),
    total=st.decimals(allow_nan=False, allow_infinity=False),
    lines=st.lists(st.builds(Point, numbers, st.floats(allow_nan=False)), max_size=3),
    request=st.none() | requests,
)


@given(
    st.one_of(
        st.tuples(st.just(int), numbers),
        st.tuples(st.just(float), st.floats(allow_nan=False)),
        st.tuples(st.just(str), texts),
        st.tuples(st.just(int | str | None), numbers | texts | st.none()),
        st.tuples(st.just(timedelta), st.timedeltas()),
        st.tuples(st.just(date), st.dates()),
        st.tuples(st.just(datetime), st.datetimes()),
        st.tuples(st.just(dict[int, set[int]]), st.dictionaries(numbers, st.sets(numbers))),
        st.tuples(
            st.just(dict[tuple[str, int], list[float]]),
            st.dictionaries(st.tuples(texts, numbers), st.lists(st.floats(allow_nan=False))),
        ),
        st.tuples(st.just(Tree), trees),
        st.tuples(st.just(list[Order]), st.lists(orders, max_size=2)),
        st.tuples(st.just(Cart), st.builds(Cart, texts, st.lists(requests, max_size=3))),
    )
)
def test_whatever_is_accepted_comes_back_equal(pair):
    type_, value = pair
    serializer = serializer_for(type_)
    assert serializer.accepts(value)
    assert serializer.decode(serializer.encode(value)) == value


@given(st.frozensets(texts, max_size=8))
def test_equal_sets_have_equal_bytes_as_keys(value):
    serializer = serializer_for(frozenset[str])
    again = frozenset(sorted(value, reverse=True))
    assert serializer.encode(again) == serializer.encode(value)
