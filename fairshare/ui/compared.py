"""Predicted beside measured, for people."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fairshare.records import Provenance
from fairshare.runner.against import Compared, Unpredicted

_PIPE_WIDTH = 160


def show_compared(compared: Sequence[Compared], missing: Sequence[Unpredicted]) -> None:
    """Print each cell and tenant with measured, predicted and error, then the mean errors."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_PIPE_WIDTH)
    figures = list(dict.fromkeys(each.figure for each in compared))
    rows: dict[tuple[str, str], dict[str, Compared]] = {}
    for each in compared:
        rows.setdefault((each.cell, each.tenant or "all"), {})[each.figure] = each
    if rows:
        console.print(_table(figures, rows))
        console.print(Text("mean absolute error: " + _means(figures, compared)))
        for line in [*_within(compared), *_reservations(compared)]:
            console.print(Text(line))
    for cell in missing:
        console.print(Text(f"not predicted: {cell.cell}: {cell.reason}"))
    if not rows:
        click.echo("nothing to compare: no cell was measured to its end, or none can be simulated")


def _reservations(compared: Sequence[Compared]) -> list[str]:
    """What keeps these figures from being measurements, or errors from being errors."""
    kinds: dict[str, list[str]] = {}
    for each in compared:
        kinds.setdefault(each.provenance.value, []).append(each.cell)
    lines = [f"held against: {kind}: {_cells(cells)}" for kind, cells in kinds.items()]
    if Provenance.SIMULATED in kinds:
        lines.append("what was simulated itself says nothing of how good a prediction is")
    if unsure := _cells([each.cell for each in compared if each.unvalidated]):
        lines.append(f"predicted: simulated in virtual time; unvalidated: {unsure}")
    else:
        lines.append("predicted: simulated in virtual time")
    return lines


def _within(compared: Sequence[Compared]) -> list[str]:
    """How many predictions the measurements cannot tell from themselves."""
    known = [each.within for each in compared if each.interval is not None]
    if not known:
        return []
    held = "within the 95 % interval of what they are held against"
    return [f"{sum(known)} of {len(known)} figures {held}"]


def _cells(cells: Sequence[str]) -> str:
    return ", ".join(dict.fromkeys(cells))


def _table(figures: Sequence[str], rows: dict[tuple[str, str], dict[str, Compared]]) -> Table:
    table = Table(title="measured / predicted", title_justify="left", title_style="bold")
    table.add_column("cell", overflow="fold")
    table.add_column("tenant")
    for figure in figures:
        table.add_column(figure, justify="right", no_wrap=True)
        table.add_column("", justify="right", no_wrap=True)
    last = ""
    for (cell, tenant), found in rows.items():
        values: list[str] = []
        for figure in figures:
            one = found.get(figure)
            values += ["", ""] if one is None else [_shown(one), f"{100 * one.error:+.1f} %"]
        table.add_row(cell if cell != last else "", tenant, *values)
        last = cell
    return table


def _shown(one: Compared) -> str:
    if one.figure.endswith("/s"):
        return f"{one.measured:.4g} / {one.predicted:.4g}"
    return f"{1e3 * one.measured:.4g} / {1e3 * one.predicted:.4g} ms"


def _means(figures: Sequence[str], compared: Sequence[Compared]) -> str:
    parts = []
    for figure in figures:
        errors = [abs(each.error) for each in compared if each.figure == figure]
        parts.append(
            f"{figure} {100 * statistics.mean(errors):.1f} % (at most {100 * max(errors):.1f} %)"
        )
    return ", ".join(parts)
