"""HTTP for the kubelet and for Prometheus: /healthz and /metrics."""

from __future__ import annotations

from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from penstock_operator.cluster.loop.metrics import CONTENT_TYPE, Metrics

AGE_MAX_S = 180.0
"""Longer than the requests of one turn may take."""


def make_server(port: int, *, age_s: Callable[[], float], metrics: Metrics) -> ThreadingHTTPServer:
    """Healthy while a thread of our own loop has come round lately."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            match self.path.partition("?")[0]:
                case "/healthz":
                    age = age_s()
                    text = f"last turn of the loop {age:.0f} s ago\n".encode()
                    self._answer(200 if age < AGE_MAX_S else 503, "text/plain", text)
                case "/metrics":
                    self._answer(200, CONTENT_TYPE, metrics.page())
                case _:
                    self._answer(404, "text/plain", b"/healthz or /metrics\n")

        def _answer(self, status: int, content_type: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Probes are no news."""

    server = ThreadingHTTPServer(("", port), Handler)
    server.daemon_threads = True
    return server
