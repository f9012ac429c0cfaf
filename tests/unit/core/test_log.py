import json
from dataclasses import replace
from typing import Any

import pytest
from tests.unit.core.samples import ENTRY

from penstock.core import checksums
from penstock.core.errors import Corrupt
from penstock.core.log import EndKind, Entry, EntryKind

DATA = ENTRY.to_bytes()


def read(data: bytes) -> Entry:
    return Entry.from_bytes(data, path="job/log/40")


def signed(body: dict[str, Any]) -> bytes:
    """An entry that was written so, not damaged later."""
    body.pop("sha256", None)
    return json.dumps(body | {"sha256": checksums.of_document(body)}).encode()


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


@pytest.mark.parametrize("field", [f for f in json.loads(DATA) if f not in ("format", "sha256")])
def test_an_entry_without_one_of_its_fields_is_corrupt(field: str):
    body = json.loads(DATA)
    del body[field]
    with pytest.raises(Corrupt, match="cannot be read"):
        read(signed(body))


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
        read(signed(body))


def test_no_flipped_bit_is_believed():
    for place in range(len(DATA)):
        for bit in range(8):
            flipped = bytearray(DATA)
            flipped[place] ^= 1 << bit
            try:
                found = read(bytes(flipped))
            except Corrupt:
                continue
            assert found == ENTRY, f"bit {bit} of byte {place}, a blank between two fields at most"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("seq", 41),
        ("owner", "local/elsewhere"),
        ("retained", []),
        ("settings", {"checkpoint_interval_ms": 10_001}),
        ("attempt", {**json.loads(DATA)["attempt"], "parallelism": 3}),
        ("sha256", "00" * 32),
    ],
)
def test_an_entry_that_was_changed_is_damaged_and_says_where_and_what_to_do(field: str, value: Any):
    body = json.loads(DATA)
    body[field] = value
    with pytest.raises(Corrupt, match="an entry of the job's log is damaged: its checksum") as e:
        read(json.dumps(body).encode())
    assert e.value.where == "job/log/40"
    assert e.value.fix is not None
    assert "penstock run … --storage URL --restore SAVEPOINT" in e.value.fix


def test_an_entry_that_lost_its_checksum_is_damaged():
    body = json.loads(DATA)
    del body["sha256"]
    with pytest.raises(Corrupt, match="is damaged"):
        read(json.dumps(body).encode())


def test_an_entry_may_be_laid_out_anew():
    assert read(json.dumps(json.loads(DATA), sort_keys=True).encode()) == ENTRY


def test_a_checksum_is_not_got_rid_of_by_another_name_of_the_format():
    with pytest.raises(Corrupt, match="is damaged"):
        read(DATA.replace(b"penstock-log/2", b"penstock-log/1"))


def test_a_later_format_is_told_as_such():
    with pytest.raises(Corrupt, match="has format penstock-log/3, this Penstock reads"):
        read(DATA.replace(b"penstock-log/2", b"penstock-log/3"))
