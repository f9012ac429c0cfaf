"""Control connections over real sockets on the loopback interface."""

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from penstock.core.errors import Rejected, Retryable
from penstock.core.ids import AttemptNumber, WorkerId
from penstock.network import control, frames
from penstock.network.control import ControlSocket, FrameStream
from penstock.network.frames import Cancel, Challenge, Refused, Register, Said, Welcome

TOKEN = b"the job's token"


@contextmanager
def coordinator(
    token: bytes = TOKEN,
    *,
    timeout_s: float = 5.0,
    refuse: Callable[[Register], Refused | None] = lambda _: None,
) -> Iterator[tuple[tuple[str, int], list[Register | Rejected]]]:
    """A coordinator's door in a thread: its address, and what became of each connection."""
    outcomes: list[Register | Rejected] = []
    loop = asyncio.new_event_loop()
    stopping = asyncio.Event()
    address: list[tuple[str, int]] = []
    is_up = threading.Event()

    async def on_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            register = await control.accept(
                reader, writer, token, b"n" * 32, refuse=refuse, timeout_s=timeout_s
            )
        except Rejected as e:
            outcomes.append(e)
            return
        outcomes.append(register)
        stream = FrameStream(reader, writer)
        while (frame := await stream.read()) is not None:
            stream.send(frame)
            await stream.drain()
        stream.close()

    async def main() -> None:
        server = await asyncio.start_server(on_connection, "127.0.0.1", 0)
        address.append(server.sockets[0].getsockname())
        is_up.set()
        await stopping.wait()
        server.close()

    thread = threading.Thread(target=lambda: loop.run_until_complete(main()))
    thread.start()
    is_up.wait(10)
    try:
        yield address[0], outcomes
    finally:
        loop.call_soon_threadsafe(stopping.set)
        thread.join()
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()


def soon(fact: Callable[[], bool], within_s: float = 10.0) -> None:
    """Wait for a fact."""
    deadline = time.monotonic() + within_s
    while not fact():
        assert time.monotonic() < deadline, "it did not become true"
        threading.Event().wait(0.002)


def in_seconds(seconds: float) -> float:
    return time.monotonic() + seconds


def test_a_worker_that_knows_the_token_is_registered_and_frames_flow_both_ways():
    with coordinator() as (address, outcomes):
        worker = control.connect(address, TOKEN, WorkerId(3), ["chk-7"], 42, in_seconds(5))
        worker.send(Cancel(AttemptNumber(9)))
        assert worker.receive(5) == Cancel(AttemptNumber(9))
        worker.close()
    (register,) = outcomes
    assert isinstance(register, Register)
    assert (register.worker, register.copies, register.pid) == (3, ("chk-7",), 42)


def test_a_wrong_token_is_refused_with_a_sentence_on_both_sides():
    with coordinator() as (address, outcomes):
        with pytest.raises(Rejected, match="worker 3 does not know the job's token"):
            control.connect(address, b"another", WorkerId(3), [], 1, in_seconds(5))
        soon(lambda: len(outcomes) == 1)
    assert isinstance(outcomes[0], Rejected)
    assert "does not know the job's token" in outcomes[0].what


def test_a_coordinator_that_does_not_know_the_token_is_left():
    with socket.create_server(("127.0.0.1", 0)) as server:

        def impostor() -> None:
            sock, _ = server.accept()
            connection = ControlSocket(sock)
            connection.send(Challenge(nonce=b"n" * 32))
            register = connection.receive(5)
            assert isinstance(register, Register)
            connection.send(Welcome(proof=register.proof))  # what it heard is all that it has
            connection.receive(5)
            connection.close()

        thread = threading.Thread(target=impostor)
        thread.start()
        with pytest.raises(Rejected, match="does not know the job's token"):
            control.connect(server.getsockname(), TOKEN, WorkerId(0), [], 1, in_seconds(5))
        thread.join()


def test_an_ordinal_that_is_taken_is_refused_for_now():
    taken = Refused("worker 0 is registered from elsewhere", again=True)
    with (
        coordinator(refuse=lambda _: taken) as (address, _),
        pytest.raises(Retryable, match="registered from elsewhere"),
    ):
        control.connect(address, TOKEN, WorkerId(0), [], 1, in_seconds(0.3))


def test_connecting_waits_for_a_coordinator_that_is_not_there_yet():
    with socket.create_server(("127.0.0.1", 0)) as placeholder:
        address = placeholder.getsockname()
    begun = time.monotonic()
    with pytest.raises(Retryable, match="cannot be reached"):
        control.connect(address, TOKEN, WorkerId(0), [], 1, in_seconds(0.3))
    assert time.monotonic() - begun >= 0.15


def test_a_coordinator_that_never_answers_ends_in_an_error_at_the_deadline():
    with (
        socket.create_server(("127.0.0.1", 0)) as mute,
        pytest.raises(Retryable, match="does not answer"),
    ):
        control.connect(mute.getsockname(), TOKEN, WorkerId(0), [], 1, in_seconds(0.2))


def test_a_connection_that_says_nothing_is_closed_by_the_coordinator():
    with (
        coordinator(timeout_s=0.1) as (address, outcomes),
        socket.create_connection(address) as silent,
    ):
        soon(lambda: len(outcomes) == 1)
        while silent.recv(1000):
            pass
    assert "said nothing" in str(outcomes[0])


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\0\0\0\x03\xff\xff\xff",
        (control.HANDSHAKE_BYTES_MAX + 1).to_bytes(4, "big") + b"x",
        b"",
        frames.encode(Said("info", "hello")),
    ],
)
def test_garbage_ends_the_connection_and_nothing_else(garbage: bytes):
    with coordinator() as (address, outcomes):
        with socket.create_connection(address) as stranger:
            stranger.sendall(garbage)
            stranger.shutdown(socket.SHUT_WR)
            while stranger.recv(1000):
                pass
        soon(lambda: len(outcomes) == 1)
        assert isinstance(outcomes[0], Rejected)
        control.connect(address, TOKEN, WorkerId(3), [], 42, in_seconds(5)).close()


def test_a_stranger_cannot_announce_a_large_frame():
    with coordinator() as (address, outcomes), socket.create_connection(address) as stranger:
        stranger.sendall((control.HANDSHAKE_BYTES_MAX + 1).to_bytes(4, "big"))
        soon(lambda: len(outcomes) == 1)
        assert "at most" in str(outcomes[0])


def pair() -> tuple[ControlSocket, ControlSocket]:
    left, right = socket.socketpair()
    return ControlSocket(left), ControlSocket(right)


def test_what_was_sent_before_the_end_is_received_and_then_the_end_is_told():
    left, right = pair()
    left.send(Said("info", "last words"))
    left.close()
    assert right.receive(5) == Said("info", "last words")
    assert right.receive(5) is None
    assert right.end_reason == "closed by the other side"
    right.send(Said("info", "to nobody"))
    right.close()


def test_last_words_are_received_also_after_a_failed_send():
    left, right = pair()
    left.send(Said("info", "last words"))
    left.close()
    right.send(Said("info", "to nobody"))
    assert right.receive(5) == Said("info", "last words")
    assert right.receive(5) is None


def test_garbage_on_a_control_socket_ends_it():
    raw, other = socket.socketpair()
    connection = ControlSocket(other)
    raw.sendall(b"\0\0\0\x01\xc1")
    assert connection.receive(5) is None
    assert connection.end_reason is not None
    assert "no frame" in connection.end_reason
    assert raw.recv(10) == b""


def test_two_that_post_more_than_their_sockets_hold_do_not_wait_for_each_other():
    left, right = pair()
    large = Said("info", "x" * (3 << 20))
    left.post(large)
    right.post(large)
    assert left.has_unsent
    assert right.has_unsent
    got: list[frames.AnyFrame] = []
    while len(got) < 2:
        for side in (left, right):
            side.flush()
            got += side.receive_ready()
    assert got == [large, large]


def test_receiving_gives_up_after_its_time_and_the_connection_goes_on():
    left, right = pair()
    with pytest.raises(TimeoutError):
        right.receive(0.01)
    left.send(Said("info", "late"))
    assert right.receive(5) == Said("info", "late")


def test_a_frame_longer_than_allowed_ends_the_connection():
    left, right = socket.socketpair()
    sender, receiver = ControlSocket(left), ControlSocket(right, bytes_max=100)
    sender.post(Said("info", "x" * 200))
    assert receiver.receive(5) is None
    assert "at most 100" in (receiver.end_reason or "")
