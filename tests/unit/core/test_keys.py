# ruff: noqa: DTZ001 – datetimes without a zone are among the subjects
import decimal
import enum
import math
import uuid
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from decimal import Decimal
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from penstock.core.errors import Corrupt, Rejected
from penstock.core.keys import decode_key, encode_key, key_length


class Color(enum.Enum):
    RED = 1
    GREEN = 2
    CRIMSON = 1  # noqa: PIE796 – an alias


class Number(enum.IntEnum):
    ONE = 1


class Access(enum.Flag):
    READ = 1
    WRITE = 2


@dataclass(frozen=True)
class Point:
    x: int
    y: int


@dataclass(frozen=True)
class Size:
    x: int
    y: int


@dataclass
class Thawed:
    x: int


class Pair(NamedTuple):
    a: object
    b: object


# Not the first and last year: an instant there may have no datetime in another zone.
timestamps = st.datetimes(
    datetime(2, 1, 1),
    datetime(9998, 12, 31),
    timezones=st.timezones() | st.just(UTC),
)
decimals = st.decimals(allow_nan=False, allow_infinity=False)
scalars = st.one_of(
    st.booleans(),
    st.integers(),
    st.integers(-(1 << 70), 1 << 70),
    st.floats(allow_nan=False),
    st.text(),
    st.text("\x00\x01ÿ", max_size=4),
    st.binary(),
    st.binary(max_size=3).map(lambda b: b.replace(b"a", b"\x00").replace(b"b", b"\xff")),
    st.dates(),
    timestamps,
    decimals,
    st.uuids(),
)
keys = st.recursive(scalars, lambda inner: st.lists(inner, max_size=4).map(tuple), max_leaves=8)


def same(a: object, b: object) -> bool:
    """Whether two keys are one: equal, and of one type all the way down."""
    if type(a) is not type(b):
        return False
    if isinstance(a, tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, datetime):  # compared as they are, Python looks at the clock's face in part
        return a.astimezone(UTC) == b.astimezone(UTC)
    return a == b


@given(keys)
def test_a_key_comes_back_from_its_bytes(key: object):
    assert same(decode_key(encode_key(key)), key)


@given(keys, keys)
def test_bytes_are_equal_exactly_when_the_keys_are(a: object, b: object):
    assert (encode_key(a) == encode_key(b)) == same(a, b)


@given(keys, keys)
@example("a", "a\x00")
@example(b"\x00", b"\x00\x01")
@example((), ((),))
@example(("a",), ("a", "b"))
@example(2**63, 2**71)
def test_no_key_is_a_prefix_of_another(a: object, b: object):
    one, other = encode_key(a), encode_key(b)
    assert one == other or not other.startswith(one)


@given(keys, st.binary(max_size=8), st.binary(max_size=8))
def test_a_key_knows_its_own_end(key: object, before: bytes, after: bytes):
    data = encode_key(key)
    assert key_length(before + data + after, len(before)) == len(before) + len(data)
    assert same(decode_key(before + data + after, len(before)), key)


edges = [0, 1, -1, 255, 256, 2**63 - 1, 2**63, -(2**63), -(2**63) - 1, 2**64, -(2**64), 2**800]


@pytest.mark.parametrize(
    "values",
    [
        st.integers() | st.sampled_from(edges) | st.integers(-(1 << 200), 1 << 200),
        st.text() | st.text("\x00\x01\x02", max_size=4),
        st.binary() | st.binary(max_size=3).map(lambda b: b.replace(b"a", b"\x00")),
        st.floats(allow_nan=False),
        timestamps.map(lambda at: at.astimezone(UTC)),
        st.dates(),
        st.booleans(),
        st.uuids(),
        st.tuples(st.integers(), st.text("\x00a", max_size=2)),
        st.lists(st.integers(0, 3), max_size=3).map(tuple),
    ],
    ids=["int", "str", "bytes", "float", "datetime", "date", "bool", "uuid", "tuple", "tuples"],
)
def test_bytes_sort_like_the_values_of_one_type(values: st.SearchStrategy[Any]):
    @given(values, values)
    def check(a: Any, b: Any) -> None:
        assert (encode_key(a) < encode_key(b)) == (a < b)

    check()


@pytest.mark.parametrize(
    "keys",
    [
        [1, 1.0, True, "1", b"1", Decimal(1), (1,), Number.ONE],
        [0, 0.0, False, "", b"", Decimal(0), ()],
        [Point(1, 2), Size(1, 2), Pair(1, 2), (1, 2)],
        [Color.RED, Color.GREEN, "RED", "Color.RED", Number.ONE],
        [date(2026, 1, 1), datetime(2026, 1, 1, tzinfo=UTC)],
        ["é", "e\u0301"],
        [("a", "b"), ("ab",), (("a",), "b"), ("a", ("b",))],
        [datetime(2026, 10, 25, 2, tzinfo=ZoneInfo("Europe/Berlin"), fold=f) for f in (0, 1)],
        [uuid.UUID(int=5), uuid.UUID(int=5).bytes, str(uuid.UUID(int=5)), 5],
        [Access.READ, Access.WRITE, Access.READ | Access.WRITE, Access(0)],
    ],
)
def test_what_python_may_call_equal_are_different_keys(keys: list[object]):
    assert len({encode_key(k) for k in keys}) == len(keys)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (0.0, -0.0),
        (Decimal("1.0"), Decimal("1.00")),
        (Decimal(100), Decimal("1E+2")),
        (Decimal(0), Decimal("-0.00")),
        (Color.RED, Color.CRIMSON),
        (
            datetime(2026, 10, 25, 1, tzinfo=UTC),
            datetime(2026, 10, 25, 2, tzinfo=ZoneInfo("Europe/Berlin"), fold=1),
        ),
        (
            datetime(2026, 1, 1, 12, tzinfo=UTC),
            datetime(2026, 1, 1, 14, tzinfo=timezone(timedelta(hours=2))),
        ),
    ],
)
def test_two_ways_to_write_one_value_are_one_key(a: object, b: object):
    assert encode_key(a) == encode_key(b)


def test_a_decimal_is_a_key_with_all_its_digits_whatever_the_context():
    long = Decimal("0." + "123456789" * 9)
    other = Decimal(str(long)[:-1] + "8")
    with decimal.localcontext(decimal.Context(prec=3, Emax=9, Emin=-9)):
        assert decode_key(encode_key(long)) == long
        assert encode_key(long) != encode_key(other)
        assert decode_key(encode_key(Decimal("1E+500"))) == Decimal("1E+500")


class NoOffset(tzinfo):
    def utcoffset(self, dt):
        return None


@pytest.mark.parametrize(
    "key",
    [
        None,
        math.nan,
        Decimal("NaN"),
        Decimal("sNaN"),
        Decimal("Infinity"),
        [1],
        {"a": 1},
        {1},
        frozenset({1}),
        1j,
        object(),
        datetime(2026, 1, 1),
        datetime(2026, 1, 1, tzinfo=NoOffset()),
        Thawed(1),
        Point,
        bytearray(b"x"),
        "\ud800",
        1 << (8 * 32767),
        -1 << (8 * 32767),
        type("Name", (str,), {})("subclass"),
        (1, None),
        (("a", math.nan),),
        Point(1, None),
    ],
    ids=lambda key: f"{type(key).__name__}",
)
def test_what_cannot_be_a_key_is_rejected_with_advice(key: object):
    with pytest.raises(Rejected, match="cannot be a key") as e:
        encode_key(key)
    assert e.value.where == "key_by"
    assert e.value.fix
    assert len(e.value.what) < 300


def test_the_largest_integers_are_keys():
    for key in ((1 << (8 * 32767)) - 1, -(1 << (8 * 32767)) + 1):
        assert decode_key(encode_key(key)) == key


def test_enums_and_dataclasses_come_back_as_plain_values():
    assert decode_key(encode_key(Color.GREEN)) == "Color.GREEN"
    assert decode_key(encode_key(Point(1, 2))) == (1, 2)
    assert decode_key(encode_key((Pair("a", Color.RED), 1))) == (("a", "Color.RED"), 1)


@given(keys)
def test_a_key_cut_short_is_corrupt(key: object):
    data = encode_key(key)
    for end in range(len(data)):
        with pytest.raises(Corrupt):
            key_length(data[:end])


@pytest.mark.parametrize(
    "data",
    [
        "",
        "00",
        "0e",
        "ff",
        "03 55 ff ff",
        "05 00 02 00 01",
        "05 61",
        "05 61 00",
        "0c 01",
        "0c 0e 00",
    ],
)
def test_bytes_that_no_key_has_are_corrupt(data: str):
    with pytest.raises(Corrupt, match="not a key's bytes"):
        key_length(bytes.fromhex(data))


@pytest.mark.parametrize(
    "data", ["05 ff 00 01", "07 ff ff ff ff", "07 00 00 00 00", "08" + "ff" * 8, "09 61 00 01"]
)
def test_a_key_whose_content_cannot_be_is_corrupt_to_who_reads_it(data: str):
    with pytest.raises(Corrupt, match="not a key's bytes"):
        decode_key(bytes.fromhex(data))


@given(st.binary(max_size=30))
@example(b"\x0c" * 5000)
def test_any_bytes_are_a_key_or_corrupt_and_nothing_else(data: bytes):
    try:
        end = key_length(data)
        decode_key(data)
    except Corrupt:
        return
    else:
        assert 0 < end <= len(data)
