"""Blocks of lines to records: fast when all is well, line by line to say which line is not.

What a format's `decode` says of a line is the truth; `decode_block` is tried first, and its answer
is taken only when it is one record per line.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from penstock.core.errors import Rejected


@dataclass(frozen=True, slots=True)
class Decoded:
    """Records of a block. `lines[i]` is the index within the block of the line of record i."""

    records: Sequence[Any]
    lines: Sequence[int]
    bad_line: int | None = None
    """Index of the first line that could not be decoded; nothing after it was."""
    error: Exception | None = None


def decode(format: Any, block: bytes) -> Decoded:
    """The records of lines joined by line breaks (`block` holds at least one line, maybe empty)."""
    count = block.count(b"\n") + 1
    if (decode_block := getattr(format, "decode_block", None)) is not None:
        try:
            records = decode_block(block)
        except Exception:  # noqa: BLE001 – below the same lines are decoded one by one, and it is told
            records = ()
        if len(records) == count:
            return Decoded(records, range(count))
    return _one_by_one(format, block)


def _one_by_one(format: Any, block: bytes) -> Decoded:
    keeps_blank_lines = getattr(format, "keeps_blank_lines", True)
    records: list[Any] = []
    lines: list[int] = []
    for index, line in enumerate(block.split(b"\n")):
        if not keeps_blank_lines and not line.strip():
            continue
        try:
            records.append(format.decode(line))
        except Exception as e:  # noqa: BLE001 – kept, and raised when the records before are taken
            return Decoded(records, lines, index, e)
        lines.append(index)
    return Decoded(records, lines)


def undecodable(format: Any, error: Exception, where: str) -> Rejected:
    """The error for a line that is none of the format."""
    return Rejected(
        f"a line is not {format!r}: {error}",
        where=where,
        fix="correct the line, or read it as text and decode it in a flat_map of your own",
    )


def block_encoder(format: Any) -> Callable[[Sequence[Any]], bytes]:
    """A function from records to their lines, each with its line break."""
    if (encode_block := getattr(format, "encode_block", None)) is not None:
        found: Callable[[Sequence[Any]], bytes] = encode_block
        return found
    encode = format.encode
    return lambda records: b"".join([encode(record) + b"\n" for record in records])
