"""The source `Socket` against real connections on the loopback."""

import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock import formats, sources
from penstock.core.errors import Rejected, Retryable
from penstock.dataflow.connector import END, IDLE, SourceContext, SourceState


class Peer:
    """What `nc -lk` is."""

    def __init__(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._listening.settimeout(10)
        self.address = f"127.0.0.1:{self._listening.getsockname()[1]}"

    def accept(self) -> socket.socket:
        return self._listening.accept()[0]

    def close(self) -> None:
        self._listening.close()


@pytest.fixture
def peer() -> Iterator[Peer]:
    peer = Peer()
    yield peer
    peer.close()


class Job:
    def __init__(self, source: Any) -> None:
        self.now_ms = 0
        self.warnings: list[str] = []
        ctx = SourceContext(
            uid="lines",
            subtask=0,
            parallelism=1,
            now_ms=lambda: self.now_ms,
            folder=Path(),
            warn=self.warnings.append,
        )
        self.reader = source.open(ctx)

    def poll_until(self, found: Callable[[list[Any]], bool], limit: int = 100) -> list[Any]:
        """Poll until what came fulfils `found`; the job's clock runs a thousand times as fast."""
        records: list[Any] = []
        deadline = time.monotonic() + 10
        while not found(records):
            assert time.monotonic() < deadline, records
            polled = self.reader.poll(limit)
            if polled is END:
                return records
            if polled is IDLE:
                self.now_ms += 1
            else:
                assert 0 < len(polled) <= limit
                records.extend(polled)
        return records

    def connect(self, peer: Peer) -> socket.socket:
        assert self.reader.poll(1) is IDLE
        return peer.accept()


def test_lines_come_whole_however_they_are_cut(peer: Peer):
    job = Job(sources.Socket(peer.address))
    connection = job.connect(peer)
    data = "one\r\n\nthree ü\nfo".encode()
    for i in range(len(data)):
        connection.sendall(data[i : i + 1])
    assert job.poll_until(lambda got: len(got) == 3, 2) == ["one", "", "three ü"]
    assert job.reader.poll(1) is IDLE
    connection.sendall(b"ur\n")
    assert job.poll_until(bool) == ["four"]
    assert job.reader.position(0) == f"{peer.address}, line 4 of this connection"
    assert job.reader.snapshot() == SourceState()
    job.reader.close()


def test_a_new_connection_is_made_when_one_ends_and_it_is_told(peer: Peer):
    job = Job(sources.Socket(peer.address))
    connection = job.connect(peer)
    connection.sendall(b"one\ntw")
    connection.close()
    assert job.poll_until(lambda got: len(got) == 2) == ["one", "tw"]
    assert job.poll_until(lambda _: bool(job.warnings)) == []
    assert "the server closed it" in job.warnings[0]
    job.poll_until(lambda _: job.now_ms > 200)
    connection = peer.accept()
    connection.sendall(b"three\n")
    assert job.poll_until(bool) == ["three"]
    job.reader.close()


def test_a_server_that_is_not_there_yet_is_waited_for_with_one_warning():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    job = Job(sources.Socket(f"127.0.0.1:{port}"))
    assert job.poll_until(lambda _: job.now_ms > 20_000) == []
    assert len(job.warnings) == 1
    assert "cannot connect" in job.warnings[0]
    with socket.create_server(("127.0.0.1", port)) as server:
        until = job.now_ms + 6_000
        job.poll_until(lambda _: job.now_ms > until)
        server.settimeout(10)
        connection = server.accept()[0]
        connection.sendall(b"one\n")
        assert job.poll_until(bool) == ["one"]
        connection.close()
    job.reader.close()


def test_without_reconnecting_the_end_of_the_connection_is_the_end(peer: Peer):
    job = Job(sources.Socket(peer.address, reconnect=False))
    connection = job.connect(peer)
    connection.sendall(b"one\nlast")
    connection.close()
    assert job.poll_until(lambda _: False) == ["one", "last"]
    assert job.reader.poll(1) is END


def test_without_reconnecting_a_server_must_be_there():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    job = Job(sources.Socket(f"127.0.0.1:{port}", reconnect=False))
    with pytest.raises(Retryable, match="cannot connect"):
        job.poll_until(lambda _: False)


def test_each_connection_begins_with_the_header_of_its_csv(peer: Peer):
    job = Job(sources.Socket(peer.address, formats.Csv(dict[str, int])))
    for header, expected in ((b"a,b\n", {"a": 1, "b": 2}), (b"b,a\n", {"b": 1, "a": 2})):
        connection = job.connect(peer)
        connection.sendall(header + b"1,2\n")
        assert job.poll_until(bool) == [expected]
        connection.close()
        warned = len(job.warnings)
        job.poll_until(lambda _, warned=warned: len(job.warnings) > warned)
        job.now_ms += 10_000
    job.reader.close()


def test_a_bad_line_is_told_by_its_number(peer: Peer):
    job = Job(sources.Socket(peer.address, formats.Json(int)))
    connection = job.connect(peer)
    connection.sendall(b"1\n\nthree\n")
    with pytest.raises(Rejected) as told:
        job.poll_until(lambda _: False)
    assert told.value.where == f"{peer.address}, line 3 of this connection"
    connection.close()
    job.reader.close()


def test_it_says_that_it_cannot_be_read_again_and_runs_once():
    source = sources.Socket("localhost:9999")
    assert (source.replayable, source.default_parallelism) == (False, 1)
    assert source.label == 'Socket("localhost:9999")'
    ctx: Any = SourceContext("lines", 0, 2, lambda: 0, Path(), lambda _: None)
    with pytest.raises(Rejected, match="one connection"):
        source.open(ctx)


@pytest.mark.parametrize(
    "address", ["localhost", ":9999", "host:", "host:x", "host:0", "host:70000"]
)
def test_what_is_no_address_is_refused(address: str):
    with pytest.raises(Rejected, match="not an address"):
        sources.Socket(address)
