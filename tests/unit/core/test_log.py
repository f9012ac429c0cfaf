import json
from dataclasses import replace
from typing import Any

import pytest
from tests.unit.core.samples import ENTRY

from penstock.core.errors import Corrupt
from penstock.core.log import EndKind, Entry, EntryKind

DATA = ENTRY.to_bytes()


def read(data: bytes) -> Entry:
    return Entry.from_bytes(data, path="job/log/40")


def test_an_entry_comes_back_from_its_bytes():
    assert read(DATA) == ENTRY
    assert read(DATA).to_bytes() == DATA


@pytest.mark.parametrize("kind", EntryKind)
def test_an_entry_of_each_kind_with_nothing_optional_comes_back_too(kind: EntryKind):
    bare = replace(
        ENTRY,
        kind=kind,
        attempt=replace(ENTRY.attempt, restored_from=None),
        request_id=None,
        retained=(),
        dropping=(),
        hold=None,
        end=None,
        settings={},
    )
    assert read(bare.to_bytes()) == bare


@pytest.mark.parametrize("kind", EndKind)
def test_each_kind_of_end_comes_back(kind: EndKind):
    assert ENTRY.end is not None
    entry = replace(ENTRY, end=replace(ENTRY.end, kind=kind, go_on_from=None, savepoint=None))
    assert read(entry.to_bytes()) == entry


def test_what_is_no_entry_is_corrupt_and_says_where():
    for data in (DATA[:-1], b"", b"null", b"[]", b"{}", b"\xff", b"<Error/>"):
        with pytest.raises(Corrupt, match="cannot be read") as e:
            read(data)
        assert e.value.where == "job/log/40"
        assert e.value.fix


@pytest.mark.parametrize("field", [f for f in json.loads(DATA) if f != "format"])
def test_an_entry_without_one_of_its_fields_is_corrupt(field: str):
    body = json.loads(DATA)
    del body[field]
    with pytest.raises(Corrupt, match="cannot be read"):
        read(json.dumps(body).encode())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("kind", "restarted"),
        ("attempt", 2),
        ("retained", [{"id": 1}]),
        ("retained", [None]),
        ("hold", {"from": None, "after": 1, "stable": 1}),
        ("end", {"kind": "vanished"}),
    ],
)
def test_an_entry_with_a_field_that_cannot_be_is_corrupt(field: str, value: Any):
    body = json.loads(DATA)
    body[field] = value
    with pytest.raises(Corrupt, match="cannot be read"):
        read(json.dumps(body).encode())


def test_a_later_format_is_told_as_such():
    with pytest.raises(Corrupt, match="has format penstock-log/2, this Penstock reads"):
        read(DATA.replace(b"penstock-log/1", b"penstock-log/2"))
