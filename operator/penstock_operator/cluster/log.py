"""Log lines of the operator: JSON on stderr, one write each."""

from __future__ import annotations

import logging
import sys
from typing import TextIO

import structlog
from structlog.typing import FilteringBoundLogger

Log = FilteringBoundLogger


def make_log(stream: TextIO | None = None) -> Log:
    """Fields as keys, a traceback as text."""
    log: Log = structlog.wrap_logger(
        structlog.WriteLogger(stream or sys.stderr),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(ensure_ascii=False, default=str),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        cache_logger_on_first_use=True,
    )
    return log


class Forwarding(logging.Handler):
    """Warnings of libraries (kopf's about a watch that was refused) among our own lines."""

    def __init__(self, log: Log) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        """As our own line."""
        level = "error" if record.levelno >= logging.ERROR else "warning"
        getattr(self._log, level)(
            record.getMessage(), logger=record.name, exc_info=record.exc_info or None
        )
