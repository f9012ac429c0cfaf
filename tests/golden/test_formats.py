"""Bytes that are on disk for ever: each file stays readable, and is written the same to the byte.

A format that must change gets a new name and files of its own beside these; these stay. Nothing
here writes them: where a file is missing, a test says what it would hold.
"""

import enum
import json
import re
import uuid
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple

import pytest
from tests.unit.core.samples import ENTRY, MANIFEST

from penstock.core.keygroups import HASH_NAME, key_group
from penstock.core.keys import KEY_FORMAT, decode_key, encode_key, key_length
from penstock.core.log import LOG_FORMAT, Entry
from penstock.core.manifest import MANIFEST_FORMAT, Manifest
from penstock.core.rows import (
    NO_NAMESPACE,
    PLAIN,
    ROW_FORMAT,
    group_of,
    group_width,
    list_index,
    prefix_length,
    row_prefix,
)

FOLDER = Path(__file__).parent / "formats"


class Color(enum.Enum):
    RED = "r"


class Access(enum.Flag):
    READ = 1
    WRITE = 2


@dataclass(frozen=True)
class Point:
    x: int
    label: str


class Pair(NamedTuple):
    a: int
    b: bool


KEYS: dict[str, object] = {
    "False": False,
    "True": True,
    "0": 0,
    "1": 1,
    "-1": -1,
    "2**63 - 1": 2**63 - 1,
    "2**63": 2**63,
    "-(2**63)": -(2**63),
    "-(2**63) - 1": -(2**63) - 1,
    "2**64": 2**64,
    "-(2**80)": -(2**80),
    "0.0": 0.0,
    "-0.0": -0.0,
    "1.0": 1.0,
    "-1.5": -1.5,
    "inf": float("inf"),
    "''": "",
    "'a'": "a",
    "'größe 🙂'": "größe 🙂",
    "'a\\0b'": "a\0b",
    "b''": b"",
    "b'\\0\\xff\\0'": b"\0\xff\0",
    "date 2026-01-31": date(2026, 1, 31),
    "date 0001-01-01": date(1, 1, 1),
    "datetime 1970-01-01T00:00Z": datetime(1970, 1, 1, tzinfo=UTC),
    "datetime 2026-01-31T12:00:00.000001+02:00": datetime(
        2026, 1, 31, 12, 0, 0, 1, tzinfo=timezone(timedelta(hours=2))
    ),
    "datetime 0001-01-01T00:00Z": datetime(1, 1, 1, tzinfo=UTC),
    "Decimal 0.00": Decimal("0.00"),
    "Decimal -1.50": Decimal("-1.50"),
    "Decimal 100": Decimal(100),
    "Decimal of 40 digits": Decimal("1234567890123456789012345678901234567.891"),
    "UUID": uuid.UUID("12345678-1234-5678-1234-567812345678"),
    "Color.RED": Color.RED,
    "Access.READ|WRITE": Access.READ | Access.WRITE,
    "Access(0)": Access(0),
    "()": (),
    "('a', 1)": ("a", 1),
    "((), (b'', ('x',)))": ((), (b"", ("x",))),
    "Point(1, 'p')": Point(1, "p"),
    "Pair(2, True)": Pair(2, True),
}

ROWS = {
    "value of key 'a', G=128": (128, "a", b""),
    "value of key 'a', G=129": (129, "a", b""),
    "value of key ('a', 1), G=32768": (32768, ("a", 1), b""),
    "element 258 of a list of key 7, G=128": (128, 7, list_index(258)),
    "entry 'k' of a map of key 7, G=128": (128, 7, encode_key("k")),
}


def golden(name: str) -> dict[str, str]:
    return json.loads((FOLDER / name).read_text())


def row(max_parallelism: int, key: object, sub_key: bytes) -> bytes:
    data = encode_key(key)
    group = key_group(data, max_parallelism=max_parallelism)
    return row_prefix(group, data, width=group_width(max_parallelism)) + sub_key


def test_the_names_of_the_formats():
    assert (KEY_FORMAT, ROW_FORMAT, HASH_NAME) == ("key/1", "row/1", "crc32/1")
    assert (MANIFEST_FORMAT, LOG_FORMAT) == ("penstock-manifest/1", "penstock-log/2")
    assert (NO_NAMESPACE, PLAIN) == (b"\x01", b"\x00")


def test_keys_are_written_as_ever():
    assert {name: encode_key(key).hex(" ") for name, key in KEYS.items()} == golden("keys-1.json")


def test_keys_of_ever_are_still_read():
    for name, text in golden("keys-1.json").items():
        data, key = bytes.fromhex(text), KEYS[name]
        assert key_length(data) == len(data)
        if isinstance(key, enum.Enum):
            assert decode_key(data) == f"{type(key).__name__}.{key.name or ''}"
        elif isinstance(key, Point):
            assert decode_key(data) == (key.x, key.label)
        else:
            assert decode_key(data) == key


@pytest.mark.parametrize(
    ("key", "group"), [("a", 47), ("b", 118), (1, 118), (1.0, 112), (("a", 1), 40)]
)
def test_keys_lie_in_the_groups_they_ever_lay_in(key: object, group: int):
    assert key_group(encode_key(key), max_parallelism=128) == group


def test_rows_are_written_as_ever():
    assert {name: row(*what).hex(" ") for name, what in ROWS.items()} == golden("rows-1.json")


def test_rows_of_ever_are_still_read():
    for name, text in golden("rows-1.json").items():
        data, (max_parallelism, key, sub_key) = bytes.fromhex(text), ROWS[name]
        width = group_width(max_parallelism)
        assert group_of(data, width=width) == key_group(
            encode_key(key), max_parallelism=max_parallelism
        )
        assert decode_key(data, width) == key
        assert data[prefix_length(data, width=width) :] == sub_key


def test_the_examples_in_the_reference_are_golden():
    reference = Path(__file__).parents[2] / "docs/reference/formats.md"
    examples = re.findall(
        r"\| `((?:[0-9a-f]{2} ){3,}[0-9a-f]{2})` \|$", reference.read_text(), re.MULTILINE
    )

    assert len(examples) >= 10
    assert set(examples) <= {*golden("keys-1.json").values(), *golden("rows-1.json").values()}


def test_a_manifest_is_written_as_ever_and_still_read():
    data = (FOLDER / "manifest-1.json").read_bytes()
    assert MANIFEST.to_bytes() == data
    assert Manifest.from_bytes(data, path="golden") == MANIFEST


def test_a_log_entry_is_written_as_ever_and_still_read():
    data = (FOLDER / "log-2.json").read_bytes()
    assert ENTRY.to_bytes() == data
    assert Entry.from_bytes(data, path="golden") == ENTRY


def test_a_log_entry_of_the_first_version_is_still_read():
    assert Entry.from_bytes((FOLDER / "log-1.json").read_bytes(), path="golden") == ENTRY
