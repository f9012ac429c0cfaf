"""What the ends of a channel promise, for every adapter; sockets are real, on loopback."""

import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import pytest

from penstock.core.ids import AttemptNumber, ChannelId, CheckpointId
from penstock.core.records import END_OF_INPUT, Barrier, Batch, Element, Watermark
from penstock.network.memory import MemoryChannel
from penstock.network.poller import Poller
from penstock.network.port import ChannelLost, Input, Output

THERE, BACK = ChannelId(0, 0, 1), ChannelId(0, 1, 0)
BATCH = Batch([("word", i, b"x" * 20) for i in range(500)], list(range(500)), list(range(500)))


class Link(Protocol):
    """Two workers with a channel to each other."""

    there: tuple[Output, Input]
    back: tuple[Output, Input]

    def step(self) -> None: ...
    def break_there(self) -> None: ...
    def close(self) -> None: ...


class MemoryLink:
    def __init__(self) -> None:
        self.there = (channel := MemoryChannel(THERE, 3), channel)
        self.back = (channel := MemoryChannel(BACK, 3), channel)

    def step(self) -> None:
        pass

    def break_there(self) -> None:
        self.there[0].lose("cut")

    def close(self) -> None:
        pass


class TcpLink:
    def __init__(self) -> None:
        self.left = Poller(b"token", AttemptNumber(1))
        self.right = Poller(b"token", AttemptNumber(1))
        into_right, into_left = self.right.input(THERE), self.left.input(BACK)
        deadline = time.monotonic() + 10
        self.there = (self.left.connect(THERE, self.right.listen(), deadline), into_right)
        self.back = (self.right.connect(BACK, self.left.listen(), deadline), into_left)

    def step(self) -> None:
        self.left.poll(0.001)
        self.right.poll(0.001)

    def break_there(self) -> None:
        self.step_until(lambda: self.there[0].socket is not None)
        self.left.close()
        self.left = Poller(b"token", AttemptNumber(1))

    def step_until(self, fact: Callable[[], bool]) -> None:
        until(self, fact)

    def close(self) -> None:
        self.left.close()
        self.right.close()


@pytest.fixture(params=[MemoryLink, TcpLink])
def link(request: pytest.FixtureRequest) -> Iterator[Any]:
    link = request.param()
    yield link
    link.close()


def until(link: Link, fact: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not fact():
        assert time.monotonic() < deadline, "it did not become true"
        link.step()


def take(link: Link, source: Input, count: int) -> list[Element]:
    taken: list[Element] = []

    def is_all() -> bool:
        while (element := source.next()) is not None:
            taken.append(element)
        return len(taken) >= count

    until(link, is_all)
    return taken


def fill(link: Link, output: Output) -> int:
    """Send until it stays full; how many batches were sent."""
    sent, idle = 0, 0
    while idle < 30:
        if output.is_full:
            idle += 1
        else:
            output.send(BATCH)
            sent, idle = sent + 1, 0
            assert sent < 2_000, "it never became full"
        link.step()
    return sent


def test_what_went_in_comes_out_in_order(link: Link):
    output, source = link.there
    elements: list[Element] = []
    for i in range(40):
        elements += [Batch([i, "text", (i, None)], [1, "k", b"b"]), Watermark(i)]
        elements.append(Barrier(CheckpointId(i)))
    elements += [BATCH, END_OF_INPUT]
    for element in elements:
        output.send(element)
    assert take(link, source, len(elements)) == elements
    assert source.next() is None
    assert output.channel == source.channel == THERE


def test_peeking_takes_nothing(link: Link):
    output, source = link.there
    output.send(Watermark(1))
    output.send(Watermark(2))
    until(link, lambda: source.peek() is not None)
    assert source.peek() == Watermark(1)
    assert take(link, source, 2) == [Watermark(1), Watermark(2)]
    assert source.peek() is None


def test_a_full_output_takes_control_elements(link: Link):
    output, source = link.there
    sent = fill(link, output)
    control = [Watermark(1), Barrier(CheckpointId(1)), END_OF_INPUT]
    for element in control:
        assert output.is_full
        output.send(element)
    assert take(link, source, sent + 3) == [BATCH] * sent + control
    assert not output.is_full


def test_two_workers_whose_channels_to_each_other_are_full_do_not_wait(link: Link):
    pairs = [link.there, link.back]
    sent = [fill(link, output) for output, _ in pairs]
    for output, _ in pairs:
        assert output.is_full
        output.send(Barrier(CheckpointId(1)))
    for (_, source), count in zip(pairs, sent, strict=True):
        assert take(link, source, count + 1) == [BATCH] * count + [Barrier(CheckpointId(1))]


def test_a_paused_input_gives_nothing_and_makes_its_output_full(link: Link):
    output, source = link.there
    source.pause()
    sent = fill(link, output)
    assert source.is_paused
    assert source.peek() is None
    assert source.next() is None
    source.resume()
    assert take(link, source, sent) == [BATCH] * sent
    until(link, lambda: not output.is_full)


def test_one_paused_input_does_not_hold_back_another(link: Link):
    _, paused = link.there
    paused.pause()
    fill(link, link.there[0])
    output, source = link.back
    output.send(BATCH)
    assert take(link, source, 1) == [BATCH]


def test_a_lost_connection_is_told_and_what_had_come_may_be_taken(link: Link):
    output, source = link.there
    output.send(Watermark(1))
    until(link, lambda: source.peek() is not None)
    link.break_there()
    until(link, lambda: source.lost is not None)
    assert isinstance(source.lost, ChannelLost)
    assert source.lost.channel == THERE
    assert source.lost.reason
    assert source.next() == Watermark(1)
    assert source.next() is None
