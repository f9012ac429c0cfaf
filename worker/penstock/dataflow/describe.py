"""What a function is called, where it stands, and which types it states: for the graph and errors."""

from __future__ import annotations

import ast
import functools
import inspect
import re
import types
import typing
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any


def label(fn: Callable[..., Any]) -> str:
    """`words`, `str.split`, or a lambda's source."""
    if isinstance(fn, functools.partial):
        return label(fn.func)
    if isinstance(fn, types.LambdaType) and fn.__name__ == "<lambda>":
        return _lambda_source(fn) or "lambda"
    name: str = getattr(fn, "__qualname__", type(fn).__qualname__)
    return name.rpartition("<locals>.")[2]


def without_addresses(label: str) -> str:
    """A label in which an object of the author's without a repr reads the same in every process."""
    return re.sub(r" at 0x[0-9a-f]+", "", label)


def location(fn: Any) -> str:
    """`weblog.py:22`, or nothing for what is not written in Python."""
    code = getattr(fn, "__code__", None)
    if code is not None:
        return f"{Path(code.co_filename).name}:{code.co_firstlineno}"
    cls = fn if isinstance(fn, type) else type(fn)
    process = getattr(cls, "process", None) or getattr(cls, "__call__", None)  # noqa: B004
    code = getattr(process, "__code__", None)
    return "" if code is None else f"{Path(code.co_filename).name}:{code.co_firstlineno}"


def _lambda_source(fn: types.FunctionType) -> str | None:
    try:
        lines, _ = inspect.findsource(fn)
    except (OSError, TypeError):
        return None
    try:
        tree = ast.parse("".join(lines))
    except SyntaxError:
        return None
    names = fn.__code__.co_varnames[: fn.__code__.co_argcount]
    inside = {(p[0], p[2]) for p in fn.__code__.co_positions() if p[0] is not None}
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Lambda)
            and node.lineno == fn.__code__.co_firstlineno
            and tuple(a.arg for a in node.args.args) == names
            and (node.body.lineno, node.body.col_offset) in inside
        ):
            return ast.unparse(node)
    return None


def hints(fn: Any) -> dict[str, Any]:
    """The annotations of a function as types; empty when they cannot be read."""
    target = fn if hasattr(fn, "__code__") else getattr(type(fn), "__call__", fn)  # noqa: B004
    if isinstance(fn, type):
        return {"return": fn}
    try:
        return typing.get_type_hints(target)
    except (NameError, TypeError, AttributeError):
        return {}


def returned(fn: Any) -> Any:
    """The annotated result type, or None when it is not stated."""
    return _known(hints(fn).get("return"))


def returned_item(fn: Any) -> Any:
    """The type of the items of the annotated result, or None when it is not stated."""
    return item_of(hints(fn).get("return"))


def item_of(hint: Any) -> Any:
    """The item type of `Iterator[T]`, `list[T]`, `tuple[T, ...]`, `Iterable[T] | None`, …"""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        items = [item_of(a) for a in args if a is not type(None)]
        return items[0] if len(items) == 1 else None
    if origin is tuple:
        same = len(args) == 2 and args[1] is Ellipsis
        return _known(args[0]) if same or len(set(args)) == 1 else None
    if isinstance(origin, type) and issubclass(origin, Iterable) and args:
        return _known(args[0])
    return None


def _known(hint: Any) -> Any:
    if hint is None or hint is Any or hint is typing.Never or hint is typing.NoReturn:
        return None
    return None if _has_type_variable(hint) else hint


def _has_type_variable(hint: Any) -> bool:
    if isinstance(hint, typing.TypeVar) or type(hint).__name__ == "TypeVar":
        return True
    return any(_has_type_variable(a) for a in typing.get_args(hint))


def type_text(hint: Any) -> str | None:
    """A type as the graph shows it: `str`, `tuple[str, int]`, `Request`."""
    if hint is None:
        return None
    if isinstance(hint, type) and not typing.get_args(hint):
        return hint.__qualname__
    text = str(hint).replace("typing.", "").replace("collections.abc.", "")
    for arg in typing.get_args(hint):
        if isinstance(arg, type) and arg.__module__ != "builtins":
            text = text.replace(f"{arg.__module__}.{arg.__qualname__}", arg.__qualname__)
    return text
