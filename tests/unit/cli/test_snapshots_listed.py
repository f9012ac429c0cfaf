"""`penstock snapshots` and `penstock gc`: what lies in a storage, and what nobody needs."""

import json

import pytest

from penstock.core.log import EntryKind


def test_a_storage_lists_savepoints_and_kept_checkpoints_newest_first(penstock, made, words):
    made.checkpoint(10, words)
    made.checkpoint(11, words)
    name = made.savepoint("mine", 12, words)
    answer = penstock("snapshots")
    assert answer.code == 0
    titles, *rows, empty, last = answer.out.splitlines()
    assert titles.split("  ")[0] == "KIND"
    assert [row.split()[:2] for row in rows] == [
        ["savepoint", name],
        ["checkpoint", "chk-11"],
        ["checkpoint", "chk-10"],
    ]
    assert rows[0].endswith("2  mine       ← latest")
    assert rows[1].endswith("2  attempt 1")
    assert empty == ""
    assert last == "Restore one: penstock run streamjob.yaml --restore chk-11"


def test_a_checkpoint_that_the_log_does_not_keep_is_not_listed(penstock, made, words):
    made.checkpoint(10, words, retain=False)
    made.checkpoint(11, words)
    found = json.loads(penstock("snapshots", "state", "-o", "json").out)
    assert [s["name"] for s in found] == ["chk-11"]
    assert found[0]["newBytes"] == found[0]["bytes"] > 0
    assert found[0]["isLatest"]
    assert found[0]["path"].endswith("/state/checkpoints/wordcount/chk-11")


def test_a_damaged_checkpoint_is_marked_and_is_not_the_latest(penstock, made, words, tmp_path):
    made.checkpoint(10, words)
    manifest = made.checkpoint(11, words)
    lost = next(manifest.files()).path
    (tmp_path / "state/checkpoints/wordcount" / lost).unlink()
    rows = penstock("snapshots").out.splitlines()
    assert rows[1].endswith("damaged: 1 file missing")
    assert rows[2].endswith("← latest")


@pytest.mark.parametrize("storage", ["state", "state/checkpoints", "state/checkpoints/.."])
def test_any_folder_above_will_do(penstock, made, words, storage):
    made.checkpoint(10, words)
    assert "chk-10" in penstock("snapshots", storage).out


def test_an_empty_storage_says_so_on_stderr(penstock, tmp_path):
    (tmp_path / "state").mkdir()
    answer = penstock("snapshots")
    assert (answer.out, answer.code) == ("", 0)
    assert answer.err.startswith("no snapshot in file://")


def test_a_folder_that_is_not_there_is_wrong(penstock):
    answer = penstock("snapshots", "elsewhere")
    assert answer.code == 2
    assert answer.err.startswith("error: there is no folder elsewhere\n")


def test_a_savepoint_is_found_by_the_beginning_of_its_name(penstock, made, words):
    name = made.savepoint("mine", 12, words)
    assert penstock("state", "get", name[:-6], "counts", "count", "the").out == "6287\n"


def test_gc_reports_what_no_snapshot_uses_and_deletes_only_when_told(
    penstock, made, words, tmp_path
):
    made.checkpoint(10, words, retain=False)
    made.checkpoint(11, words)
    made.entry(EntryKind.OPENED, attempt=2)
    before = _all_files(tmp_path / "state")
    young = penstock("gc")
    assert young.out == "every file in state belongs to a snapshot, a running attempt or a log\n"
    report = json.loads(penstock("gc", "--grace", "0s", "-o", "json").out)
    orphans = {f"checkpoints/{path}".removeprefix("checkpoints/") for path in report[0]["orphans"]}
    assert "checkpoints/wordcount/chk-10/_metadata" in orphans
    assert all("/1-10-" in path or "/chk-10/" in path for path in orphans)
    assert _all_files(tmp_path / "state") == before
    told = penstock("gc", "--grace", "0s")
    assert told.out.endswith("nothing was deleted; to do it: penstock gc state --delete\n")
    penstock("gc", "--grace", "0s", "--delete")
    assert _all_files(tmp_path / "state") == before - orphans
    assert penstock("state", "verify", "chk-11").code == 0


def test_gc_leaves_the_running_attempt_alone(penstock, made, words):
    made.checkpoint(10, words, retain=False)
    made.checkpoint(11, words)
    assert json.loads(penstock("gc", "--grace", "0s", "-o", "json").out)[0]["bytes"] == sum(
        info.length for info in made.checkpoints.list("wordcount/chk-10/")
    )
    # Its shared files carry the number of an attempt that still runs.


def test_gc_refuses_when_a_kept_manifest_is_gone(penstock, made, words, tmp_path):
    made.checkpoint(10, words)
    (tmp_path / "state/checkpoints/wordcount/chk-10/_metadata").unlink()
    answer = penstock("gc", "--grace", "0s", "--delete")
    assert answer.code == 4
    assert "nothing was deleted" in answer.err


def test_gc_wants_a_duration(penstock, made):
    answer = penstock("gc", "--grace", "soon")
    assert answer.code == 2


def _all_files(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
