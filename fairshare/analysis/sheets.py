"""Everything that an article or a README shows as a table, as plain text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fairshare.analysis.pipeline import BuiltAnalysis
from fairshare.analysis.table import Table, TableRow, visible
from fairshare.analysis.verdict import Answer, Verdict

_WIDE_ONLY = frozenset({"req/s", "E2E P50", "completed"})
"""What a page of paper has no room for; it is in the summary and in the wide forms."""
_MOST_FACTS = 60
_MOST_TENANTS = 16  # of more nobody reads a line each; the summary has them


@dataclass(frozen=True, slots=True)
class Entry:
    """One figure or text; ``below`` is its interval."""

    text: str
    below: str = ""
    best: bool = False


@dataclass(frozen=True, slots=True)
class Sheet:
    """A table: the first ``names`` columns are text, the others figures."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[Entry, ...], ...]
    names: int


def verdict_sheets(built: BuiltAnalysis) -> list[Sheet]:
    """Which mode for which goal, one per scenario."""
    header = ("goal", "run", "figure", "ahead of the next", "how sure")
    return [
        Sheet(f"{each.title}: what to run for which goal", header, _verdicts(each), len(header))
        for each in built.answers
    ]


def _verdicts(answer: Answer) -> tuple[tuple[Entry, ...], ...]:
    return tuple(
        (
            Entry(line.goal.title, line.goal.compared),
            Entry(line.answer),
            Entry(line.value, line.interval),
            Entry(line.lead, line.lead_interval),
            Entry(_certainty(line), line.advice),
        )
        for line in answer.lines
    )


def _certainty(line: Verdict) -> str:
    return ", ".join((line.state.value, *line.badges))


def figure_sheets(built: BuiltAnalysis, *, narrow: bool = False) -> list[Sheet]:
    """The comparison, interactions and policies, one table per setting each."""
    compared = [_sheet(table, narrow=narrow) for table in built.tables]
    return [*compared, *map(_sheet, built.interactions), *map(_sheet, built.policies)]


def _sheet(table: Table, *, narrow: bool = False) -> Sheet:
    kept = [
        i for i, column in enumerate(table.columns) if not narrow or column.title not in _WIDE_ONLY
    ]
    header = ("mode", "tenant", *(table.columns[i].title for i in kept))
    title, rows = table.title, table.rows
    if len({row.tenant for row in rows}) > _MOST_TENANTS:
        title, rows = f"{title}: all tenants together", tuple(row for row in rows if row.total)
    return Sheet(title, header, tuple(_row(row, kept) for row in rows), 2)


def _row(row: TableRow, kept: Sequence[int]) -> tuple[Entry, ...]:
    figures = [row.figures[i] for i in kept]
    return (
        Entry(f"{row.mode} (baseline)" if row.baseline else row.mode),
        Entry(row.tenant),
        *(Entry(str(figure), figure.interval, figure.best) for figure in figures),
    )


def failure_sheet(built: BuiltAnalysis) -> Sheet | None:
    """The cells without figures, and why."""
    if not built.failed:
        return None
    rows = tuple(
        (Entry(each.cell), Entry(each.status), Entry((each.reason or "").partition("\n")[0]))
        for each in built.failed
    )
    return Sheet("Cells without figures", ("cell", "outcome", "reason"), rows, 3)


def provenance_sheet(built: BuiltAnalysis) -> Sheet:
    """The machine, device, driver, engine and versions, as they were recorded."""
    facts = list(_facts(built.analysis.matrix.get("provenance")))[:_MOST_FACTS]
    rows = tuple((Entry(visible(name)), Entry(visible(value))) for name, value in facts)
    return Sheet("Provenance", ("what", "value"), rows, 2)


def origins(built: BuiltAnalysis) -> list[str]:
    """One line per kind of figures and per mark: which modes it is about."""
    rows = [row for table in built.tables for row in table.rows]
    said: dict[str, dict[str, None]] = {}
    for row in rows:
        for word in (row.provenance, *row.marks):
            said.setdefault(word, {})[row.mode] = None
    lines = [f"{word}: {', '.join(modes)}" for word, modes in said.items()]
    notes = dict.fromkeys(f"{row.mode}: {note}" for row in rows for note in row.notes)
    return [*lines, *notes]


def _facts(value: object, name: str = "") -> Iterator[tuple[str, str]]:
    """Nested values as lines of dotted names."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _facts(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list | tuple):
        yield name, ", ".join(_flat(inner) for inner in value)
    elif value is not None:
        yield name, str(value)


def _flat(value: Any) -> str:
    return ", ".join(f"{name} {text}" for name, text in _facts(value)) or str(value)
