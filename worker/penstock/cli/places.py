"""Paths as people see them: without `file://`, and relative where they are below this folder."""

from __future__ import annotations

from pathlib import Path


def shown(url: str) -> str:
    """`state/savepoints/savepoint-…`, or the URL of what is not on this machine."""
    if "://" in url and not url.startswith("file://"):
        return url
    path = Path(url.removeprefix("file://"))
    if not path.is_absolute():
        return str(path)
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def size_of(folder: Path) -> tuple[int, int]:
    """How many files lie below a folder, and their bytes; hidden ones do not count."""
    sizes = [
        path.stat().st_size
        for path in folder.rglob("*")
        if path.is_file() and not any(p.startswith(".") for p in path.relative_to(folder).parts)
    ]
    return len(sizes), sum(sizes)
