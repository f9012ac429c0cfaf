"""Keyed state in bytes: stored streams and databases stay readable, streams stay the same."""

import re
import shutil
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from penstock.core.handles import KeyedFormat
from penstock.core.keygroups import KeyGroupRange, key_group
from penstock.core.keys import encode_key
from penstock.core.rows import PLAIN, group_width, list_index, row_prefix
from penstock.state.backend import LocalPart
from penstock.state.heap import open_heap
from penstock.state.rocks import open_rocks
from penstock.state.serializers import serializer_for

FOLDER = Path(__file__).parent / "state"
WHOLE = KeyGroupRange(0, 4)

OFFSETS = {
    4: (36, 106, 176, 336),
    200: (36, 109, 182, 348),
}


@dataclass
class Place:
    name: str
    stars: int


def rows(max_parallelism):
    width = group_width(max_parallelism)
    counts, words = [], []
    for key in ("a", "b", "c", "d", 7, (1, "x")):
        encoded = encode_key(key)
        group = key_group(encoded, max_parallelism=4)
        row = row_prefix(group, encoded, width=width)
        counts.append((row, PLAIN + b"\x05"))
        words += [(row + list_index(i), PLAIN + b"\xa1w") for i in range(2)]
    return {"counts": sorted(counts), "empty": [], "words": sorted(words)}


def filled(factory, folder, max_parallelism):
    backend = factory(folder, groups=WHOLE, max_parallelism=max_parallelism, options={})
    for table, changes in rows(max_parallelism).items():
        backend.open_table(table)
        backend.write(table, changes)
    return backend


def everything(backend, max_parallelism):
    width = group_width(max_parallelism)
    return {
        table: [row for group in WHOLE for row in backend.scan(table, group.to_bytes(width, "big"))]
        for table in backend.tables()
    }


@pytest.mark.parametrize("max_parallelism", [4, 200])
def test_the_canonical_stream_is_the_same_to_the_byte(tmp_path, max_parallelism):
    copy = filled(open_heap, tmp_path, max_parallelism).copy_out(tmp_path / "stream")
    assert copy.path.read_bytes() == (FOLDER / f"canonical-1-{max_parallelism}.bin").read_bytes()
    assert copy.offsets == OFFSETS[max_parallelism]


@pytest.mark.parametrize("factory", [open_heap, open_rocks])
@pytest.mark.parametrize("max_parallelism", [4, 200])
def test_a_stored_canonical_stream_is_read(tmp_path, factory, max_parallelism):
    backend = factory(tmp_path, groups=WHOLE, max_parallelism=max_parallelism, options={})
    stored = FOLDER / f"canonical-1-{max_parallelism}.bin"
    backend.restore(
        [LocalPart(KeyedFormat.CANONICAL, WHOLE, WHOLE, stored, None, OFFSETS[max_parallelism])]
    )
    assert everything(backend, max_parallelism) == rows(max_parallelism)
    backend.close()


@pytest.mark.parametrize("factory", [open_heap, open_rocks])
def test_a_stored_database_is_read(tmp_path, factory):
    shutil.copytree(FOLDER / "rocksdb-1", tmp_path / "stored")
    backend = factory(tmp_path, groups=WHOLE, max_parallelism=4, options={})
    backend.restore([LocalPart(KeyedFormat.ROCKSDB, WHOLE, WHOLE, tmp_path / "stored")])
    assert everything(backend, 4) == rows(4)
    backend.close()


def test_the_documented_example_is_what_is_written(tmp_path):
    backend = open_heap(tmp_path, groups=KeyGroupRange(0, 2), max_parallelism=4, options={})
    backend.open_table("counts")
    backend.write("counts", [(row_prefix(0, encode_key("d"), width=1), PLAIN + b"\x05")])
    copy = backend.copy_out(tmp_path / "stream")
    page = (Path(__file__).parents[2] / "docs/reference/canonical-stream.md").read_text()
    example = page.split("## Example")[1].split("```")[1]
    documented = "".join(
        re.match(r"\s*((?:[0-9A-F]{2} {1,2})*(?:[0-9A-F]{2})?)(?:\s|$)", line)[1]
        for line in example.splitlines()
    )
    assert copy.path.read_bytes() == bytes.fromhex(documented)
    assert copy.offsets == (22, 43)


@pytest.mark.parametrize(
    ("type_", "value", "stored"),
    [
        (int, 5, "05"),
        (int, -(2**63), "d3 8000000000000000"),
        (int, 2**64, "c1 c7 09 01 010000000000000000"),
        (int, -(2**64), "c1 c7 09 01 ff0000000000000000"),
        (float, 1.5, "cb 3ff8000000000000"),
        (str, "größe", "a7 6772c3b6c39f65"),
        (bytes, b"\x00", "c4 01 00"),
        (datetime, datetime(2026, 1, 1, tzinfo=UTC), "d6 ff 6955b900"),
        (date, date(2026, 1, 1), "aa 323032362d30312d3031"),
        (timedelta, timedelta(seconds=1), "a4 50543153"),
        (tuple[int, str], (1, "a"), "92 01 a161"),
        (frozenset[str], frozenset({"b", "a"}), "92 a161 a162"),
        (dict[int, str], {1: "a"}, "81 01 a161"),
        (dict[int, str], {2**64: "a"}, "c1 d8 02 91 92 c7 09 01 010000000000000000 a161"),
        (Place, Place("a", 1), "82 a4 6e616d65 a161 a5 7374617273 01"),
    ],
)
def test_values_are_the_same_to_the_byte(type_, value, stored):
    serializer = serializer_for(type_)
    assert serializer.encode(value).hex() == stored.replace(" ", "")
    assert serializer.decode(bytes.fromhex(stored)) == value
