"""The operator's process: every kopf decorator, and the command line.

kopf only watches. Whatever it sees puts a job's name into our own queue, where one turn per job runs at
a time: observe, decide, execute (`cluster.loop.turn`). Nothing is kept that a restart would miss.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import kopf

from penstock.core.errors import PenstockError
from penstock_operator.cluster.coordinator_client import IN_CLUSTER, CoordinatorClient
from penstock_operator.cluster.events import Recorder
from penstock_operator.cluster.execute import Tools
from penstock_operator.cluster.keys import cluster_identity, operator_key
from penstock_operator.cluster.kube import (
    CLAIMS,
    DEPLOYMENTS,
    PODS,
    SAVEPOINTS,
    STATEFUL_SETS,
    STREAM_JOBS,
    Kube,
)
from penstock_operator.cluster.log import Forwarding, Log, make_log
from penstock_operator.cluster.loop.agenda import Agenda
from penstock_operator.cluster.loop.health import make_server
from penstock_operator.cluster.loop.metrics import Metrics
from penstock_operator.cluster.loop.queue import WorkQueue
from penstock_operator.cluster.loop.schema import SchemaGate
from penstock_operator.cluster.loop.turn import Turns
from penstock_operator.cluster.memory import Memory
from penstock_operator.cluster.observe import JobKey, Observer, Settings
from penstock_operator.reconcile.job import reconcile
from penstock_operator.resources.names import FINALIZER_SAVEPOINT, GROUP, LABEL_JOB, VERSION

_RESYNC_S = 60.0
_PLACES_S = 30.0
_PAUSE_S = 10.0
_STOP_TIMEOUT_S = 20.0
_HTTP_PORT = 8080
_THREADS = 4
_LABELLED = (
    ("v1", "pods"),
    ("v1", "persistentvolumeclaims"),
    ("apps/v1", "deployments"),
    ("apps/v1", "statefulsets"),
)
"""What belongs to a job by its label, and tells that something happened to it."""

_WATCHED = (STREAM_JOBS, SAVEPOINTS, PODS, CLAIMS, DEPLOYMENTS, STATEFUL_SETS)

Jobs = WorkQueue[JobKey]


def watching(queue: Jobs) -> kopf.OperatorRegistry:
    """What kopf is to look at."""
    registry = kopf.OperatorRegistry()

    @kopf.on.startup(registry=registry)
    def configure(settings: kopf.OperatorSettings, **_: Any) -> None:
        settings.posting.enabled = False
        settings.peering.standalone = True
        settings.scanning.disabled = True
        # A watch whose end is never told would leave us with the minute's resync alone.
        settings.watching.server_timeout = 300
        settings.watching.client_timeout = 360
        settings.watching.connect_timeout = 10
        settings.networking.request_timeout = 30
        settings.networking.connect_timeout = 10
        for version, plural in _LABELLED:
            settings.watching.label_selectors[version, plural] = LABEL_JOB

    # A registry of our own has none of kopf's ways to log in.
    @kopf.on.login(registry=registry)
    def login(**told: Any) -> kopf.ConnectionInfo | None:
        return kopf.login_with_service_account(**told) or kopf.login_with_kubeconfig(**told)

    @kopf.on.event(GROUP, VERSION, "streamjobs", registry=registry)
    async def on_job(namespace: str | None, name: str | None, **_: Any) -> None:
        queue.add(JobKey(str(namespace), str(name)))

    @kopf.on.event(GROUP, VERSION, "savepoints", registry=registry)
    async def on_savepoint(namespace: str | None, spec: kopf.Spec, **_: Any) -> None:
        if job := spec.get("jobName"):
            queue.add(JobKey(str(namespace), job))

    async def on_part(namespace: str | None, labels: kopf.Labels, **_: Any) -> None:
        if job := labels.get(LABEL_JOB):
            queue.add(JobKey(str(namespace), job))

    for version, plural in _LABELLED:
        group, _slash, version = version.rpartition("/")
        kopf.on.event(group, version, plural, id=f"on_{plural}", registry=registry)(on_part)
    return registry


@dataclass(frozen=True, slots=True)
class Flags:
    """The command line of `run`; namespaces are all when none is named."""

    namespaces: tuple[str, ...]
    worker_image: str
    operator_namespace: str
    coordinator_url: str
    threads: int
    http_port: int


def run(flags: Flags, log: Log) -> int:
    """Until SIGTERM."""
    kube = Kube.from_environment(threads=flags.threads + 2)
    schema, metrics = SchemaGate(kube), Metrics()
    started: list[Jobs] = []
    # First of all: who waits for the CRDs is as well as who works.
    server = make_server(
        flags.http_port, age_s=lambda: started[0].age_s() if started else 0.0, metrics=metrics
    )
    threading.Thread(target=server.serve_forever, name="http", daemon=True).start()
    _wait_for_schema(schema, log)
    settings = Settings(
        worker_image=flags.worker_image,
        cluster=cluster_identity(kube),
        fail_points=os.environ.get("PENSTOCK_FAIL_POINTS") == "1",
    )
    coordinators = CoordinatorClient(flags.coordinator_url, threads=flags.threads)
    memory = Memory(time.monotonic)
    tools = Tools(
        kube=kube,
        coordinators=coordinators,
        memory=memory,
        settings=settings,
        recorder=Recorder(kube, now=_now, log=log),
        key=operator_key(kube, flags.operator_namespace),
        now=_now,
        log=log,
    )
    turns = Turns(
        Observer(kube, coordinators, memory, settings),
        reconcile,
        tools,
        schema=schema,
        metrics=metrics,
    )
    queue: Jobs = WorkQueue(Agenda(random.random), turns.turn, threads=flags.threads, log=log)
    resync = threading.Thread(
        target=_resync, args=(kube, flags.namespaces, queue, log), name="resync", daemon=True
    )
    queue.start()
    started.append(queue)
    resync.start()
    log.info("operator runs", namespaces=flags.namespaces or "all", image=flags.worker_image)
    try:
        _watch(kube, flags.namespaces, queue, log)
    finally:
        queue.stop(_STOP_TIMEOUT_S)
        server.shutdown()
    log.info("operator ends")
    return 0


def _watch(kube: Kube, namespaces: Sequence[str], queue: Jobs, log: Log) -> None:
    """Until SIGTERM. kopf gives up all of its watches when one is refused, so that it only gets those
    namespaces where none is; what it misses the minute's resync finds."""
    told_to_end = threading.Event()
    said: Sequence[str] = namespaces
    while not told_to_end.is_set():
        # While kopf runs it has its own, and leaves none behind.
        signal.signal(signal.SIGTERM, lambda *_: told_to_end.set())
        places = _watchable(kube, namespaces)
        if places != said:
            refused = [place for place in namespaces if place not in places]
            log.warning("watched namespaces", watched=places, refused=refused)
            said = places
        if namespaces and not places:
            told_to_end.wait(_PAUSE_S)
            continue
        try:
            if not asyncio.run(_watch_there(kube, namespaces, places, queue, told_to_end)):
                return
        except Exception as e:  # noqa: BLE001  one namespace's is not the end of all
            log.error("watching failed", error=str(e), kind=type(e).__name__)
            signal.signal(signal.SIGTERM, lambda *_: told_to_end.set())
            told_to_end.wait(_PAUSE_S)


async def _watch_there(
    kube: Kube,
    namespaces: Sequence[str],
    places: Sequence[str],
    queue: Jobs,
    told_to_end: threading.Event,
) -> bool:
    """Until SIGTERM, or (True) until others can be watched."""
    changed = asyncio.Event()

    async def look() -> None:
        await asyncio.sleep(1)
        if told_to_end.is_set():  # before kopf listened
            changed.set()
        while not changed.is_set():
            await asyncio.sleep(_PLACES_S)
            if await asyncio.to_thread(_watchable, kube, namespaces) != places:
                changed.set()

    looking = asyncio.create_task(look())
    try:
        await kopf.operator(
            registry=watching(queue),
            standalone=True,
            clusterwide=not namespaces,
            namespaces=places,
            stop_flag=changed,
        )
    finally:
        looking.cancel()
    return changed.is_set()


def _watchable(kube: Kube, namespaces: Sequence[str]) -> Sequence[str]:
    """Those of the namespaces where nothing that is watched is refused."""
    return tuple(n for n in namespaces if all(kube.may_list(kind, n) for kind in _WATCHED))


def _now() -> datetime:
    return datetime.now(UTC)


def _wait_for_schema(schema: SchemaGate, log: Log) -> None:
    """Until the CRDs are there: kopf looks for kinds once, when it starts."""
    said = None
    while True:
        try:
            why = schema.objection()
        except PenstockError as e:
            why = e.what
        if why is None:
            return
        if why != said:
            log.error("waiting", error=why)
            said = why
        time.sleep(2)


def _resync(kube: Kube, namespaces: Sequence[str], queue: Jobs, log: Log) -> None:
    """Every job is looked at once a minute, whatever the watches have missed."""
    while True:
        for namespace in namespaces or (None,):
            try:
                for key in _jobs(kube, namespace):
                    queue.add(key)
            except PenstockError as e:
                log.warning("resync failed", error=e.what)
            except Exception as e:
                log.error("resync failed", exc_info=e)
        time.sleep(_RESYNC_S)


def _jobs(kube: Kube, namespace: str | None) -> set[JobKey]:
    """All StreamJobs, and those that a Savepoint names."""
    jobs = {
        JobKey(job["metadata"]["namespace"], job["metadata"]["name"])
        for job in kube.list(STREAM_JOBS, namespace)
    }
    return jobs | {
        JobKey(savepoint["metadata"]["namespace"], savepoint["spec"]["jobName"])
        for savepoint in kube.list(SAVEPOINTS, namespace)
        if savepoint.get("spec", {}).get("jobName")
    }


def check_uninstall(namespaces: Sequence[str]) -> int:
    """1 while there are StreamJobs, or Savepoints with our finalizer: without an operator their
    deletion would hang."""
    kube = Kube.from_environment()
    places = namespaces or (None,)
    jobs = [job["metadata"] for place in places for job in kube.list(STREAM_JOBS, place)]
    savepoints = [
        savepoint["metadata"]
        for place in places
        for savepoint in kube.list(SAVEPOINTS, place)
        if FINALIZER_SAVEPOINT in savepoint["metadata"].get("finalizers", ())
    ]
    inside = sorted({f"--namespace {job['namespace']}" for job in jobs})
    # Jobs of other namespaces may have an operator of their own.
    jobs_go = [
        f"kubectl delete streamjobs --all {place}"
        for place in (inside if namespaces else ["--all-namespaces"])
    ]
    savepoints_go = [
        f"kubectl delete savepoint {one['name']} --namespace {one['namespace']}"
        for one in savepoints
    ]
    for kind, found, ways_out in (
        ("StreamJob", jobs, jobs_go),
        ("Savepoint", savepoints, savepoints_go),
    ):
        if found:
            print(_left_behind(kind, found, ways_out), file=sys.stderr)
    return 1 if jobs or savepoints else 0


def _left_behind(kind: str, found: Sequence[Mapping[str, Any]], ways_out: Sequence[str]) -> str:
    names = sorted(f"{one['namespace']}/{one['name']}" for one in found)
    shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    return (
        f"error: {len(names)} {kind}{'s' if len(names) > 1 else ''} would be left without an operator: "
        f"{shown}; delete them first" + "".join(f"\n  do     {way}" for way in ways_out[:5])
    )


def _parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="penstock-operator", description="Keeps every StreamJob as its object says."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    run_parser = commands.add_parser("run", help="watch and reconcile until SIGTERM")
    uninstall = commands.add_parser(
        "check-uninstall", help="exit code 1 while something would be left"
    )
    for command in (run_parser, uninstall):
        command.add_argument(
            "--namespaces",
            default=os.environ.get("PENSTOCK_NAMESPACES", ""),
            help="a,b: only these; default all",
        )
    environment = os.environ.get
    run_parser.add_argument(
        "--worker-image",
        default=environment("PENSTOCK_WORKER_IMAGE"),
        required="PENSTOCK_WORKER_IMAGE" not in os.environ,
        help="image of jobs that name none",
    )
    run_parser.add_argument(
        "--operator-namespace",
        default=environment("PENSTOCK_OPERATOR_NAMESPACE"),
        required="PENSTOCK_OPERATOR_NAMESPACE" not in os.environ,
        help="where the operator's own key is kept",
    )
    run_parser.add_argument(
        "--coordinator-url",
        default=IN_CLUSTER,
        help="where a coordinator answers, of {coordinator}, {namespace}, {job}; for tests",
    )
    run_parser.add_argument("--threads", type=int, default=_THREADS, help="turns at once")
    run_parser.add_argument("--http-port", type=int, default=_HTTP_PORT, help="/healthz, /metrics")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """The process; its exit code."""
    parsed = _parsed(arguments)
    namespaces = tuple(n for n in parsed.namespaces.replace(" ", "").split(",") if n)
    log = make_log()
    logging.basicConfig(handlers=[Forwarding(log)], level=logging.WARNING, force=True)
    try:
        if parsed.command == "check-uninstall":
            return check_uninstall(namespaces)
        flags = Flags(
            namespaces=namespaces,
            worker_image=parsed.worker_image,
            operator_namespace=parsed.operator_namespace,
            coordinator_url=parsed.coordinator_url,
            threads=parsed.threads,
            http_port=parsed.http_port,
        )
        return run(flags, log)
    except PenstockError as e:
        log.error("operator ends", error=e.what, where=e.where, fix=e.fix)
        return e.exit_code


if __name__ == "__main__":
    sys.exit(main())
