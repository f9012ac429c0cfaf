"""Log lines for people (`… info checkpoint completed id=8 …`) and for programs (JSON), on stderr.

structlog writes them. It is loaded with the first line, not before: importing it takes a third of a
coordinator's start, and a worker mostly says nothing.
"""

from __future__ import annotations

import contextlib
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from structlog.typing import EventDict, WrappedLogger

_QUOTED = frozenset(' "=\n\t')


@dataclass(slots=True)
class _Settings:
    """How this process writes its lines."""

    style: str = "plain"
    job: str | None = None
    stream: TextIO | None = None


class Logger:
    """Writes lines; safe from several threads. Fields that are None are left out."""

    def __init__(self) -> None:
        self._structlog: Any = None

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
        if self._structlog is None:
            self._structlog = _loaded()
        with contextlib.suppress(OSError):  # nobody reads any more: no reason to end a job
            getattr(self._structlog, level.lower())(event, **fields)

    def forget(self) -> None:
        """The settings changed: the next line is written by them."""
        self._structlog = None


def get_logger() -> Logger:
    """The process's logger."""
    return _logger


def configure_logging(style: str, *, job: str | None = None, stream: TextIO | None = None) -> None:
    """Write `plain` or `json` lines, by default to stderr; `job` is added to each."""
    _settings.style, _settings.job, _settings.stream = style, job, stream
    _logger.forget()


def _loaded() -> Any:
    import logging

    import structlog

    last = structlog.processors.JSONRenderer(ensure_ascii=False, default=str)
    return structlog.wrap_logger(
        # A line is one write: those of other processes do not come in between.
        structlog.WriteLogger(_settings.stream or sys.stderr),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="%Y-%m-%dT%H:%M:%SZ", utc=True),
            _with_job,
            last if _settings.style == "json" else _plain,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        cache_logger_on_first_use=True,
    )


def _with_job(_: WrappedLogger, __: str, line: EventDict) -> EventDict:
    told = {name: value for name, value in line.items() if value is not None}
    if _settings.job is not None:
        told.setdefault("job", _settings.job)
    return told


def _plain(_: WrappedLogger, __: str, line: EventDict) -> str:
    head = [str(line.pop(name)) for name in ("timestamp", "level", "event")]
    return " ".join([*head, *(f"{name}={_value(value)}" for name, value in line.items())])


def _value(value: object) -> str:
    text = str(value)
    if not text or _QUOTED & set(text):
        return '"' + text.replace('"', "'").replace("\n", " ⏎ ") + '"'
    return text


_settings = _Settings()
_logger = Logger()
