"""The console script: runs a command, and turns errors into sentences and exit codes.

Nothing is imported here but what Python has loaded anyway: a Ctrl-C meets no import of ours that
could print a traceback.
"""

from __future__ import annotations

import os
import sys


def main() -> None:
    """The console script."""
    try:
        code = run(sys.argv[1:])
        sys.stdout.flush()
    except BrokenPipeError:  # `penstock … | head`: whoever read has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except KeyboardInterrupt:
        code = 130
    sys.exit(code)


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
