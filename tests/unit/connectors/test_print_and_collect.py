"""The sinks `Print` and `Collect`."""

import errno
import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock import sinks
from penstock.connectors.collect import committed, forget
from penstock.core.errors import Corrupt, Rejected
from penstock.dataflow.connector import SinkContext, Writer


def writer(sink: Any, *, subtask: int = 0, attempt: int = 1, uid: str = "out") -> Writer[Any]:
    return sink.open(
        SinkContext(
            uid=uid,
            subtask=subtask,
            parallelism=2,
            attempt=attempt,
            transaction=lambda n: f"job/{uid}/{subtask}/{attempt}-{n}-ab",
            now_ms=lambda: 0,
            folder=Path(),
            warn=lambda _: None,
        )
    )


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    yield
    forget("job")


def test_print_writes_each_record_at_once(capsys: pytest.CaptureFixture[str]):
    out = writer(sinks.Print("> "))
    out.write(["a", ("b", 1), None])
    assert capsys.readouterr().out == "> a\n> ('b', 1)\n> None\n"
    assert list(out.prepare(1)) == []
    assert not sinks.Print().exactly_once


def test_what_a_terminal_cannot_show_is_replaced(monkeypatch: pytest.MonkeyPatch):
    shown = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(shown, encoding="ascii"))
    writer(sinks.Print()).write(["a", "é\ud800", "b"])
    assert shown.getvalue() == b"a\n??\nb\n"


def test_output_that_nobody_takes_is_told_in_a_sentence(monkeypatch: pytest.MonkeyPatch):
    class Gone(io.StringIO):
        def flush(self) -> None:
            raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    monkeypatch.setattr(sys, "stdout", Gone())
    with pytest.raises(Rejected, match="cannot be written: Broken pipe") as caught:
        writer(sinks.Print()).write(["a"])
    assert caught.value.where == "sinks.Print"


def test_collect_shows_what_was_committed_once():
    out = writer(sinks.Collect())
    out.write([1, 2])
    [first] = out.prepare(1)
    out.write([3])
    [second] = out.prepare(2)
    assert committed("job", "out") == []
    for transaction in (first, first, second, first):
        out.commit(transaction)
    assert committed("job", "out") == [1, 2, 3]
    assert committed("job", "else") == []
    assert list(out.prepare(3)) == []


def test_collect_survives_its_attempt_and_drops_what_no_snapshot_names():
    out = writer(sinks.Collect(), subtask=1)
    out.write([1])
    [kept] = out.prepare(1)
    out.write([2])
    [dropped] = out.prepare(2)
    other = writer(sinks.Collect(), uid="other")
    other.write([3])
    [others] = other.prepare(1)
    again = writer(sinks.Collect(), attempt=2)
    again.write([4])
    [own] = again.prepare(3)
    again.abort_except([kept])
    for transaction in (kept, others, own):
        again.commit(transaction)
    assert (committed("job", "out"), committed("job", "other")) == ([1, 4], [3])
    with pytest.raises(Corrupt, match="memory of another process"):
        again.commit(dropped)


def test_a_job_that_is_forgotten_begins_anew():
    for _ in range(2):
        out = writer(sinks.Collect())
        out.write([1])
        for transaction in out.prepare(1):
            out.commit(transaction)
        assert committed("job", "out") == [1]
        forget("job")
    assert committed("job", "out") == []
