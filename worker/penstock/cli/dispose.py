"""`penstock dispose`: what a short pod runs to delete snapshots of a job without a coordinator."""

from __future__ import annotations

import os
import secrets
import time
from pathlib import Path
from typing import Any

import click

from penstock.cli import numbers
from penstock.cli.help import Command, Option
from penstock.cli.output import output_option, print_json
from penstock.core.errors import PenstockError, Rejected
from penstock.runtime import pod, termination
from penstock.runtime.coordinator_config import local_owner
from penstock.runtime.disposing import Disposed, dispose_checkpoints, dispose_savepoint
from penstock.runtime.job_storage import storage_of
from penstock.runtime.local import with_local_storage
from penstock.spec.loading import load_manifest


def _run(target: str | None, savepoint: str | None, checkpoints: bool, form: str | None) -> None:
    try:
        disposed = _disposed(target, savepoint, checkpoints)
    except PenstockError as e:
        termination.leave(termination.error_body(e))
        raise
    body = _body(disposed)
    termination.leave(body)
    if form == "json":
        print_json(body)
    else:
        click.echo(body["what"])


def _disposed(target: str | None, savepoint: str | None, checkpoints: bool) -> Disposed:
    if checkpoints == (savepoint is not None):
        raise Rejected(
            "one of --savepoint and --checkpoints is needed",
            where="penstock dispose",
            fix="see penstock dispose --help",
        )
    # The job's code is not loaded: it may be why the job cannot run.
    loaded = load_manifest(pod.manifest_file() if target is None else Path(target))
    folder = pod.job_folder() if target is None else loaded.folder
    storage = storage_of(with_local_storage(loaded.job), folder)
    if savepoint is not None:
        return dispose_savepoint(storage, savepoint)
    return dispose_checkpoints(
        storage,
        owner=os.environ.get(pod.OWNER_VARIABLE) or local_owner(),
        adopt=loaded.job.spec.restore.adopt,
        nonce=f"dispose-{secrets.token_hex(8)}",
        at_ms=int(time.time() * 1000),
    )


def _body(disposed: Disposed) -> dict[str, Any]:
    size = numbers.size(disposed.size_bytes)
    return {
        "disposed": True,
        "what": f"{disposed.path}: {numbers.counted(disposed.objects, 'object')} deleted, {size}",
        "path": disposed.path,
        "objects": disposed.objects,
        "bytes": disposed.size_bytes,
    }


dispose_command = Command(
    "dispose",
    usage="[MANIFEST] (--savepoint PATH | --checkpoints) [OPTIONS]",
    callback=_run,
    help="""\
    Deletes snapshots of a job that no coordinator leads. What is gone already is disposed of; what
    is another job's, or another owner's, is refused.""",
    params=[
        click.Argument(["target"], required=False),
        Option(["--savepoint"], metavar="PATH", help="A savepoint of the job"),
        Option(["--checkpoints"], is_flag=True, help="All that its checkpoints consist of"),
        output_option(),
    ],
)
