"""analyze, plot, report: rebuild what can be rebuilt from the raw records."""

from __future__ import annotations

from pathlib import Path

import click

from fairshare.cli.judging import assumed_flags, price_flag
from fairshare.cli.options import TEXT
from fairshare.cli.output import say

FOLDER = click.argument("folder", type=click.Path(path_type=Path))


@click.command("analyze")
@FOLDER
@price_flag
@assumed_flags
def analyze_command(
    folder: Path, price_per_hour: float | None, device: str | None, model: str | None
) -> None:
    """Rebuild summary.csv and summary.json of FOLDER and print the comparison and the verdict."""
    _rebuild(folder, price_per_hour, device, model, figures=False, html=False)


@click.command("plot")
@FOLDER
def plot_command(folder: Path) -> None:
    """Rebuild the figures of FOLDER (and the summary they are drawn from)."""
    _rebuild(folder, figures=True, html=False)


@click.command("report")
@FOLDER
@price_flag
@assumed_flags
@click.option(
    "--cell", type=TEXT, metavar="NAME", help="A page of this cell alone, with figures of its own."
)
def report_command(
    *,
    folder: Path,
    price_per_hour: float | None,
    device: str | None,
    model: str | None,
    cell: str | None,
) -> None:
    """Rebuild the report of FOLDER (and its summary and figures)."""
    if cell is not None:
        from fairshare.analysis.pipeline import build_cell_page
        from fairshare.analysis.violations import Assumed

        say(f"page of the cell: {build_cell_page(folder, cell, Assumed(device, model))}")
        return
    _rebuild(folder, price_per_hour, device, model, figures=True, html=True)


def _rebuild(
    folder: Path,
    price_per_hour: float | None = None,
    device: str | None = None,
    model: str | None = None,
    *,
    figures: bool,
    html: bool,
) -> None:
    from fairshare.analysis import build
    from fairshare.analysis.violations import Assumed
    from fairshare.ui.outcome import show_analysis

    built = build(
        folder,
        figures=figures,
        html=html,
        price_per_hour=price_per_hour,
        assumed=Assumed(device, model),
    )
    show_analysis(built)
