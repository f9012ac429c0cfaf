"""Durations and sizes as people write them: `10s`, `512Mi`. Integers inside, text outside."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema
from pydantic_core import PydanticCustomError

_MS = {"h": 3_600_000, "m": 60_000, "s": 1_000, "ms": 1}
_DURATION = re.compile(r"(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+)s)?(?:(\d+)ms)?", re.ASCII)
_BYTES = {
    "Ti": 1 << 40,
    "Gi": 1 << 30,
    "Mi": 1 << 20,
    "Ki": 1 << 10,
    "T": 10**12,
    "G": 10**9,
    "M": 10**6,
    "k": 10**3,
    "": 1,
}
_LENGTH_MAX = 32
_SIZE = re.compile(r"(\d+)(Ti|Gi|Mi|Ki|T|G|M|k|)", re.ASCII)

WRITE_DURATION = "write 10s, 500ms, 5m, 1h"
WRITE_SIZE = "write 512Mi, 10Gi, 500M"


def parse_duration_ms(text: str) -> int:
    """Milliseconds of `10s`, `500ms`, `5m`, `1h` or several in that order (`1h30m`).

    Raises ValueError for anything else.
    """
    found = _DURATION.fullmatch(text)
    if found is None or not 0 < len(text) <= _LENGTH_MAX:
        raise ValueError(f"{text!r} is not a duration")
    return sum(int(count or 0) * ms for count, ms in zip(found.groups(), _MS.values(), strict=True))


def format_duration(ms: int) -> str:
    """The shortest text that parses to it, in one unit: 90000 is `90s`."""
    if ms == 0:
        return "0s"
    unit, factor = next((u, f) for u, f in _MS.items() if ms % f == 0)
    return f"{ms // factor}{unit}"


def parse_size_bytes(text: str) -> int:
    """Bytes of `512Mi`, `10Gi`, `500M` or a plain number. Raises ValueError for anything else."""
    found = _SIZE.fullmatch(text)
    if found is None or len(text) > _LENGTH_MAX:
        raise ValueError(f"{text!r} is not a size")
    return int(found[1]) * _BYTES[found[2]]


def format_size(size_bytes: int) -> str:
    """In the first unit that divides it, binary ones before decimal ones: 1073741824 is `1Gi`."""
    if size_bytes == 0:
        return "0"
    unit, factor = next((u, f) for u, f in _BYTES.items() if size_bytes % f == 0)
    return f"{size_bytes // factor}{unit}"


def rounded_size(size_bytes: int) -> str:
    """For people, in the largest binary unit and three digits: 12345678 is `11.8Mi`."""
    value, units = float(size_bytes), ["", "Ki", "Mi", "Gi", "Ti", "Pi"]
    while round(value) >= 1024 and len(units) > 1:
        value /= 1024
        del units[0]
    text = f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f}"
    return (text.rstrip("0").rstrip(".") if "." in text else text) + units[0]


def _duration_ms(value: Any) -> int:
    if isinstance(value, str):
        try:
            return parse_duration_ms(value)
        except ValueError:
            pass
    raise PydanticCustomError("not_a_duration", f"is not a duration; {WRITE_DURATION}")


def _size_bytes(value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if isinstance(value, str):
        try:
            return parse_size_bytes(value)
        except ValueError:
            pass
    raise PydanticCustomError("not_a_size", f"is not a size; {WRITE_SIZE}")


DurationMs = Annotated[
    int,
    BeforeValidator(_duration_ms),
    PlainSerializer(format_duration, return_type=str),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": r"^([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?$",
            "minLength": 2,
            "maxLength": _LENGTH_MAX,
        }
    ),
]
"""An integer of milliseconds that is written `10s`."""

SizeBytes = Annotated[
    int,
    BeforeValidator(_size_bytes),
    PlainSerializer(format_size, return_type=str),
    WithJsonSchema(
        {"type": "string", "pattern": r"^[0-9]+(Ti|Gi|Mi|Ki|T|G|M|k)?$", "maxLength": _LENGTH_MAX}
    ),
]
"""An integer of bytes that is written `512Mi`."""
