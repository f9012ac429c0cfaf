"""Schemas: the text of a stored type, read back and compared with the type of newer code.

Pure. The grammar is small: `a | b`, `name[arg, …]`, `Literal[…]`, `record{field: type, more?: type}`
(by name), `record(field: type)` (by position), `enum<name=value, …>`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from penstock.core.descriptors import StateDescriptor
from penstock.core.errors import Corrupt

_T = TypeVar("_T")

_MSGPACK = "msgpack"
"""The serializer whose types are written in this grammar; others' are names of their own."""

_TOKEN = re.compile(r'\s*("(?:[^"\\]|\\.)*"|\.\.\.|-?[\w.]+|[\[\]{}()<>|,:?=])')


@dataclass(frozen=True, slots=True)
class _Type:
    """One alternative of a schema. `kind` is the bracket that follows its name, or empty."""

    name: str
    kind: str = ""
    arguments: tuple[tuple[_Type, ...], ...] = ()
    fields: tuple[_Field, ...] = ()
    members: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Field:
    name: str
    optional: bool
    type: tuple[_Type, ...]


def readable(old: str, new: str) -> str | None:
    """None when every value written as `old` can be read as `new`, else a sentence why not.

    Raises:
        Corrupt: a text is not a schema.
    """
    return _union(_Parser(old).whole(), _Parser(new).whole(), "it")


def is_readable(old: StateDescriptor, new: StateDescriptor) -> bool:
    """Whether state declared as `new` reads what was written as `old`.

    The same type, a record with further optional fields, or a wider type (`int` as `float`, `T` as
    `T | None`), by the same serializer in the same or a later version. A map's keys cannot change.
    """
    (old_kind, _, old_version), (new_kind, _, new_version) = (
        d.serializer.rpartition("/") for d in (old, new)
    )
    if old_kind != new_kind or int(old_version) > int(new_version):
        return False
    if old.sub_schema != new.sub_schema:
        return False
    return old.schema == new.schema or (
        old_kind == _MSGPACK and readable(old.schema, new.schema) is None
    )


def _union(old: tuple[_Type, ...], new: tuple[_Type, ...], at: str) -> str | None:
    for one in old:
        problems = [_one(one, other, at) for other in new]
        if all(problem is not None for problem in problems):
            # With one alternative of the same kind, its own reason says more.
            near = [
                p for p, other in zip(problems, new, strict=True) if other.kind == one.kind != ""
            ]
            if len(near) == 1:
                return near[0]
            return f"{at} was {_text(old)} and is {_text(new)}"
    return None


def _one(old: _Type, new: _Type, at: str) -> str | None:
    different = f"{at} was {old.name} and is {new.name}"
    if old.kind != new.kind:
        widened = old.kind == "literal" and new == _Type(_literal_kind(old.name))
        return None if widened else different
    if old.kind in ("{", "("):
        return _record(old, new, at)
    if old.kind == "<":
        changed = set(old.members) - set(new.members)
        return f"{at} has lost or changed {', '.join(sorted(changed))}" if changed else None
    if old.kind == "[":
        if old.name != new.name or len(old.arguments) != len(new.arguments):
            return different
        for one, other in zip(old.arguments, new.arguments, strict=True):
            problem = _union(one, other, f"an item of {at}" if at != "it" else "an item")
            if problem is not None:
                return problem
        return None
    # A record inside itself is its name alone: the enclosing pair has been compared already.
    widened = (old.name, new.name) == ("int", "float")
    both_records = "." in old.name and "." in new.name
    return None if old.name == new.name or widened or both_records else different


def _record(old: _Type, new: _Type, at: str) -> str | None:
    here = new.name if at == "it" else f"{at} ({new.name})"
    names = {field.name: field for field in new.fields}
    for index, field in enumerate(old.fields):
        match = names.get(field.name)
        if match is None:
            return f"{here} has no field {field.name!r} any more"
        if old.kind == "(" and new.fields.index(match) != index:
            return f"field {field.name!r} of {here} has moved, and it is read by position"
        if field.optional and not match.optional:
            return f"field {field.name!r} of {here} has lost its default"
        problem = _union(field.type, match.type, f"field {field.name!r} of {here}")
        if problem is not None:
            return problem
    known = {field.name for field in old.fields}
    for field in new.fields:
        if field.name not in known and not field.optional:
            return f"field {field.name!r} of {here} is new and has no default"
    return None


def _literal_kind(member: str) -> str:
    if member == "None":
        return "None"
    return "str" if member.startswith('"') else "int"


def _text(union: tuple[_Type, ...]) -> str:
    return " | ".join(one.name for one in union)


class _Parser:
    """A schema's text, by recursive descent."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.tokens: list[str] = []
        position = 0
        text = text.rstrip()
        while position < len(text):
            found = _TOKEN.match(text, position)
            if found is None:
                raise self._broken()
            self.tokens.append(found[1])
            position = found.end()

    def whole(self) -> tuple[_Type, ...]:
        union = self._union()
        if self.at != len(self.tokens):
            raise self._broken()
        return union

    def _broken(self) -> Corrupt:
        return Corrupt(f"not a schema: {self.text}")

    def _peek(self) -> str:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def _take(self, wanted: str | None = None) -> str:
        token = self._peek()
        if not token or (wanted is not None and token != wanted):
            raise self._broken()
        self.at += 1
        return token

    def _union(self) -> tuple[_Type, ...]:
        parts = self._alternatives()
        while self._peek() == "|":
            self._take()
            parts += self._alternatives()
        return tuple(parts)

    def _alternatives(self) -> list[_Type]:
        """One type, or one for each value of a Literal."""
        if self._peek() != "Literal":
            return [self._type()]
        self._take()
        return [_Type(value, "literal") for value in self._list("[", "]", self._take)]

    def _type(self) -> _Type:
        name = self._take()
        bracket = self._peek()
        if bracket == "[":
            arguments = self._list("[", "]", self._argument)
            following = self._peek()
            if following not in ("{", "("):
                return _Type(name, "[", arguments=arguments)
            name, bracket = f"{name}[…]", following
        if bracket == "{":
            return _Type(name, "{", fields=self._list("{", "}", self._field))
        if bracket == "(":
            return _Type(name, "(", fields=self._list("(", ")", self._field))
        if bracket == "<":
            return _Type(name, "<", members=self._list("<", ">", self._member))
        return _Type(name)

    def _argument(self) -> tuple[_Type, ...]:
        if self._peek() == "...":
            self._take()
            return (_Type("..."),)
        if self._peek() == "(":
            self._take("(")
            self._take(")")
            return (_Type("()"),)
        return self._union()

    def _field(self) -> _Field:
        name = self._take()
        optional = self._peek() == "?"
        if optional:
            self._take()
        self._take(":")
        return _Field(name, optional, self._union())

    def _member(self) -> str:
        name = self._take()
        self._take("=")
        return f"{name}={self._take()}"

    def _list(self, left: str, right: str, item: Callable[[], _T]) -> tuple[_T, ...]:
        items: list[_T] = []
        self._take(left)
        while self._peek() != right:
            if items:
                self._take(",")
            items.append(item())
        self._take(right)
        return tuple(items)
