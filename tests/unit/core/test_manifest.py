import json
import random
from dataclasses import replace
from typing import Any

import pytest
from tests.unit.core.samples import MANIFEST

from penstock.core.errors import Corrupt
from penstock.core.handles import KeyedFormat, KeyedHandle, SubtaskSnapshot
from penstock.core.keygroups import KeyGroupRange
from penstock.core.manifest import Manifest, SnapshotKind

DATA = MANIFEST.to_bytes()


def read(data: bytes) -> Manifest:
    return Manifest.from_bytes(data, path="job/chk-17/_metadata")


def test_a_manifest_comes_back_from_its_bytes():
    assert read(DATA) == MANIFEST
    assert read(DATA).to_bytes() == DATA


def test_a_manifest_with_nothing_optional_comes_back_too():
    bare = replace(
        MANIFEST, kind=SnapshotKind.CHECKPOINT, operators={}, request_id=None, parent=None
    )
    assert read(bare.to_bytes()) == bare


def test_a_manifest_is_readable_text():
    text = DATA.decode()
    assert text.startswith('{\n "format": "penstock-manifest/1"')
    assert '"job": "wörter"' in text


def test_a_flipped_bit_anywhere_is_found_unless_it_changes_no_meaning():
    rng = random.Random(1)
    for at in range(len(DATA)):
        flipped = bytearray(DATA)
        flipped[at] ^= 1 << rng.randrange(8)
        try:
            manifest = read(bytes(flipped))
        except Corrupt:
            continue
        assert manifest == MANIFEST
        assert DATA[at : at + 1].isspace(), (at, DATA[at : at + 1])


@pytest.mark.parametrize(
    "byte", [b"\x00", b"\n", b'"', b"\\", b"{", b"}", b",", b"9", b"A", b"\xff"]
)
def test_a_byte_of_any_class_in_any_place_is_found(byte: bytes):
    for at in range(0, len(DATA), 3):
        if DATA[at : at + 1] == byte:
            continue
        try:
            manifest = read(DATA[:at] + byte + DATA[at + 1 :])
        except Corrupt:
            continue
        assert manifest == MANIFEST, (at, byte)
        assert DATA[at : at + 1].isspace()
        assert byte.isspace()


def test_a_manifest_cut_short_or_empty_or_of_something_else_is_corrupt():
    for data in (
        DATA[:-1],
        DATA[: len(DATA) // 2],
        b"",
        b"5",
        b"[]",
        b"null",
        b"{}",
        b"\xff\xfe",
        b"<Error/>",
    ):
        with pytest.raises(Corrupt, match="cannot be read") as e:
            read(data)
        assert e.value.where == "job/chk-17/_metadata"
        assert e.value.fix


def changed(path: list[str], value: Any) -> bytes:
    body = json.loads(DATA)
    *way, last = path
    place = body
    for step in way:
        place = place[step]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return json.dumps(body).encode()


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["attempt"], 3),
        (["hash"], "crc32/2"),
        (["operators", "counts", "parallelism"], 3),
        (["operators", "lines"], None),
        (["operators", "lines", "subtasks"], []),
        (["newer"], "field"),
        (["sha256"], "00" * 32),
    ],
)
def test_a_changed_field_does_not_fit_the_checksum(path: list[str], value: Any):
    with pytest.raises(Corrupt, match="checksum"):
        read(changed(path, value))


def test_a_later_format_is_told_as_such():
    with pytest.raises(Corrupt, match="has format penstock-manifest/2, this Penstock reads") as e:
        read(changed(["format"], "penstock-manifest/2"))
    assert "version of Penstock" in str(e.value.fix)


def test_layout_does_not_matter_to_the_checksum():
    assert read(json.dumps(json.loads(DATA), indent=4).encode()) == MANIFEST


def test_a_manifest_names_its_files_and_their_bytes():
    assert [f.local_name for f in MANIFEST.files()] == ["000012.sst", "CURRENT"]
    assert MANIFEST.size_bytes == 1000 + 20 + 5
    assert len(list(MANIFEST.subtasks())) == 4


def test_a_subtask_without_state_is_empty_and_one_with_any_is_not():
    assert SubtaskSnapshot().is_empty
    assert not SubtaskSnapshot(watermark_ms=0).is_empty
    assert not SubtaskSnapshot(lists={"x": ()}).is_empty
    keyed = KeyedHandle(KeyedFormat.CANONICAL, KeyGroupRange(0, 1), inline=b"")
    assert not SubtaskSnapshot(keyed=keyed).is_empty


def test_an_empty_inline_stream_is_not_an_absent_one():
    keyed = KeyedHandle(KeyedFormat.CANONICAL, KeyGroupRange(0, 1), inline=b"", offsets=(0,))
    assert KeyedHandle.from_json(json.loads(json.dumps(keyed.to_json()))) == keyed
