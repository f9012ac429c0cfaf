"""Words of the command line that name a job. Click alone is imported: `penstock run` has no time."""

from __future__ import annotations

import click

from penstock.cli.help import Option


def target_argument() -> click.Argument:
    """`MANIFEST|MODULE:FUNCTION`."""
    return click.Argument(["target"], metavar="MANIFEST|MODULE:FUNCTION")


def parameter_option() -> Option:
    """`-p NAME=VALUE`, for every command that loads a job."""
    return Option(
        ["-p", "--parameter", "parameters"],
        multiple=True,
        metavar="NAME=VALUE",
        help="Sets or overrides spec.parameters.NAME; repeatable",
    )
