"""`penstock` with its help page and its commands, each found by name."""

from __future__ import annotations

import importlib
from typing import Any

import click

_SECTIONS: dict[str, dict[str, str]] = {
    "Run": {
        "run": "Run a job on this machine, from the manifest Kubernetes takes",
        "graph": "Show a job's operators and the state each one declares; runs nothing",
        "check": "Would this job restore from that snapshot? Says so before anything starts",
    },
    "Jobs that are running": {
        "list": "Jobs on this machine",
        "status": "One job: phase, rates, checkpoints, last errors",
        "savepoint": "Take a savepoint",
        "checkpoint": "Take a checkpoint now",
        "stop": "Stop with a savepoint (--drain: finish what event time still holds back)",
        "cancel": "Stop at once (-s: with a savepoint first)",
    },
    "Snapshots": {
        "snapshots": "Checkpoints and savepoints in a storage",
        "state": "Look inside a snapshot: ls, get, export, diff, verify",
        "gc": "Report files that no snapshot uses (--delete removes them)",
    },
}
_FOR_PODS = {
    "worker": "A worker: supervisor of one child per attempt",
    "coordinator": "The coordinator of one job",
    "dispose": "Delete snapshots of a job that no coordinator leads",
}
_MODULES = {
    "run": "run",
    "graph": "graph",
    "check": "check",
    "list": "jobs",
    "status": "jobs",
    "savepoint": "jobs",
    "checkpoint": "jobs",
    "stop": "jobs",
    "cancel": "jobs",
    "snapshots": "snapshots",
    "state": "state",
    "gc": "gc",
    "worker": "pods",
    "coordinator": "pods",
    "dispose": "dispose",
}
_CLOSING = """\
JOB is a name from `penstock list`; without one, the only job running here.
-m HOST:PORT reaches a coordinator elsewhere.  -o json prints for programs.
penstock COMMAND --help tells more.  Docs: https://penstock.dev/docs
"""


def root_help(*, everything: bool = False) -> str:
    """The page of `penstock --help`."""
    sections = dict(_SECTIONS)
    if everything:
        sections["In pods"] = _FOR_PODS
    lines = ["Usage: penstock COMMAND [OPTIONS]", "", "Stateful stream jobs in plain Python.", ""]
    for title, commands in sections.items():
        lines.append(title)
        lines += [f"  {name:<11} {text}" for name, text in commands.items()]
        lines.append("")
    return "\n".join(lines) + "\n" + _CLOSING


class _Root(click.Group):
    """Commands by name, each imported when it is asked for: `--help` stays fast."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for commands in _SECTIONS.values() for name in commands]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        module = _MODULES.get(cmd_name)
        if module is None:
            return None
        found: click.Command = getattr(
            importlib.import_module(f"penstock.cli.{module}"), f"{cmd_name}_command"
        )
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in _MODULES:
            from difflib import get_close_matches

            near = get_close_matches(args[0], self.list_commands(ctx), n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise click.UsageError(f"there is no command {args[0]}{hint}", ctx)
        return super().resolve_command(ctx, args)


def _show_help(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        click.echo(root_help(everything=bool(ctx.obj)), nl=False)
        ctx.exit()


def _show_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        from penstock._version import __version__

        click.echo(f"penstock {__version__}")
        ctx.exit()


def _flag(callback: Any, *names: str) -> click.Option:
    return click.Option(names, is_flag=True, is_eager=True, expose_value=False, callback=callback)


def _without_command(ctx: click.Context) -> None:
    if ctx.invoked_subcommand is None:
        click.echo(root_help(), nl=False)


root = _Root(
    "penstock",
    params=[
        _flag(_show_help, "-h", "--help"),
        _flag(_show_version, "--version"),
        click.Option(["--all"], is_flag=True, expose_value=False, hidden=True),
    ],
    add_help_option=False,
    invoke_without_command=True,
    callback=click.pass_context(_without_command),
)
