"""Quantities as people write them: bytes, seconds, shares. Parsing fails with a ValueError."""

from __future__ import annotations

import re

_BYTES = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(i?)(B?)\s*$", re.IGNORECASE)
_SECONDS = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*(ms|s|m|min|h|d)?\s*$")
_POWERS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}
_DURATIONS_S = {"ms": 1e-3, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}

_LONGEST = 40  # characters of a quantity; more digits are a mistake, and may overflow

NS_PER_S = 1_000_000_000


def parse_bytes(text: object) -> int:
    """Bytes of ``"64M"``, ``"1.5GiB"``, ``"8GB"`` or a plain number.

    ``K M G T`` and ``KiB MiB ...`` are powers of 1024, as the tools that take them use them;
    ``KB MB ...`` are powers of 1000.
    """
    if isinstance(text, int) and not isinstance(text, bool):
        return text
    match = _BYTES.match(text) if isinstance(text, str) and len(text) < _LONGEST else None
    if match is None:
        raise ValueError(f"{text!r} is not a size; write it like 64M, 1.5GiB or 8GB")
    number, prefix, binary, suffix = match.groups()
    base = 1000 if prefix and suffix and not binary else 1024
    return round(float(number) * float(base ** _POWERS[prefix.upper()]))


def parse_duration_s(text: object) -> float:
    """Seconds of ``"20s"``, ``"500ms"``, ``"3m"``, ``"8h"`` or a plain number of seconds."""
    if isinstance(text, int | float) and not isinstance(text, bool):
        return float(text)
    match = _SECONDS.match(text) if isinstance(text, str) and len(text) < _LONGEST else None
    if match is None:
        raise ValueError(f"{text!r} is not a duration; write it like 20s, 500ms, 3m or 8h")
    return float(match.group(1)) * _DURATIONS_S[match.group(2) or "s"]


def parse_fraction(text: object) -> float:
    """A fraction of ``"50%"`` or ``0.5``."""
    if isinstance(text, int | float) and not isinstance(text, bool):
        return float(text)
    stripped = text.strip() if isinstance(text, str) else ""
    try:
        if stripped.endswith("%"):
            return float(stripped[:-1]) / 100
        return float(stripped)
    except ValueError:
        raise ValueError(f"{text!r} is not a share; write it like 50% or 0.5") from None


def format_bytes(count: int) -> str:
    """``67108864`` as ``"64 MiB"``."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(value) < 1024:
            return f"{value:.4g} {unit}"
        value /= 1024
    return f"{value:.4g} TiB"


def format_duration(seconds: float) -> str:
    """``75.2`` as ``"1 min 15 s"``."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"
