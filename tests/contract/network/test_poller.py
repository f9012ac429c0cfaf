"""Connections between children: who may connect, what is told when they end, what memory they take."""

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from penstock.core.errors import Rejected
from penstock.core.ids import AttemptNumber, ChannelId
from penstock.core.records import END_OF_INPUT, Batch, Watermark
from penstock.network import channel as channels
from penstock.network import frames
from penstock.network.frames import Challenge, FrameReader, Hello, Welcome
from penstock.network.poller import HANDSHAKE_TIMEOUT_S, Polled, Poller
from penstock.network.port import ChannelLost

CHANNEL = ChannelId(2, 0, 1)
LOCAL = "127.0.0.1"


@contextmanager
def poller(token: bytes = b"token", attempt: int = 1, **options: object) -> Iterator[Poller]:
    made = Poller(token, AttemptNumber(attempt), **options)  # type: ignore[arg-type]
    try:
        yield made
    finally:
        made.close()


def in_seconds(seconds: float) -> float:
    return time.monotonic() + seconds


def poll_until(fact: Callable[[], object], *pollers: Poller) -> list[ChannelLost]:
    """Poll all in turn until the fact holds; what was told to be lost meanwhile."""
    lost: list[ChannelLost] = []
    deadline = in_seconds(20)
    while not fact():
        assert time.monotonic() < deadline, "it did not become true"
        for each in pollers:
            lost += each.poll(0.002).lost
    return lost


def test_a_connection_of_another_attempt_is_refused():
    with poller(attempt=1) as old, poller(attempt=2) as new:
        source = new.input(CHANNEL)
        output = old.connect(CHANNEL, new.listen(), in_seconds(5))
        output.send(Watermark(1))
        lost = poll_until(lambda: output.lost, old, new)
        assert lost == [output.lost]
        assert "attempt 2, not 1" in lost[0].reason
        assert source.peek() is None
        assert source.lost is None


def test_a_sender_without_the_token_is_refused():
    with poller(b"guess") as stranger, poller() as receiver:
        source = receiver.input(CHANNEL)
        output = stranger.connect(CHANNEL, receiver.listen(), in_seconds(5))
        (lost,) = poll_until(lambda: output.lost, stranger, receiver)
        assert "does not know the job's token" in lost.reason
        assert source.lost is None


def test_records_are_not_sent_to_a_receiver_without_the_token():
    with poller() as sender, socket.create_server((LOCAL, 0)) as server:
        output = sender.connect(CHANNEL, server.getsockname(), in_seconds(5))
        output.send(Batch(["secret"]))
        sender.poll(0)
        impostor, _ = server.accept()
        with impostor:
            impostor.sendall(frames.encode(Challenge(b"n" * 32)))
            reader, heard = FrameReader(), b""
            found: list[frames.AnyFrame] = []
            impostor.settimeout(0.001)

            def heard_hello() -> bool:
                nonlocal heard
                try:
                    data = impostor.recv(10_000)
                except TimeoutError:
                    return False
                heard += data
                found.extend(reader.feed(data))
                return bool(found)

            poll_until(heard_hello, sender)
            (hello,) = found
            assert isinstance(hello, Hello)
            impostor.sendall(frames.encode(Welcome(hello.proof)))
            (lost,) = poll_until(lambda: output.lost, sender)
            assert "does not know the job's token" in lost.reason
            assert b"secret" not in heard


def test_a_channel_is_connected_once_and_only_where_it_ends():
    with poller() as sender, poller() as second, poller() as receiver:
        receiver.input(CHANNEL)
        address = receiver.listen()
        first = sender.connect(CHANNEL, address, in_seconds(5))
        poll_until(lambda: first.socket is not None, sender, receiver)
        again = second.connect(CHANNEL, address, in_seconds(5))
        other = second.connect(ChannelId(9, 9, 9), address, in_seconds(5))
        poll_until(lambda: again.lost and other.lost, sender, second, receiver)
        assert "connected already" in again.lost.reason  # type: ignore[union-attr]
        assert "no channel 9:9>9 ends here" in other.lost.reason  # type: ignore[union-attr]
        assert first.lost is None


def test_connecting_is_tried_until_the_receiver_is_there():
    with poller() as sender, poller() as receiver:
        with socket.create_server((LOCAL, 0)) as placeholder:
            port = placeholder.getsockname()[1]
        output = sender.connect(CHANNEL, (LOCAL, port), in_seconds(20))
        output.send(Watermark(1))
        assert not sender.poll(0.1).lost
        source = receiver.input(CHANNEL)
        receiver.listen(LOCAL, port)
        poll_until(source.peek, sender, receiver)


def test_connecting_ends_at_the_deadline():
    with poller() as sender:
        with socket.create_server((LOCAL, 0)) as placeholder:
            address = placeholder.getsockname()
        output = sender.connect(CHANNEL, address, in_seconds(0.2))
        (lost,) = poll_until(lambda: output.lost, sender)
        assert "not connected to 127.0.0.1" in lost.reason
        output.send(Watermark(1))
        assert not output.has_unsent


def test_an_address_that_is_none_is_told_as_a_loss():
    with poller() as sender:
        output = sender.connect(CHANNEL, ("no such host.invalid", 1), in_seconds(0.1))
        (lost,) = poll_until(lambda: output.lost, sender)
        assert "cannot be reached" in lost.reason


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_closing_closes_every_socket():
    before = open_files()
    with poller() as sender, poller() as receiver, socket.create_server((LOCAL, 0)) as mute:
        source = receiver.input(CHANNEL)
        source.pause()
        address = receiver.listen()
        output = sender.connect(CHANNEL, address, in_seconds(5))
        output.send(Batch([b"x" * 300_000]))
        poll_until(lambda: source.has_element or not source.wants_read, sender, receiver)
        sender.connect(ChannelId(3, 0, 0), mute.getsockname(), in_seconds(5))
        sender.poll(0)
        with socket.create_connection(address):
            receiver.poll(1)
    assert open_files() == before


def test_connecting_to_one_that_never_answers_ends_at_the_deadline():
    with poller() as sender, socket.create_server((LOCAL, 0)) as mute:
        output = sender.connect(CHANNEL, mute.getsockname(), in_seconds(0.2))
        (lost,) = poll_until(lambda: output.lost, sender)
        assert "does not answer" in lost.reason


def test_the_end_of_input_and_then_of_the_connection_is_no_loss():
    with poller() as receiver:
        source = receiver.input(CHANNEL)
        address = receiver.listen()
        with poller() as sender:
            output = sender.connect(CHANNEL, address, in_seconds(5))
            output.send(Watermark(1))
            output.send(END_OF_INPUT)
            poll_until(lambda: output.socket and not sender.has_unsent, sender, receiver)
        lost = poll_until(lambda: source.is_over, receiver)
        assert lost == []
        assert [source.next(), source.next(), source.next()] == [Watermark(1), END_OF_INPUT, None]


def test_the_sender_may_leave_after_its_end_was_taken():
    with poller() as receiver:
        source = receiver.input(CHANNEL)
        address = receiver.listen()
        with poller() as sender:
            sender.connect(CHANNEL, address, in_seconds(5)).send(END_OF_INPUT)
            poll_until(source.next, sender, receiver)
            assert not source.is_over
        assert poll_until(lambda: source.is_over, receiver) == []


def test_the_receiver_may_leave_after_the_end_of_input():
    with poller() as sender:
        with poller() as receiver:
            source = receiver.input(CHANNEL)
            output = sender.connect(CHANNEL, receiver.listen(), in_seconds(5))
            output.send(END_OF_INPUT)
            poll_until(source.next, sender, receiver)
        assert poll_until(lambda: output.is_over, sender) == []


@pytest.mark.parametrize("sent", [[], [Watermark(1)], [Batch([1, 2, 3])]])
def test_a_sender_that_leaves_before_the_end_is_a_loss(sent: list[Watermark | Batch]):
    with poller() as receiver:
        source = receiver.input(CHANNEL)
        address = receiver.listen()
        with poller() as sender:
            output = sender.connect(CHANNEL, address, in_seconds(5))
            for element in sent:
                output.send(element)
            poll_until(lambda: output.socket and not sender.has_unsent, sender, receiver)
            poll_until(lambda: not sent or source.peek(), sender, receiver)
        (lost,) = poll_until(lambda: source.lost, receiver)
        assert lost == source.lost
        assert "before its input ended" in lost.reason


def test_a_receiver_that_leaves_before_the_end_is_a_loss():
    with poller() as sender:
        with poller() as receiver:
            receiver.input(CHANNEL)
            output = sender.connect(CHANNEL, receiver.listen(), in_seconds(5))
            output.send(Watermark(1))
            poll_until(lambda: output.socket and not output.has_unsent, sender, receiver)
        (lost,) = poll_until(lambda: output.lost, sender)
        assert lost.channel == CHANNEL


@pytest.mark.parametrize("garbage", [b"\xff" * 8, b"\0\0\0\x02ab", b"\0\0\0\x01\xc1"])
def test_garbage_in_a_channel_is_a_loss(garbage: bytes):
    with poller() as sender, poller() as receiver:
        source = receiver.input(CHANNEL)
        output = sender.connect(CHANNEL, receiver.listen(), in_seconds(5))
        poll_until(lambda: output.socket, sender, receiver)
        assert output.socket is not None
        output.socket.send(garbage)

        def is_lost() -> bool:
            source.next()
            return source.lost is not None

        poll_until(is_lost, sender, receiver)


@pytest.mark.parametrize("garbage", [b"GET / HTTP/1.1\r\n\r\n", b"\0\0\0\x01\xc1", b"\0\0\xff\xff"])
def test_garbage_in_a_handshake_ends_that_connection_only(garbage: bytes):
    with poller() as sender, poller() as receiver:
        source = receiver.input(CHANNEL)
        address = receiver.listen()
        with socket.create_connection(address) as stranger:
            stranger.sendall(garbage)
            stranger.settimeout(0.001)

            def is_closed() -> bool:
                try:
                    return stranger.recv(10_000) == b""
                except TimeoutError:
                    return False
                except ConnectionError:
                    return True

            poll_until(is_closed, receiver)
        sender.connect(CHANNEL, address, in_seconds(5)).send(Watermark(1))
        poll_until(source.next, sender, receiver)


def test_a_connection_that_never_says_who_it_is_is_closed():
    now = 0.0
    with poller(clock=lambda: now) as receiver:
        address = receiver.listen()
        with socket.create_connection(address) as silent:
            receiver.poll(1)
            silent.settimeout(5)
            assert silent.recv(10_000)
            now = HANDSHAKE_TIMEOUT_S + 1
            receiver.poll(0)
            assert silent.recv(10_000) == b""


def test_an_element_larger_than_the_buffers_comes_through():
    large = Batch([b"x" * (8 << 20), "y"])
    with poller() as sender, poller() as receiver:
        source = receiver.input(CHANNEL)
        output = sender.connect(CHANNEL, receiver.listen(), in_seconds(5))
        output.send(large)
        output.send(Watermark(1))
        assert output.is_full
        poll_until(source.peek, sender, receiver)
        assert source.next() == large
        poll_until(source.peek, sender, receiver)
        assert source.next() == Watermark(1)


def test_a_slow_receiver_holds_a_bounded_number_of_bytes(monkeypatch: pytest.MonkeyPatch):
    batch = Batch([b"x" * 1_000] * 20)
    with poller() as sender, poller() as receiver:
        receiver.input(CHANNEL)
        output = sender.connect(CHANNEL, receiver.listen(), in_seconds(5))
        sent_bytes, idle = 0, 0
        while idle < 50:
            if output.is_full:
                idle += 1
            else:
                output.send(batch)
                sent_bytes, idle = sent_bytes + 20_000, 0
            sender.poll(0.001)
            receiver.poll(0)
        # both buffers, and what the two sockets hold, which the kernel doubles
        assert sent_bytes < 2 * channels.BUFFERED_BYTES_MAX + 4 * (256 << 10)


def test_an_element_too_large_to_travel_is_rejected(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(channels, "ELEMENT_BYTES_MAX", 100)
    with poller() as sender:
        output = sender.connect(CHANNEL, (LOCAL, 9), in_seconds(5))
        with pytest.raises(Rejected, match="too large to travel"):
            output.send(Batch([b"x" * 200]))


def test_polling_tells_which_inputs_have_elements_and_does_not_wait_then():
    with poller() as sender, poller() as receiver:
        first, second = receiver.input(CHANNEL), receiver.input(ChannelId(2, 1, 1))
        address = receiver.listen()
        outputs = [sender.connect(each.channel, address, in_seconds(5)) for each in (first, second)]
        outputs[1].send(Watermark(1))
        poll_until(lambda: second.has_element and outputs[0].socket, sender, receiver)
        assert receiver.poll(None) == Polled([second])
        second.pause()
        assert receiver.poll(0).ready == []
        second.resume()
        assert receiver.poll(None).ready == [second]


def test_polling_also_wakes_for_a_watched_socket():
    with poller() as idle:
        left, right = socket.socketpair()
        with left, right:
            idle.watch(right)
            left.send(b"x")
            assert idle.poll(10).watched == [right]
            right.recv(1)
            assert idle.poll(0).watched == []
            idle.watch(right, writing=True)
            assert idle.poll(10).watched == [right]
            idle.watch(right)
            idle.unwatch(right)


def test_an_idle_poller_sleeps_after_it_has_sent_more_than_a_socket_takes():
    with poller() as sender, poller() as receiver:
        source = receiver.input(CHANNEL)
        output = sender.connect(CHANNEL, receiver.listen(), in_seconds(5))
        output.send(Batch([b"x" * (4 << 20)]))
        poll_until(source.next, sender, receiver)
        for each in (sender, receiver):
            each.poll(0)
            begun = time.monotonic()
            assert each.poll(0.05) == Polled([])
            assert time.monotonic() - begun > 0.04


def test_who_waits_for_an_output_is_not_woken_by_inputs_that_he_cannot_take():
    other = ChannelId(3, 1, 0)
    with poller() as left, poller() as right:
        into_left, into_right = left.input(other), right.input(CHANNEL)
        output = left.connect(CHANNEL, right.listen(), in_seconds(5))
        right.connect(other, left.listen(), in_seconds(5)).send(Watermark(1))
        poll_until(lambda: into_left.has_element and output.socket, left, right)
        begun = time.monotonic()
        assert left.poll(0.05, although_ready=True).ready == [into_left]
        assert time.monotonic() - begun > 0.04

        into_right.pause()
        while not output.is_full:
            output.send(Batch([b"x" * 100_000]))
            left.poll(0)
            right.poll(0)
        into_right.resume()

        def is_drained() -> bool:
            while into_right.next():
                pass
            left.poll(0.002, although_ready=True)
            return not output.is_full

        poll_until(is_drained, right)
