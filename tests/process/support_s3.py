"""An S3 server that can be away: a relay before the real one, and buckets of a test's own."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import uuid
from typing import Self
from urllib.parse import urlsplit

import boto3
import pytest


def real_s3() -> str:
    """The URL of the real S3 server; skips where none is named."""
    endpoint = os.environ.get("AWS_ENDPOINT_URL")
    if not endpoint:
        pytest.skip("no real S3 server: set AWS_ENDPOINT_URL and credentials")
    return endpoint


def new_bucket(endpoint: str) -> str:
    """A bucket of a test's own."""
    name = f"penstock-{uuid.uuid4().hex[:16]}"
    boto3.Session().client("s3", endpoint_url=endpoint).create_bucket(Bucket=name)
    return name


class Relay:
    """Passes connections on to an S3 server as long as it is not `cut`."""

    def __init__(self, endpoint: str) -> None:
        url = urlsplit(endpoint)
        assert url.hostname is not None, endpoint
        self._target = url.hostname, url.port or 80
        self._open: set[socket.socket] = set()
        self._is_cut = False
        self._held: bytes | None = None
        self._released = threading.Event()
        self._waiting = 0
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        self.release()
        self.cut()

    def cut(self) -> None:
        """From now on every connection is reset, those that stand too."""
        with self._lock:
            self._is_cut = True
            for sock in self._open:
                _end(sock)
            self._open.clear()

    def mend(self) -> None:
        """Connections are passed on again."""
        with self._lock:
            self._is_cut = False

    def hold(self, text: bytes) -> None:
        """From now on requests whose head has this text wait until `release`."""
        self._released.clear()
        self._held = text

    def release(self) -> None:
        """Let go of what was held."""
        self._held = None
        self._released.set()

    @property
    def is_holding(self) -> bool:
        """Whether some request waits."""
        return self._waiting > 0

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                if self._is_cut:
                    _end(near)
                    continue
                far = socket.create_connection(self._target)
                self._open |= {near, far}
            for one, other in ((near, far), (far, near)):
                threading.Thread(target=self._pass_on, args=(one, other), daemon=True).start()

    def _pass_on(self, one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := one.recv(1 << 16):
                if self._held is not None and self._held in data.partition(b"\r\n")[0]:
                    self._waiting += 1
                    self._released.wait()
                    self._waiting -= 1
                other.sendall(data)
        with self._lock:
            for sock in (one, other):
                self._open.discard(sock)
                _end(sock)


def _end(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
    sock.close()
