"""What a coordinator is told when it starts: by flags, its surroundings, and the manifest."""

from __future__ import annotations

import argparse
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from penstock.checkpoint.settings import (
    CheckpointSettings,
    ExponentialDelay,
    FailureRate,
    FixedDelay,
    NoRestart,
    OnCancellation,
    RestartStrategy,
)
from penstock.core.errors import Rejected
from penstock.core.ids import JobId
from penstock.runtime import pod
from penstock.spec.changes import revision_of
from penstock.spec.parts.moves import Restart
from penstock.spec.parts.moves import RestartStrategy as Strategy
from penstock.spec.streamjob import StreamJob

CONTROL_PORT = 6123
REST_PORT = 8081
_FAILURES_DEFAULT = 10


@dataclass(frozen=True, slots=True)
class CoordinatorConfig:
    """Everything `run_coordinator` needs beside the program.

    `folder` is where the job's modules and relative paths are. Ports may be 0: `ports_file` gets
    those that were bound, once the log has been read.
    """

    job: JobId
    token: str
    folder: Path
    checkpoints_url: str
    savepoints_url: str
    owner: str
    revision: str
    host: str = "127.0.0.1"
    port: int = 0
    rest_host: str = "127.0.0.1"
    rest_port: int = 0
    ports_file: Path | None = None
    adopt: bool = False


def local_owner() -> str:
    """The owner of logs that are written outside a cluster."""
    return f"local/{socket.gethostname()}"


def storage_urls(manifest: StreamJob) -> tuple[str, str]:
    """Where checkpoints and savepoints go; these beside those, when only one is said.

    Raises:
        Rejected: the manifest names no storage.
    """
    spec = manifest.spec
    checkpoints = spec.checkpoints.storage
    if checkpoints is None:
        raise Rejected(
            "there is no storage for checkpoints",
            where="spec.checkpoints.storage",
            fix="write s3://bucket/checkpoints, or a folder that all pods share",
        )
    return checkpoints, spec.savepoints.storage or beside(checkpoints)


def beside(checkpoints_url: str) -> str:
    """The savepoints' root next to a checkpoints' root: `…/checkpoints` → `…/savepoints`."""
    scheme, separator, rest = checkpoints_url.rstrip("/").rpartition("://")
    parent, slash, _ = rest.rpartition("/")
    return f"{scheme}{separator}{parent if slash else rest}/savepoints"


def checkpoint_settings(manifest: StreamJob) -> CheckpointSettings:
    """The manifest's words about checkpoints and restarts, as the decisions use them."""
    checkpoints = manifest.spec.checkpoints
    return CheckpointSettings(
        interval_ms=checkpoints.interval_ms,
        min_pause_ms=checkpoints.min_pause_ms,
        timeout_ms=checkpoints.timeout_ms,
        tolerable_failures=checkpoints.tolerable_failures,
        retained=checkpoints.retained,
        on_cancellation=OnCancellation(checkpoints.on_cancellation.value),
        restart=restart_strategy(manifest.spec.restart),
    )


def restart_strategy(restart: Restart) -> RestartStrategy:
    """The manifest's words about restarts, as the decisions use them."""
    match restart.strategy:
        case Strategy.EXPONENTIAL_DELAY:
            return ExponentialDelay(restart.initial_delay_ms, restart.max_delay_ms)
        case Strategy.FIXED_DELAY:
            return FixedDelay(restart.delay_ms, restart.attempts)
        case Strategy.FAILURE_RATE:
            failures = restart.attempts or _FAILURES_DEFAULT
            return FailureRate(restart.delay_ms, failures, restart.window_ms)
        case Strategy.NONE:
            return NoRestart()


@dataclass(frozen=True, slots=True)
class Flags:
    """The command line of a coordinator; in a pod it is empty."""

    manifest: Path | None
    host: str | None
    port: int
    rest_port: int
    ports_file: Path | None
    owner: str
    revision: str | None
    log: str | None

    @classmethod
    def parse(cls, arguments: Sequence[str] | None = None) -> Flags:
        """Read them; argparse ends the process when they are wrong."""
        parser = argparse.ArgumentParser(prog="penstock coordinator")
        parser.add_argument("--manifest", type=Path, help="left out: this is a pod")
        parser.add_argument("--host", help="to listen on; in a pod everywhere, else 127.0.0.1")
        parser.add_argument("--port", type=int, default=CONTROL_PORT, help="for workers; 0: any")
        parser.add_argument("--rest-port", type=int, default=REST_PORT, help="0: any")
        parser.add_argument("--ports-file", type=Path, help="is written once the log was read")
        owner = os.environ.get(pod.OWNER_VARIABLE) or local_owner()
        parser.add_argument("--owner", default=owner)
        parser.add_argument("--revision", default=os.environ.get(pod.REVISION_VARIABLE))
        parser.add_argument("--log", choices=["plain", "json"], help="in a pod json, else plain")
        return cls(**vars(parser.parse_args(arguments)))


def config_of(
    flags: Flags, around: pod.Surroundings, manifest: StreamJob, folder: Path
) -> CoordinatorConfig:
    """The configuration of a process started with these flags.

    Raises:
        Rejected: no token, or no storage.
    """
    checkpoints_url, savepoints_url = storage_urls(manifest)
    return CoordinatorConfig(
        job=manifest.job_id(namespace=os.environ.get(pod.NAMESPACE_VARIABLE)),
        token=pod.token(),
        folder=folder,
        checkpoints_url=checkpoints_url,
        savepoints_url=savepoints_url,
        owner=flags.owner,
        revision=flags.revision or revision_of(manifest.spec),
        host=around.host,
        port=flags.port,
        rest_host=around.host,
        rest_port=flags.rest_port,
        ports_file=flags.ports_file,
        adopt=manifest.spec.restore.adopt,
    )
