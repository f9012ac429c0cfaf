"""`penstock gc`: files that no snapshot uses. Reports first; deletes only when told to."""

from __future__ import annotations

import time
from dataclasses import dataclass

import click

from penstock.checkpoint.log import kept
from penstock.checkpoint.retention import Listed, Sweep, sweep
from penstock.cli import numbers
from penstock.cli.find import DEFAULT_STORAGE, Storage
from penstock.cli.help import Command, Option
from penstock.cli.output import output_option, print_json
from penstock.cli.tables import table
from penstock.core.errors import Rejected
from penstock.core.ids import JobId
from penstock.core.log import Entry
from penstock.core.manifest import Manifest
from penstock.core.paths import METADATA
from penstock.spec.parts.quantities import parse_duration_ms
from penstock.storage.location import open_store

_SHOWN_MAX = 20


@dataclass(frozen=True, slots=True)
class JobSweep:
    """One job's files in classes; `root` is what their paths are relative to."""

    job: JobId
    root: str
    sweep: Sweep


def _run(storage: str, delete: bool, grace: str, form: str | None) -> None:
    there = Storage.read(storage)
    swept = sweep_jobs(there, now_ms=int(time.time() * 1000), grace_ms=_grace_ms(grace))
    if delete:
        for job in swept:
            there.store.delete(job.root + found.path for found in job.sweep.orphans)
    if form == "json":
        print_json(
            [
                {
                    "job": job.job,
                    "orphans": [f"{job.root}{found.path}" for found in job.sweep.orphans],
                    "bytes": job.sweep.orphan_bytes,
                    "deleted": delete,
                }
                for job in swept
            ]
        )
    else:
        click.echo(text(swept, deleted=delete, storage=storage), nl=False)


gc_command = Command(
    "gc",
    usage="[STORAGE] [OPTIONS]",
    callback=_run,
    examples="""\
      penstock gc                      in ./state: what it would delete, and nothing more
      penstock gc s3://bucket --delete""",
    help="""\
    Left alone are files that a kept snapshot names, files of a running attempt, and what is
    younger than --grace.""",
    params=[
        click.Argument(["storage"], default=DEFAULT_STORAGE, required=False),
        Option(["--delete"], is_flag=True, help="Delete what is reported"),
        Option(
            ["--grace"],
            default="1h",
            metavar="DURATION",
            help="How old a file must be",
            shown_default="1h",
        ),
        output_option(),
    ],
)


def _grace_ms(text: str) -> int:
    try:
        return parse_duration_ms(text)
    except ValueError as e:
        raise Rejected(str(e), where="--grace", fix="write 10s, 500ms, 5m, 1h") from e


def sweep_jobs(there: Storage, *, now_ms: int, grace_ms: int) -> list[JobSweep]:
    """Every job's files in classes. What another job's snapshot names by its URL counts as used.

    Raises:
        Corrupt: a manifest that is needed to tell what is in use cannot be read.
    """
    used = _named_by_url(there)
    found = []
    for folder, entry in there.jobs.items():
        job = JobId(folder.rstrip("/").rpartition("/")[2])
        root = folder.removesuffix(f"{job}/")
        listed = [
            Listed(path.removeprefix(root), info.length, info.modified_ms)
            for path, info in there.objects.items()
            if path.startswith(folder) and f"{there.store.url}/{path}" not in used
        ]
        manifests = _manifests(there, root, entry)
        classes = sweep(listed, entry, manifests, job=job, now_ms=now_ms, grace_ms=grace_ms)
        found.append(JobSweep(job, root, classes))
    return found


def _manifests(there: Storage, root: str, entry: Entry) -> dict[str, Manifest]:
    manifests = {}
    for ref in kept(entry):
        store, path = there.store, root + ref.path
        if "://" in ref.path:
            folder, _, path = ref.path.rpartition("/")
            store = open_store(folder)
        data = store.get(path)
        if data is not None:
            manifests[ref.path] = Manifest.from_bytes(data, path=f"{store.url}/{path}")
    return manifests


def _named_by_url(there: Storage) -> set[str]:
    used = set()
    for path in there.objects:
        if path.endswith(f"/{METADATA}") and (data := there.store.get(path)) is not None:
            manifest = Manifest.from_bytes(data, path=f"{there.store.url}/{path}")
            used |= {file.path for file in manifest.files() if "://" in file.path}
    return used


def text(swept: list[JobSweep], *, deleted: bool, storage: str) -> str:
    """What was found, job by job."""
    parts = []
    total = sum(len(job.sweep.orphans) for job in swept)
    for job in swept:
        orphans = job.sweep.orphans
        if not orphans:
            continue
        size = numbers.size(job.sweep.orphan_bytes)
        parts.append(
            f"{job.job}: {numbers.counted(len(orphans), 'file')}, {size}, in no snapshot\n"
        )
        rows = [(numbers.size(o.length), o.path) for o in orphans[:_SHOWN_MAX]]
        parts.append(table(rows, right=(0,), indent="  "))
        if len(orphans) > _SHOWN_MAX:
            parts.append(f"  … and {len(orphans) - _SHOWN_MAX:,} more (-o json lists all)\n")
    if not swept:
        return f"no job in {storage}\n"
    if not total:
        return f"every file in {storage} belongs to a snapshot, a running attempt or a log\n"
    last = (
        "deleted" if deleted else f"nothing was deleted; to do it: penstock gc {storage} --delete"
    )
    return "".join([*parts, f"\n{last}\n"])
