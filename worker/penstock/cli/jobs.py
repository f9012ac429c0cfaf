"""Commands about jobs that are running: list, status, savepoint, checkpoint, stop, cancel."""

from __future__ import annotations

import time
from typing import Any

import click

from penstock.cli import numbers
from penstock.cli.coordinator import (
    Coordinator,
    coordinator_option,
    find,
    job_argument,
    new_request_id,
)
from penstock.cli.help import Command, Option
from penstock.cli.output import output_option, print_json
from penstock.cli.places import shown
from penstock.cli.tables import table
from penstock.cli.view import status_page
from penstock.core.errors import PenstockError
from penstock.runtime.registry import RunningJob, running_jobs
from penstock.spec.orders import (
    CancelOrder,
    CheckpointOrder,
    JobStatus,
    Order,
    RequestStatus,
    SavepointOrder,
    StopOrder,
)


def _list(form: str | None) -> None:
    now_ms = int(time.time() * 1000)
    found = [(job, _status_or_none(job)) for job in running_jobs()]
    if form == "json":
        print_json([_list_json(job, status) for job, status in found])
        return
    if not found:
        click.echo("no job runs on this machine", err=True)
        return
    rows = [("JOB", "PHASE", "WORKERS", "UPTIME", "RESTARTS", "CHECKPOINT", "PID", "PAGE")]
    for job, status in found:
        uptime = numbers.duration(now_ms - job.started_ms)
        if status is None:
            rows.append((job.name, "no answer", "", uptime, "", "", str(job.pid), job.url))
            continue
        last = status.last_checkpoint
        rows.append(
            (
                job.name,
                str(status.phase),
                str(status.parallelism),
                uptime,
                str(status.restarts),
                numbers.NOTHING if last is None else f"chk-{last.id}",
                str(job.pid),
                job.url,
            )
        )
    click.echo(table(rows, right=(2, 4)), nl=False)


def _status_or_none(job: RunningJob) -> JobStatus | None:
    try:
        return Coordinator(job.url, job.token).status()
    except PenstockError:
        return None


def _list_json(job: RunningJob, status: JobStatus | None) -> dict[str, Any]:
    return {
        "name": job.name,
        "pid": job.pid,
        "url": job.url,
        "storage": job.storage,
        "manifest": job.manifest,
        "startedAtMs": job.started_ms,
        "phase": None if status is None else status.phase.value,
        "restarts": None if status is None else status.restarts,
    }


def _status(job: str | None, address: str | None, form: str | None) -> None:
    coordinator = find(job, address)
    status = coordinator.status()
    if form == "json":
        print_json(status.model_dump(mode="json", by_alias=True))
    else:
        now_ms = int(time.time() * 1000)
        click.echo(status_page(status, url=coordinator.url, now_ms=now_ms), nl=False)


def _give(coordinator: Coordinator, path: str, order: Order, doing: str) -> RequestStatus:
    click.echo(f"{doing} … ", err=True, nl=False)
    started = time.monotonic()
    try:
        answer = coordinator.order(path, order)
    except BaseException:
        click.echo(err=True)
        raise
    click.echo(f"done in {numbers.duration(int((time.monotonic() - started) * 1000))}.", err=True)
    return answer


def _print_path(answer: RequestStatus, form: str | None) -> None:
    """The path alone on stdout, so that `$(penstock savepoint)` is a path."""
    if form == "json":
        print_json(answer.model_dump(mode="json", by_alias=True))
    elif answer.path is not None:
        click.echo(shown(answer.path))


def _savepoint(
    job: str | None, address: str | None, request_id: str | None, form: str | None
) -> None:
    order = SavepointOrder(request_id=request_id or new_request_id())
    answer = _give(find(job, address), "savepoints", order, "Taking a savepoint")
    _print_path(answer, form)


def _checkpoint(job: str | None, address: str | None, form: str | None) -> None:
    order = CheckpointOrder(request_id=new_request_id())
    _print_path(_give(find(job, address), "checkpoints", order, "Taking a checkpoint"), form)


def _stop(
    job: str | None, address: str | None, drain: bool, request_id: str | None, form: str | None
) -> None:
    order = StopOrder(request_id=request_id or new_request_id(), drain=drain)
    _print_path(_give(find(job, address), "stop", order, "Stopping with a savepoint"), form)


def _cancel(job: str | None, address: str | None, savepoint: bool, form: str | None) -> None:
    coordinator = find(job, address)
    taken = None
    if savepoint:
        order = SavepointOrder(request_id=new_request_id())
        taken = _give(coordinator, "savepoints", order, "Taking a savepoint")
    answer = _give(coordinator, "cancel", CancelOrder(request_id=new_request_id()), "Cancelling")
    _print_path(taken or answer, form)


def _request_id_option() -> Option:
    return Option(
        ["--id", "request_id"],
        metavar="ID",
        help="The same ID again is the same request",
        shown_default="a new one",
    )


list_command = Command(
    "list", callback=_list, help="Jobs on this machine.", params=[output_option()]
)
status_command = Command(
    "status",
    usage="[JOB] [OPTIONS]",
    callback=_status,
    help="One job: phase, rates, checkpoints, last error.",
    params=[job_argument(), coordinator_option(), output_option()],
)
savepoint_command = Command(
    "savepoint",
    usage="[JOB] [OPTIONS]",
    callback=_savepoint,
    help="Takes a savepoint; the job runs on. Prints its path.",
    params=[job_argument(), coordinator_option(), _request_id_option(), output_option()],
)
checkpoint_command = Command(
    "checkpoint",
    usage="[JOB] [OPTIONS]",
    callback=_checkpoint,
    help="Takes a checkpoint now. Prints its path.",
    params=[job_argument(), coordinator_option(), output_option()],
)
stop_command = Command(
    "stop",
    usage="[JOB] [OPTIONS]",
    callback=_stop,
    help="Stops a job with a savepoint, from which it goes on when run again. Prints its path.",
    params=[
        job_argument(),
        coordinator_option(),
        Option(["--drain"], is_flag=True, help="Finish first what event time still holds back"),
        _request_id_option(),
        output_option(),
    ],
)
cancel_command = Command(
    "cancel",
    usage="[JOB] [OPTIONS]",
    callback=_cancel,
    help="Stops a job at once. Run again, it goes on from its newest checkpoint.",
    params=[
        job_argument(),
        coordinator_option(),
        Option(["-s", "--savepoint"], is_flag=True, help="Take a savepoint first; prints its path"),
        output_option(),
    ],
)
