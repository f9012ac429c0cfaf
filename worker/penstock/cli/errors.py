"""How an error reads, and which exit code it has."""

from __future__ import annotations

import errno
import os
import re
import traceback

import click

from penstock.core.errors import PenstockError, Rejected

EXIT_FAILED = 1
EXIT_WRONG_REQUEST = 2
EXIT_NOT_REACHABLE = 3
EXIT_DAMAGED = 4
EXIT_CANCELLED = 130

_WORDS = (
    (r"is not a valid integer( range)?", "is not a whole number"),
    (r"is not in the range x>=(\d+)", r"is too small; at least \1 is needed"),
    (r"is not in the range (\d+)<=x<=(\d+)", r"is not within \1 to \2"),
    (r"^got unexpected extra", "there is an extra"),
)
"""Click's words, and what people would say."""


class Failed(Exception):
    """The text has been printed; only the exit code is left to give."""

    def __init__(self, exit_code: int) -> None:
        super().__init__(exit_code)
        self.exit_code = exit_code


def render(error: PenstockError) -> str:
    """What, where, what to do."""
    return f"error: {error}\n"


def exit_code(error: BaseException) -> int:
    """0 done · 1 failed · 2 wrong request · 3 try again · 4 damaged · 130 cancelled."""
    if isinstance(error, PenstockError | Failed):
        return error.exit_code
    if isinstance(error, click.ClickException):
        return EXIT_WRONG_REQUEST
    if isinstance(error, click.Abort | KeyboardInterrupt):
        return EXIT_CANCELLED
    return EXIT_FAILED


def report(error: BaseException) -> int:
    """Print an error to stderr and give its exit code.

    Our own traceback is shown only when PENSTOCK_TRACEBACK is set.
    """
    text = _text(error)
    if text and os.environ.get("PENSTOCK_TRACEBACK", "0") not in ("", "0"):
        text = "".join(traceback.format_exception(error)) + "\n" + text
    click.echo(text, err=True, nl=False)
    return exit_code(error)


def _text(error: BaseException) -> str:
    match error:
        case PenstockError():
            return render(error)
        case click.ClickException():
            return render(_wrong_usage(error))
        case OSError(errno=errno.ENOSPC, filename=None):  # of a file it would be a Rejected
            return f"error: the results cannot be written: {error.strerror}\n"
        case Failed() | click.Abort() | KeyboardInterrupt():
            return ""
        case _:
            return render(
                PenstockError(
                    f"unexpected {type(error).__name__}: {error}",
                    where="Penstock itself; this should not happen",
                    fix="run it again with PENSTOCK_TRACEBACK=1 and report what it prints",
                )
            )


def _wrong_usage(error: click.ClickException) -> Rejected:
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "penstock"
    what = error.format_message().rstrip(".")
    what = what[:1].lower() + what[1:]
    for clicks, ours in _WORDS:
        what = re.sub(clicks, ours, what)
    return Rejected(what, where=path, fix=f"see {path} --help")
