"""plausible: figures of anybody held against what the device can do."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fairshare.cli.judging import assumed, assumed_flags

if TYPE_CHECKING:
    from fairshare.analysis.claims import Judged
    from fairshare.analysis.model import CellAnalysis


@click.command("plausible")
@click.argument("place", metavar="TABLE|FOLDER", type=click.Path(path_type=Path))
@assumed_flags
def plausible_command(place: Path) -> None:
    """Say which figures cannot be, and show the arithmetic.

    TABLE is a CSV file of figures that somebody states (docs/plausibility.md lists its columns);
    FOLDER is a result folder. Peaks of the device are taken whole, so what lies beyond them is a
    contradiction. The exit code is 1 where anything is impossible.
    """
    from fairshare.analysis.violations import NOTHING_ASSUMED

    if place.is_dir():
        found = _of_folder(place)
    elif assumed() != NOTHING_ASSUMED:
        raise click.UsageError("what to assume is of a folder: a table names device and model")
    else:
        found = _of_table(place)
    if found:
        sys.exit(1)


def _of_table(path: Path) -> int:
    """Print each row; returns how many are impossible."""
    from fairshare.analysis.claims import judge_table

    judged = judge_table(path)
    for row in judged:
        _show_row(row)
    impossible = sum(bool(row.violations) for row in judged)
    click.echo(f"{impossible} of {len(judged)} rows are impossible")
    return impossible


def _show_row(row: Judged) -> None:
    from fairshare.analysis.table import visible

    claim = row.claim
    bits = f", {claim.weight_bits:g}-bit weights" if claim.weight_bits != 16 else ""
    what = visible(f"{claim.name} ({claim.model} on {claim.device}{bits})").replace("\n", " ")
    verdict = "IMPOSSIBLE" if row.violations else "possible" if row.kept else "nothing to check"
    click.echo(f"{verdict}: {what}")
    for violation in row.violations:
        click.echo(f"    {violation}")
    for text in row.contradictions:
        click.echo(f"    its figures contradict each other: {text}")
    for text in row.kept:
        click.echo(f"    keeps {text}")


def _of_folder(folder: Path) -> int:
    """Print each impossible cell; returns how many there are."""
    from fairshare.analysis.analyze import analyze
    from fairshare.results import ResultStore

    cells = analyze(ResultStore.open(folder), assumed()).measured
    impossible = [cell for cell in cells if cell.plausibility.violations]
    for cell in impossible:
        _show_cell(cell)
    click.echo(f"{len(impossible)} of {len(cells)} measured cells are impossible")
    reasons: dict[str, int] = {}
    for cell in cells:
        if (reason := cell.plausibility.unchecked) is not None:
            reasons[reason] = reasons.get(reason, 0) + 1
    for reason, count in reasons.items():
        how = "--device, --model and --bandwidth name what is not told"
        click.echo(f"{count} not held against all limits: {reason} ({how})")
    return len(impossible)


def _show_cell(cell: CellAnalysis) -> None:
    from fairshare.analysis.table import visible

    click.echo(f"IMPOSSIBLE: {visible(cell.result.id)}")
    for violation in cell.plausibility.violations:
        click.echo(f"    {visible(str(violation))}")
