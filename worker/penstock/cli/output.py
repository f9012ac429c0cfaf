"""`-o json`, and how JSON is written."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from datetime import date, datetime
from enum import Enum
from typing import Any

import click

from penstock.cli.help import Option


def output_option(*forms: str) -> Option:
    """`-o json` and whatever else a command prints."""
    names = ["json", *forms]
    return Option(
        ["-o", "--output", "form"],
        type=click.Choice(names),
        metavar="|".join(names),
        help="Prints for programs",
        shown_default="text",
    )


def print_json(value: Any) -> None:
    """To stdout, with two spaces of indent."""
    click.echo(json.dumps(plain(value), indent=2, ensure_ascii=False))


def plain(value: Any) -> Any:
    """What JSON can hold: bytes as hex, times in ISO 8601, tuples as lists, maps with keys that are
    no text as lists of pairs."""
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else str(value)
        case Enum():
            return plain(value.value)
        case bytes() | bytearray() | memoryview():
            return bytes(value).hex()
        case datetime() | date():
            return value.isoformat()
        case dict():
            if all(isinstance(key, str) for key in value):
                return {key: plain(item) for key, item in value.items()}
            return [[plain(key), plain(item)] for key, item in value.items()]
        case list() | tuple() | set() | frozenset():
            return [plain(item) for item in value]
        case _:
            return str(value)


def one_line(value: Any) -> str:
    """A value as JSON on one line."""
    return json.dumps(plain(value), ensure_ascii=False)


def joined(parts: Sequence[str], separator: str = " · ") -> str:
    """The parts that are not empty."""
    return separator.join(part for part in parts if part)
