"""The coordinator's page for people: one HTML text without scripts that loads itself anew."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from html import escape

from penstock.runtime.job_view import CheckpointRecord, CheckpointStatus, JobView
from penstock.spec.orders import JobStatus

_SHOWN_CHECKPOINTS = 15
_REFRESH_S = 5
_STYLE = """
:root { color-scheme: light dark }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.5rem; margin-bottom: 0 }
h2 { font-size: 1.1rem; margin-top: 2rem }
table { border-collapse: collapse; width: 100% }
th, td { text-align: right; padding: .25rem .6rem; border-bottom: 1px solid #8884 }
th:first-child, td:first-child { text-align: left }
pre { background: #8882; padding: .8rem; overflow-x: auto }
.dim { opacity: .7 }
"""


def render(status: JobStatus, view: JobView, *, now_ms: int) -> str:
    """The page at this moment."""
    name = escape(status.name)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta http-equiv="refresh" content="{_REFRESH_S}">
<title>{name}: {status.phase}</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>{name}</h1>
<p>{status.phase} · attempt {status.attempt} · {len(status.workers)} of {status.parallelism} workers
· {status.restarts} restarts <span class="dim">· {_utc(now_ms)}</span></p>
{_error(status)}
<h2>Operators</h2>
{_operators(status)}
<h2>Checkpoints</h2>
<p>{view.checkpoints_completed} completed, {view.checkpoints_failed} given up</p>
{_checkpoints(view)}
<p class="dim"><a href="/penstock/v1/status">status as JSON</a> · <a href="/metrics">metrics</a></p>
</body>
</html>
"""


def _operators(status: JobStatus) -> str:
    rows = [
        (
            f"{operator.id} ({operator.kind})",
            str(operator.parallelism),
            f"{operator.records_per_second:,.0f}",
            f"{operator.records_in:,}",
            f"{operator.records_out:,}",
            "—" if operator.keys is None else f"{operator.keys:,}",
            "—" if operator.state_bytes is None else _bytes(operator.state_bytes),
            "″" if operator.busy is None else f"{operator.busy:.0%}",
        )
        for operator in status.operators
    ]
    head = ("operator", "subtasks", "records/s", "in", "out", "keys", "state", "busy")
    return _table(head, rows)


def _checkpoints(view: JobView) -> str:
    newest = list(reversed(view.checkpoints))[:_SHOWN_CHECKPOINTS]
    head = ("checkpoint", "begun", "took", "new", "state", "")
    return _table(head, [_checkpoint(record) for record in newest])


def _checkpoint(record: CheckpointRecord) -> tuple[str, ...]:
    took = "" if record.duration_ms is None else f"{record.duration_ms / 1000:.1f} s"
    said = record.reason if record.status is CheckpointStatus.FAILED else str(record.status)
    return (
        f"{'savepoint' if record.savepoint else 'chk'}-{record.id}",
        _utc(record.started_ms),
        took,
        _bytes(record.bytes_new),
        _bytes(record.size_bytes),
        said or "",
    )


def _error(status: JobStatus) -> str:
    error = status.last_error
    if error is None:
        return ""
    parts = [error.what]
    if error.operator is not None:
        parts.append(f"operator {error.operator}, subtask {error.subtask}")
    for label, value in (("record", error.record), ("from", error.position), ("do", error.fix)):
        if value is not None:
            parts.append(f"{label}  {value}")
    text = "\n".join([*parts, "", *error.lines])
    return f"<h2>Last failure</h2>\n<pre>{escape(text.rstrip())}</pre>"


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    def line(tag: str, cells: tuple[str, ...]) -> str:
        return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    return "\n".join(["<table>", line("th", head), *(line("td", row) for row in rows), "</table>"])


def _bytes(count: int) -> str:
    if count < 1024:
        return f"{count} B"
    size = float(count)
    for unit in ("KiB", "MiB", "GiB"):
        size /= 1024
        if size < 1024:
            return f"{size:.1f} {unit}"
    return f"{size / 1024:.1f} TiB"


def _utc(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
