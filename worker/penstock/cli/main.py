"""The console script: runs a command, and turns errors into sentences and exit codes.

Nothing is imported here but what Python has loaded anyway: a Ctrl-C meets no import of ours that
could print a traceback.
"""

from __future__ import annotations

import os
import sys


def main() -> None:
    """The console script."""
    _open_what_is_closed()
    try:
        code = run(sys.argv[1:])
    except BrokenPipeError:  # `penstock … | head`: whoever read has had enough
        code = 0
    except OSError:  # an error that cannot even be told
        code = 1
    except KeyboardInterrupt:
        code = 130
    try:
        sys.stdout.flush()
    except OSError as e:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(e, BrokenPipeError):
            if code == 0:  # else it was told
                sys.stderr.write(f"error: the results cannot be written: {e.strerror}\n")
            code = code or 1
    sys.exit(code)


def _open_what_is_closed() -> None:
    """Gives `penstock … >&-` somewhere to write: else the next file would be standard output."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            try:
                os.fstat(number)
            except OSError:
                lowest_free = os.open(os.devnull, os.O_RDWR)
                os.set_inheritable(lowest_free, True)
            setattr(sys, name, open(os.devnull, "w" if number else "r"))  # noqa: PTH123, SIM115


def run(args: list[str]) -> int:
    """Run one command line and give the exit code; errors are printed to stderr."""
    import click

    from penstock.cli.errors import report
    from penstock.cli.root import root

    try:
        # Not click's own main(): it ends the process by itself when a pipe is closed.
        everything = "--all" in args
        with root.make_context("penstock", list(args), obj=everything) as context:
            answer = root.invoke(context)
        return answer if isinstance(answer, int) else 0
    except click.exceptions.Exit as e:
        return e.exit_code
    except BrokenPipeError:
        raise
    except (Exception, KeyboardInterrupt) as e:  # noqa: BLE001  the last door: all become a sentence
        return report(e)
