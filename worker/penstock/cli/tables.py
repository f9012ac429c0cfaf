"""Aligned columns on plain text."""

from __future__ import annotations

from collections.abc import Sequence


def table(rows: Sequence[Sequence[str]], *, right: Sequence[int] = (), indent: str = "") -> str:
    """Rows in columns two spaces apart, with a line's end for each; the columns in `right` are
    aligned to the right. No spaces at the ends of lines."""
    columns = max((len(row) for row in rows), default=0)
    widths = [max(len(row[i]) if i < len(row) else 0 for row in rows) for i in range(columns)]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(widths[i]) if i in right else cell.ljust(widths[i])
            for i, cell in enumerate(row)
        ]
        lines.append((indent + "  ".join(cells)).rstrip() + "\n")
    return "".join(lines)
