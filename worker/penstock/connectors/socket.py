"""The source `Socket`: lines from a TCP server, such as `nc -lk 9999`.

Nothing is read twice, so what was read and not yet part of a checkpoint is lost by a failure.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
from collections import deque
from collections.abc import Sequence
from typing import Any, TypeVar, overload

from penstock.connectors import lines
from penstock.core.errors import Rejected, Retryable
from penstock.dataflow.connector import (
    END,
    IDLE,
    Quiet,
    Reader,
    Source,
    SourceContext,
    SourceState,
)
from penstock.formats import Reads, Text

T_co = TypeVar("T_co", covariant=True)

_RECEIVE_BYTES = 256 << 10
_LINE_BYTES_MAX = 64 << 20
_FIRST_WAIT_MS = 100
_LONGEST_WAIT_MS = 5_000


class Socket(Source[T_co]):
    """Records from `host:port`, a line each; not replayable: at-most-once across a failure.

    It connects as a client. When the connection cannot be made or ends, it is made again, for ever,
    with growing pauses and a warning; with `reconnect=False` the end of the connection is the end
    of the source.
    """

    replayable = False
    default_parallelism = 1

    @overload
    def __init__(self: Socket[str], address: str, *, reconnect: bool = True) -> None: ...
    @overload
    def __init__(self, address: str, format: Reads[T_co], *, reconnect: bool = True) -> None: ...
    def __init__(
        self, address: str, format: Reads[Any] | None = None, *, reconnect: bool = True
    ) -> None:
        host, _, port = address.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 65536:
            raise Rejected(
                f"not an address: {address!r}",
                where="sources.Socket",
                fix="write host:port, such as localhost:9999",
            )
        self._address = address
        self._host, self._port = host.strip("[]"), int(port)
        self._format: Any = Text() if format is None else format
        self._reconnect = reconnect
        self.record_type = getattr(self._format, "record_type", None)

    def open(self, ctx: SourceContext) -> Reader[T_co]:
        """See Source."""
        if ctx.parallelism != 1:
            raise Rejected(
                f"a socket is one connection, not {ctx.parallelism}",
                where=f"source {ctx.uid}",
                fix="leave parallelism= of this source away, or say 1",
            )
        return SocketReader(self._host, self._port, self._format, self._reconnect, ctx)

    @property
    def label(self) -> str:
        """See Source."""
        format = "" if isinstance(self._format, Text) else f", {self._format!r}"
        return f'Socket("{self._address}"{format})'


class SocketReader(Reader[Any]):
    """The connection, whether it stands or not."""

    def __init__(
        self, host: str, port: int, format: Any, reconnect: bool, ctx: SourceContext
    ) -> None:
        self._host = host
        self._port = port
        self._format = format
        self._file_format = format
        """The format of this connection: its header is known, where there is one."""
        self._reconnect = reconnect
        self._ctx = ctx
        self._socket: socket.socket | None = None
        self._connected = False
        self._connect_at_ms = ctx.now_ms()
        self._wait_ms = _FIRST_WAIT_MS
        self._ended = False
        self._partial = bytearray()
        self._line = 0
        """Lines of this connection that were decoded."""
        self._decoded: deque[tuple[Any, int]] = deque()
        self._batch: Sequence[int] = ()

    def restore(self, state: SourceState) -> None:
        """See Reader. There is nothing to go back to."""

    def poll(self, limit: int) -> Sequence[Any] | Quiet:
        """See Reader."""
        while not self._decoded and not self._ended:
            if not self._receive():
                return IDLE
        if not self._decoded:
            return END
        taken = [self._decoded.popleft() for _ in range(min(limit, len(self._decoded)))]
        self._batch = [line for _, line in taken]
        return [record for record, _ in taken]

    def snapshot(self) -> SourceState:
        """See Reader. Empty: what was received cannot be asked for again."""
        return SourceState()

    def unread(self) -> bool:
        """See Reader."""
        return bool(self._decoded)

    def position(self, index: int) -> str:
        """See Reader."""
        return self._where(self._batch[index])

    def close(self) -> None:
        """See Reader."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _where(self, line: int) -> str:
        return f"{self._host}:{self._port}, line {line + 1:,} of this connection"

    def _receive(self) -> bool:
        """Whether anything new came: lines, or the end of the connection."""
        try:
            if not self._is_connected():
                return False
            assert self._socket is not None
            data = self._socket.recv(_RECEIVE_BYTES)
        except BlockingIOError:
            return False
        except OSError as e:
            return self._lost(e.strerror or str(e))
        if not data:
            return self._lost("the server closed it")
        cut = data.rfind(b"\n")
        if cut < 0:
            self._partial += data
            if len(self._partial) > _LINE_BYTES_MAX:
                raise Rejected(
                    f"no line break in {_LINE_BYTES_MAX >> 20} MiB", where=self._where(self._line)
                )
            return True
        block = bytes(self._partial + data[:cut])
        self._partial = bytearray(data[cut + 1 :])
        self._decode(block)
        return True

    def _is_connected(self) -> bool:
        """Go on connecting, without waiting for it."""
        if self._socket is None:
            now_ms = self._ctx.now_ms()
            if now_ms < self._connect_at_ms:
                return False
            self._connect_at_ms = now_ms + self._wait_ms
            self._begin_to_connect()
        assert self._socket is not None
        if not self._connected:
            ready = select.poll()
            ready.register(self._socket, select.POLLOUT)
            if not ready.poll(0):
                return False
            if error := self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                raise OSError(error, os.strerror(error))
            self._connected = True
            self._wait_ms = _FIRST_WAIT_MS
        return True

    def _begin_to_connect(self) -> None:
        found = socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        # `localhost` has an IPv6 address that nc does not listen on; IPv4 first.
        family, kind, protocol, _, address = min(found, key=lambda one: one[0] != socket.AF_INET)
        self._socket = socket.socket(family, kind, protocol)
        self._socket.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            self._socket.connect(address)

    def _lost(self, reason: str) -> bool:
        """The connection ended, or could not be made; the last line may lack its line break."""
        was_connected = self._connected
        self.close()
        self._connected = False
        if self._partial:
            self._decode(bytes(self._partial))
            self._partial.clear()
        self._line, self._file_format = 0, self._format
        where = f"{self._host}:{self._port}"
        if not self._reconnect:
            if not was_connected:
                raise Retryable(
                    f"cannot connect: {reason}", where=where, fix="start the server, e.g. nc -lk"
                )
            self._ended = True
            return True
        if was_connected or self._wait_ms == _FIRST_WAIT_MS:
            told = "the connection ended" if was_connected else "cannot connect"
            self._ctx.warn(f"{told} ({where}: {reason}); trying again until it works")
        self._connect_at_ms = self._ctx.now_ms() + self._wait_ms
        self._wait_ms = min(_LONGEST_WAIT_MS, 2 * self._wait_ms)
        return bool(self._decoded)

    def _decode(self, block: bytes) -> None:
        if self._line == 0 and getattr(self._format, "header", False):
            first, has_more, block = block.partition(b"\n")
            self._file_format = self._format.with_header(first)
            self._line = 1
            if not has_more:
                return
        decoded = lines.decode(self._file_format, block)
        if decoded.error is not None:
            where = self._where(self._line + (decoded.bad_line or 0))
            raise lines.undecodable(self._format, decoded.error, where) from decoded.error
        first_line = self._line
        self._line += block.count(b"\n") + 1
        self._decoded.extend(
            (record, first_line + line)
            for record, line in zip(decoded.records, decoded.lines, strict=True)
        )
