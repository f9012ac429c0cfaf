"""Log lines for people (`… info checkpoint completed id=8 …`) and for programs (JSON), on stderr.

An event and its fields, nothing to configure in between. Neither `logging` nor structlog: the one
has no fields, the other takes a third of a coordinator's time to start.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TextIO

_QUOTED = frozenset(' "=\n\t')

Line = dict[str, Any]
"""`timestamp`, `level` and `event`, then the fields."""


@dataclass(slots=True)
class _Output:
    """Where lines go, and how; the same for a whole process."""

    render: Callable[[Line], str]
    job: str | None = None
    stream: TextIO | None = None


class Logger:
    """Writes lines; safe from several threads. Fields that are None are left out."""

    def info(self, event: str, **fields: Any) -> None:
        """What happened, as it should."""
        self.log("info", event, **fields)

    def warning(self, event: str, **fields: Any) -> None:
        """What a person may want to look at."""
        self.log("warning", event, **fields)

    def error(self, event: str, **fields: Any) -> None:
        """What a person must look at."""
        self.log("error", event, **fields)

    def log(self, level: str, event: str, **fields: Any) -> None:
        """A line of that level; `debug` is not written."""
        level = level.lower()
        if level == "debug":
            return
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        line = {"timestamp": at, "level": level, "event": event, **fields}
        if _output.job is not None:
            line.setdefault("job", _output.job)
        text = _output.render(line) + "\n"
        stream = _output.stream or sys.stderr
        with _lock:
            stream.write(text)
            stream.flush()


def get_logger() -> Logger:
    """The process's logger."""
    return _logger


def configure_logging(style: str, *, job: str | None = None, stream: TextIO | None = None) -> None:
    """Write `plain` or `json` lines, by default to stderr; `job` is added to each."""
    _output.render = _json if style == "json" else _plain
    _output.job = job
    _output.stream = stream


def _json(line: Line) -> str:
    told = {name: value for name, value in line.items() if value is not None}
    return json.dumps(told, ensure_ascii=False, default=str)


def _plain(line: Line) -> str:
    fields = [
        f"{name}={_value(value)}"
        for name, value in line.items()
        if value is not None and name not in {"timestamp", "level", "event"}
    ]
    return " ".join([line["timestamp"], line["level"], line["event"], *fields])


def _value(value: object) -> str:
    text = str(value)
    if not text or _QUOTED & set(text):
        return '"' + text.replace('"', "'").replace("\n", " ⏎ ") + '"'
    return text


_logger = Logger()
_lock = threading.Lock()
_output = _Output(_plain)
