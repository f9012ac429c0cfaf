"""All the sockets of one child's channels, in one place and in one thread.

`poll` connects, shakes hands, writes what outputs have and reads what inputs have room for; nothing
else here touches a socket, and nothing waits but `poll` itself, at most as long as it is told. It
can `watch` other sockets too, such as the control connection, so that a mailbox sleeps in one place.

Both sides of a connection prove that they know the job's token; the attempt is part of the proof,
and a connection of another attempt is refused.
"""

from __future__ import annotations

import contextlib
import secrets
import selectors
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from penstock.core.ids import AttemptNumber, ChannelId
from penstock.network import frames
from penstock.network.channel import InChannel, OutChannel
from penstock.network.frames import Challenge, FrameReader, Hello, Refused, Welcome
from penstock.network.port import ChannelLost
from penstock.network.proofs import NONCE_BYTES, is_proof, prove

SOCKET_BUFFER_BYTES = 128 << 10
HANDSHAKE_BYTES_MAX = 4 << 10
HANDSHAKE_TIMEOUT_S = 10.0
_RETRY_PAUSE_S = 0.05
_READ, _WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE


class HasFileno(Protocol):
    """Anything that a selector can wait for."""

    def fileno(self) -> int:
        """Its descriptor."""


@dataclass(slots=True)
class Polled:
    """What a poll found."""

    ready: list[InChannel]
    """Inputs that have an element and are not paused."""
    lost: list[ChannelLost] = field(default_factory=list)
    """Channels that broke since the last poll."""
    watched: list[HasFileno] = field(default_factory=list)
    """Watched sockets that can be read (or written, where that was asked for)."""


class Poller:
    """The channels of one attempt of one child. Used by one thread."""

    def __init__(
        self,
        token: bytes,
        attempt: AttemptNumber,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._token = token
        self._attempt = attempt
        self._clock = clock
        self._selector = selectors.DefaultSelector()
        self._listener: socket.socket | None = None
        self._inputs: dict[ChannelId, InChannel] = {}
        self._outputs: dict[ChannelId, OutChannel] = {}
        self._changed: set[InChannel | OutChannel] = set()
        self._calling: set[_Calling] = set()
        self._called: set[_Called] = set()

    def listen(self, host: str = "127.0.0.1", port: int = 0) -> tuple[str, int]:
        """Accept connections of the inputs from now on; the address, its host as it was given.

        Raises:
            OSError: the address cannot be used.
        """
        assert self._listener is None, self._listener
        listener = socket.create_server((host, port), backlog=1024)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SOCKET_BUFFER_BYTES)
        listener.setblocking(False)
        self._listener = listener
        self._selector.register(listener, _READ, self._accept)
        return host, listener.getsockname()[1]

    def input(self, channel: ChannelId) -> InChannel:
        """The receiving end of a channel; its sender may connect from now on."""
        assert channel not in self._inputs, channel
        self._inputs[channel] = InChannel(channel, self._changed.add)
        return self._inputs[channel]

    def connect(self, channel: ChannelId, address: tuple[str, int], deadline: float) -> OutChannel:
        """The sending end of a channel whose receiver listens at `address`, an IP and a port.

        It may be sent to at once. Connecting is tried again until `deadline`, of this poller's
        clock, and the channel is lost if it does not succeed.
        """
        assert channel not in self._outputs, channel
        output = self._outputs[channel] = OutChannel(channel, self._changed.add)
        self._calling.add(_Calling(output, address, deadline))
        return output

    def watch(self, source: HasFileno, *, writing: bool = False) -> None:
        """Let `poll` also return when this can be read, or written if that is asked for."""
        events = _READ | _WRITE if writing else _READ
        known = self._selector.get_map().get(source)
        if known is None:
            self._selector.register(source, events, None)
        elif known.events != events:
            self._selector.modify(source, events, None)

    def unwatch(self, source: HasFileno) -> None:
        """Forget a watched source; before it is closed."""
        self._selector.unregister(source)

    def poll(self, timeout_s: float | None, *, although_ready: bool = False) -> Polled:
        """Do what can be done on all sockets; wait for something to do, at most `timeout_s`.

        Does not wait while an input has an element, but for `although_ready`: who cannot take it,
        because his outputs are full, waits for those.
        """
        lost = self._settle()
        now = self._clock()
        self._hurry(now)
        lost += self._settle()
        is_ready = any(channel.has_element for channel in self._inputs.values())
        if lost or (is_ready and not although_ready):
            timeout_s = 0
        elif self._calling or self._called:
            due = min([*(c.due for c in self._calling), *(c.due for c in self._called)])
            until_due_s = max(0.0, due - now)
            timeout_s = until_due_s if timeout_s is None else min(timeout_s, until_due_s)
        watched: list[HasFileno] = []
        for key, events in self._selector.select(timeout_s):
            if key.data is None:
                watched.append(key.fileobj)  # type: ignore[arg-type]
            else:
                key.data(events)
        lost += self._settle()
        ready = [channel for channel in self._inputs.values() if channel.has_element]
        return Polled(ready, lost, watched)

    @property
    def has_unsent(self) -> bool:
        """Whether some output has not given everything to its socket yet."""
        return any(output.has_unsent for output in self._outputs.values())

    def close(self) -> None:
        """Close every channel, and the listening socket; what is unsent is dropped."""
        channels: list[InChannel | OutChannel] = [*self._inputs.values(), *self._outputs.values()]
        for channel in channels:
            self._drop(channel)
        waiting = [*(calling.socket for calling in self._calling), self._listener]
        for sock in (*waiting, *(called.socket for called in self._called)):
            if sock is not None:
                self._forget(sock)
        self._selector.close()

    # ── channels that are connected ──

    def _settle(self) -> list[ChannelLost]:
        """Write what was sent, and wait for exactly what each channel wants; those newly lost."""
        lost = []
        while self._changed:
            channel = self._changed.pop()
            if isinstance(channel, OutChannel) and channel.wants_write:
                channel.write()
            if channel.is_over:
                self._changed.discard(channel)
                self._drop(channel)
                if channel.lost is not None:
                    lost.append(channel.lost)
            elif channel.socket is not None:
                self._want(channel)
        return lost

    def _want(self, channel: InChannel | OutChannel) -> None:
        assert channel.socket is not None, channel.channel
        known = self._selector.get_map().get(channel.socket)
        if isinstance(channel, InChannel):
            if channel.wants_read and known is None:
                self._selector.register(channel.socket, _READ, lambda _: channel.read())
            elif not channel.wants_read and known is not None:
                self._selector.unregister(channel.socket)
            return
        events = _READ | _WRITE if channel.wants_write else _READ
        if known is None:
            self._selector.register(channel.socket, events, lambda e: self._on_output(channel, e))
        elif known.events != events:
            self._selector.modify(channel.socket, events, known.data)

    def _on_output(self, output: OutChannel, events: int) -> None:
        if events & _READ:
            output.read()
        if events & _WRITE and not output.is_over:
            output.write()
            if not output.wants_write:
                self._changed.add(output)

    def _drop(self, channel: InChannel | OutChannel) -> None:
        if channel.socket is not None:
            self._forget(channel.socket)
            channel.socket = None

    def _forget(self, sock: socket.socket) -> None:
        if sock in self._selector.get_map():
            self._selector.unregister(sock)
        sock.close()

    # ── handshakes ──

    def _accept(self, _: int) -> None:
        assert self._listener is not None
        try:
            sock, _address = self._listener.accept()
        except (BlockingIOError, ConnectionError):
            return  # gone again before it was accepted
        sock.setblocking(False)
        called = _Called(sock, secrets.token_bytes(NONCE_BYTES), self._clock())
        self._called.add(called)
        self._selector.register(sock, _READ, lambda _: self._hear(called))
        _say(sock, Challenge(called.nonce))

    def _hear(self, called: _Called) -> None:
        """Someone who was challenged says something."""
        try:
            frame = _heard(called.socket, called.reader)
        except (OSError, ValueError):
            self._called.discard(called)
            self._forget(called.socket)
            return
        if frame is None:
            return
        self._called.discard(called)
        objection = self._objection(frame, called.nonce)
        if objection is not None:
            _say(called.socket, Refused(objection))
            self._forget(called.socket)
            return
        assert isinstance(frame, Hello)
        _say(called.socket, Welcome(self._prove("receiver", called.nonce, frame.nonce, frame)))
        self._selector.unregister(called.socket)
        channel = self._inputs[frame.channel]
        channel.socket = called.socket
        self._changed.add(channel)

    def _objection(self, frame: frames.AnyFrame, nonce: bytes) -> str | None:
        if not isinstance(frame, Hello):
            return f"{type(frame).__name__} came instead of Hello"
        if not is_proof(frame.proof, self._prove("sender", nonce, frame.nonce, frame)):
            return "the sender does not know the job's token"
        if frame.attempt != self._attempt:
            return f"this is attempt {self._attempt}, not {frame.attempt}"
        known = self._inputs.get(frame.channel)
        if known is None:
            return f"no channel {frame.channel} ends here"
        if known.socket is not None or known.is_over:
            return f"channel {frame.channel} is connected already"
        return None

    def _prove(self, role: str, challenge: bytes, nonce: bytes, hello: Hello) -> bytes:
        about = f"{hello.attempt} {hello.channel}".encode()
        return prove(self._token, role, challenge, nonce, about)

    def _hurry(self, now: float) -> None:
        """Begin the calls that are due; end the handshakes that took too long."""
        for called in [called for called in self._called if called.due <= now]:
            self._called.discard(called)
            self._forget(called.socket)
        for calling in [calling for calling in self._calling if calling.due <= now]:
            if calling.socket is not None:
                self._fail(calling, "the receiver does not answer", now)
            elif now >= calling.deadline:
                self._calling.discard(calling)
                calling.output.lose(calling.reason)
            else:
                self._call(calling, now)

    def _call(self, calling: _Calling, now: float) -> None:
        family = socket.AF_INET6 if ":" in calling.address[0] else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER_BYTES)
        calling.socket = sock
        calling.reader = FrameReader(HANDSHAKE_BYTES_MAX)
        calling.due = min(now + HANDSHAKE_TIMEOUT_S, calling.deadline)
        self._selector.register(sock, _READ, lambda _: self._answer(calling))
        try:
            sock.connect(calling.address)
        except BlockingIOError:
            return
        except OSError as e:
            self._fail(calling, f"it cannot be reached: {e}", now)

    def _fail(self, calling: _Calling, reason: str, now: float) -> None:
        """The call came to nothing; the next one follows after a pause, until the deadline."""
        assert calling.socket is not None
        self._forget(calling.socket)
        calling.socket = None
        calling.reason = f"not connected to {calling.address[0]}:{calling.address[1]}: {reason}"
        calling.due = min(now + _RETRY_PAUSE_S, calling.deadline)

    def _answer(self, calling: _Calling) -> None:
        """The receiver that was called says something."""
        assert calling.socket is not None
        output, sock = calling.output, calling.socket
        try:
            frame = _heard(sock, calling.reader)
        except (OSError, ValueError) as e:
            self._fail(calling, str(e), self._clock())
            return
        if frame is None:
            return
        if isinstance(frame, Challenge):
            calling.challenge = frame.nonce
            hello = Hello(output.channel, self._attempt, b"", calling.nonce)
            proof = self._prove("sender", frame.nonce, calling.nonce, hello)
            _say(sock, Hello(output.channel, self._attempt, proof, calling.nonce))
            return
        self._calling.discard(calling)
        self._selector.unregister(sock)
        hello = Hello(output.channel, self._attempt, b"", calling.nonce)
        expected = self._prove("receiver", calling.challenge, calling.nonce, hello)
        if isinstance(frame, Welcome) and is_proof(frame.proof, expected):
            output.socket = sock
            self._changed.add(output)
            return
        sock.close()
        if isinstance(frame, Refused):
            output.lose(f"the receiver refused: {frame.reason}")
        else:
            output.lose("who answers there does not know the job's token")


@dataclass(slots=True, eq=False)
class _Called:
    """A connection that was accepted and has not said yet who it is."""

    socket: socket.socket
    nonce: bytes
    since: float
    reader: FrameReader = field(default_factory=lambda: FrameReader(HANDSHAKE_BYTES_MAX))

    @property
    def due(self) -> float:
        """When its time is over."""
        return self.since + HANDSHAKE_TIMEOUT_S


@dataclass(slots=True, eq=False)
class _Calling:
    """An output on its way to be connected; `due` is when something must happen next."""

    output: OutChannel
    address: tuple[str, int]
    deadline: float
    due: float = 0.0
    socket: socket.socket | None = None
    reader: FrameReader = field(default_factory=lambda: FrameReader(HANDSHAKE_BYTES_MAX))
    nonce: bytes = field(default_factory=lambda: secrets.token_bytes(NONCE_BYTES))
    challenge: bytes = b""
    reason: str = "not connected in time"


def _say(sock: socket.socket, frame: frames.AnyFrame) -> None:
    """Send a frame of a handshake; a new socket has room for it, and reading tells if it is gone."""
    with contextlib.suppress(OSError):
        sock.send(frames.encode(frame))


def _heard(sock: socket.socket, reader: FrameReader) -> frames.AnyFrame | None:
    """The frame that has come, or None if it is not complete yet.

    Raises:
        OSError: the connection is gone.
        ValueError: no frame came.
    """
    try:
        data = sock.recv(HANDSHAKE_BYTES_MAX)
    except BlockingIOError:
        return None
    if not data:
        raise ConnectionResetError("the connection was closed during the handshake")
    return next(reader.feed(data), None)
