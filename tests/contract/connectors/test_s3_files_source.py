"""The source `Files` reading objects of a bucket."""

import gzip
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import pytest

from penstock import sources
from penstock.connectors import s3_files
from penstock.core.errors import Rejected
from penstock.dataflow.connector import END, IDLE, SourceContext, SourceState


@pytest.fixture
def put(new_bucket: Callable[[], str]) -> Callable[..., str]:
    bucket = new_bucket()
    client: Any = boto3.Session().client("s3")

    def make(objects: dict[str, bytes]) -> str:
        for key, data in objects.items():
            client.put_object(Bucket=bucket, Key=key, Body=data)
        return f"s3://{bucket}"

    return make


def opened(pattern: str, state: SourceState | None = None) -> Any:
    ctx = SourceContext(
        uid="lines",
        subtask=0,
        parallelism=1,
        now_ms=lambda: 0,
        folder=Path("/nowhere"),
        warn=lambda _: None,
    )
    reader = sources.Files(pattern).open(ctx)
    if state is not None:
        reader.restore(state)
    return reader


def next_of(reader: Any, limit: int) -> Any:
    deadline = time.monotonic() + 20
    while (polled := reader.poll(limit)) is IDLE:
        assert time.monotonic() < deadline, "nothing came"
        time.sleep(0.001)
    return polled


def everything(reader: Any) -> list[str]:
    records: list[str] = []
    while (polled := next_of(reader, 1000)) is not END:
        records.extend(polled)
    return records


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("in/*.log", ["a.log", "b.log"]),
        ("in/**/*.log", ["a.log", "b.log", "sub/c.log"]),
        ("in/[b-z].log", ["b.log"]),
        ("in/[!b].log", ["a.log"]),
        ("in/?.log", ["a.log", "b.log"]),
        ("in/a.log", ["a.log"]),
        ("in", ["a.log", "b.log", "sub/c.log"]),
        ("in/", ["a.log", "b.log", "sub/c.log"]),
        ("in*/a*", ["a.log", "other"]),
    ],
)
def test_patterns(put: Callable[..., str], pattern: str, expected: list[str]):
    keys = ["a.log", "b.log", "sub/c.log", ".hidden/d.log", "_SUCCESS"]
    url = put({f"in/{key}": key.encode() for key in keys} | {"inside/a": b"other"})
    assert everything(opened(f"{url}/{pattern}")) == expected


def test_any_line_can_be_the_first_after_a_restore(
    put: Callable[..., str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(s3_files, "_FETCH_BYTES", 7)
    data = b"one\r\n\nthree\n" + b"x" * 30 + b"\nlast"
    url = put({"in/a": data, "in/b.gz": gzip.compress(data)})
    expected = ["one", "", "three", "x" * 30, "last"] * 2
    for taken in (0, 1, 3, 4, 5, 7, 10):
        reader = opened(f"{url}/in")
        first = [next_of(reader, 1)[0] for _ in range(taken)]
        again = opened(f"{url}/in", reader.snapshot())
        assert first + everything(again) == expected
        reader.close()


def test_a_replaced_object_and_a_removed_one_are_told(put: Callable[..., str]):
    url = put({"in/a": b"one\ntwo\n"})
    reader = opened(f"{url}/in")
    next_of(reader, 1)
    state = reader.snapshot()
    put({"in/a": b"ONE\nTWO\n"})
    with pytest.raises(Rejected, match="was replaced"):
        everything(opened(f"{url}/in", state))
    bucket = url.removeprefix("s3://")
    boto3.Session().client("s3").delete_object(Bucket=bucket, Key="in/a")
    with pytest.raises(Rejected, match="is gone"):
        everything(opened(f"{url}/in", state))


def test_no_object_is_an_error_that_names_the_pattern(put: Callable[..., str]):
    url = put({"other": b""})
    with pytest.raises(Rejected, match=rf"no file matches {url}/nope/\*"):
        opened(f"{url}/nope/*").poll(1)


def test_an_empty_object_has_no_lines(put: Callable[..., str]):
    assert everything(opened(put({"in/a": b"", "in/b": b"b"}) + "/in")) == ["b"]
