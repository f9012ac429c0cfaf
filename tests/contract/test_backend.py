"""What the port of keyed backends promises, kept by every adapter.

One machine drives the heap and RocksDB beside a plain dict, at changing parallelism, and restores
them from each other's parts in both formats.
"""

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from penstock.core.errors import Corrupt, Rejected
from penstock.core.handles import KeyedFormat
from penstock.core.keygroups import KeyGroupRange, key_group, owned_range, subtask_of
from penstock.core.keys import encode_key
from penstock.core.rows import group_width, list_index, row_prefix
from penstock.state import canonical, rocks
from penstock.state.backend import LocalPart
from penstock.state.heap import open_heap
from penstock.state.rocks import open_rocks

FACTORIES = {"heap": open_heap, "rocks": open_rocks}

WHOLE = KeyGroupRange(0, 8)
KEYS = ["", "a", "a\x00", "ab", "b", 0, 1, 1.0, True, -5, 1 << 80, b"\xff", (1, "a"), (1, "ab")]
TABLES = ["count", "default", "größe"]
SUBS = [b"", list_index(0), list_index(1), list_index(1 << 40), b"\xff\xff", b"\x00"]

keys = st.sampled_from(KEYS).map(encode_key)
tables = st.sampled_from(TABLES)
values = st.one_of(st.binary(max_size=8), st.just(b"v" * 3000))
sources = st.sampled_from(["file", "inline", "directory", "converted"])


def backend_of(kind, folder, *, groups=WHOLE, max_parallelism=8):
    return FACTORIES[kind](folder, groups=groups, max_parallelism=max_parallelism, options={})


class Backends(RuleBasedStateMachine):
    """Heap and RocksDB at the same parallelism, and what they must hold."""

    max_parallelism = 8

    def __init__(self):
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.made = 0
        self.model = {}
        self.subtasks = []

    def teardown(self):
        self.close_all()
        shutil.rmtree(self.folder)

    def close_all(self):
        for pair in self.subtasks:
            for backend in pair.values():
                backend.close()

    def new_path(self):
        self.made += 1
        return self.folder / str(self.made)

    def new_pair(self, groups):
        return {
            kind: backend_of(
                kind, self.new_folder(), groups=groups, max_parallelism=self.max_parallelism
            )
            for kind in FACTORIES
        }

    def new_folder(self):
        folder = self.new_path()
        folder.mkdir()
        return folder

    def range_of(self, subtask, parallelism):
        return owned_range(subtask, parallelism=parallelism, max_parallelism=self.max_parallelism)

    def group(self, key):
        return key_group(key, max_parallelism=self.max_parallelism)

    def prefix(self, key):
        return row_prefix(self.group(key), key, width=group_width(self.max_parallelism))

    def owners(self, key):
        subtask = subtask_of(
            self.group(key), parallelism=len(self.subtasks), max_parallelism=self.max_parallelism
        )
        return self.subtasks[subtask].values()

    @initialize(parallelism=st.integers(1, 3))
    def begin(self, parallelism):
        self.subtasks = [self.new_pair(self.range_of(i, parallelism)) for i in range(parallelism)]

    @rule(table=tables)
    def open_a_table(self, table):
        self.model.setdefault(table, {})
        for pair in self.subtasks:
            for backend in pair.values():
                backend.open_table(table)

    @precondition(lambda self: self.model)
    @rule(
        data=st.data(),
        changes=st.lists(
            st.tuples(keys, st.sampled_from(SUBS), st.one_of(values, st.none())), max_size=12
        ),
    )
    def write(self, data, changes):
        table = data.draw(st.sampled_from(sorted(self.model)))
        for key, sub, value in changes:
            row = self.prefix(key) + sub
            for backend in self.owners(key):
                backend.write(table, [(row, value)])
            if value is None:
                self.model[table].pop(row, None)
            else:
                self.model[table][row] = value

    @precondition(lambda self: self.model)
    @rule(data=st.data(), key=keys)
    def write_many_rows_of_one_key(self, data, key):
        table = data.draw(st.sampled_from(sorted(self.model)))
        changes = [(self.prefix(key) + list_index(i), b"%d" % i) for i in range(600)]
        for backend in self.owners(key):
            backend.write(table, changes)
        self.model[table].update(changes)

    @precondition(lambda self: self.model)
    @rule(data=st.data(), key=keys)
    def delete_a_key(self, data, key):
        table = data.draw(st.sampled_from(sorted(self.model)))
        prefix = self.prefix(key)
        for backend in self.owners(key):
            backend.delete_prefix(table, prefix)
        for row in [row for row in self.model[table] if row.startswith(prefix)]:
            del self.model[table][row]

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def drop_a_table(self, data):
        table = data.draw(st.sampled_from(sorted(self.model)))
        del self.model[table]
        for pair in self.subtasks:
            for backend in pair.values():
                backend.drop_table(table)

    @precondition(lambda self: self.model)
    @rule(data=st.data(), some=st.lists(st.tuples(keys, st.sampled_from(SUBS)), max_size=8))
    def get_many(self, data, some):
        table = data.draw(st.sampled_from(sorted(self.model)))
        for subtask, pair in enumerate(self.subtasks):
            groups = self.range_of(subtask, len(self.subtasks))
            rows = [self.prefix(key) + sub for key, sub in some if self.group(key) in groups]
            expected = [self.model[table].get(row) for row in rows]
            for kind, backend in pair.items():
                assert backend.get_many(table, rows) == expected, kind

    @precondition(lambda self: self.model)
    @rule(data=st.data(), key=keys)
    def scan_a_key(self, data, key):
        table = data.draw(st.sampled_from(sorted(self.model)))
        prefix = self.prefix(key)
        expected = sorted(i for i in self.model[table].items() if i[0].startswith(prefix))
        for backend in self.owners(key):
            scan = backend.scan(table, prefix)
            backend.write(table, [(prefix + b"later", b"x")])
            assert list(scan) == expected, "as of the call"
            backend.write(table, [(prefix + b"later", None)])
            assert backend.last(table, prefix) == (expected[-1][0] if expected else None)

    @rule(data=st.data(), parallelism=st.integers(1, 4))
    def rescale(self, data, parallelism):
        old = [
            (self.range_of(i, len(self.subtasks)), self.copies(i))
            for i in range(len(self.subtasks))
        ]
        self.close_all()
        self.subtasks = []
        for subtask in range(parallelism):
            groups = self.range_of(subtask, parallelism)
            pair = self.new_pair(groups)
            self.subtasks.append(pair)
            for backend in pair.values():
                backend.restore(
                    self.part(covers, groups, copies[data.draw(sources)])
                    for covers, copies in old
                    if covers.intersection(groups)
                )
        for pair in self.subtasks:
            for backend in pair.values():
                for table in self.model:
                    backend.open_table(table)

    def part(self, covers, groups, copy):
        return LocalPart(covers=covers, groups=covers.intersection(groups), **copy)

    def copies(self, subtask):
        """One subtask's state, copied out in all the ways there are."""
        groups = self.range_of(subtask, len(self.subtasks))
        pair = self.subtasks[subtask]
        file = pair["heap"].copy_out(self.new_path())
        directory = pair["rocks"].copy_out(self.new_path())
        before = contents(directory.path)
        converted = canonical.from_rocks(
            directory.path, groups, self.new_path(), max_parallelism=self.max_parallelism
        )
        assert contents(directory.path) == before, "the source is left as it is"
        assert converted.path.read_bytes() == file.path.read_bytes()
        assert converted.offsets == file.offsets
        return {
            "file": {"format": file.format, "path": file.path, "offsets": file.offsets},
            "inline": {
                "format": file.format,
                "inline": file.path.read_bytes(),
                "offsets": file.offsets,
            },
            "directory": {"format": directory.format, "path": directory.path},
            "converted": {
                "format": converted.format,
                "path": converted.path,
                "offsets": converted.offsets,
            },
        }

    @invariant()
    def all_hold_what_the_model_holds(self):
        width = group_width(self.max_parallelism)
        for kind in FACTORIES:
            held = {}
            for subtask, pair in enumerate(self.subtasks):
                assert pair[kind].tables() == sorted(self.model), kind
                for table in self.model:
                    rows = held.setdefault(table, {})
                    for group in self.range_of(subtask, len(self.subtasks)):
                        scanned = list(pair[kind].scan(table, group.to_bytes(width, "big")))
                        assert scanned == sorted(scanned)
                        rows.update(scanned)
            for table, rows in held.items():
                wrong = sorted(rows.items() ^ self.model[table].items())
                assert wrong == [], (kind, table, wrong[:3])


def contents(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.mark.parametrize("max_parallelism", [8, 150])
def test_backends_hold_what_was_written_through_any_rescaling(max_parallelism):
    machine = type("Machine", (Backends,), {"max_parallelism": max_parallelism})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=20 if max_parallelism == 8 else 10,
            stateful_step_count=15,
            deadline=None,
            phases=[Phase.reuse, Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.fixture(params=sorted(FACTORIES))
def backend(request, tmp_path):
    made = backend_of(request.param, tmp_path)
    yield made
    made.close()


def test_a_restored_table_that_nobody_opened_is_carried_on(tmp_path):
    for kind in FACTORIES:
        first = backend_of(kind, tmp_path / f"{kind}-1")
        first.open_table("forgotten")
        first.write("forgotten", [(b"\x03k", b"v")])
        copy = first.copy_out(tmp_path / f"{kind}-copy")
        first.close()
        for other in FACTORIES:
            second = backend_of(other, new_folder(tmp_path, f"{kind}-{other}"))
            second.restore([LocalPart(copy.format, WHOLE, WHOLE, copy.path, None, copy.offsets)])
            assert second.tables() == ["forgotten"]
            assert second.get_many("forgotten", [b"\x03k"]) == [b"v"]
            second.close()


def new_folder(parent, name):
    folder = parent / name
    folder.mkdir()
    return folder


def test_no_rows_are_asked_for_and_none_are_given(backend):
    backend.open_table("t")
    backend.write("t", [])
    assert backend.get_many("t", []) == []
    assert list(backend.scan("t", b"\x00")) == []
    assert backend.last("t", b"\x00") is None


def test_size_grows_with_what_is_stored(backend):
    backend.open_table("t")
    before = backend.size_bytes()
    backend.write("t", [(b"\x01" + bytes([i]), b"v" * 1000) for i in range(200)])
    assert backend.size_bytes() >= before + 200_000


def test_a_copy_is_never_written_over_another(backend, tmp_path):
    target = tmp_path / "copy"
    backend.copy_out(target)
    with pytest.raises(FileExistsError):
        backend.copy_out(target)


def test_a_new_backend_refuses_a_folder_that_holds_a_database(tmp_path):
    backend_of("rocks", tmp_path).close()
    with pytest.raises(Rejected, match="a database already"):
        backend_of("rocks", tmp_path)


def test_an_unknown_option_is_refused(tmp_path):
    with pytest.raises(Rejected, match="memory_mb"):
        open_rocks(
            tmp_path,
            groups=KeyGroupRange(0, 8),
            max_parallelism=8,
            options={"memory_mb": 1},
        )


def test_a_damaged_file_is_corrupt_and_never_looks_like_fewer_rows(tmp_path):
    backend = backend_of("rocks", tmp_path / "rocks")
    backend.open_table("t")
    rows = [(b"\x01" + i.to_bytes(4, "big"), i.to_bytes(200, "big")) for i in range(2000)]
    backend.write("t", rows)
    copy = backend.copy_out(tmp_path / "copy")
    backend.close()
    (table_file,) = copy.path.glob("*.sst")
    data = bytearray(table_file.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 50] = bytes(50)
    table_file.unlink()
    table_file.write_bytes(data)
    with pytest.raises(Corrupt):
        canonical.from_rocks(copy.path, WHOLE, tmp_path / "stream", max_parallelism=8)


def test_a_folder_without_a_database_is_corrupt(tmp_path):
    empty = new_folder(tmp_path, "empty")
    with (
        pytest.raises(Corrupt),
        rocks.opened_for_reading(empty, scratch=tmp_path) as stored,
    ):
        stored.tables()


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-1],
        lambda data: b"X" + data[1:],
        lambda data: data[: len(data) // 2],
        lambda data: data[:-40] + b"\x00" * 40,
    ],
)
def test_a_damaged_stream_is_corrupt(tmp_path, damage):
    heap = backend_of("heap", tmp_path)
    heap.open_table("t")
    heap.write("t", [(bytes([i % 8]) + bytes([i]), b"v%d" % i) for i in range(100)])
    copy = heap.copy_out(tmp_path / "copy")
    data = damage(copy.path.read_bytes())
    other = backend_of("heap", tmp_path)
    with pytest.raises(Corrupt, match="canonical stream"):
        other.restore([LocalPart(copy.format, WHOLE, WHOLE, None, data, copy.offsets)])


def test_a_value_larger_than_a_block_is_copied_out_whole(tmp_path):
    heap = backend_of("heap", tmp_path)
    heap.open_table("t")
    large = [(b"\x02" + bytes([i]), bytes([i]) * (canonical.BLOCK_BYTES - 1)) for i in range(3)]
    small = [(b"\x02\xff" + i.to_bytes(4, "big"), b"") for i in range(2000)]
    heap.write("t", large + small)
    copy = heap.copy_out(tmp_path / "copy")
    restored = backend_of("heap", tmp_path)
    restored.restore([LocalPart(copy.format, WHOLE, WHOLE, copy.path, None, copy.offsets)])
    assert list(restored.scan("t", b"\x02")) == large + small


def test_copying_out_hard_links_table_files_and_leaves_them_to_the_copy(tmp_path):
    backend = backend_of("rocks", tmp_path / "rocks")
    backend.open_table("t")
    backend.write("t", [(b"\x01k", b"v")])
    copy = backend.copy_out(tmp_path / "copy")
    assert copy.format is KeyedFormat.ROCKSDB
    before = contents(copy.path)
    backend.write("t", [(b"\x01k", b"w")])
    backend.copy_out(tmp_path / "next")
    backend.close()
    shutil.rmtree(tmp_path / "rocks")
    assert contents(copy.path) == before
    with rocks.opened_for_reading(copy.path, scratch=tmp_path) as stored:
        assert list(stored.scan("t", b"\x01")) == [(b"\x01k", b"v")]


@pytest.mark.parametrize("kind", sorted(FACTORIES))
@pytest.mark.parametrize("source", sorted(FACTORIES))
def test_only_the_wanted_groups_of_a_wider_part_are_there(tmp_path, kind, source):
    wide = backend_of(source, new_folder(tmp_path, "wide"))
    wide.open_table("t")
    wide.write("t", [(bytes([group]) + b"k", b"v") for group in WHOLE])
    copy = wide.copy_out(tmp_path / "copy")
    wide.close()
    own = KeyGroupRange(3, 5)
    narrow = backend_of(kind, new_folder(tmp_path, "narrow"), groups=own)
    narrow.restore([LocalPart(copy.format, WHOLE, own, copy.path, None, copy.offsets)])
    held = [row for group in WHOLE for row, _ in narrow.scan("t", bytes([group]))]
    narrow.close()
    assert held == [b"\x03k", b"\x04k"]
