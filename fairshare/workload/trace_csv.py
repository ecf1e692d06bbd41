"""Traces as CSV: a header with the names of the columns, then a request a line."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from fairshare.errors import Location, SpecError
from fairshare.spec.trace import Columns, TraceFormat
from fairshare.workload.trace_rows import Rows, TraceRow, time_ns, tokens

COLUMNS = {
    TraceFormat.AZURE: Columns(
        time="TIMESTAMP", prompt_tokens="ContextTokens", output_tokens="GeneratedTokens"
    ),
    TraceFormat.BURSTGPT: Columns(
        time="Timestamp",
        prompt_tokens="Request tokens",
        output_tokens="Response tokens",
        session="Session ID",
    ),
    TraceFormat.FAIRSERVE: Columns(
        time="ArrivalTime",
        prompt_tokens="PromptTokens",
        output_tokens="DecodeTokens",
        session="UserID",
        app="app",
        interaction="interaction_id",
    ),
}
_OTHER_NAMES = {"ArrivalTime": "TIMESTAMP"}  # files of the same kind without the one have the other


def names_in(header: str) -> list[str]:
    """The names of the columns in the first line of a file."""
    return [name.strip() for name in _split(header)]


def format_of(names: Iterable[str]) -> TraceFormat | None:
    """The format with these columns, if it is one that is known."""
    present = set(names)
    for known, columns in COLUMNS.items():
        needed = {columns.prompt_tokens, columns.output_tokens}
        if needed <= present:
            return known
    return None


@dataclass(frozen=True, slots=True)
class _Layout:
    """At which position what stands; None where the file has no such column."""

    time: int
    prompt: int
    output: int
    session: int | None
    app: int | None
    interaction: int | None
    value: int | None

    @property
    def last(self) -> int:
        return max(i for i in (self.time, self.prompt, self.output, self.value) if i is not None)


@dataclass(frozen=True, slots=True)
class CsvTrace:
    """How one CSV trace is read.

    ``strict`` refuses requests without tokens; ``required`` are columns that may not be missing
    beside those of time and tokens; ``value`` is the column that assigns requests to tenants.
    """

    path: Path
    columns: Columns
    strict: bool
    required: tuple[str, ...] = ()
    value: str | None = None

    def rows(self, lines: Iterable[str]) -> Rows:
        """All requests of the file, in its order.

        Raises:
            SpecError: with line and column, where it is not such a trace.
        """
        remaining = iter(lines)
        layout = self._layout(names_in(next(remaining, "")))
        least = 1 if self.strict else 0
        for number, line in enumerate(remaining, start=2):
            if not line.strip():
                continue
            fields = _split(line)
            if len(fields) <= layout.last:
                raise SpecError(
                    "the line has too few columns", where=Location(self.path, number, 1)
                )
            where = partial(_where, self.path, number, line, fields)
            session = _text(fields, layout.session)
            interaction = _text(fields, layout.interaction)
            if interaction is not None and session is not None:
                interaction = f"{session}/{interaction}"  # users may number theirs alike
            yield TraceRow(
                time_ns(fields[layout.time].strip(), partial(where, layout.time)),
                tokens(fields[layout.prompt].strip(), partial(where, layout.prompt), least=least),
                tokens(fields[layout.output].strip(), partial(where, layout.output), least=least),
                number,
                session=session,
                app=_text(fields, layout.app),
                interaction=interaction,
                value=None if layout.value is None else fields[layout.value].strip(),
            )

    def _layout(self, names: list[str]) -> _Layout:
        wanted = self.columns

        def optional(name: str | None) -> int | None:
            if name is None or (name not in names and name not in self.required):
                return None
            return self._position(names, name)

        return _Layout(
            time=self._position(names, wanted.time),
            prompt=self._position(names, wanted.prompt_tokens),
            output=self._position(names, wanted.output_tokens),
            session=optional(wanted.session),
            app=optional(wanted.app),
            interaction=optional(wanted.interaction),
            value=None if self.value is None else self._position(names, self.value),
        )

    def _position(self, names: list[str], wanted: str) -> int:
        for name in (wanted, _OTHER_NAMES.get(wanted, wanted)):
            if name in names:
                return names.index(name)
        raise SpecError(
            f"the trace has no column {wanted}",
            where=Location(self.path, 1, 1),
            hint="its columns are: " + (", ".join(names) or "none"),
        )


def _split(line: str) -> list[str]:
    if '"' in line:
        return next(csv.reader([line]), [])
    return line.rstrip("\r\n").split(",")


def _text(fields: list[str], position: int | None) -> str | None:
    """A field that may be empty, or missing at the end of a line."""
    if position is None or position >= len(fields):
        return None
    return fields[position].strip() or None


def _where(path: Path, number: int, line: str, fields: list[str], index: int) -> Location:
    if '"' in line:  # quotes are gone from the fields: the place in the line is not known
        return Location(path, number)
    return Location(path, number, sum(len(field) + 1 for field in fields[:index]) + 1)
