"""The source `Files` beside an oracle that splits bytes itself; crashes are at any record."""

import gzip
import json
import os
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock import formats, sources
from penstock.connectors import split
from penstock.core.errors import Corrupt, Rejected
from penstock.dataflow.connector import (
    END,
    IDLE,
    Backlog,
    Quiet,
    Reader,
    SourceContext,
    SourceState,
)


class Clock:
    def __init__(self) -> None:
        self.ms = 0

    def __call__(self) -> int:
        return self.ms


def context(folder: Path, subtask: int = 0, parallelism: int = 1, clock: Any = lambda: 0) -> Any:
    return SourceContext(
        uid="lines",
        subtask=subtask,
        parallelism=parallelism,
        now_ms=clock,
        folder=folder,
        warn=lambda _: None,
    )


def opened(source: Any, folder: Path, parallelism: int, states: Any = None) -> list[Reader[Any]]:
    """All subtasks, restored as the runtime does it: splits divided evenly, all that is known."""
    readers = [source.open(context(folder, i, parallelism)) for i in range(parallelism)]
    if states is not None:
        splits = [one for state in states for one in state.splits]
        known = [one for state in states for one in state.known]
        for i, reader in enumerate(readers):
            reader.restore(SourceState(splits=splits[i::parallelism], known=known))
    return readers


def everything(reader: Reader[Any], limit: int = 1000) -> list[Any]:
    records: list[Any] = []
    while (polled := reader.poll(limit)) is not END:
        if polled is not IDLE:
            assert 0 < len(polled) <= limit
            records.extend(polled)
    return records


def lines_of(data: bytes) -> list[str]:
    """The oracle: what a line is."""
    found = data.split(b"\n")
    if found[-1] == b"":
        found.pop()
    return [(line[:-1] if line.endswith(b"\r") else line).decode() for line in found]


line = st.one_of(
    st.just(b""),
    st.just(b"\r"),
    st.binary(max_size=3).map(lambda data: data.hex().encode() + b"\r"),
    st.text(st.characters(exclude_characters="\n", codec="utf-8"), max_size=12).map(str.encode),
)
content = st.tuples(st.lists(line, max_size=12), st.booleans()).map(
    lambda drawn: b"\n".join(drawn[0]) + b"\n" * drawn[1]
)
names = st.sampled_from(["a.log", "b.log", "c.log.gz", "sub/d.log", "e.log.gz", "ü.log"])


def write(folder: Path, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        (folder / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    files=st.dictionaries(names, content, min_size=1),
    block_bytes=st.sampled_from([1, 2, 3, 7, 64, 1 << 18]),
    seed=st.integers(0, 2**32),
)
def test_every_line_comes_exactly_once_through_any_crashes_and_parallelism(
    files: dict[str, bytes], block_bytes: int, seed: int, tmp_path_factory: pytest.TempPathFactory
):
    folder = tmp_path_factory.mktemp("files")
    write(folder / "in", files)
    random = Random(seed)
    got: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(split, "BLOCK_BYTES", block_bytes)
        source, states = sources.Files("in"), None
        for attempt in count(1):
            readers = opened(source, folder, random.randint(1, 3), states)
            done, states = _run_and_maybe_crash(readers, random, attempt, got)
            if done:
                break
    expected = Counter(one for data in files.values() for one in lines_of(data))
    assert Counter(got) == expected


def _run_and_maybe_crash(
    readers: list[Reader[Any]], random: Random, attempt: int, got: list[str]
) -> tuple[bool, Any]:
    """Poll in any order. At some moment a snapshot is taken; what is read after it is lost."""
    running = list(readers)
    for _ in range(random.randint(0, 4 * attempt)):
        reader = random.choice(running)
        polled = reader.poll(random.randint(1, 4))
        if polled is END:
            running.remove(reader)
            if not running:
                return True, None
        elif polled is not IDLE:
            got.extend(polled)
    states = [reader.snapshot() for reader in readers]
    for reader in running:
        reader.poll(random.randint(1, 4))  # lost in the crash
    for reader in readers:
        reader.close()
    return False, states


@pytest.mark.parametrize("ended", [True, False])
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_each_line_can_be_the_first_after_a_restore(tmp_path: Path, suffix: str, ended: bool):
    data = b"one\r\n\n\xc3\xbc\n" + b"x" * 100 + b"\nlast" + b"\n" * ended
    write(tmp_path, {"a.log" + suffix: data})
    expected = lines_of(data)
    source = sources.Files("a.log*")
    for taken in range(len(expected) + 1):
        reader = source.open(context(tmp_path))
        first = [reader.poll(1) for _ in range(taken)]
        [again] = opened(source, tmp_path, 1, [reader.snapshot()])
        assert [*(one for [one] in first), *everything(again)] == expected


def test_a_snapshot_is_readable_and_says_where_the_file_goes_on(tmp_path: Path):
    (tmp_path / "a.log").write_bytes(b"one\ntwo\nthree")
    reader = sources.Files("*.log").open(context(tmp_path))
    assert reader.poll(2) == ["one", "two"]
    state = reader.snapshot()
    assert [json.loads(one) for one in state.splits] == [
        {"path": "a.log", "length": 13, "version": "", "offset": 8, "line": 2, "header": None}
    ]
    assert [json.loads(one) for one in state.known] == ["a.log"]
    with pytest.raises(Corrupt, match="not a split"):
        reader.restore(SourceState(splits=[b"{}"]))


def test_an_error_is_told_by_file_and_line(tmp_path: Path):
    (tmp_path / "access.log").write_bytes(b"1\n" * 8898 + b"2\n3\n")
    reader = sources.Files("access.log", formats.Json(int)).open(context(tmp_path))
    while (batch := reader.poll(1000)) and 2 not in batch:
        pass
    assert reader.position(list(batch).index(2)) == "access.log, line 8,899"


def test_blank_lines_do_not_shift_what_an_error_says(tmp_path: Path):
    (tmp_path / "a").write_bytes(b"\n1\n\n\n2\n3\n")
    reader = sources.Files("a", formats.Json(int)).open(context(tmp_path))
    assert reader.poll(2) == [1, 2]
    assert [reader.position(i) for i in (0, 1)] == ["a, line 2", "a, line 5"]
    assert reader.poll(2) == [3]
    assert reader.position(0) == "a, line 6"


def test_what_comes_before_a_bad_line_is_read_and_the_bad_line_is_named(tmp_path: Path):
    (tmp_path / "a").write_bytes(b"1\n2\nthree\n4\n")
    source = sources.Files("a", formats.Json(int))
    reader = source.open(context(tmp_path))
    assert reader.poll(10) == [1, 2]
    state = reader.snapshot()
    for again in (reader, reader, opened(source, tmp_path, 1, [state])[0]):
        with pytest.raises(Rejected) as told:
            again.poll(10)
        assert told.value.where == "a, line 3"
        assert told.value.__cause__ is not None
    (tmp_path / "a").write_bytes(b"1\n2\n33333\n4\n")
    assert everything(opened(source, tmp_path, 1, [state])[0]) == [33333, 4]


def test_a_csv_header_is_remembered_by_each_split(tmp_path: Path):
    (tmp_path / "a.csv").write_bytes(b"b,a\n1,2\n3,4\n")
    (tmp_path / "b.csv").write_bytes(b"a,b\n5,6")
    (tmp_path / "empty.csv").write_bytes(b"")
    (tmp_path / "only.csv").write_bytes(b"a,b\n")
    source = sources.Files("*.csv", formats.Csv(dict[str, int]))
    expected = [{"b": 1, "a": 2}, {"b": 3, "a": 4}, {"a": 5, "b": 6}]
    for taken in range(4):
        reader = source.open(context(tmp_path))
        first = [reader.poll(1) for _ in range(taken)]
        [again] = opened(source, tmp_path, 1, [reader.snapshot()])
        assert [*(one for [one] in first), *everything(again)] == expected
    reader = source.open(context(tmp_path))
    reader.poll(2)
    assert reader.position(1) == "a.csv, line 3"


def test_a_folder_means_all_files_below_it_but_hidden_ones(tmp_path: Path):
    seen = ["a", "sub/b", "sub/deeper/c"]
    hidden = [".a", "_SUCCESS", ".pending/d", "sub/_e", "_sub/f"]
    write(tmp_path / "in", {name: name.encode() for name in seen + hidden})
    for pattern in ("in", "in/", str(tmp_path / "in"), "i*"):
        reader = sources.Files(pattern).open(context(tmp_path))
        assert everything(reader) == seen


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("in/*.log", ["a.log", "b.log"]),
        ("in/**/*.log", ["a.log", "b.log", "sub/c.log"]),
        ("in/[b-z].log", ["b.log"]),
        ("in/?.log", ["a.log", "b.log"]),
        ("in/x[1].txt", ["x[1].txt"]),
    ],
)
def test_patterns(tmp_path: Path, pattern: str, expected: list[str]):
    names = ["a.log", "b.log", "sub/c.log", "x[1].txt", ".h.log"]
    write(tmp_path / "in", {name: name.encode() for name in names})
    assert everything(sources.Files(pattern).open(context(tmp_path))) == expected


def test_no_file_is_an_error_that_says_pattern_and_folder(tmp_path: Path):
    with pytest.raises(Rejected, match=rf"no file matches nope/\*\.log in {tmp_path}"):
        sources.Files("nope/*.log").open(context(tmp_path)).poll(1)


@pytest.mark.parametrize(
    ("link", "target", "pattern"),
    [
        ("in/up", "..", "in/**/*.log"),
        ("in/up", "..", "**/*.log"),
        ("in/up", "../..", "**/*.log"),
        ("in/self", ".", "in/**"),
        ("in/up", "..", "../job/in/**/*.log"),
        ("linked", "in", "linked/**/*.log"),
    ],
)
def test_a_link_that_leads_back_makes_no_file_come_twice(
    tmp_path: Path, link: str, target: str, pattern: str
):
    folder = tmp_path / "job"
    write(folder / "in", {"a.log": b"a", "b/c.log": b"c"})
    (folder / link).symlink_to(target)
    assert sorted(everything(sources.Files(pattern).open(context(folder)))) == ["a", "c"]


@pytest.mark.parametrize("pattern", ["pipe", "pi*", "/dev/zero"])
def test_what_cannot_be_read_again_is_no_input(tmp_path: Path, pattern: str):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(Rejected, match="no regular file"):
        sources.Files(pattern).open(context(tmp_path)).poll(1)


def test_only_the_subtask_that_a_name_belongs_to_reads_a_new_file(tmp_path: Path):
    write(tmp_path, {f"{i}.log": b"%d" % i for i in range(30)})
    for parallelism in (2, 3, 4):
        readers = opened(sources.Files("*.log"), tmp_path, parallelism)
        shares = [everything(reader) for reader in readers]
        assert sorted(int(one) for share in shares for one in share) == list(range(30))
        assert all(shares)


def test_known_files_are_each_in_one_subtasks_snapshot_after_any_restores(tmp_path: Path):
    write(tmp_path, {f"{i}.log": b"%d" % i for i in range(9)})
    states: Any = None
    for parallelism in (3, 2, 4):
        readers = opened(sources.Files("*.log"), tmp_path, parallelism, states)
        for reader in readers:
            everything(reader)
        states = [reader.snapshot() for reader in readers]
        known = [json.loads(one) for state in states for one in state.known]
        assert sorted(known) == [f"{i}.log" for i in range(9)]


def test_a_file_that_one_subtask_has_not_found_yet_is_not_lost_by_a_restore(tmp_path: Path):
    source = sources.Files("*.log", watch=timedelta(seconds=1))
    write(tmp_path, {"first.log": b"first"})
    early, late = opened(source, tmp_path, 2)
    got = [one for reader in (early,) for one in _now(reader)]
    write(tmp_path, {f"{i}.log": b"%d" % i for i in range(10)})
    got += _now(late)  # it has found the new ones, the other has not
    again = opened(source, tmp_path, 2, [early.snapshot(), late.snapshot()])
    got += [one for reader in again for one in _now(reader)]
    assert sorted(got) == sorted(["first", *map(str, range(10))])


def _now(reader: Reader[Any]) -> Iterator[Any]:
    while (polled := reader.poll(10)) is not IDLE:
        assert polled is not END
        yield from polled


def test_watching_finds_new_files_at_its_interval_and_never_ends(tmp_path: Path):
    clock = Clock()
    source = sources.Files("*.log", watch=timedelta(seconds=2))
    reader = source.open(context(tmp_path, clock=clock))
    assert reader.poll(1) is IDLE
    write(tmp_path, {"a.log": b"a"})
    clock.ms = 1999
    assert reader.poll(1) is IDLE
    clock.ms = 2000
    assert [reader.poll(1), reader.poll(1)] == [["a"], IDLE]
    write(tmp_path, {"a.log": b"a\nmore"})
    clock.ms = 9999
    assert reader.poll(1) is IDLE


def test_a_file_is_read_up_to_the_length_it_had_when_it_was_found(tmp_path: Path):
    (tmp_path / "a").write_bytes(b"one\ntw")
    source = sources.Files("a")
    reader = source.open(context(tmp_path))
    assert reader.poll(1) == ["one"]
    state = reader.snapshot()
    (tmp_path / "a").write_bytes(b"one\ntwo\nthree\n")
    assert everything(opened(source, tmp_path, 1, [state])[0]) == ["tw"]


def test_a_file_that_vanished_or_shrank_is_told(tmp_path: Path):
    (tmp_path / "a").write_bytes(b"one\ntwo\n")
    source = sources.Files("a")
    reader = source.open(context(tmp_path))
    reader.poll(1)
    state = reader.snapshot()
    (tmp_path / "a").write_bytes(b"one\n")
    with pytest.raises(Rejected, match="4 bytes, but had 8"):
        opened(source, tmp_path, 1, [state])[0].poll(1)
    (tmp_path / "a").unlink()
    with pytest.raises(Rejected, match="is gone"):
        opened(source, tmp_path, 1, [state])[0].poll(1)


def test_a_file_that_shrinks_while_it_is_read_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(split, "BLOCK_BYTES", 4)
    (tmp_path / "a").write_bytes(b"one\ntwo\n")
    reader = sources.Files("a").open(context(tmp_path))
    assert reader.poll(1) == ["one"]
    (tmp_path / "a").write_bytes(b"one\n")
    with pytest.raises(Rejected, match="became shorter"):
        reader.poll(1)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (gzip.compress(b"one\ntwo\n", mtime=0)[:-4], "ends in the middle"),
        (gzip.compress(bytes(range(256)) * 99, mtime=0)[:40], "ends in the middle"),
        (b"plain text", "not gzip"),
        (gzip.compress(b"one\n", mtime=0) + b"trash", "not gzip"),
    ],
)
def test_a_damaged_gzip_file_is_told(tmp_path: Path, data: bytes, sentence: str):
    (tmp_path / "a.gz").write_bytes(data)
    with pytest.raises(Rejected, match=sentence):
        everything(sources.Files("a.gz", formats.Text("latin-1")).open(context(tmp_path)))


@pytest.mark.parametrize("block_bytes", [1, 5, 1 << 18])
def test_gzip_members_and_padding(
    tmp_path: Path, block_bytes: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(split, "BLOCK_BYTES", block_bytes)
    members = [gzip.compress(one) for one in (b"one\ntw", b"", b"o\nthree")]
    (tmp_path / "a.gz").write_bytes(b"".join(members) + b"\0" * 7)
    assert everything(sources.Files("a.gz").open(context(tmp_path))) == ["one", "two", "three"]


def test_a_rate_is_shared_by_all_subtasks(tmp_path: Path):
    clock = Clock()
    write(tmp_path, {f"{i}.log": b"x\n" * 1000 for i in range(100)})
    source = sources.Files("*.log", per_second=100)
    readers = [source.open(context(tmp_path, i, 4, clock)) for i in range(4)]
    total = 0
    for clock.ms in range(0, 10_000, 10):
        for reader in readers:
            polled = reader.poll(500)
            total += 0 if isinstance(polled, Quiet) else len(polled)
    assert 990 <= total <= 1000


def test_what_is_left_to_read_is_known_without_reading(tmp_path: Path):
    write(tmp_path, {"a.log": b"a"})
    source = sources.Files("*.log")
    reader = source.open(context(tmp_path))
    assert reader.unread()
    everything(reader)
    assert not reader.unread()
    [again] = opened(source, tmp_path, 1, [reader.snapshot()])
    assert not again.unread()
    assert again.poll(1) is END
    write(tmp_path, {"b.log": b"b"})
    [again] = opened(source, tmp_path, 1, [reader.snapshot()])
    assert again.unread()
    assert everything(again) == ["b"]


def test_the_backlog_is_every_waiting_file_and_the_rest_of_the_one_being_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(split, "BLOCK_BYTES", 4)
    write(tmp_path, {"a.log": b"1\n2\n3\n4\n5\n6\n", "b.log": b"7\n8\n"})
    reader = sources.Files("*.log").open(context(tmp_path))
    assert reader.backlog() is None, "no file is known before the first poll"
    found = []
    while reader.poll(1) is not END:
        found.append(reader.backlog())
    # The block that a record was taken of counts until its last one is.
    left = [(2, 16), (2, 12), (2, 12), (2, 8), (2, 8), (2, 4), (1, 4), (1, 0)]
    assert found == [Backlog(*one) for one in left]
    assert reader.backlog() == Backlog(0, 0)


@pytest.mark.parametrize("records", [0, 1, 3, 4])
def test_the_backlog_goes_on_where_a_restore_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, records: int
):
    monkeypatch.setattr(split, "BLOCK_BYTES", 4)
    write(tmp_path, {"a.log": b"1\n2\n3\n4\n", "b.log": b"5\n"})
    reader = sources.Files("*.log").open(context(tmp_path))
    assert [reader.poll(1) for _ in range(records)] == [[str(i + 1)] for i in range(records)]
    [again] = opened(sources.Files("*.log"), tmp_path, 1, [reader.snapshot()])
    expected = Backlog(2, 10 - 2 * records) if records else None
    assert again.backlog() == expected


def test_the_backlog_of_packed_files_is_in_packed_bytes_and_all_of_them_after_a_restore(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(split, "BLOCK_BYTES", 64)
    text = Random(1).randbytes(2_000).hex().encode()
    data = b"\n".join(text[at : at + 40] for at in range(0, len(text), 40)) + b"\n"
    write(tmp_path, {"a.log.gz": data, "b.log.gz": data})
    length = (tmp_path / "a.log.gz").stat().st_size
    source = sources.Files("*.gz")
    reader = source.open(context(tmp_path))
    left = []
    for _ in range(98):
        reader.poll(1)
        left.append(reader.backlog())
    assert {one.files for one in left} == {2}
    counts = [one.bytes for one in left]
    assert counts == sorted(counts, reverse=True)
    assert length < counts[50] < 2 * length
    assert counts[-1] - length < 128
    [again] = opened(source, tmp_path, 1, [reader.snapshot()])
    assert again.backlog() == Backlog(2, 2 * length), "its beginning is unpacked once more"
    everything(again)
    assert again.backlog() == Backlog(0, 0)


def test_a_line_may_span_many_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(split, "BLOCK_BYTES", 16)
    (tmp_path / "a").write_bytes(b"x" * 1000 + b"\n" + b"y" * 1000)
    assert everything(sources.Files("a").open(context(tmp_path))) == ["x" * 1000, "y" * 1000]


def test_a_file_without_lines_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(split, "_LINE_BYTES_MAX", 1000)
    (tmp_path / "a").write_bytes(b"one\n" + b"x" * (1 << 20))
    reader = sources.Files("a").open(context(tmp_path))
    assert reader.poll(1) == ["one"]
    with pytest.raises(Rejected, match="no line break") as told:
        reader.poll(1)
    assert told.value.where == "a, line 2"


def test_what_cannot_be_is_refused_when_the_graph_is_built():
    with pytest.raises(Rejected, match="no file is named"):
        sources.Files("")
    with pytest.raises(Rejected, match="no place of files"):
        sources.Files("https://host/in.txt")
    with pytest.raises(Rejected, match="watch must be above 0"):
        sources.Files("a", watch=timedelta(0))
    with pytest.raises(Rejected, match="per_second must be above 0"):
        sources.Files("a", per_second=0)


def test_labels_and_types():
    assert sources.Files("a").label == 'Files("a")'
    assert sources.Files("a", formats.Json(int)).label == 'Files("a", Json(int))'
    assert sources.Files("a", formats.Json()).label == 'Files("a", Json)'
    assert sources.Files("a").record_type is str
    assert sources.Files("a", formats.Json(int)).record_type is int
    assert sources.Files("a", formats.Json()).record_type is None
