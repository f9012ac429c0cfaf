"""A StreamJob on a real API server, with a coordinator that a small HTTP server plays."""

from __future__ import annotations

import io
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from kubernetes import client, config
from tests.process.apiserver.server import ApiServer

from penstock_operator.cluster.coordinator_client import CoordinatorClient
from penstock_operator.cluster.events import Recorder
from penstock_operator.cluster.execute import Tools, execute
from penstock_operator.cluster.kube import STREAM_JOBS, Kube, Resource
from penstock_operator.cluster.log import make_log
from penstock_operator.cluster.memory import Memory
from penstock_operator.cluster.observe import JobKey, Observer, Seen, Settings
from penstock_operator.reconcile.effects import Decision, Effect
from penstock_operator.resources.status import StreamJobStatus

KEY = b"the operator's own key"
WORKER_IMAGE = "registry.example/penstock-worker:1"
SPEC = {
    "entrypoint": "wordcount:job",
    "parameters": {"pattern": "<b>&</b>"},
    "parallelism": 2,
    "checkpoints": {"storage": "s3://bucket/checkpoints"},
}


@dataclass
class Coordinator:
    """Answers as it is told, and remembers what it was sent: path, token, body."""

    url: str
    status: dict[str, Any] | None = None
    refusal: tuple[int, str] | None = None
    orders: list[tuple[str, str, Any]] = field(default_factory=list)


@contextmanager
def playing_coordinator() -> Iterator[Coordinator]:
    """On a port of its own."""
    played = Coordinator("")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self._answer(*((200, played.status) if played.status else (503, _error("not yet"))))

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            played.orders.append((self.path, self.headers["Authorization"], body))
            if played.refusal:
                status, what = played.refusal
                self._answer(status, _error(what))
            else:
                answer = {"requestId": body["requestId"], "kind": "order", "phase": "Running"}
                self._answer(202, answer)

        def _answer(self, status, body):
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    played.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield played
    finally:
        server.shutdown()
        server.server_close()


def _error(what: str) -> dict[str, Any]:
    parts = {"what": what, "where": None, "fix": "do otherwise"}
    return {"error": {**parts, "exitCode": 2, "refusal": "Outdated"}}


class CountingKube(Kube):
    """The real one; tells what was asked, and what of it was written."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.requests: list[str] = []
        self.writes: list[str] = []

    def _ask(self, method: str, path: str, **more: Any) -> dict[str, Any]:
        self.requests.append(f"{method} {path.rpartition('/')[2]}")
        if method != "GET" and "dryRun" not in (more.get("query") or {}):
            self.writes.append(self.requests[-1])
        return super()._ask(method, path, **more)


def kube_of(server: ApiServer) -> CountingKube:
    """A client for the test's API server."""
    configuration = client.Configuration()
    config.load_kube_config(str(server.kubeconfig), client_configuration=configuration)
    return CountingKube(configuration)


@dataclass
class Bench:
    """One StreamJob with all that the operator acts on it with."""

    server: ApiServer
    namespace: str
    kube: CountingKube
    coordinator: Coordinator
    tools: Tools
    observer: Observer
    log: io.StringIO
    name: str = "words"

    def make(self, spec: Mapping[str, Any] = SPEC) -> None:
        """The StreamJob."""
        manifest = {
            "apiVersion": "penstock.dev/v1alpha1",
            "kind": "StreamJob",
            "metadata": {"name": self.name, "namespace": self.namespace},
            "spec": spec,
        }
        self.server.kubectl("apply", "--server-side", "-f", "-", given=manifest)

    def patch(self, patch: Mapping[str, Any]) -> None:
        """Change the StreamJob as a person does."""
        self.kube.merge(STREAM_JOBS, self.namespace, self.name, patch)

    def observe(self) -> Seen:
        """As it is now."""
        seen = self.observer.observe(JobKey(self.namespace, self.name))
        assert seen is not None
        return seen

    def do(self, *effects: Effect, status: StreamJobStatus | None = None) -> None:
        """Carry these out upon what is now seen."""
        seen = self.observe()
        decision = Decision(status or seen.observed.job.status, effects, timedelta(seconds=1))
        execute(self.tools, seen, decision)

    def find(self, resource: Resource, name: str) -> dict[str, Any] | None:
        """An object of the namespace."""
        return self.kube.find(resource, self.namespace, name)

    def writes_of(self, *effects: Effect) -> list[str]:
        """The requests that carrying these out writes with."""
        self.kube.writes.clear()
        self.do(*effects)
        return list(self.kube.writes)


def make_bench(server: ApiServer, namespace: str, coordinator: Coordinator) -> Bench:
    """Without the StreamJob itself yet."""
    kube, text = kube_of(server), io.StringIO()
    log = make_log(text)
    settings = Settings(worker_image=WORKER_IMAGE, cluster="c-1")
    coordinators, memory = CoordinatorClient(coordinator.url), Memory(time.monotonic, same_kept_s=0)
    tools = Tools(
        kube=kube,
        coordinators=coordinators,
        memory=memory,
        settings=settings,
        recorder=Recorder(kube, now=lambda: datetime.now(UTC), log=log),
        key=KEY,
        now=lambda: datetime.now(UTC),
        log=log,
    )
    observer = Observer(kube, coordinators, memory, settings)
    return Bench(server, namespace, kube, coordinator, tools, observer, text)


def eventually(look: Callable[[], Any], *, within_s: float = 30) -> Any:
    """What `look` gives once it is true."""
    deadline = time.monotonic() + within_s
    while not (found := look()):
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.1)
    return found
