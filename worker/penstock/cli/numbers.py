"""Numbers as people read them: with units, short. JSON has the plain ones."""

from __future__ import annotations

from datetime import UTC, datetime

_BINARY = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_DECIMAL = ("", " k", " M", " G", " T")
NOTHING = "—"


def size(count_bytes: int | None) -> str:
    """`96 B`, `2.1 MiB`, `310 KiB`."""
    if count_bytes is None:
        return NOTHING
    value, unit = float(count_bytes), 0
    while round(value) >= 1024 and unit + 1 < len(_BINARY):
        value, unit = value / 1024, unit + 1
    return f"{_short(value) if unit else count_bytes} {_BINARY[unit]}"


def count(number: int | None) -> str:
    """`0`, `11.4 k`, `101.3 M`."""
    if number is None:
        return NOTHING
    value, unit = float(number), 0
    while value >= 999.95 and unit + 1 < len(_DECIMAL):
        value, unit = value / 1000, unit + 1
    return f"{value:.1f}{_DECIMAL[unit]}" if unit else str(number)


def rate(per_second: float) -> str:
    """`0/s`, `412 k/s`, `2.4 M/s`."""
    value, unit = per_second, 0
    while round(value) >= 1000 and unit + 1 < len(_DECIMAL):
        value, unit = value / 1000, unit + 1
    return f"{_short(value) if unit else round(value)}{_DECIMAL[unit]}/s"


def exact(number: int) -> str:
    """`40,000`."""
    return f"{number:,}"


def counted(number: int, thing: str, things: str | None = None) -> str:
    """`1 file`, `3 files`."""
    return f"{number:,} {thing if number == 1 else things or thing + 's'}"


def duration(ms: int | None) -> str:
    """`40 ms`, `0.2 s`, `42 s`, `1 min 52 s`, `3 h 5 min`, `2 d 4 h`."""
    if ms is None:
        return NOTHING
    if ms < 100:
        return f"{ms} ms"
    if ms < 9_950:
        return f"{ms / 1000:.1f} s"
    seconds = round(ms / 1000)
    for name, length, rest, rest_length in (
        ("d", 86_400, "h", 3_600),
        ("h", 3_600, "min", 60),
        ("min", 60, "s", 1),
    ):
        if seconds >= length:
            left = seconds % length // rest_length
            return f"{seconds // length} {name}" + (f" {left} {rest}" if left else "")
    return f"{seconds} s"


def about(ms: int) -> str:
    """`6 s`, `2 min`, `5 h`, `3 d`: one unit, for what is not known better."""
    for name, length_ms in (("d", 86_400_000), ("h", 3_600_000), ("min", 60_000)):
        if ms >= 1.5 * length_ms:
            return f"{round(ms / length_ms)} {name}"
    return f"{round(ms / 1000)} s"


def age(ms: int) -> str:
    """`8s`, `2m`, `5h`, `3d`: one unit, for tables."""
    seconds = max(0, ms // 1000)
    for name, length in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= length:
            return f"{seconds // length}{name}"
    return f"{seconds}s"


def clock(ms: int) -> str:
    """`00:00:42`."""
    seconds = max(0, ms // 1000)
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"


def percent(share: float) -> str:
    """`31 %`, and `1.4 %` below ten."""
    return f"{_short(share * 100)} %"


def utc(at_ms: int) -> str:
    """`2026-11-21T02:59:10Z`."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _short(value: float) -> str:
    return f"{value:.1f}" if value < 9.95 else str(round(value))
