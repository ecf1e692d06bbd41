"""The Azure LLM inference traces (2023, 2024): arrival times, prompt and output lengths.

The data: Patel et al., Splitwise, ISCA 2024, CC-BY 4.0. Times are UTC with up to nine decimals.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from fairshare.errors import Location, SpecError
from fairshare.spec.workload import MAX_TOKENS
from fairshare.units import NS_PER_S
from fairshare.workload.files import require_file, unreadable

COLUMNS = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")


@dataclass(frozen=True, slots=True)
class TraceRow:
    """One request of a trace; ``offset_s`` counts from the trace's first request."""

    offset_s: float
    prompt_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True)
class Trace:
    """The part of a trace that was asked for; ``ended`` if there was no more of it."""

    rows: list[TraceRow]
    ended: bool


def read_trace(path: Path, *, speed: float = 1.0, horizon_s: float = float("inf")) -> Trace:
    """The rows of a trace that fall before ``horizon_s`` when it is played ``speed`` times as fast.

    Raises:
        SpecError: with file, line and column, where the file is not such a trace.
    """
    require_file(path, "trace")
    rows: list[TraceRow] = []
    ended = True
    try:
        with path.open(encoding="utf-8-sig", errors="replace") as lines:
            positions = _columns(lines.readline(), path)
            for ns, prompt, output in _parsed(lines, positions, path):
                offset_s = ns / NS_PER_S / speed
                if offset_s >= horizon_s:
                    ended = False
                    break
                rows.append(TraceRow(offset_s, prompt, output))
    except OSError as error:
        raise unreadable(error, path, "trace") from None
    if not rows:
        raise SpecError("the trace holds no requests", where=Location(path))
    return Trace(rows, ended)


def _columns(header: str, path: Path) -> tuple[int, int, int]:
    names = [name.strip() for name in header.split(",")]
    for wanted in COLUMNS:
        if wanted not in names:
            raise SpecError(
                f"the trace has no column {wanted}",
                where=Location(path, 1, 1),
                hint=f"its first line must be {','.join(COLUMNS)}",
            )
    stamp, prompt, output = (names.index(name) for name in COLUMNS)
    return stamp, prompt, output


def _parsed(
    lines: Iterable[str], positions: tuple[int, int, int], path: Path
) -> Iterator[tuple[int, int, int]]:
    """Nanoseconds since the first row, prompt tokens and output tokens of each row."""
    first_ns: int | None = None
    last_ns = 0
    for number, line in enumerate(lines, start=2):
        if not line.strip():
            continue
        fields = line.split(",")
        if len(fields) <= max(positions):
            raise SpecError("the line has too few columns", where=Location(path, number, 1))
        ns = _time_ns(_Field(fields, positions[0], path, number))
        first_ns = ns if first_ns is None else first_ns
        if ns - first_ns < last_ns:
            column = _Field(fields, positions[0], path, number).where
            raise SpecError("the time lies before that of the line above", where=column)
        last_ns = ns - first_ns
        prompt, output = (_tokens(_Field(fields, p, path, number)) for p in positions[1:])
        yield last_ns, prompt, output


@dataclass(frozen=True, slots=True)
class _Field:
    """One field of one line; its place is worked out only when something is wrong with it."""

    fields: list[str]
    index: int
    path: Path
    line: int

    @property
    def text(self) -> str:
        return self.fields[self.index].strip()

    @property
    def where(self) -> Location:
        column = sum(len(field) + 1 for field in self.fields[: self.index]) + 1
        return Location(self.path, self.line, column)


def _time_ns(field: _Field) -> int:
    """Exact to the last digit: the traces have seven decimals, a float of today's seconds six."""
    whole, _, decimals = field.text.removesuffix("+00:00").partition(".")
    try:
        seconds = int(datetime.fromisoformat(whole).replace(tzinfo=UTC).timestamp())
        return seconds * NS_PER_S + (int(decimals[:9].ljust(9, "0")) if decimals else 0)
    except ValueError:
        raise SpecError(
            f"{field.text!r} is not a time",
            where=field.where,
            hint="it must look like 2023-11-16 18:17:03.9799600",
        ) from None


def _tokens(field: _Field) -> int:
    try:
        count = int(field.text)
    except ValueError:
        count = 0
    if not 1 <= count <= MAX_TOKENS:
        raise SpecError(
            f"{field.text!r} is not a number of tokens from 1 to {MAX_TOKENS}", where=field.where
        )
    return count
