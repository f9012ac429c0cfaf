"""One job at one moment, as text: the live view of `penstock run`, and `penstock status`."""

from __future__ import annotations

from collections.abc import Sequence

from penstock.cli import numbers
from penstock.cli.output import joined
from penstock.cli.places import shown
from penstock.cli.tables import table
from penstock.spec.orders import ErrorStatus, JobStatus, OperatorStatus

_HEAD = ("operator", "records/s", "     in", "    out", "  keys", "  state", " busy", "")
"""As wide as their numbers mostly are, so that the columns do not jump."""
_NUMBERS = (1, 2, 3, 4, 5, 6)
_SLOWEST = "← holds the others back"
_BUSY_ENOUGH = 0.75


def block(status: JobStatus, *, url: str, now_ms: int, backend: str = "") -> str:
    """Title, operators, what is still to read, newest checkpoint, restarts."""
    parts = [_title(status, url=url, now_ms=now_ms, backend=backend) + "\n"]
    if status.operators:
        parts.append(operators(status.operators))
    parts.append(table(_facts(status, now_ms), indent="  "))
    return "\n".join(parts)


def _title(status: JobStatus, *, url: str, now_ms: int, backend: str) -> str:
    phase = str(status.phase).lower()
    since = status.started_at_ms
    if since is not None and not status.phase.is_end:
        phase += f" {numbers.clock(now_ms - since)}"
    left = joined(
        [
            status.name,
            phase,
            f"attempt {status.attempt}",
            numbers.counted(status.parallelism, "worker"),
            backend,
        ]
    )
    return f"{left:<70}  {url}".rstrip()


def operators(found: Sequence[OperatorStatus]) -> str:
    """A row for each; what is chained to the one above is set below it, with its own share of busy
    told there."""
    slowest = max(found, key=lambda o: o.busy or 0.0)
    rows = [_HEAD, *(_row(o, is_slowest=o is slowest and len(found) > 1) for o in found)]
    return table(rows, right=_NUMBERS, indent="  ")


def _row(operator: OperatorStatus, *, is_slowest: bool) -> tuple[str, ...]:
    nothing = numbers.NOTHING
    is_source, is_sink = operator.kind == "source", operator.kind == "sink"
    busy = "″" if operator.busy is None else f"{round(operator.busy * 100)} %"
    mark = _SLOWEST if is_slowest and (operator.busy or 0) >= _BUSY_ENOUGH else ""
    if operator.records_failed:
        mark = joined([mark, f"{numbers.counted(operator.records_failed, 'record')} failed"])
    return (
        _name(operator),
        numbers.rate(operator.records_per_second),
        nothing if is_source else numbers.count(operator.records_in),
        nothing if is_sink else numbers.count(operator.records_out),
        numbers.count(operator.keys),
        numbers.size(operator.state_bytes or None),
        busy,
        mark,
    )


_WITHOUT_UID = frozenset({"map", "flat_map", "filter", "of_type", "map_batches"})


def _name(operator: OperatorStatus) -> str:
    if operator.kind in _WITHOUT_UID:
        return f"└ {operator.kind} {operator.label}"
    return operator.id


def _facts(status: JobStatus, now_ms: int) -> list[tuple[str, str]]:
    rows = []
    if lag := _lag(status.operators):
        rows.append(("lag", lag))
    rows.append(("checkpoint", _checkpoint(status, now_ms)))
    if status.last_savepoint is not None:
        rows.append(("savepoint", shown(status.last_savepoint.path)))
    rows.append(("restarts", str(status.restarts)))
    return rows


def _lag(found: Sequence[OperatorStatus]) -> str:
    """What all sources that can tell have still to read; they read side by side."""
    counts = [o.unread_files for o in found if o.unread_files is not None]
    if not counts:
        return ""
    if not any(counts):
        return "nothing to read"
    files = numbers.counted(sum(counts), "file")
    unread = [o for o in found if o.unread_bytes]
    told = f"{files}, {numbers.size(sum(o.unread_bytes or 0 for o in unread))} to read"
    times = [o.unread_ms for o in unread if o.unread_ms is not None]
    if times and len(times) == len(unread):
        told += f", about {numbers.about(max(times))}"
    return told


def _checkpoint(status: JobStatus, now_ms: int) -> str:
    last, next_ms = status.last_checkpoint, status.next_checkpoint_in_ms
    next = "" if next_ms is None else f"next in {numbers.about(next_ms)}"
    if last is None:
        return joined(["none yet", next])
    return joined(
        [
            f"chk-{last.id}  {numbers.duration(max(0, now_ms - last.completed_at_ms))} ago",
            numbers.duration(last.duration_ms),
            f"{numbers.size(last.bytes_new)} new of {numbers.size(last.size_bytes)}",
            f"{status.checkpoints_kept} kept" if status.checkpoints_kept else "",
            next,
        ]
    )


def error_lines(error: ErrorStatus, *, parallelism: int) -> str:
    """What failed and on which record, in the author's terms."""
    at = []
    if error.subtask is not None:
        at.append(f"subtask {error.subtask} of {parallelism}")
    at.append(f"attempt {error.attempt}")
    rows = [
        ("operator", f"{error.operator}, {', '.join(at)}" if error.operator else ""),
        ("record", error.record or ""),
        ("from", error.position or ""),
        ("key", error.key or ("none (before key_by)" if error.record else "")),
    ]
    parts = [table([row for row in rows if row[1]], indent="  ")]
    if error.lines:
        parts.append("".join(f"    {line}\n" for line in error.lines))
    return "\n".join(part for part in parts if part)


def status_page(status: JobStatus, *, url: str, now_ms: int) -> str:
    """`penstock status`: the block, workers that are missing, and the last error."""
    parts = [block(status, url=url, now_ms=now_ms)]
    away = [str(worker.id) for worker in status.workers if not worker.connected]
    if away:
        parts.append(f"  workers not connected: {', '.join(away)}\n")
    if status.restored_from:
        parts.append(f"  restored from {shown(status.restored_from)}\n")
    if status.last_error is not None:
        error = status.last_error
        ago = numbers.duration(max(0, now_ms - error.at_ms))
        parts.append(
            f"last error, {ago} ago: {error.what}\n\n{error_lines(error, parallelism=status.parallelism)}"
        )
    return "\n".join(parts)
