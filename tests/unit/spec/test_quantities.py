"""Durations and sizes: what is written is what is meant."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.spec.parts.quantities import (
    format_duration,
    format_size,
    parse_duration_ms,
    parse_size_bytes,
    rounded_size,
)


@given(st.integers(min_value=0, max_value=10**15))
def test_a_duration_comes_back_from_its_text(ms):
    assert parse_duration_ms(format_duration(ms)) == ms


@given(st.integers(min_value=0, max_value=10**18))
def test_a_size_comes_back_from_its_text(size):
    assert parse_size_bytes(format_size(size)) == size


@given(*(st.integers(min_value=0, max_value=10_000) for _ in range(4)))
def test_units_of_a_duration_add_up(hours, minutes, seconds, millis):
    ms = parse_duration_ms(f"{hours}h{minutes}m{seconds}s{millis}ms")
    assert ms == ((hours * 60 + minutes) * 60 + seconds) * 1000 + millis


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("10s", 10_000),
        ("500ms", 500),
        ("5m", 300_000),
        ("1h", 3_600_000),
        ("0s", 0),
        ("1h30m", 5_400_000),
        ("1m500ms", 60_500),
        ("168h", 604_800_000),
    ],
)
def test_durations_as_people_write_them(text, ms):
    assert parse_duration_ms(text) == ms


@pytest.mark.parametrize(
    "text", ["", "10", "s", "10 s", "10 seconds", "-1s", "1.5s", "1s1h", "1d", "1S", "١s", "1s\n"]
)
def test_other_texts_are_no_durations(text):
    with pytest.raises(ValueError, match="is not a duration"):
        parse_duration_ms(text)


@pytest.mark.parametrize(
    ("ms", "text"), [(0, "0s"), (90_000, "90s"), (3_600_000, "1h"), (1, "1ms"), (86_400_000, "24h")]
)
def test_a_duration_is_told_in_one_unit(ms, text):
    assert format_duration(ms) == text


@pytest.mark.parametrize(
    ("text", "size"),
    [("512Mi", 512 << 20), ("10Gi", 10 << 30), ("500M", 500_000_000), ("1k", 1000), ("42", 42)],
)
def test_sizes_as_people_write_them(text, size):
    assert parse_size_bytes(text) == size


@pytest.mark.parametrize("text", ["", "Mi", "1.5Gi", "10 Gi", "10GB", "10gi", "-1"])
def test_other_texts_are_no_sizes(text):
    with pytest.raises(ValueError, match="is not a size"):
        parse_size_bytes(text)


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (0, "0"),
        (1023, "1023"),
        (1024, "1Ki"),
        (12_345_678, "11.8Mi"),
        (1_572_864, "1.5Mi"),
        (123_456_789, "118Mi"),
        ((10 << 20) - 1, "10Mi"),
        ((100 << 20) - 1, "100Mi"),
        ((1 << 30) - 1, "1Gi"),
        (1_240_000_000, "1.15Gi"),
        (7 << 60, "7168Pi"),
    ],
)
def test_a_size_for_people_has_three_digits(size_bytes, text):
    assert rounded_size(size_bytes) == text
