"""The sink `Files` in a folder and in a bucket: what readers see, whatever is killed in between."""

import json
import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, TypedDict

import boto3
import pytest

from penstock import formats, sinks
from penstock.connectors import files_sink, s3_objects, s3_parts
from penstock.core.errors import Corrupt, Rejected, Retryable
from penstock.dataflow.connector import SinkContext, Writer


class Folder:
    """How a reader of the output sees a folder on this machine."""

    def __init__(self, path: Path) -> None:
        self.path = str(path / "out")

    def seen(self) -> dict[str, bytes]:
        root = Path(self.path)
        found = root.iterdir() if root.exists() else ()
        return {file.name: file.read_bytes() for file in found if file.name[0] != "."}

    def pending(self) -> list[str]:
        folder = Path(self.path) / ".pending"
        return sorted(file.name for file in folder.iterdir()) if folder.exists() else []

    def lose(self) -> None:
        for file in (Path(self.path) / ".pending").iterdir():
            file.unlink()

    def remove(self, name: str) -> None:
        (Path(self.path) / name).unlink()


class InBucket:
    """The same of a bucket."""

    def __init__(self, bucket: str) -> None:
        self.path = f"s3://{bucket}/some/out"
        self._bucket = bucket
        self._client: Any = boto3.Session().client("s3")

    def seen(self) -> dict[str, bytes]:
        found = self._client.list_objects_v2(Bucket=self._bucket, Prefix="some/out/")
        keys = [one["Key"] for one in found.get("Contents", ())]
        return {
            key.removeprefix("some/out/"): self._client.get_object(Bucket=self._bucket, Key=key)[
                "Body"
            ].read()
            for key in keys
        }

    def _uploads(self) -> list[Any]:
        found = self._client.list_multipart_uploads(Bucket=self._bucket, Prefix="some/out/")
        return list(found.get("Uploads", ()))

    def pending(self) -> list[str]:
        return sorted(one["Key"].removeprefix("some/out/") for one in self._uploads())

    def lose(self) -> None:
        for one in self._uploads():
            self._client.abort_multipart_upload(
                Bucket=self._bucket, Key=one["Key"], UploadId=one["UploadId"]
            )

    def remove(self, name: str) -> None:
        self._client.delete_object(Bucket=self._bucket, Key=f"some/out/{name}")


@pytest.fixture(params=["folder", "bucket"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    if request.param == "folder":
        return Folder(tmp_path)
    return InBucket(request.getfixturevalue("new_bucket")())


@pytest.fixture
def exact_place(place: Any, request: pytest.FixtureRequest) -> Any:
    """The same, without moto: it answers 500 where an upload is gone."""
    if isinstance(place, InBucket):
        request.getfixturevalue("real_s3")
    return place


def writer(
    place: Any,
    *,
    attempt: int = 1,
    subtask: int = 0,
    job: str = "job",
    uid: str = "out",
    nonce: str = "ab12",
    clock: Callable[[], int] = lambda: 0,
    format: Any = None,
    roll_after: timedelta | None = None,
) -> Writer[Any]:
    ctx = SinkContext(
        uid=uid,
        subtask=subtask,
        parallelism=3,
        attempt=attempt,
        transaction=lambda n: f"{job}/{uid}/{subtask}/{attempt}-{n}-{nonce}",
        now_ms=clock,
        folder=Path("/nowhere"),
        warn=lambda _: None,
    )
    sink = sinks.Files(place.path, format or formats.Text(), roll_after=roll_after)
    return sink.open(ctx)


class Point(TypedDict):
    x: int
    y: int


def lines(place: Any) -> list[str]:
    seen = place.seen()
    return [line for name in sorted(seen) for line in seen[name].decode().splitlines()]


def test_nothing_is_seen_before_the_commit_and_everything_after_it(place: Any):
    out = writer(place)
    out.write(["a", "b"])
    out.write(["c"])
    assert place.seen() == {}
    [transaction] = out.prepare(1)
    assert place.seen() == {}
    assert json.loads(transaction)["folder"] == place.path
    out.write(["later"])
    out.commit(transaction)
    assert lines(place) == ["a", "b", "c"]


def test_a_checkpoint_without_records_makes_no_file(place: Any):
    out = writer(place)
    assert list(out.prepare(1)) == []
    out.write([])
    assert list(out.prepare(2)) == []
    assert (place.seen(), place.pending()) == ({}, [])


def test_committing_again_changes_nothing(place: Any):
    out = writer(place)
    out.write(["a"])
    [transaction] = out.prepare(1)
    out.commit(transaction)
    before = place.seen()
    out.commit(transaction)
    writer(place, attempt=2, subtask=1).commit(transaction)
    assert place.seen() == before
    assert lines(place) == ["a"]


def test_another_subtask_of_a_later_attempt_commits_what_a_killed_one_prepared(place: Any):
    transactions: list[bytes] = []
    for subtask in range(3):
        out = writer(place, subtask=subtask)
        out.write([f"of {subtask}"])
        transactions += out.prepare(1)
        out.write(["lost in the crash"])
    del out
    again = writer(place, attempt=2)
    again.abort_except(transactions)
    for transaction in transactions:
        again.commit(transaction)
    assert lines(place) == ["of 0", "of 1", "of 2"]
    assert place.pending() == []


def test_leftovers_of_older_attempts_go_but_for_those_that_a_snapshot_names(place: Any):
    out = writer(place, attempt=3)
    out.write(["kept"])
    [kept] = out.prepare(1)
    out.write(["prepared, in no snapshot"])
    out.prepare(2)
    out.write(["not prepared"])
    writer(place, attempt=12, subtask=2).write(["two digits"])
    now = writer(place, attempt=13)
    now.write(["of this attempt"])
    own = writer(place, attempt=13, subtask=1)
    own.write(["also"])
    assert len(place.pending()) == 6
    now.abort_except([kept])
    assert len(place.pending()) == 3
    for transaction in [kept, *now.prepare(3), *own.prepare(3)]:
        now.commit(transaction)
    assert lines(place) == ["kept", "of this attempt", "also"]


def test_other_jobs_and_sinks_and_readers_files_in_the_folder_are_left_alone(place: Any):
    whos: list[dict[str, Any]] = [{"job": "other"}, {"uid": "else"}, {"attempt": 5}, {"attempt": 6}]
    for who in whos:
        writer(place, **who).write(["theirs"])
    writer(place, attempt=5).abort_except([])
    assert len(place.pending()) == 4


def test_a_fresh_start_in_an_empty_place_has_nothing_to_abort(place: Any):
    writer(place, attempt=2).abort_except([])
    assert place.seen() == {}


def test_no_two_writers_ever_use_the_same_name(place: Any):
    whos: list[dict[str, Any]] = [
        {},
        {"subtask": 1},
        {"attempt": 2},
        {"job": "other"},
        {"uid": "else"},
        {"nonce": "cd34"},
    ]
    for i, who in enumerate(whos):
        out = writer(place, **who)
        for n in (1, 2):
            out.write([f"{i} {n}"])
            for transaction in out.prepare(n):
                out.commit(transaction)
    assert sorted(lines(place)) == [f"{i} {n}" for i in range(len(whos)) for n in (1, 2)]


def test_names_sort_in_the_order_of_writing(place: Any):
    for attempt in (1, 2, 10):
        out = writer(place, attempt=attempt)
        for n in range(12):
            out.write([f"{attempt} {n}"])
            for transaction in out.prepare(n):
                out.commit(transaction)
    assert lines(place) == [f"{attempt} {n}" for attempt in (1, 2, 10) for n in range(12)]


def test_what_is_neither_pending_nor_committed_is_told(exact_place: Any):
    out = writer(exact_place)
    out.write(["a"])
    [transaction] = out.prepare(1)
    exact_place.lose()
    with pytest.raises(Corrupt, match="neither pending nor committed") as told:
        out.commit(transaction)
    assert json.loads(transaction)["name"] in (told.value.where or "")


def test_what_was_committed_and_taken_away_by_a_reader_is_told_too(exact_place: Any):
    out = writer(exact_place)
    out.write(["a"])
    [transaction] = out.prepare(1)
    out.commit(transaction)
    [name] = exact_place.seen()
    exact_place.remove(name)
    with pytest.raises(Corrupt, match="neither pending nor committed"):
        out.commit(transaction)


def test_what_was_not_prepared_is_thrown_away_at_the_end(place: Any):
    out = writer(place)
    out.write(["a"])
    assert len(place.pending()) == 1
    out.close()
    assert (place.pending(), place.seen()) == ([], {})


def test_a_file_ends_after_its_time_also_between_checkpoints(place: Any):
    now = [0]
    out = writer(place, clock=lambda: now[0], roll_after=timedelta(seconds=10))
    for now[0], record in ((0, "a"), (9_999, "b"), (10_000, "c"), (19_999, "d"), (20_000, "e")):
        out.write([record])
    transactions = out.prepare(1)
    for transaction in transactions:
        out.commit(transaction)
    seen = place.seen()
    assert [seen[name] for name in sorted(seen)] == [b"a\nb\n", b"c\nd\n", b"e\n"]


def test_a_file_ends_when_it_is_big(place: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(files_sink, "ROLL_BYTES", 4)
    out = writer(place)
    for record in ("aa", "bb", "cc"):
        out.write([record])
    assert len(out.prepare(1)) == 2


def test_each_csv_file_begins_with_its_header(place: Any):
    out = writer(place, format=formats.Csv(Point))
    for n in (1, 2):
        out.write([{"x": n, "y": 2}])
        out.write([{"x": n, "y": 3}])
        for transaction in out.prepare(n):
            out.commit(transaction)
    seen = place.seen()
    assert [seen[name] for name in sorted(seen)] == [
        b"x,y\n1,2\n1,3\n",
        b"x,y\n2,2\n2,3\n",
    ]
    assert all(name.endswith(".csv") for name in seen)


def test_a_sink_commits_what_it_prepared_elsewhere_before_the_job_was_changed(
    place: Any, tmp_path: Path
):
    out = writer(place)
    out.write(["a"])
    [transaction] = out.prepare(1)
    moved = writer(Folder(tmp_path / "elsewhere"), attempt=2)
    moved.abort_except([transaction])
    moved.commit(transaction)
    assert lines(place) == ["a"]


def test_the_content_is_durable_before_prepare_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    synced: list[str] = []
    monkeypatch.setattr(
        os, "fsync", lambda fd: synced.append(str(Path(f"/proc/self/fd/{fd}").readlink()))
    )
    out = writer(Folder(tmp_path))
    out.write(["a"])
    synced.clear()
    [transaction] = out.prepare(1)
    name = json.loads(transaction)["name"]
    folder = str(tmp_path / "out")
    assert synced == [f"{folder}/.pending/{name}", f"{folder}/.pending"]
    synced.clear()
    out.commit(transaction)
    assert synced == [folder]
    synced.clear()
    out.commit(transaction)
    assert synced == [folder]


def test_a_torn_prepared_file_is_not_committed(tmp_path: Path):
    place = Folder(tmp_path)
    out = writer(place)
    out.write(["abc"])
    [transaction] = out.prepare(1)
    [name] = place.pending()
    (tmp_path / "out/.pending" / name).write_bytes(b"a")
    with pytest.raises(Corrupt, match="1 bytes instead of 4"):
        out.commit(transaction)
    assert place.seen() == {}


def test_a_large_upload_goes_in_parts_and_comes_out_whole(new_bucket: Callable[[], str]):
    place = InBucket(new_bucket())
    out = writer(place)
    rows = [f"{i:07}" * 20 for i in range(s3_parts.PART_BYTES // 60)]
    for start in range(0, len(rows), 10_000):
        out.write(rows[start : start + 10_000])
    [transaction] = out.prepare(1)
    assert len(json.loads(transaction)["etags"]) >= 3
    out.commit(transaction)
    assert lines(place) == rows


def test_a_commit_whose_answer_was_lost_is_done_again(
    new_bucket: Callable[[], str], monkeypatch: pytest.MonkeyPatch
):
    place = InBucket(new_bucket())
    out = writer(place)
    out.write(["a"])
    [transaction] = out.prepare(1)
    complete = s3_objects.Bucket.complete_upload

    def loses_the_answer(*args: Any) -> bool:
        complete(*args)
        raise Retryable("no answer")

    monkeypatch.setattr(s3_objects.Bucket, "complete_upload", loses_the_answer)
    with pytest.raises(Retryable):
        out.commit(transaction)
    monkeypatch.undo()
    out.commit(transaction)
    assert lines(place) == ["a"]


def test_what_cannot_be_is_refused_when_the_graph_is_built():
    with pytest.raises(Rejected, match="no folder is named"):
        sinks.Files("")
    with pytest.raises(Rejected, match="no place for files"):
        sinks.Files("gs://bucket/out")
    with pytest.raises(Rejected, match="roll_after must be above 0"):
        sinks.Files("out", roll_after=timedelta(0))
    with pytest.raises(Rejected, match="no bucket"):
        writer(type("Nowhere", (), {"path": "s3:///out"})).write(["a"])
    assert sinks.Files("out/", formats.Json()).label == 'Files("out/", Json)'
