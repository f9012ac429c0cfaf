"""Failures as a person reads them: which operator, which record, which of the author's lines."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from penstock.core.errors import Corrupt, Denied, PenstockError, Rejected
from penstock.core.failure import Failure
from penstock.dataflow.nodes import Node
from penstock.spec.tracebacks import author_lines, definition_lines, raised

NOTHING: Any = object()
"""No record, or no key: the author's own may be None."""

_SHOWN_MAX = 80


class CannotCommit(Corrupt):
    """What a sink had prepared is gone: the next attempt would find it gone, too."""


class UserError(Exception):
    """The author's code raised while an operator was at work; the cause is attached.

    `record` and `key` are what it was handling, if anything; `index` is the record's place in the
    batch that the operator was given, when that is known.
    """

    def __init__(
        self,
        node: Node,
        *,
        record: object = NOTHING,
        key: object = NOTHING,
        index: int | None = None,
    ) -> None:
        super().__init__(node.shown)
        self.node = node
        self.record = record
        self.key = key
        self.index = index
        self.position: str | None = None
        """Where the record came from, when a source is chained before the operator."""
        self.subtask: int | None = None
        """Which of the operator's subtasks it was."""
        self.is_of_key = False
        """Whether the key function is to blame, not what the operator runs."""


def is_for_good(error: BaseException) -> bool:
    """Whether what could not be prepared cannot be the next time either: it is the job's own, or what
    is stored is damaged. What storage or a disk denies follows the restart strategy."""
    return isinstance(error, Rejected | Corrupt) and not isinstance(error, Denied)


def with_place(error: UserError) -> BaseException:
    """What the author's code raised, with a note that says where: for tests, which want it as it is."""
    cause = error.__cause__
    assert cause is not None
    parts = [("operator", error.node.shown), ("position", error.position)]
    parts += [
        (name, shown(value))
        for name, value in (("record", error.record), ("key", error.key))
        if value is not NOTHING
    ]
    cause.add_note("\n".join(f"  {name:<8}  {text}" for name, text in parts if text))
    return cause


def shown(value: object) -> str:
    """A value's repr, cut to fit a line, with its length when it was cut."""
    text = safe_repr(value)
    if len(text) <= _SHOWN_MAX:
        return text
    return f"{text[:_SHOWN_MAX]}… ({len(text):,} characters)"


def safe_repr(value: object) -> str:
    """repr() of a value of the author's, whatever that does."""
    try:
        return repr(value)
    except Exception as e:  # noqa: BLE001  the author's __repr__ may raise anything
        return f"<{type(value).__name__} whose repr raised {type(e).__name__}>"


def failure_of(error: BaseException, folder: Path) -> Failure:
    """What is told about an error that ended an attempt; `folder` is where the author's files are."""
    if isinstance(error, UserError):
        cause = error.__cause__
        assert cause is not None
        node = error.node
        what = (
            cause.what
            if isinstance(cause, PenstockError)
            else f"operator {_uid_or_label(node)} raised {raised(cause)}"
        )
        return Failure(
            what=what,
            operator=node.shown,
            subtask=error.subtask,
            key=None if error.key is NOTHING else shown(error.key),
            record=None if error.record is NOTHING else shown(error.record),
            position=error.position,
            lines=_lines_of(cause, folder) or _where_written(error, folder),
            fix=cause.fix if isinstance(cause, PenstockError) else None,
        )
    if isinstance(error, PenstockError):
        damaged = isinstance(error, Corrupt)
        lines = (error.where or "").splitlines()
        if len(lines) > 1:  # the author's own
            return Failure(what=error.what, lines=tuple(lines), fix=error.fix, damaged=damaged)
        where = f" ({error.where})" if error.where else ""
        return Failure(what=f"{error.what}{where}", fix=error.fix, damaged=damaged)
    return Failure(
        what=raised(error),
        lines=author_lines(error, folder) or tuple(traceback.format_exception(error)[-8:]),
    )


def _lines_of(cause: BaseException, folder: Path) -> tuple[str, ...]:
    """The author's, of what was raised or of what it was raised for."""
    lines = author_lines(cause, folder)
    if lines or cause.__cause__ is None:
        return lines
    return author_lines(cause.__cause__, folder, of_libraries=False)


def _where_written(error: UserError, folder: Path) -> tuple[str, ...]:
    """The author's function that an operator runs, or the key function before it or one of ours."""
    node = error.node
    key = () if node.key is None else definition_lines(node.key.fn, folder)
    runs = definition_lines(getattr(node.runs, "process", node.runs), folder)
    return (key or runs) if error.is_of_key else (runs or key)


def no_end_of_records() -> Rejected:
    """The author's StopIteration, which Python's `map` and `filter` take for the end of the records."""
    return Rejected(
        "the function raised StopIteration, which would end the batch and lose the rest of it",
        fix="give next() a default, as in next(found, None), or catch StopIteration",
    )


def locals_of(error: BaseException, function: Callable[..., Any]) -> dict[str, Any]:
    """The local variables of one of our loops at the moment an error passed through it."""
    at = error.__traceback__
    while at is not None:
        if at.tb_frame.f_code is function.__code__:
            return at.tb_frame.f_locals
        at = at.tb_next
    return {}


def _uid_or_label(node: Node) -> str:
    return str(node.id) if node.uid else node.label or str(node.id)
