"""Quantities as people write them."""

from __future__ import annotations

import pytest

from fairshare.units import (
    format_bytes,
    format_duration,
    parse_bytes,
    parse_duration_s,
    parse_fraction,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("64M", 64 * 2**20),
        ("64MiB", 64 * 2**20),
        ("64MB", 64 * 10**6),
        ("1.5G", 3 * 2**29),
        ("8 gib", 8 * 2**30),
        ("100", 100),
        (4096, 4096),
    ],
)
def test_sizes_follow_their_prefix(text: str | int, expected: int) -> None:
    """Binary and decimal prefixes are told apart."""
    assert parse_bytes(text) == expected


@pytest.mark.parametrize("text", ["", "G", "1.5X", "-3M", "1 2M", "0x10"])
def test_what_is_no_size_is_refused(text: str) -> None:
    """A mistyped size is an error and never another size."""
    with pytest.raises(ValueError, match="is not a size"):
        parse_bytes(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("20s", 20.0), ("500ms", 0.5), ("3m", 180.0), ("3min", 180.0), ("8h", 28800.0), (7, 7.0)],
)
def test_durations_have_units(text: str | float, expected: float) -> None:
    """Each unit means what it says; a plain number is seconds."""
    assert parse_duration_s(text) == pytest.approx(expected)


def test_a_duration_in_words_is_refused() -> None:
    """What is not a duration is an error with examples."""
    with pytest.raises(ValueError, match="write it like 20s"):
        parse_duration_s("soon")


def test_fractions_are_percent_or_plain() -> None:
    """50% and 0.5 are the same share."""
    assert parse_fraction("50%") == parse_fraction(0.5) == parse_fraction(" 0.5 ") == 0.5
    with pytest.raises(ValueError, match="is not a share"):
        parse_fraction("half")


def test_people_read_rounded_quantities() -> None:
    """Formatting picks the unit that a person would."""
    assert format_bytes(67108864) == "64 MiB"
    assert format_duration(0.25) == "250 ms"
    assert format_duration(75.2) == "1 min 15 s"
    assert format_duration(7500) == "2 h 5 min"
