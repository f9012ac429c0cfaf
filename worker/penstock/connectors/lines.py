"""Blocks of lines to records: fast when all is well, line by line to say which line is not.

What a format's `decode` says of a line is the truth; `decode_block` is tried first, and its answer
is taken only when it is one record per line. A format whose records may take several lines says so
by `lines_of`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from penstock.core.errors import Rejected


@dataclass(frozen=True, slots=True)
class Decoded:
    """Records of a block. Record i has the lines `lines[i]` to `ends[i]` of it, half-open."""

    records: Sequence[Any]
    lines: Sequence[int]
    ends: Sequence[int]
    bad_line: int | None = None
    """Index of the first line that could not be decoded; nothing after it was."""
    error: Exception | None = None
    unfinished: int | None = None
    """Index of the line where a record begins that does not end in the block."""


def decode(format: Any, block: bytes) -> Decoded:
    """The records of lines joined by line breaks (`block` holds at least one line, maybe empty)."""
    return _at_once(format, block) or _one_by_one(format, block, None, is_last=True)


def decode_part(format: Any, block: bytes, *, is_last: bool) -> Decoded:
    """The same of a stretch of a file, where a record may take several lines; `is_last`: no further
    line can end what this one begins."""
    lines_of = getattr(format, "lines_of", None)
    return _at_once(format, block) or _one_by_one(format, block, lines_of, is_last=is_last)


def first_record(format: Any, block: bytes, *, is_last: bool) -> int | None:
    """How many lines the first record of a stretch takes; None: it does not end in it."""
    lines_of = getattr(format, "lines_of", None)
    if lines_of is None:
        return 1
    lines = block.split(b"\n")
    found: int | None = lines_of(lines, 0)
    return len(lines) if found is None and is_last else found


def _at_once(format: Any, block: bytes) -> Decoded | None:
    count = block.count(b"\n") + 1
    if (decode_block := getattr(format, "decode_block", None)) is not None:
        try:
            records = decode_block(block)
        except Exception:  # noqa: BLE001 – below the same lines are decoded one by one, and it is told
            records = ()
        if len(records) == count:
            return Decoded(records, range(count), range(1, count + 1))
    return None


def _one_by_one(
    format: Any,
    block: bytes,
    lines_of: Callable[[Sequence[bytes], int], int | None] | None,
    *,
    is_last: bool,
) -> Decoded:
    keeps_blank_lines = getattr(format, "keeps_blank_lines", True)
    records: list[Any] = []
    lines: list[int] = []
    ends: list[int] = []
    all_lines = block.split(b"\n")
    end = 0
    while (start := end) < len(all_lines):
        end = start + 1
        if not keeps_blank_lines and not all_lines[start].strip():
            continue
        if lines_of is not None:
            taken = lines_of(all_lines, start)
            if taken is None and not is_last:
                return Decoded(records, lines, ends, unfinished=start)
            end = len(all_lines) if taken is None else start + taken
        try:
            records.append(format.decode(b"\n".join(all_lines[start:end])))
        except Exception as e:  # noqa: BLE001 – kept, and raised when the records before are taken
            return Decoded(records, lines, ends, start, e)
        lines.append(start)
        ends.append(end)
    return Decoded(records, lines, ends)


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
