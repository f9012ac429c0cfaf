"""`penstock worker` and `penstock coordinator`: what pods run, and `penstock run` on a laptop."""

from __future__ import annotations

from typing import NoReturn

import click


def _worker(arguments: tuple[str, ...]) -> NoReturn:
    from penstock.runtime.supervisor import exit_at_once, main

    exit_at_once(main(arguments))


def _coordinator(arguments: tuple[str, ...]) -> int:
    from penstock.runtime.coordinator import main

    return main(arguments)


_ALL_THEIRS = {"ignore_unknown_options": True, "help_option_names": list[str]()}

worker_command = click.Command(
    "worker",
    callback=_worker,
    params=[click.Argument(["arguments"], nargs=-1, type=click.UNPROCESSED)],
    context_settings=_ALL_THEIRS,
    add_help_option=False,
)
coordinator_command = click.Command(
    "coordinator",
    callback=_coordinator,
    params=[click.Argument(["arguments"], nargs=-1, type=click.UNPROCESSED)],
    context_settings=_ALL_THEIRS,
    add_help_option=False,
)
