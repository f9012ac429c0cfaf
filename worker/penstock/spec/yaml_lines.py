"""YAML text to plain values that remember their lines.

Values are what Kubernetes makes of the same text: no dates, no base-60 numbers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import yaml

from penstock.spec.mistakes import Mistake

FieldPath: TypeAlias = tuple[str | int, ...]
"""`("spec", "parameters", "inputs", 0)`; list items by their index."""

_BAD_START = re.compile(r"found character '(.)' that cannot start any token")
_UNKNOWN_TAG = re.compile(r"could not determine a constructor for the tag '([^']*)'")
_UNKNOWN_ANCHOR = re.compile(r"found undefined alias '?([^']*)'?")


_VALUES_MAX = 100_000


class _Loader(yaml.SafeLoader):
    """SafeLoader without its surprises."""


_Loader.yaml_implicit_resolvers = {
    first: [
        (tag, pattern)
        for tag, pattern in resolvers
        if not tag.endswith((":timestamp", ":int", ":float"))
    ]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int",
    re.compile(r"[-+]?(?:0b[01_]+|0x[0-9a-fA-F_]+|0[0-7_]*|[1-9][0-9_]*)$", re.ASCII),
    list("-+0123456789"),
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"[-+]?(?:[0-9]+\.[0-9]*(?:[eE][-+]?[0-9]+)?|\.[0-9]+(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+"
        r"|\.(?:inf|Inf|INF))$|\.(?:nan|NaN|NAN)$",
        re.ASCII,
    ),
    list("-+0123456789."),
)


@dataclass(slots=True)
class Document:
    """One YAML document: `value` of plain types, and the line (from 1) of every field."""

    value: Any = None
    lines: dict[FieldPath, int] = field(default_factory=dict)

    def line_of(self, path: FieldPath) -> int | None:
        """The line of that field, or of the nearest part around it."""
        for end in range(len(path), -1, -1):
            if path[:end] in self.lines:
                return self.lines[path[:end]]
        return None


def field_text(path: FieldPath) -> str:
    """A path as it is told: `spec.parameters.inputs[0]`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def read_scalar(text: str) -> Any:
    """One value written in flow style, as after `-p name=`. Text that is not YAML stays text."""
    try:
        value = yaml.load(text, Loader=_Loader)  # noqa: S506  (a SafeLoader)
    except yaml.YAMLError:
        return text
    return value


def read_documents(text: str) -> tuple[list[Document], list[Mistake]]:
    """All documents of the text, and what is wrong with it as YAML: then the documents are none.

    Keys given twice and keys that are not text are mistakes that leave the documents readable.
    """
    mistakes: list[Mistake] = []
    documents = []
    try:
        loader = _Loader(text)
        while loader.check_node():
            reader = _Reader(loader, mistakes)
            if (node := loader.get_node()) is not None:
                documents.append(reader.document(node))
    except yaml.MarkedYAMLError as e:
        return [], [_syntax(e)]
    except yaml.reader.ReaderError as e:
        line = text.count("\n", 0, e.position) + 1
        column = e.position - text.rfind("\n", 0, e.position)
        message = f"a character that YAML does not allow: U+{ord(text[e.position]):04X}"
        return [], [Mistake(line, f"column {column}", message)]
    except RecursionError:
        return [], [Mistake(None, "the file", "is nested too deeply")]
    return documents, mistakes


def _syntax(error: yaml.MarkedYAMLError) -> Mistake:
    mark = error.problem_mark or error.context_mark
    problem = error.problem or "is not YAML"
    if mark is None:
        return Mistake(None, "", problem)
    line, column = mark.line + 1, f"column {mark.column + 1}"
    if "'\\t'" in problem or (mark.buffer and mark.buffer[mark.pointer : mark.pointer + 1] == "\t"):
        return Mistake(line, column, "a tab; YAML is indented with spaces")
    if found := _UNKNOWN_ANCHOR.match(problem):
        return Mistake(line, column, f"*{found[1]} refers to no &{found[1]} above")
    hint = None
    if problem == "mapping values are not allowed here":
        problem = "a second colon on one line, or a line that is indented too far"
        hint = 'text with ": " in it needs quotes'
    elif problem.startswith("expected <block end>"):
        problem = "indented unlike the lines above it"
    elif problem.startswith("could not find expected ':'"):
        problem = "the line before has no colon"
        hint = "a field is written name: value"
    elif problem.startswith(("expected ',' or", "found unexpected end of stream")):
        problem = "a bracket or a quote is not closed"
        hint = f"it begins on line {error.context_mark.line + 1}" if error.context_mark else None
    elif problem.startswith("expected '<document start>'"):
        problem = "does not belong to what stands above it"
    elif found := _BAD_START.match(problem):
        problem = f"text that begins with {found[1]} needs quotes"
    elif problem.startswith("expected alphabetic or numeric character"):
        problem = "text that begins with & or * needs quotes"
    elif found := _UNKNOWN_TAG.match(problem):
        problem = f"the tag {found[1].replace('tag:yaml.org,2002:', '!!')} has no meaning here"
    elif error.context_mark is not None and error.context_mark.line != mark.line:
        hint = f"{error.context}, which begins on line {error.context_mark.line + 1}"
    return Mistake(line, column, problem, hint)


class _Reader:
    """Turns one document's nodes into values, and notes lines on the way."""

    def __init__(self, loader: _Loader, mistakes: list[Mistake]) -> None:
        self._loader = loader
        self._mistakes = mistakes
        self._open: set[int] = set()
        self._values = 0
        self._document = Document()

    def document(self, node: yaml.Node) -> Document:
        self._document.lines[()] = node.start_mark.line + 1
        self._document.value = self._value(node, ())
        return self._document

    def _value(self, node: yaml.Node, path: FieldPath) -> Any:
        if id(node) in self._open:
            raise yaml.constructor.ConstructorError(
                problem="an alias that contains itself", problem_mark=node.start_mark
            )
        self._values += 1
        if self._values > _VALUES_MAX:  # some nested aliases stand for billions of them
            raise yaml.constructor.ConstructorError(
                problem=f"more than {_VALUES_MAX:,} values, aliases counted as what they stand for",
                problem_mark=node.start_mark,
            )
        self._open.add(id(node))
        try:
            if isinstance(node, yaml.MappingNode):
                return self._mapping(node, path)
            if isinstance(node, yaml.SequenceNode):
                return [self._item(n, (*path, i)) for i, n in enumerate(node.value)]
            return self._scalar(node)
        finally:
            self._open.discard(id(node))

    def _scalar(self, node: yaml.Node) -> Any:
        try:
            return self._loader.construct_object(node)
        except (ValueError, TypeError) as e:
            raise yaml.constructor.ConstructorError(
                problem=f"not a value of {node.tag}", problem_mark=node.start_mark
            ) from e

    def _item(self, node: yaml.Node, path: FieldPath) -> Any:
        self._document.lines[path] = node.start_mark.line + 1
        return self._value(node, path)

    def _mapping(self, node: yaml.MappingNode, path: FieldPath) -> dict[str, Any]:
        self._refuse_twins(node, path)
        self._loader.flatten_mapping(node)
        value = {}
        for key_node, value_node in node.value:
            key = self._loader.construct_object(key_node)
            if not isinstance(key, str):
                self._mistakes.append(
                    Mistake(
                        key_node.start_mark.line + 1,
                        field_text((*path, str(key_node.value))),
                        "the name is not text; put it in quotes",
                    )
                )
                key = str(key_node.value)
            self._document.lines[(*path, key)] = key_node.start_mark.line + 1
            value[key] = self._value(value_node, (*path, key))
        return value

    def _refuse_twins(self, node: yaml.MappingNode, path: FieldPath) -> None:
        first: dict[str, int] = {}
        for key_node, _ in node.value:
            key, line = str(key_node.value), key_node.start_mark.line + 1
            if key in first:
                self._mistakes.append(
                    Mistake(
                        line, field_text((*path, key)), f"given twice; first on line {first[key]}"
                    )
                )
            first.setdefault(key, line)
