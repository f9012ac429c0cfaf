"""Keyed state in bytes: stored streams and databases stay readable, streams stay the same."""

import shutil
from pathlib import Path

import pytest

from penstock.core.handles import KeyedFormat
from penstock.core.keygroups import KeyGroupRange, key_group
from penstock.core.keys import encode_key
from penstock.core.rows import PLAIN, group_width, list_index, row_prefix
from penstock.state.backend import LocalPart
from penstock.state.heap import open_heap
from penstock.state.rocks import open_rocks

FOLDER = Path(__file__).parent / "state"
WHOLE = KeyGroupRange(0, 4)

OFFSETS = {
    4: (36, 106, 176, 336),
    200: (36, 109, 182, 348),
}


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
