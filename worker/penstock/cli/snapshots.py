"""`penstock snapshots`: the checkpoints and savepoints in a storage."""

from __future__ import annotations

import time
from typing import Any

import click

from penstock.cli import numbers
from penstock.cli.find import DEFAULT_STORAGE, Found, Storage
from penstock.cli.help import Command, Option
from penstock.cli.output import output_option, print_json
from penstock.cli.tables import table

_HEAD = ("KIND", "NAME", "AGE", "SIZE", "NEW", "TOOK", "PARALLELISM", "MADE BY")


def _run(storage: str, job: str | None, form: str | None) -> None:
    there = Storage.read(storage)
    found = [s for s in there.snapshots() if job in (None, s.job)]
    if form == "json":
        print_json([to_json(s, there.store.url) for s in found])
        return
    if not found:
        click.echo(f"no snapshot{f' of {job}' if job else ''} in {there.store.url}", err=True)
        return
    click.echo(text(found, now_ms=int(time.time() * 1000)), nl=False)


snapshots_command = Command(
    "snapshots",
    usage="[STORAGE] [OPTIONS]",
    callback=_run,
    examples="""\
      penstock snapshots                       in ./state, where penstock run puts them
      penstock snapshots s3://bucket/folder    of every job below that folder""",
    params=[
        click.Argument(["storage"], default=DEFAULT_STORAGE, required=False),
        Option(["--job"], metavar="JOB", help="Only those of one job"),
        output_option(),
    ],
)


def text(found: list[Found], *, now_ms: int) -> str:
    """A table for each job, the newest snapshot first."""
    jobs = list(dict.fromkeys(s.job for s in found))
    parts = []
    for job in jobs:
        rows = [_HEAD, *(_row(s, now_ms) for s in found if s.job == job)]
        title = f"{job}\n" if len(jobs) > 1 else ""
        parts.append(title + table(rows, right=(6,)))
    whole = [s for s in found if not s.damage]
    if whole:
        example = next((s for s in whole if not s.is_latest), whole[0])
        parts.append(f"Restore one: penstock run streamjob.yaml --restore {example.name}\n")
    return "\n".join(parts)


def _row(found: Found, now_ms: int) -> tuple[str, ...]:
    manifest = found.manifest
    remark = found.damage or ("← latest" if found.is_latest else "")
    if manifest is None:
        nothing = numbers.NOTHING
        return (found.kind, found.name, *[nothing] * 5, found.made_by, remark)
    is_damaged = bool(found.damage)
    return (
        found.kind,
        found.name,
        numbers.age(now_ms - manifest.at_ms),
        numbers.NOTHING if is_damaged else numbers.size(manifest.size_bytes),
        numbers.NOTHING if is_damaged else numbers.size(found.new_bytes),
        numbers.NOTHING if is_damaged else numbers.duration(manifest.duration_ms),
        str(manifest.parallelism),
        found.made_by,
        remark,
    )


def to_json(found: Found, storage_url: str) -> dict[str, Any]:
    """One snapshot for programs: plain numbers, times in milliseconds since 1970."""
    manifest = found.manifest
    body: dict[str, Any] = {
        "kind": found.kind.value,
        "name": found.name,
        "job": found.job,
        "path": f"{storage_url}/{found.folder.rstrip('/')}",
        "isLatest": found.is_latest,
        "damage": found.damage or None,
    }
    if manifest is not None:
        body |= {
            "checkpoint": manifest.checkpoint,
            "attempt": manifest.attempt,
            "requestId": manifest.request_id,
            "at": numbers.utc(manifest.at_ms),
            "atMs": manifest.at_ms,
            "bytes": manifest.size_bytes,
            "newBytes": found.new_bytes,
            "durationMs": manifest.duration_ms,
            "parallelism": manifest.parallelism,
            "maxParallelism": manifest.max_parallelism,
        }
    return body
