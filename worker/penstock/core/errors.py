"""Errors, named by what the caller does next.

Each says **what** went wrong, **where**, and **what to do**; the command line prints just these
three. Foreign exceptions are translated at the door they come in by, with the cause kept.
"""

from __future__ import annotations

from typing import ClassVar


class PenstockError(Exception):
    """Base of all errors that Penstock raises on purpose."""

    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, *, where: str | None = None, fix: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.fix = fix

    def __str__(self) -> str:
        parts = [self.what]
        if self.where:
            parts.append(f"  where  {_indented(self.where)}")
        if self.fix:
            parts.append(f"  do     {_indented(self.fix)}")
        return "\n".join(parts)

    @property
    def in_a_line(self) -> str:
        """All three parts, for where only one line can stand: a status, a condition."""
        return "; ".join(part for part in (self.what, self.where, self.fix) if part)

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.what, self.where, self.fix)


def _indented(text: str) -> str:
    """Further lines below the first, past the label."""
    return text.replace("\n", "\n" + " " * len("  where  "))


def _rebuild(
    kind: type[PenstockError], what: str, where: str | None, fix: str | None
) -> PenstockError:
    return kind(what, where=where, fix=fix)


class Rejected(PenstockError):
    """The request is wrong; a person must change it."""

    exit_code = 2


class Outdated(Rejected):
    """The request was decided from a world that has gone on; look again, and decide anew."""


class Denied(Rejected):
    """Storage or a disk refuses; a person must change it there, and the same request may pass then."""


class Retryable(PenstockError):
    """Not now; the world may have changed when it is tried again."""

    exit_code = 3


class Corrupt(PenstockError):
    """Stored data contradicts itself; stop, and keep the evidence."""

    exit_code = 4
