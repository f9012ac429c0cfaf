"""Formats, each against what the standard library makes of the same bytes."""

import csv
import io
import json
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from typing import Any, NamedTuple, TypedDict

import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock import formats
from penstock.connectors import lines
from penstock.core.errors import Rejected


class Colour(Enum):
    RED = "red"


@dataclass(frozen=True)
class Order:
    customer: str
    amount: Decimal
    at: datetime
    note: str | None = None


class Point(NamedTuple):
    x: int
    y: float = 0.0


class Row(TypedDict):
    a: int
    b: str


class Struct(msgspec.Struct):
    a: int
    b: bool | None


class Model(pydantic.BaseModel):
    a: int
    at: datetime


ORDER = Order("ann", Decimal("1.10"), datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@given(st.lists(st.text(st.characters(exclude_characters="\n\r", codec="utf-8")), min_size=1))
def test_text_gives_back_the_lines_that_were_written(records: list[str]):
    block = formats.Text().encode_block(records)
    assert block == "".join(f"{line}\n" for line in records).encode()
    assert formats.Text().decode_block(block[:-1]) == records


@given(st.binary(), st.sampled_from(["utf-8", "latin-1", "ascii", "cp1252", "shift_jis", "utf-7"]))
def test_many_lines_of_text_are_what_each_of_them_is(block: bytes, encoding: str):
    text = formats.Text(encoding)
    try:
        expected = [line.removesuffix(b"\r").decode(encoding) for line in block.split(b"\n")]
    except UnicodeDecodeError:
        with pytest.raises(UnicodeDecodeError):
            text.decode_block(block)
    else:
        assert text.decode_block(block) == expected


def test_an_encoding_whose_line_break_is_not_one_byte_is_refused():
    with pytest.raises(Rejected, match="cannot be told apart"):
        formats.Text("utf-16")
    with pytest.raises(Rejected, match="no such text encoding"):
        formats.Text("utf-9")


@given(st.lists(values, min_size=1))
def test_json_is_what_the_standard_library_reads_and_writes(records: list[Any]):
    block = formats.Json().encode_block(records)
    assert [json.loads(line) for line in block.splitlines()] == records
    theirs = "\n".join(json.dumps(record) for record in records).encode()
    assert formats.Json().decode_block(theirs) == records


@pytest.mark.parametrize(
    ("record", "kind", "plain"),
    [
        (
            ORDER,
            Order,
            {"customer": "ann", "amount": "1.10", "at": "2026-01-02T03:04:05Z", "note": None},
        ),
        (Point(1, 2.5), Point, [1, 2.5]),
        ((1, "a"), tuple[int, str], [1, "a"]),
        ({1}, set[int], [1]),
        (Colour.RED, Colour, "red"),
        (Struct(1, None), Struct, {"a": 1, "b": None}),
        (Model(a=1, at=ORDER.at), Model, {"a": 1, "at": "2026-01-02T03:04:05Z"}),
        ([Model(a=1, at=ORDER.at)], list[Model], [{"a": 1, "at": "2026-01-02T03:04:05Z"}]),
    ],
)
def test_json_keeps_typed_values(record: Any, kind: Any, plain: Any):
    json_format = formats.Json(kind)
    line = json_format.encode(record)
    assert json.loads(line) == plain
    assert json_format.decode(line) == record
    assert json_format.decode_block(line + b"\n" + line) == [record, record]
    assert formats.Json().encode_block([record]) == line + b"\n"


def test_what_json_cannot_hold_is_refused_with_the_record():
    with pytest.raises(Rejected, match="cannot be written as JSON") as told:
        formats.Json().encode_block([object])
    assert "class 'object'" in (told.value.where or "")


@pytest.mark.parametrize("bad", [b"", b"1 2", b"1,2", b"[1", b"2]", b'"a', b"{}{}", b"nope"])
def test_a_line_that_is_not_one_json_value_is_found_by_its_index(bad: bytes):
    decoded = lines.decode(formats.Json(), b"1\n" + (bad or b"{") + b"\n3")
    assert (list(decoded.records), decoded.bad_line) == ([1], 1)
    assert decoded.error is not None


def test_values_that_only_add_up_to_the_number_of_lines_are_still_not_taken():
    decoded = lines.decode(formats.Json(), b"1 2\n\n3")
    assert (list(decoded.records), decoded.bad_line) == ([], 0)


def test_blank_lines_of_json_and_csv_are_no_records_but_count_as_lines():
    decoded = lines.decode(formats.Json(), b"1\n\n \r\n4")
    assert (list(decoded.records), list(decoded.lines)) == ([1, 4], [0, 3])
    decoded = lines.decode(formats.Csv(tuple[int, int], header=False), b"\n1,2\n\n3,4")
    assert (list(decoded.records), list(decoded.lines)) == ([(1, 2), (3, 4)], [1, 3])


def test_a_format_needs_no_more_than_decode_and_encode():
    class Hex:
        def decode(self, data: bytes) -> int:
            return int(data, 16)

        def encode(self, record: int) -> bytes:
            return f"{record:x}".encode()

    decoded = lines.decode(Hex(), b"a\nff\nx\n1")
    assert (decoded.records, decoded.bad_line) == ([10, 255], 2)
    assert lines.block_encoder(Hex())([10, 255]) == b"a\nff\n"


cells = st.text(st.characters(exclude_characters="\n\r", codec="utf-8"))


@given(st.lists(st.tuples(cells, cells), min_size=1), st.sampled_from(",;\t|"))
def test_csv_is_what_the_standard_library_reads_and_writes(rows: list[Any], delimiter: str):
    theirs = io.StringIO()
    csv.writer(theirs, delimiter=delimiter, lineterminator="\n").writerows(rows)
    ours = formats.Csv(tuple[str, str], header=False, delimiter=delimiter)
    assert ours.decode_block(theirs.getvalue().encode()[:-1]) == rows
    written = ours.encode_block(rows).decode()
    assert [tuple(row) for row in csv.reader(io.StringIO(written), delimiter=delimiter)] == rows


@pytest.mark.parametrize(
    ("record", "kind"),
    [
        (ORDER, Order),
        (Point(1, 2.5), Point),
        ({"a": 1, "b": "x"}, Row),
        (Struct(1, True), Struct),
        (Struct(1, None), Struct),
        (Model(a=1, at=ORDER.at), Model),
    ],
)
def test_csv_keeps_records_with_named_fields(record: Any, kind: Any):
    written = formats.Csv(kind)
    header, line = written.header_line(), written.encode(record)
    assert written.with_header(header).decode(line) == record
    assert formats.Csv(kind, header=False).decode_block(line + b"\n" + line) == [record, record]


def test_the_header_says_which_column_is_which():
    by_name = formats.Csv(Point).with_header(b"\xef\xbb\xbfy,other,x\r")
    assert by_name.decode(b"2.5,?,1\r") == Point(1, 2.5)
    assert formats.Csv(dict[str, int]).with_header(b"a,b").decode(b"1,2") == {"a": 1, "b": 2}
    assert formats.Csv(tuple[int, int]).with_header(b"a,b").decode(b"1,2") == (1, 2)
    assert formats.Csv(Point).with_header(b"x").decode(b"7") == Point(7)


@pytest.mark.parametrize("bad", [b"1", b"1,2,3", b"x,2", b'1,"2', b'"1"x,2'])
def test_a_line_that_is_no_such_record_is_found_by_its_index(bad: bytes):
    decoded = lines.decode(formats.Csv(Point, header=False), b"1,2\n" + bad + b"\n3,4")
    assert (list(decoded.records), decoded.bad_line) == ([Point(1, 2.0)], 1)


def test_csv_refuses_what_has_no_cells():
    with pytest.raises(Rejected, match="no cells"):
        formats.Csv(int).encode(1)
    with pytest.raises(Rejected, match="a cell cannot hold"):
        formats.Csv(tuple[Any, ...]).encode(([1],))
    with pytest.raises(Rejected, match="no named fields"):
        formats.Csv(tuple[int, int]).header_line()
    with pytest.raises(Rejected, match="cannot separate"):
        formats.Csv(Point, delimiter="||")


def test_the_public_modules_load_nothing_heavy():
    code = (
        "import sys, penstock.sources, penstock.sinks, penstock.formats;"
        "print(sorted({'boto3','botocore','rocksdict','aiohttp','pydantic','asyncio'} & set(sys.modules)))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == "[]"
