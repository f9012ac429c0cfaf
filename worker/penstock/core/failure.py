"""Why an attempt failed: told by a worker, decided on by the coordinator, shown to people."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an attempt failed, as a person reads it.

    `operator`, `subtask`, `key`, `record`, `position` and `lines` are there when the author's code
    raised: `position` is where the record came from, `lines` are the author's own traceback lines.
    `fatal` failures end the job without another attempt (a graph that differs, state that does not
    fit). `damaged`: what is stored contradicts itself, and stays as it is for whoever looks into it.
    """

    what: str
    operator: str | None = None
    subtask: int | None = None
    key: str | None = None
    record: str | None = None
    position: str | None = None
    lines: tuple[str, ...] = ()
    fix: str | None = None
    fatal: bool = False
    damaged: bool = False
