"""Log lines for people (`… info checkpoint completed id=8 …`) and for programs (JSON), on stderr."""

from __future__ import annotations

import logging
import sys
from typing import TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

_QUOTED = frozenset(' "=\n\t')


def configure_logging(style: str, *, job: str | None = None, stream: TextIO | None = None) -> None:
    """Let structlog write `plain` or `json` lines; `job` is added to each."""
    last: Processor = structlog.processors.JSONRenderer() if style == "json" else _plain
    processors: list[Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="%Y-%m-%dT%H:%M:%SZ", utc=True),
        structlog.processors.format_exc_info,
    ]
    if job is not None:
        processors.append(_with_job(job))
    structlog.configure(
        processors=[*processors, last],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(stream or sys.stderr),
        cache_logger_on_first_use=True,
    )


def _with_job(job: str) -> Processor:
    def add(_: WrappedLogger, __: str, line: EventDict) -> EventDict:
        line.setdefault("job", job)
        return line

    return add


def _plain(_: WrappedLogger, __: str, line: EventDict) -> str:
    at, level, event = line.pop("timestamp"), line.pop("level"), line.pop("event")
    exception = line.pop("exception", None)
    fields = [f"{name}={_value(value)}" for name, value in line.items() if value is not None]
    text = " ".join([at, level, str(event), *fields])
    return f"{text}\n{exception}" if exception else text


def _value(value: object) -> str:
    text = str(value)
    if not text or _QUOTED & set(text):
        return '"' + text.replace('"', "'").replace("\n", " ⏎ ") + '"'
    return text
