"""The two ends of a channel between children, over one TCP connection.

An end is a buffer and what it wants of its socket; when sockets are read and written, and how they
come to be connected, is the `Poller`'s business. Each element is four bytes of length, then what
`codec` makes of it. Both buffers are bounded and so are the socket's, so that a receiver that does
not take anything soon makes the sender full: back-pressure is TCP's own.
"""

from __future__ import annotations

import socket
from collections.abc import Callable

from penstock.core.errors import Rejected
from penstock.core.ids import ChannelId
from penstock.core.records import END_OF_INPUT, Element, EndOfInput
from penstock.network import codec
from penstock.network.port import ChannelLost

BUFFERED_BYTES_MAX = 256 << 10
"""Of what is unsent before an output is full, and of what an input reads ahead of its taker."""
ELEMENT_BYTES_MAX = 1 << 30
_READ_BYTES = 128 << 10
_END = codec.encode(END_OF_INPUT)


class OutChannel:
    """The sending end; it takes elements from the start and keeps them until it is connected."""

    def __init__(self, channel: ChannelId, on_change: Callable[[OutChannel], None]) -> None:
        self.channel = channel
        self.lost: ChannelLost | None = None
        self.socket: socket.socket | None = None
        self.is_over = False
        self._on_change = on_change
        self._unsent = bytearray()
        self._has_ended = False

    @property
    def is_full(self) -> bool:
        """Whether more than 256 KiB are unsent."""
        return len(self._unsent) > BUFFERED_BYTES_MAX

    @property
    def has_unsent(self) -> bool:
        """Whether something has not been given to the socket yet."""
        return bool(self._unsent)

    def send(self, element: Element) -> None:
        """Take an element; it leaves with the next poll. See `port.Output`."""
        if self.lost is not None:
            return
        assert not self._has_ended, f"{element} after the end of {self.channel}"
        data = codec.encode(element)
        if len(data) > ELEMENT_BYTES_MAX:
            raise Rejected(
                f"a batch of {len(data)} bytes is too large to travel",
                where=f"channel {self.channel}",
                fix="send references instead of the large values, or fewer of them at once",
            )
        self._unsent += len(data).to_bytes(4, "big")
        self._unsent += data
        self._has_ended = isinstance(element, EndOfInput)
        self._on_change(self)

    # ── the poller's side ──

    @property
    def wants_write(self) -> bool:
        """Whether there is something to write, and a socket to write it to."""
        return bool(self._unsent) and self.socket is not None

    def write(self) -> None:
        """Give the socket as much as it takes at once."""
        assert self.socket is not None, self.channel
        try:
            while self._unsent:
                sent = self.socket.send(self._unsent)
                del self._unsent[:sent]
        except BlockingIOError:
            return
        except OSError as e:
            self.lose(f"the connection broke: {e}")

    def read(self) -> None:
        """Look whether the other side has left; it never says anything."""
        assert self.socket is not None, self.channel
        try:
            data = self.socket.recv(1)
        except BlockingIOError:
            return
        except OSError as e:
            self.lose(f"the connection broke: {e}")
            return
        if data:
            self.lose("the receiver spoke, which it never should")
        elif self._has_ended and not self._unsent:
            self.is_over = True
            self._on_change(self)
        else:
            self.lose("the receiver closed the connection")

    def lose(self, reason: str) -> None:
        """Give the connection up."""
        if self.lost is None:
            self.lost = ChannelLost(self.channel, reason)
            self.is_over = True
            self._unsent.clear()
            self._on_change(self)


class InChannel:
    """The receiving end; it is there before its connection is.

    It reads ahead until 256 KiB wait to be taken, or until one element is whole if that is longer.
    """

    def __init__(self, channel: ChannelId, on_change: Callable[[InChannel], None]) -> None:
        self.channel = channel
        self.lost: ChannelLost | None = None
        self.is_paused = False
        self.socket: socket.socket | None = None
        self.is_over = False
        self._on_change = on_change
        self._buffer = bytearray()
        self._whole: int | None = None
        self._peeked: Element | None = None
        self._has_ended = False

    @property
    def has_element(self) -> bool:
        """Whether `next` would give one."""
        return self._whole is not None and not self.is_paused

    def peek(self) -> Element | None:
        """What `next` would give, without taking it."""
        if self._peeked is None and self._whole is not None:
            try:
                self._peeked = codec.decode(bytes(memoryview(self._buffer)[4 : self._whole]))
            except ValueError as e:
                self._whole = None
                self.lose(f"what came is no element: {e}")
        return None if self.is_paused else self._peeked

    def next(self) -> Element | None:
        """Take the next element; None if none is there, or while paused."""
        element = self.peek()
        if element is None:
            return None
        wanted_read = self.wants_read
        self._has_ended = element is END_OF_INPUT
        del self._buffer[: self._whole]
        self._peeked = None
        self._find_whole()
        if self.wants_read != wanted_read:
            self._on_change(self)
        return element

    def pause(self) -> None:
        """Hold back all elements; what is read ahead is bounded, so back-pressure builds up."""
        self.is_paused = True

    def resume(self) -> None:
        """Go on where it was paused."""
        self.is_paused = False

    # ── the poller's side ──

    @property
    def wants_read(self) -> bool:
        """Whether there is room for more."""
        return not self.is_over and (len(self._buffer) < BUFFERED_BYTES_MAX or self._whole is None)

    def read(self) -> None:
        """Take what the socket has, once."""
        assert self.socket is not None, self.channel
        try:
            data = self.socket.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError as e:
            self.lose(f"the connection broke: {e}")
            return
        if not data:
            self._end()
            return
        self._buffer += data
        if self._whole is None:
            self._find_whole()
        if not self.wants_read:
            self._on_change(self)

    def lose(self, reason: str) -> None:
        """Give the connection up; elements that are whole may still be taken."""
        if self.lost is None:
            self.lost = ChannelLost(self.channel, reason)
            self.is_over = True
            self._on_change(self)

    def _find_whole(self) -> None:
        """Note where the first element ends, if all of it is there."""
        self._whole = None
        if len(self._buffer) >= 4:
            length = int.from_bytes(self._buffer[:4], "big")
            if length > ELEMENT_BYTES_MAX:
                self.lose(f"an element of {length} bytes was announced")
            elif len(self._buffer) >= 4 + length:
                self._whole = 4 + length

    def _end(self) -> None:
        """The sender has left, which is right if end of input is the last thing that it said."""
        at, last, buffer = 0, b"", self._buffer
        while at < len(buffer):
            end = at + 4 + int.from_bytes(buffer[at : at + 4], "big")
            at, last = end, bytes(buffer[at + 4 : end])
        if at == len(buffer) and (last == _END or (not buffer and self._has_ended)):
            self.is_over = True
            self._on_change(self)
        else:
            self.lose("the sender closed the connection before its input ended")
