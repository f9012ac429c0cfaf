"""Control connections: frames over a socket, and the handshake that opens one.

Both sides prove that they know the job's token without sending it, each for a nonce of the other
(`proofs`). A supervisor calls `connect` and gets a `ControlSocket`; the
coordinator, which is asyncio, calls `accept` and goes on with a `FrameStream`. Between a supervisor
and its child there is a socketpair and no handshake.

A connection that broke, that was closed and one that sent garbage have all ended: reading says so
once, by None, and `end_reason` says why. What is sent after the end is dropped, nobody is there.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TypeVar

from penstock.core.errors import Rejected, Retryable
from penstock.core.ids import WorkerId
from penstock.network import frames
from penstock.network.frames import AnyFrame, Challenge, FrameReader, Refused, Register, Welcome
from penstock.network.proofs import NONCE_BYTES, is_proof, prove

HANDSHAKE_BYTES_MAX = 1 << 20
"""Of a frame from someone who has proved nothing yet."""
HANDSHAKE_TIMEOUT_S = 10.0
_RETRY_PAUSE_S = 0.1
_READ_BYTES = 256 << 10

_ExpectedT = TypeVar("_ExpectedT", bound=frames.Frame)


# ── blocking and selector use ───────────────────────────────────────────────────────────────────


class ControlSocket:
    """Frames over a connected stream socket, for threads and for selectors.

    Any thread may send; one thread at a time receives. The socket is made non-blocking.
    """

    def __init__(self, sock: socket.socket, *, bytes_max: int = frames.FRAME_BYTES_MAX) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._reader = FrameReader(bytes_max)
        self._received: deque[AnyFrame] = deque()
        self._unsent = bytearray()
        self._send_lock = threading.Lock()
        self.end_reason: str | None = None
        """Why the connection ended; None as long as it has not."""

    def fileno(self) -> int:
        """The socket's descriptor, for a selector; -1 once closed."""
        return self._socket.fileno()

    @property
    def has_ended(self) -> bool:
        """Whether nothing more can be sent; frames received before may still be there."""
        return self.end_reason is not None

    @property
    def has_unsent(self) -> bool:
        """Whether `flush` has something to do: a selector should then wait for writing, too."""
        return bool(self._unsent) and not self.has_ended

    def send(self, frame: AnyFrame) -> None:
        """Send a frame, waiting until the socket has taken all of it."""
        self.post(frame)
        while self.has_unsent:
            _wait(self._socket, select.POLLOUT, None)
            self.flush()

    def post(self, frame: AnyFrame) -> None:
        """Send as much of a frame as the socket takes at once; `flush` sends the rest.

        Never waits: two sides that both `post` and read cannot wait for each other.
        """
        with self._send_lock:
            if not self.has_ended:
                self._unsent += frames.encode(frame)
                self._write()

    def flush(self) -> None:
        """Send as much of what is unsent as the socket takes now."""
        with self._send_lock:
            if not self.has_ended:
                self._write()

    def receive(self, timeout_s: float | None = None) -> AnyFrame | None:
        """The next frame, waiting for it; None when the connection has ended.

        Raises:
            TimeoutError: nothing came for `timeout_s`; the connection is as it was.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while not self._received and not self.has_ended:
            left_s = None if deadline is None else max(0.0, deadline - time.monotonic())
            wanted = select.POLLIN | (select.POLLOUT if self.has_unsent else 0)
            if not _wait(self._socket, wanted, left_s):
                raise TimeoutError(f"no frame within {timeout_s} s")
            self.flush()
            self._read()
        return self._received.popleft() if self._received else None

    def receive_ready(self) -> list[AnyFrame]:
        """The frames that are there now, without waiting; see `has_ended` for the end."""
        if not self.has_ended:
            self._read()
        ready = list(self._received)
        self._received.clear()
        return ready

    def close(self) -> None:
        """End the connection from this side."""
        self._end("closed by this side")
        self._socket.close()

    def _read(self) -> None:
        try:
            while data := self._socket.recv(_READ_BYTES):
                self._received.extend(self._reader.feed(data))
            self._end("closed by the other side")
        except BlockingIOError:
            return
        except ValueError as e:
            self._end(f"what came is no frame: {e}")
        except OSError as e:
            self._end(f"connection lost: {e}")

    def _write(self) -> None:
        try:
            while self._unsent:
                sent = self._socket.send(self._unsent)
                del self._unsent[:sent]
        except BlockingIOError:
            return
        except BrokenPipeError:
            # what the other side sent before it left is still to be read, and reading tells the end
            self._unsent.clear()
        except OSError as e:
            self._end(f"connection lost: {e}")

    def _end(self, reason: str) -> None:
        if self.end_reason is None:
            self.end_reason = reason
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)


def _wait(sock: socket.socket, events: int, timeout_s: float | None) -> int:
    """Wait for some of these `select.poll` events; those that came, and errors, 0 for none."""
    poll = select.poll()
    poll.register(sock, events)
    found = poll.poll(None if timeout_s is None else timeout_s * 1000)
    return found[0][1] if found else 0


def connect(
    address: tuple[str, int],
    token: bytes,
    worker: WorkerId,
    copies: Sequence[str],
    pid: int,
    deadline: float,
    *,
    pause_max_s: float | None = None,
) -> ControlSocket:
    """Connect a supervisor to its coordinator and register it, trying again until it works.

    `copies` names the local copies that the worker holds; `deadline` is of `time.monotonic()`. The
    pause between two tries doubles up to `pause_max_s`; without that it stays short. A name is
    looked up anew for each try.

    Raises:
        Rejected: the coordinator refused for good, or does not know the token itself.
        Retryable: not reached, or refused for now, until the deadline.
    """
    where = f"{address[0]}:{address[1]}"
    pause_s = _RETRY_PAUSE_S
    while True:
        try:
            return _connect_once(address, token, worker, copies, pid, deadline)
        except Retryable as e:
            last = e
        except OSError as e:
            last = Retryable(f"the coordinator cannot be reached: {e}", where=where)
            last.__cause__ = e
        if time.monotonic() + pause_s >= deadline:
            raise last
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, pause_max_s or _RETRY_PAUSE_S)


def _connect_once(
    address: tuple[str, int],
    token: bytes,
    worker: WorkerId,
    copies: Sequence[str],
    pid: int,
    deadline: float,
) -> ControlSocket:
    where = f"{address[0]}:{address[1]}"
    timeout_s = max(0.01, min(HANDSHAKE_TIMEOUT_S, deadline - time.monotonic()))
    sock = socket.create_connection(address, timeout=timeout_s)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection = ControlSocket(sock)
    nonce = secrets.token_bytes(NONCE_BYTES)
    try:
        challenge = _expect(Challenge, connection, timeout_s, where)
        connection.send(
            Register(
                worker=worker,
                proof=prove(token, "worker", challenge.nonce, nonce, worker),
                nonce=nonce,
                copies=tuple(copies),
                pid=pid,
            )
        )
        welcome = _expect(Welcome, connection, timeout_s, where)
        expected = prove(token, "coordinator", challenge.nonce, nonce, worker)
        if not is_proof(welcome.proof, expected):
            raise Rejected(
                "who answers there does not know the job's token",
                where=where,
                fix="check the coordinator's address, and that both were given the same token",
            )
    except BaseException:
        connection.close()
        raise
    return connection


def _expect(
    kind: type[_ExpectedT], connection: ControlSocket, timeout_s: float, where: str
) -> _ExpectedT:
    """The next frame of the handshake, which must be of this kind."""
    try:
        frame = connection.receive(timeout_s)
    except TimeoutError as e:
        raise Retryable("the coordinator does not answer", where=where) from e
    if isinstance(frame, kind):
        return frame
    if isinstance(frame, Refused):
        error = Retryable if frame.again else Rejected
        raise error(f"the coordinator refused: {frame.reason}", where=where)
    if frame is None:
        raise Retryable(f"the connection ended: {connection.end_reason}", where=where)
    raise Rejected(
        f"{type(frame).__name__} came where {kind.__name__} was expected",
        where=where,
        fix="check that this is the address of a coordinator of the same version",
    )


# ── asyncio: the coordinator's side ─────────────────────────────────────────────────────────────


class FrameStream:
    """Frames over a pair of asyncio streams."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        bytes_max: int = frames.FRAME_BYTES_MAX,
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._bytes_max = bytes_max
        self.end_reason: str | None = None
        """Why the connection ended; None as long as it has not."""

    async def read(self) -> AnyFrame | None:
        """The next frame; None when the connection has ended."""
        if self.end_reason is not None:
            return None
        try:
            head = await self._reader.readexactly(4)
            return frames.decode(
                await self._reader.readexactly(frames.body_bytes(head, self._bytes_max))
            )
        except asyncio.IncompleteReadError:
            self._end("closed by the other side")
        except ValueError as e:
            self._end(f"what came is no frame: {e}")
        except OSError as e:
            self._end(f"connection lost: {e}")
        return None

    def send(self, frame: AnyFrame) -> None:
        """Send a frame; it leaves in the background, see `drain`."""
        if self.end_reason is None and not self._writer.is_closing():
            self._writer.write(frames.encode(frame))

    async def drain(self) -> None:
        """Wait until little is unsent, or the connection has ended."""
        with contextlib.suppress(OSError):
            await self._writer.drain()

    def close(self) -> None:
        """End the connection from this side, after what was sent has left."""
        self._end("closed by this side")

    def _end(self, reason: str) -> None:
        if self.end_reason is None:
            self.end_reason = reason
            self._writer.close()


def _welcome_all(_: Register) -> Refused | None:
    return None


async def accept(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    token: bytes,
    nonce: bytes,
    *,
    refuse: Callable[[Register], Refused | None] = _welcome_all,
    timeout_s: float = HANDSHAKE_TIMEOUT_S,
) -> Register:
    """The coordinator's side of the handshake on a new connection; `nonce` is random, used once.

    `refuse` may object to a worker that has proved itself, for instance to an ordinal that is
    taken. When this returns, the worker has been welcomed: go on with a `FrameStream`.

    Raises:
        Rejected: not welcomed, for the reason given; the other side was told if it spoke frames,
            and the connection is closed.
    """
    peer = writer.get_extra_info("peername")
    where = f"{peer[0]}:{peer[1]}" if peer else None
    stream = FrameStream(reader, writer, bytes_max=HANDSHAKE_BYTES_MAX)
    stream.send(Challenge(nonce=nonce))
    try:
        frame = await asyncio.wait_for(stream.read(), timeout_s)
    except TimeoutError as e:
        stream.close()
        raise Rejected(f"a connection said nothing for {timeout_s} s", where=where) from e
    except asyncio.CancelledError:
        stream.close()
        raise
    if frame is None:
        raise Rejected(f"a connection ended before it registered: {stream.end_reason}", where=where)
    if not isinstance(frame, Register):
        raise _turn_away(stream, Refused(f"{type(frame).__name__} came instead of Register"), where)
    if not _is_proved(frame, token, nonce):
        reason = f"worker {frame.worker} does not know the job's token"
        raise _turn_away(stream, Refused(reason), where)
    if refusal := refuse(frame):
        raise _turn_away(stream, refusal, where)
    stream.send(Welcome(prove(token, "coordinator", nonce, frame.nonce, frame.worker)))
    return frame


def _turn_away(stream: FrameStream, refusal: Refused, where: str | None) -> Rejected:
    stream.send(refusal)
    stream.close()
    return Rejected(refusal.reason, where=where)


def _is_proved(register: Register, token: bytes, nonce: bytes) -> bool:
    expected = prove(token, "worker", nonce, register.nonce, register.worker)
    return is_proof(register.proof, expected)
