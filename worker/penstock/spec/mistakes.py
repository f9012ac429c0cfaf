"""Mistakes in a manifest: gathered first, told together, each with its line."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from penstock.core.errors import Rejected

WHERE_TO_READ = (
    "penstock run --help · all fields: penstock graph --schema or kubectl explain streamjob.spec"
)


@dataclass(frozen=True, slots=True)
class Mistake:
    """One thing to correct.

    `line` counts from 1, None where there is no file; `field` is the path as it is written in YAML;
    `hint` goes below the message and may have several lines.
    """

    line: int | None
    field: str
    message: str
    hint: str | None = None


class InvalidManifest(Rejected):
    """A manifest with mistakes; str() is the whole text for a person, in aligned columns."""

    def __init__(self, source: str, mistakes: Sequence[Mistake]) -> None:
        count = f"{len(mistakes)} mistake{'s' if len(mistakes) > 1 else ''}"
        super().__init__(
            f"{source} has {count}; nothing was started.", where=source, fix=WHERE_TO_READ
        )
        self.source = source
        self.mistakes = tuple(mistakes)

    @property
    def table(self) -> str:
        """The mistakes in aligned columns."""
        return "\n".join(_table(self.mistakes))

    def __str__(self) -> str:
        return f"{self.what}\n\n{self.table}\n\n{WHERE_TO_READ}"

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.source, self.mistakes)


def _table(mistakes: Iterable[Mistake]) -> list[str]:
    rows = [(f"line {m.line}" if m.line is not None else "", m) for m in mistakes]
    line_width = max((len(line) for line, _ in rows), default=0)
    field_width = max((len(m.field) for _, m in rows), default=0)
    text = []
    for line, mistake in rows:
        head = f"  {line:<{line_width}}  " if line_width else "  "
        head += f"{mistake.field:<{field_width}}  " if field_width else ""
        below = " " * len(head)
        first, *more = f"{mistake.message}\n{mistake.hint or ''}".rstrip().splitlines()
        text.append(head + first)
        text.extend((below + part).rstrip() for part in more)
    return text


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that was probably meant, None when none is near. Case does not count."""
    by_lower = {k.lower(): k for k in known}
    found = get_close_matches(name.lower(), by_lower, n=1, cutoff=0.6)
    return by_lower[found[0]] if found else None
