"""Rows of keyed state: `key group ‖ key ‖ namespace ‖ sub-key`, and the byte before each value.

The key group is one byte when G <= 128, else two, big-endian, so that a range of groups is a range
of rows. Key, namespace and sub-key delimit themselves. Which state a row belongs to is told by the
table it lies in, not by its bytes. Byte by byte in docs/reference/formats.md.
"""

from __future__ import annotations

from penstock.core.keys import key_length

ROW_FORMAT = "row/1"

NO_NAMESPACE = b"\x01"
"""The namespace of state that has none (windows have one): the encoded key `False`."""

PLAIN = b"\x00"
"""First byte of every stored value: flags, of which none is set. TTL stamps will set one."""


def group_width(max_parallelism: int) -> int:
    """Bytes of the key group in a row."""
    return 1 if max_parallelism <= 128 else 2


def row_prefix(group: int, key: bytes, *, width: int) -> bytes:
    """What all rows of one key (without a namespace) begin with; a value's whole row."""
    return group.to_bytes(width, "big") + key + NO_NAMESPACE


def group_of(row: bytes, *, width: int) -> int:
    """The key group of a row."""
    return int.from_bytes(row[:width], "big")


def prefix_length(row: bytes, *, width: int) -> int:
    """Where key and namespace end and the sub-key (of a list or map) begins."""
    return key_length(row, key_length(row, width))


def group_bounds(start: int, stop: int, *, width: int) -> tuple[bytes, bytes]:
    """Half-open bounds of all rows in a range of groups; `stop` always fits the width."""
    return start.to_bytes(width, "big"), stop.to_bytes(width, "big")


def list_index(index: int) -> bytes:
    """The sub-key of a list's element: eight bytes, so that rows sort in order of insertion."""
    return index.to_bytes(8, "big")
