"""The last screen: the comparison, what worked and what did not, and where everything is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from fairshare.analysis.drift import drifts
from fairshare.analysis.pipeline import BuiltAnalysis
from fairshare.analysis.table import BEST, FEW, visible
from fairshare.analysis.table import Table as AnalysisTable
from fairshare.errors import ExitCode
from fairshare.records import CellStatus
from fairshare.ui.verdict import show_verdict
from fairshare.units import format_duration

if TYPE_CHECKING:  # to show an analysis needs nothing that runs one
    from fairshare.runner.outcome import Outcome

_PIPE_WIDTH = 160
_MOST_TENANTS = 40
_MOST_VIOLATIONS = 12
# What a narrow terminal can do without, least missed first; the page has everything.
_DISPENSABLE = (
    *("pauses", "calls", "wasted tok", "begun"),  # of interactions
    *("tok/s", "max diff", "D var", "D mean", "Jain even"),  # of policies
    *("E2E P50", "req/s", "completed", "TTFT P50", "TPOT P50", "vs alone", "Jain"),
    "half-way",
)


def show_analysis(built: BuiltAnalysis) -> None:
    """Print the comparison, one table per setting, and the paths of what was made."""
    console = Console(highlight=False)
    if not console.is_terminal:  # a file or a pipe: nothing is gained by squeezing
        console = Console(highlight=False, width=_PIPE_WIDTH)
    left_out: set[str] = set()
    for whole in _told(built):
        table = _readable(whole)
        hidden: list[str] = []
        while _width(console, table, hidden) > console.width and len(hidden) < len(_DISPENSABLE):
            hidden.append(_DISPENSABLE[len(hidden)])
        console.print(_rich(table, hidden))
        left_out.update(column.title for column in table.columns if column.title in hidden)
    if left_out:
        console.print(Text(f"left out for lack of width: {', '.join(sorted(left_out))}"))
    if built.searched is None or built.searched.cells is None:
        show_verdict(console, built.answers)
    _show_reservations(console, built)
    _show_impossible(console, built)
    _show_drift(console, built)
    _show_paths(console, built)


def _told(built: BuiltAnalysis) -> tuple[AnalysisTable, ...]:
    """What is printed: of a search its answer, since of its many loads nobody reads the tables."""
    looked_for = built.searched.tables if built.searched else ()
    if built.searched is not None and built.searched.cells is not None:
        return looked_for
    return (*built.tables, *built.interactions, *built.policies, *looked_for)


def _readable(table: AnalysisTable) -> AnalysisTable:
    """The table, or of more tenants than anybody reads its totals alone."""
    if len({row.tenant for row in table.rows}) <= _MOST_TENANTS:
        return table
    title = f"{table.title}: all tenants together (each is in the summary)"
    return replace(table, title=title, rows=tuple(row for row in table.rows if row.total))


def _width(console: Console, table: AnalysisTable, hidden: list[str]) -> int:
    unlimited = console.options.update(width=10_000)
    return Measurement.get(console, unlimited, _rich(table, hidden)).maximum


def _rich(table: AnalysisTable, hidden: list[str]) -> Table:
    shown = Table(title=Text(table.title), title_justify="left", title_style="bold")
    shown.add_column("mode", no_wrap=True)
    several = not all(row.total for row in table.rows)
    if several:
        shown.add_column("tenant", no_wrap=True)
    kept = [i for i, column in enumerate(table.columns) if column.title not in hidden]
    for i in kept:
        shown.add_column(table.columns[i].title, justify="right", no_wrap=True)
    for row in table.rows:
        who = [Text(row.mode), Text(row.tenant)] if several else [Text(row.mode)]
        cells = [*who, *(Text(str(row.figures[i])) for i in kept)]
        bold = several and row.total
        shown.add_row(*cells, style="bold" if bold else "", end_section=bold)
    return shown


def _show_reservations(console: Console, built: BuiltAnalysis) -> None:
    """What must be known before a figure is believed, once."""
    tables = (*built.tables, *built.interactions)
    rows = [row for table in tables for row in table.rows]
    for provenance in dict.fromkeys(row.provenance for row in rows):
        modes = dict.fromkeys(row.mode for row in rows if row.provenance == provenance)
        console.print(Text(f"{', '.join(modes)}: {provenance}"))
    marks: dict[str, set[str]] = {}
    for row in rows:
        for mark in row.marks:
            marks.setdefault(mark, set()).add(row.mode)
    for mark, modes_with in marks.items():
        console.print(Text(f"{mark}: {', '.join(sorted(modes_with))}"))
    for mode, note in dict.fromkeys((row.mode, note) for row in rows for note in row.notes):
        console.print(Text(f"{mode}: {note}"))
    if any(cell.best for row in rows for cell in row.figures):
        console.print(Text(f"{BEST} best of its column, its interval clear of all others"))
    if any(cell.few for row in rows for cell in row.figures):
        what = "requests or interactions" if built.interactions else "requests"
        few = f"{FEW} P99 of fewer than 100 {what}: close to their maximum; use a longer --window"
        console.print(Text(few))


def _show_impossible(console: Console, built: BuiltAnalysis) -> None:
    """What cannot be, before anything else is believed."""
    found = [(cell, v) for cell in built.analysis.cells for v in cell.plausibility.violations]
    if not found:
        return
    console.print(Text("impossible figures:", style="bold red"))
    shown = None
    for cell, violation in found[:_MOST_VIOLATIONS]:
        if cell is not shown:
            console.print(Text(f"  {visible(cell.result.id)}"))
            shown = cell
        console.print(Text(f"      {visible(str(violation))}"), soft_wrap=True)
    if (more := len(found) - _MOST_VIOLATIONS) > 0:
        console.print(Text(f"  and {more} more (summary.json has them all)"))


def _show_drift(console: Console, built: BuiltAnalysis) -> None:
    found = [drift for drift in drifts(built.analysis.cells) if drift.told]
    for drift in found:
        console.print(Text(f"drift: {drift}", style="yellow"), soft_wrap=True)
    if found:
        console.print(
            Text(
                "  what was measured late is not like what was measured early: see "
                "--lock-clocks and --order (docs/sweeps.md)"
            )
        )


def _show_paths(console: Console, built: BuiltAnalysis) -> None:
    if built.failed:
        console.print(Text("cells without figures:", style="bold"))
        for outcome in built.failed:
            reason = (outcome.reason or "").splitlines()
            console.print(Text(f"  {outcome.status:<11} {outcome.cell}"))
            for line in reason:
                console.print(Text(f"      {line}"))
    for name in built.searched.files if built.searched else ():
        console.print(Text(f"answer:  {built.summary_csv.with_name(name)}"), soft_wrap=True)
    console.print(Text(f"summary: {built.summary_csv}"), soft_wrap=True)
    if built.figures:
        folder = built.figures[0].parent
        console.print(Text(f"figures: {len(built.figures)} in {folder}"), soft_wrap=True)
    if built.report is not None:
        console.print(Text(f"report:  {built.report}", style="bold"), soft_wrap=True)


def show_outcome(outcome: Outcome, directory: Path, resume_command: str) -> ExitCode:
    """Print how many cells worked, and return the exit code that this deserves.

    Cells that cannot exist are no failure, unless there were no others.
    """
    ok = outcome.count(CellStatus.OK)
    parts = [f"{ok} cells ok"]
    for status in (CellStatus.FAILED, CellStatus.INFEASIBLE, CellStatus.INTERRUPTED):
        if count := outcome.count(status):
            parts.append(f"{count} {status.value}")
    click.echo(", ".join(parts) + f"; results in {directory}")
    if outcome.stopped:
        click.echo(f"stopped before the end; continue with:\n  {resume_command}")
        return ExitCode.INTERRUPTED
    if outcome.short is not None:
        click.echo(f"stopped early: {outcome.short}")
        click.echo(f"make room, then continue with:\n  {resume_command}")
        return ExitCode.STOPPED_EARLY
    if outcome.left:
        _show_left(outcome, resume_command)
        return ExitCode.STOPPED_EARLY
    if outcome.kept_failed:
        _show_kept_failed(outcome.kept_failed)
    good = not outcome.kept_failed and not outcome.went_wrong and (ok or not outcome.results)
    return ExitCode.OK if good else ExitCode.SOME_CELLS_FAILED


def _show_kept_failed(failed: list[str]) -> None:
    click.echo(f"failed earlier, and not run again without --retry-failed: {len(failed)} cells")
    for cell in failed:
        click.echo(f"  {cell}")


def _show_left(outcome: Outcome, resume_command: str) -> None:
    click.echo(f"no time left for {len(outcome.left)} cells:")
    for cell in outcome.left:
        click.echo(f"  {cell}")
    if not outcome.count(CellStatus.OK) + outcome.count(CellStatus.FAILED):
        needed = format_duration(outcome.next_s)
        click.echo(f"not one fitted: the first takes about {needed} with its servers; allow more")
    click.echo(f"continue with:\n  {resume_command}")
