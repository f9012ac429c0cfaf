"""Help pages: our own shape of click's, with the author's text left as it is."""

from __future__ import annotations

import inspect
import textwrap
from typing import Any

import click

_OPTION_WIDTH = 28
_DEFAULT_COLUMN = 75


class Option(click.Option):
    """An option whose default is told in words: `shown_default="manifest, else 1"`."""

    def __init__(self, *args: Any, shown_default: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.shown_default = shown_default


class Command(click.Command):
    """A command whose help is printed as it is written.

    `usage` is what follows the command's name, `examples` come next, `closing` at the end.
    """

    def __init__(
        self,
        *args: Any,
        usage: str = "[OPTIONS]",
        examples: str = "",
        closing: str = "",
        **kw: Any,
    ) -> None:
        kw.setdefault("context_settings", {"help_option_names": ["-h", "--help"]})
        super().__init__(*args, **kw)
        self.usage = usage
        self.examples = examples
        self.closing = closing

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The whole page."""
        formatter.write(self.page(ctx.command_path))

    def page(self, path: str) -> str:
        """The page of this command, called by that path."""
        parts = [f"Usage: {path} {self.usage}"]
        if self.examples:
            parts.append(textwrap.indent(inspect.cleandoc(self.examples), "  "))
        if self.help:
            parts.append(inspect.cleandoc(self.help))
        options = [line for p in self.params for line in _option_lines(p)]
        if options:
            parts.append("\n".join(["Options", *options]))
        if self.closing:
            parts.append(self.closing)
        return "\n\n".join(parts) + "\n"


class Group(click.Group):
    """A command with commands of its own, listed by their first sentence."""

    def __init__(self, *args: Any, **kw: Any) -> None:
        kw.setdefault("context_settings", {"help_option_names": ["-h", "--help"]})
        kw.setdefault("invoke_without_command", True)
        kw.setdefault("callback", click.pass_context(_without_command))
        super().__init__(*args, **kw)

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Usage, and each command with its usage and purpose."""
        lines = [
            f"Usage: {ctx.command_path} COMMAND [OPTIONS]",
            "",
            inspect.cleandoc(self.help or ""),
        ]
        lines.append("")
        commands = [(n, c) for n in self.commands if (c := self.get_command(ctx, n)) is not None]
        calls = [
            f"{n} {c.usage.removesuffix(' [OPTIONS]')}" if isinstance(c, Command) else n
            for n, c in commands
        ]
        width = max(map(len, calls))
        for call, (_, command) in zip(calls, commands, strict=True):
            lines.append(f"  {call:<{width}}  {command.short_help or ''}".rstrip())
        lines += ["", f"{ctx.command_path} COMMAND --help tells more."]
        formatter.write("\n".join(lines) + "\n")


def _without_command(ctx: click.Context) -> None:
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def _option_lines(parameter: click.Parameter) -> list[str]:
    if not isinstance(parameter, click.Option) or parameter.hidden:
        return []
    short = next((o for o in parameter.opts if not o.startswith("--")), "")
    long = next((o for o in parameter.opts if o.startswith("--")), "")
    names = f"{short + ', ' if short and long else '    ' if long else short}{long}"
    if not parameter.is_flag and not parameter.count:
        names += f" {parameter.metavar or 'VALUE'}"
    text = parameter.help or ""
    default = getattr(parameter, "shown_default", "")
    if default:
        column = _DEFAULT_COLUMN - _OPTION_WIDTH - 2
        text = f"{text:<{column}}[{default}]" if text else f"[{default}]"
    if len(names) + 2 > _OPTION_WIDTH:
        return [f"  {names}", f"{'':{_OPTION_WIDTH + 2}}{text}"]
    return [f"  {names:<{_OPTION_WIDTH}}{text}".rstrip()]
