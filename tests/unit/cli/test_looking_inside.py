"""`penstock state`: any snapshot is read without the job."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from penstock.core.handles import KeyedFormat
from penstock.snapshots import Snapshot


@pytest.mark.parametrize("format", list(KeyedFormat))
def test_get_finds_every_key_in_every_format(penstock, made, words, format):
    made.checkpoint(8, words, format=format)
    for word in ("the", "it's", "word0", "word97"):
        answer = penstock("state", "get", "chk-8", "counts", "count", json.dumps(word))
        assert (answer.out, answer.err, answer.code) == (f"{words[word]}\n", "", 0)


def test_a_text_key_may_be_written_without_quotes(penstock, made, words):
    made.checkpoint(8, words)
    assert penstock("state", "get", "chk-8", "counts", "count", "the").out == "6287\n"


def test_keys_that_json_lacks_are_found_by_how_they_are_written(penstock, made):
    at = datetime(2026, 11, 21, 2, 59, tzinfo=UTC)
    made.checkpoint(8, {("eu", 7): 1, at: 2, 7.5: 3, 7: 4}, key_schema="object")
    get = ("state", "get", "chk-8", "counts", "count")
    assert penstock(*get, '["eu", 7]').out == "1\n"
    assert penstock(*get, '"2026-11-21T02:59:00+00:00"').out == "2\n"
    assert penstock(*get, "7.5").out == "3\n"
    assert penstock(*get, "7").out == "4\n"


def test_a_key_that_is_not_there_is_told_with_what_to_do(penstock, made, words):
    made.checkpoint(8, words)
    answer = penstock("state", "get", "chk-8", "counts", "count", '"absent"')
    assert answer.code == 2
    assert answer.err.startswith('error: no key "absent" in state count of operator counts\n')


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("chk-9", "counts", "count", "1"), "no snapshot: chk-9"),
        (("chk-8", "sums", "count", "1"), "there is no operator sums in this snapshot"),
        (("chk-8", "counts", "total", "1"), "operator counts has no keyed state total"),
        (("chk-8", "lines", "position", "1"), "operator lines has no keyed state position"),
        (("nowhere/chk-8", "counts", "count", "1"), "no snapshot: nowhere/chk-8"),
    ],
)
def test_what_is_not_there_is_named_with_what_is(penstock, made, words, arguments, told):
    made.checkpoint(8, words)
    answer = penstock("state", "get", *arguments)
    assert (answer.out, answer.code) == ("", 2)
    assert answer.err.startswith(f"error: {told}\n")
    assert "  do     " in answer.err


def test_ls_counts_keys_entries_and_bytes(penstock, made, words):
    name = made.savepoint("request", 9, words)
    answer = penstock("state", "ls", name)
    assert answer.code == 0
    head, empty, titles, *rows = answer.out.splitlines()
    assert head == (
        "savepoint of wordcount · 2026-11-21 02:59:19Z · parallelism 2 · 128 key groups"
        " · canonical v1"
    )
    assert empty == ""
    assert titles.split() == ["OPERATOR", "STATE", "KIND", "TYPE", "TTL", "KEYS", "ENTRIES", "SIZE"]
    assert rows[0].split() == ["counts", "key", "str", "100"]
    assert rows[1].split()[:6] == ["count", "ValueState", "int", "—", "100", "100"]
    assert rows[2].split()[:8] == [
        "lines",
        "position",
        "SplitListState",
        "FileSplit",
        "v1",
        "—",
        "—",
        "1",
    ]
    assert "even would be 0.8 %" in answer.out
    command = answer.out.splitlines()[-1].removeprefix("One key: penstock ")
    example = penstock(*_words_of(command))
    assert example.code == 0
    assert int(example.out) in words.values()


def _words_of(command: str) -> list[str]:
    import shlex

    return shlex.split(command)


@pytest.mark.parametrize("format", list(KeyedFormat))
def test_ls_for_programs_has_plain_numbers(penstock, made, words, format):
    made.checkpoint(8, words, format=format, parallelism=3)
    body = json.loads(penstock("state", "ls", "chk-8", "-o", "json").out)
    counts = next(o for o in body["operators"] if o["uid"] == "counts")
    assert counts["keys"] == 100
    assert counts["states"][0]["entries"] == 100
    assert counts["states"][0]["bytes"] == sum(body["groupBytes"].values()) > 0
    assert body["maxParallelism"] == 128


def test_export_gives_a_line_for_each_key(penstock, made, words):
    made.checkpoint(8, words)
    lines = penstock("state", "export", "chk-8", "counts", "count").out.splitlines()
    assert {body["key"]: body["value"] for body in map(json.loads, lines)} == words


def test_diff_tells_added_removed_and_changed_keys_across_formats_and_parallelism(
    penstock, made, words
):
    later = {**words, "the": 6300, "new": 1}
    del later["word0"]
    made.checkpoint(8, words, parallelism=2)
    made.checkpoint(9, later, parallelism=3, format=KeyedFormat.CANONICAL)
    answer = penstock("state", "diff", "chk-8", "chk-9")
    assert answer.out == (
        "counts count: 1 added, 1 removed, 1 changed\n"
        '  +  "new"    1\n'
        '  -  "word0"  1\n'
        '  ~  "the"    6287 → 6300\n'
    )
    same = penstock("state", "diff", "chk-8", "chk-8")
    assert same.out == "chk-8 and chk-8 hold the same keyed state\n"


def test_verify_reads_every_file_and_names_the_damaged_one(penstock, made, words, tmp_path):
    made.checkpoint(8, words)
    assert "is whole" in penstock("state", "verify", "chk-8").out
    victim = max(_files(tmp_path / "state" / "checkpoints" / "wordcount" / "shared"))
    data = bytearray(victim.read_bytes())
    data[-1] ^= 1
    victim.write_bytes(data)
    answer = penstock("state", "verify", "chk-8")
    assert (answer.out, answer.code) == ("", 4)
    assert f"shared/{victim.name} has another content" in answer.err
    victim.unlink()
    answer = penstock("state", "verify", "chk-8", "-o", "json")
    assert json.loads(answer.out)["damages"] == [f"shared/{victim.name} is missing"]
    assert answer.code == 4


def test_a_damaged_manifest_is_corrupt_and_left_alone(penstock, made, words, tmp_path):
    made.checkpoint(8, words)
    path = tmp_path / "state/checkpoints/wordcount/chk-8/_metadata"
    data = path.read_bytes().replace(b'"parallelism": 2', b'"parallelism": 3')
    path.write_bytes(data)
    answer = penstock("state", "ls", str(path.parent))
    assert answer.code == 4
    assert answer.err.startswith("error: the snapshot's manifest is damaged")
    assert path.read_bytes() == data


def test_a_snapshot_is_opened_by_path_by_url_and_by_its_metadata(made, words, tmp_path):
    made.checkpoint(8, words)
    folder = tmp_path / "state/checkpoints/wordcount/chk-8"
    for path in (str(folder), f"{folder}/", f"file://{folder}", f"{folder}/_metadata"):
        snapshot = Snapshot.open(path)
        assert snapshot.operators() == ["counts", "lines"]
        assert dict(snapshot.values("counts", "count")) == words


def test_the_jobs_own_state_gives_values_of_its_type(made, words, tmp_path):
    from penstock import ValueState

    class Counting:
        count = ValueState(int, default=0)

    made.checkpoint(8, words)
    snapshot = Snapshot.open(str(tmp_path / "state/checkpoints/wordcount/chk-8"))
    assert dict(snapshot.values("counts", Counting.count)) == words


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.iterdir() if path.is_file())
