"""How a run ends, in words: finished, already finished, stopped, cancelled, failed."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from penstock.cli import numbers
from penstock.cli.places import shown, size_of
from penstock.cli.tables import table
from penstock.cli.view import error_lines
from penstock.spec.orders import ErrorStatus, JobStatus

_POISON_RESTARTS = 2
"""A record that fails three times at the same place ends the restarts."""


@dataclass(frozen=True, slots=True)
class Ran:
    """What is told about a run that is over. `again` is the command line that goes on with it;
    `results` are the folders that its sinks write to, `snapshot` is what the next run starts from."""

    status: JobStatus
    again: str
    elapsed_ms: int
    results: Sequence[Path] = ()
    snapshot: str | None = None


def finished(ran: Ran) -> str:
    """A bounded job has read everything."""
    status = ran.status
    records_in = sum(o.records_out for o in status.operators if o.kind == "source")
    records_out = sum(o.records_in for o in status.operators if o.kind == "sink")
    failed = sum(o.records_failed for o in status.operators)
    since = " since the last restart" if status.restarts else ""
    head = (
        f"{status.name} finished in {numbers.duration(ran.elapsed_ms)}: "
        f"{numbers.counted(records_in, 'record')} in{since}, {records_out:,} out, {failed:,} failed, "
        f"{numbers.counted(status.restarts, 'restart')}."
    )
    rows: list[tuple[str, ...]] = []
    for folder in ran.results:
        files, size_bytes = size_of(folder)
        told = f"{numbers.counted(files, 'file')}, {numbers.size(size_bytes)}"
        rows.append(("results", f"{shown(str(folder))}/", told))
    if ran.snapshot is not None:
        path = shown(ran.snapshot)
        last = status.last_checkpoint
        size = f"; {numbers.size(last.size_bytes)}" if last is not None else ""
        rows.append(("checkpoint", path, f"final{size}"))
        rows.append(("look inside", f"penstock state ls {shlex.quote(path)}"))
    return f"{head}\n\n{_rows(rows)}" if rows else f"{head}\n"


def already_finished(ran: Ran, *, ago_ms: int | None) -> str:
    """Run again, and there is nothing new to read."""
    ago = "" if ago_ms is None else f", {numbers.duration(ago_ms)} ago"
    where = "" if ran.snapshot is None else f" ({Path(ran.snapshot).name})"
    head = f"{ran.status.name} already finished{ago}: its input is read to the end{where}."
    rows = [
        ("new input", "add files, then run it again; it reads only those"),
        ("from the start", f"{ran.again} --restore none"),
    ]
    return f"{head}\n\n{table(rows, indent='  ')}"


def stopped(ran: Ran, *, savepoint: str | None, max_parallelism: int) -> str:
    """Stopped with a savepoint: where it lies, and how to go on."""
    rows: list[tuple[str, ...]] = []
    if savepoint is not None:
        last = ran.status.last_savepoint
        size = numbers.size(last.size_bytes) if last is not None else ""
        rows.append(("savepoint", shown(savepoint), size))
    rows.append(("resume", ran.again))
    other = 4 if ran.status.parallelism != 4 else 8
    if other <= max_parallelism:
        rows.append(
            ("or", f"{ran.again} --parallelism {other}", f"(any number up to {max_parallelism})")
        )
    return _rows(rows)


def cancelled(ran: Ran) -> str:
    """Ended without a savepoint: the newest checkpoint is what there is."""
    last = ran.status.last_checkpoint
    rows: list[tuple[str, ...]] = []
    if last is not None:
        rows.append(("checkpoint", shown(last.path), numbers.size(last.size_bytes)))
        rows.append(("resume", ran.again))
    elif ran.snapshot is not None:
        rows.append(("resume", ran.again, f"continues from {Path(ran.snapshot).name}"))
    else:
        rows.append(("begin again", ran.again))
    return f"{ran.status.name} is cancelled, without a savepoint.\n\n{_rows(rows)}"


def failed(ran: Ran) -> str:
    """What failed, on which record, and what can be done about it."""
    status, error = ran.status, ran.status.last_error
    if error is None:
        return f"error: {status.name} failed\n"
    parts = [f"error: {error.what}\n"]
    if about := error_lines(error, parallelism=status.parallelism):
        parts.append(about)
    last = f"chk-{status.last_checkpoint.id}" if status.last_checkpoint else None
    if last is None and ran.snapshot is not None:
        last = Path(ran.snapshot).name
    why = "The job is stopped."
    if error.record is not None and status.restarts >= _POISON_RESTARTS:
        why = f"The record failed {status.restarts + 1} times, so the job is stopped."
    if error.damaged:
        parts.append(f"{why} Nothing was changed or deleted: the evidence is kept.\n")
        goes_on = "with --restore and an older snapshot"
    elif last is None:
        parts.append(f"{why} No checkpoint was taken: the next run starts anew.\n")
        goes_on = "begins again"
    else:
        parts.append(f"{why} Nothing is lost: state and input position are in {last}.\n")
        goes_on = f"continues from {last}"
    rows = [("fix the code", f"then  {ran.again}", goes_on)]
    if error.operator is None or error.fix:
        rows = [("do", error.fix or "see the log above", ""), ("then", ran.again, goes_on)]
    parts[-1] += _rows(rows, least=0)
    return "\n".join(parts)


def restarted(error: ErrorStatus, *, restarts: int) -> str:
    """One line while the job goes on."""
    return f"attempt {error.attempt} failed: {error.what} (restart {restarts})"


def _rows(rows: Sequence[tuple[str, ...]], *, least: int = 38) -> str:
    """Label, path or command, remark; a long path pushes only its own remark."""
    label = max(len(row[0]) for row in rows)
    short = [len(row[1]) for row in rows if len(row) > 2 and row[2] and len(row[1]) <= 44]
    width = max([*short, least if short else 0])
    lines = []
    for name, told, *remark in rows:
        line = f"  {name:<{label}}  {told:<{width}}  {''.join(remark)}"
        lines.append(line.rstrip() + "\n")
    return "".join(lines)
