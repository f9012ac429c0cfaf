"""What is seen while a job runs: a block that redraws with log lines above it, or plain lines."""

from __future__ import annotations

import contextlib
import io
import os
import re
import threading
from collections.abc import Callable
from types import TracebackType
from typing import IO, Protocol, Self, TextIO, cast

import click
from rich.console import Console
from rich.live import Live
from rich.text import Text

from penstock.cli import numbers
from penstock.cli.view import block
from penstock.runtime.logs import get_logger
from penstock.spec.orders import JobPhase, JobStatus

RATES_EVERY_MS = 10_000
_REDRAWN_PER_SECOND = 4
# Warnings and errors, and what the author's own code logs, which names its operator.
_SHOWN = re.compile(r"\S+ (?:warning|error|critical) |.* operator=")


class Display(Protocol):
    """Takes the job's status about ten times a second.

    `log` is where the job's processes write their lines, `stream` where this one does; None: stderr.
    """

    log: IO[bytes] | None
    stream: TextIO | None

    def update(self, status: JobStatus) -> None:
        """The job at this moment."""
        ...

    def say(self, text: str) -> None:
        """A line of ours among the others."""
        ...

    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None: ...


class PlainLines:
    """Log lines only, and one for rates every ten seconds."""

    log: IO[bytes] | None = None
    stream: TextIO | None = None

    def __init__(self, now_ms: Callable[[], int]) -> None:
        self._now_ms = now_ms
        self._told_ms: int | None = None
        self._logger = get_logger()

    def update(self, status: JobStatus) -> None:
        """Tell the rates when it is time."""
        if status.phase is not JobPhase.RUNNING:
            return
        now_ms = self._now_ms()
        if self._told_ms is None:
            self._told_ms = now_ms
        if now_ms - self._told_ms >= RATES_EVERY_MS:
            self._told_ms = now_ms
            self._logger.info("rates", **rates(status))

    def say(self, text: str) -> None:
        """To stderr, if anybody reads it."""
        with contextlib.suppress(OSError):
            click.echo(text, err=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return


def rates(status: JobStatus) -> dict[str, str]:
    """Records per second of every operator that has a name, as log fields."""
    return {
        operator.id.replace("-", "_"): numbers.rate(operator.records_per_second).replace(" ", "")
        for operator in status.operators
        if operator.busy is not None
    }


class LiveBlock:
    """A block that redraws in place; log lines scroll above it."""

    log: IO[bytes] | None
    stream: TextIO | None

    def __init__(
        self, *, url: Callable[[], str | None], backend: str, now_ms: Callable[[], int]
    ) -> None:
        self._url = url
        self._backend = backend
        self._now_ms = now_ms
        self._console = Console(stderr=True, highlight=False)
        self._live = Live(
            console=self._console,
            auto_refresh=False,
            transient=True,
            vertical_overflow="crop",
        )
        self._drawn_ms = 0
        self._last_line = "Ctrl-C stops with a savepoint."
        read_end, write_end = os.pipe()
        self._lines = os.fdopen(read_end, encoding="utf-8", errors="replace")
        self.log = os.fdopen(write_end, "wb", buffering=0)
        self.stream = cast(TextIO, _Lines(self._show))
        self._reader = threading.Thread(target=self._scroll, name="log-lines", daemon=True)

    def update(self, status: JobStatus) -> None:
        """Redraw, a few times a second at most."""
        now_ms = self._now_ms()
        if now_ms - self._drawn_ms < 1000 // _REDRAWN_PER_SECOND:
            return
        self._drawn_ms = now_ms
        text = block(status, url=self._url() or "", now_ms=now_ms, backend=self._backend)
        self._live.update(_coloured(f"{text}\n{self._last_line}"), refresh=True)

    def say(self, text: str) -> None:
        """Replace the last line of the block."""
        self._last_line = text
        self._drawn_ms = 0

    def __enter__(self) -> Self:
        self._live.start()
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        assert self.log is not None
        self.log.close()
        self._reader.join(timeout=1)
        self._live.stop()

    def _scroll(self) -> None:
        with self._lines:
            for line in self._lines:
                self._show(line.rstrip("\n"))

    def _show(self, line: str) -> None:
        if _SHOWN.match(line) or not _is_log_line(line):
            self._live.console.print(Text(line), soft_wrap=True)


class _Lines(io.TextIOBase):
    """A text stream that hands on whole lines."""

    def __init__(self, show: Callable[[str], None]) -> None:
        super().__init__()
        self._show = show
        self._begun = ""

    def write(self, text: str) -> int:
        """Take text, and hand on what lines it completes."""
        *lines, self._begun = (self._begun + text).split("\n")
        for line in lines:
            self._show(line)
        return len(text)


def _is_log_line(line: str) -> bool:
    return re.match(r"\d{4}-\d\d-\d\dT\S+Z \w+ ", line) is not None


def _coloured(text: str) -> Text:
    title, _, rest = text.partition("\n")
    drawn = Text(no_wrap=True, overflow="crop")
    drawn.append(title + "\n", style="bold")
    drawn.append(rest)
    drawn.highlight_regex(r"(?m)^  operator .*$", "dim")
    drawn.highlight_regex(r"← holds the others back", "yellow")
    drawn.highlight_regex(r"\d+ records? failed", "red")
    drawn.highlight_regex(r"(?m)^  restarts +[1-9].*$", "yellow")
    return drawn
