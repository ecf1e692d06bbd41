"""One request of a trace, whatever file it was read from, and complaints about such files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from fairshare.errors import Location, SpecError
from fairshare.spec.lengths import MAX_TOKENS
from fairshare.units import NS_PER_S

Where = Callable[[], Location]
"""The place of a value; worked out only when something is wrong with it."""
_MAX_SECONDS = 1e11  # later than any clock says; nanoseconds of it are still exact enough


@dataclass(frozen=True, slots=True)
class TraceRow:
    """One request of a trace. ``time_ns`` counts from whatever the file counts from.

    ``output_tokens`` 0 (or ``prompt_tokens`` 0) is a request that failed when the trace was taken.
    ``value`` is what stands in the column by which requests are assigned to tenants.
    """

    time_ns: int
    prompt_tokens: int
    output_tokens: int
    line: int
    session: str | None = None
    app: str | None = None
    interaction: str | None = None
    hash_ids: tuple[int, ...] = ()
    value: str | None = None


Rows = Iterator[TraceRow]


def time_ns(text: str, where: Where) -> int:
    """Seconds, or a date and time of day (UTC unless it says otherwise), to nanoseconds.

    Raises:
        SpecError: it is neither.
    """
    try:
        seconds = float(text)
    except ValueError:
        return _date_ns(text, where)
    if not 0 <= seconds <= _MAX_SECONDS:
        raise SpecError(f"{text!r} is not a time", where=where())
    return round(seconds * NS_PER_S)


def _date_ns(text: str, where: Where) -> int:
    """Exact to the last digit: the Azure traces have seven decimals, a float of today's six."""
    whole, _, decimals = text.removesuffix("+00:00").partition(".")
    try:
        seconds = int(datetime.fromisoformat(whole).replace(tzinfo=UTC).timestamp())
        return seconds * NS_PER_S + (int(decimals[:9].ljust(9, "0")) if decimals else 0)
    except ValueError:
        raise SpecError(
            f"{text!r} is not a time",
            where=where(),
            hint="it must look like 2023-11-16 18:17:03.9799600, or be a number of seconds",
        ) from None


def tokens(text: str, where: Where, *, least: int) -> int:
    """A number of tokens, which some files write with decimals.

    Raises:
        SpecError: it is no whole number from ``least`` to the most that there can be.
    """
    try:
        count = int(text)
    except ValueError:
        count = -1
        if text.endswith(".0") and text[:-2].isdecimal():
            count = int(text[:-2])
    if not least <= count <= MAX_TOKENS:
        raise SpecError(
            f"{text!r} is not a number of tokens from {least} to {MAX_TOKENS}", where=where()
        )
    return count


def no_requests(path: Path, part: str) -> SpecError:
    """The complaint about a trace, or a part of one, in which there is nothing to replay."""
    return SpecError(f"the trace holds no requests{part}", where=Location(path))
