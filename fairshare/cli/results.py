"""analyze, plot, report: rebuild what can be rebuilt from the raw records."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from fairshare.cli.judging import assumed, assumed_flags, price_flag, price_per_hour
from fairshare.cli.options import TEXT
from fairshare.cli.output import say

if TYPE_CHECKING:
    from fairshare.analysis.pipeline import BuiltAnalysis

FOLDER = click.argument("folder", type=click.Path(path_type=Path))


@click.command("analyze")
@FOLDER
@price_flag
@assumed_flags
def analyze_command(folder: Path) -> None:
    """Rebuild summary.csv and summary.json of FOLDER and print the comparison and the verdict."""
    _rebuild(folder, figures=False, html=False)


@click.command("plot")
@FOLDER
def plot_command(folder: Path) -> None:
    """Rebuild the figures of FOLDER (and the summary they are drawn from)."""
    for line in _rebuild(folder, figures=True, html=False).left_out:
        say(line)


@click.command("report")
@FOLDER
@price_flag
@assumed_flags
@click.option(
    "--cell", type=TEXT, metavar="NAME", help="A page of this cell alone, with figures of its own."
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["html", "latex", "markdown"]),
    default="html",
    help="A page (the default), an IEEE-style article, or tables for a README.",
)
def report_command(
    *,
    folder: Path,
    cell: str | None,
    form: str,
) -> None:
    """Rebuild the report of FOLDER (and its summary and figures)."""
    if cell is not None:
        from fairshare.analysis.pipeline import build_cell_page

        say(f"page of the cell: {build_cell_page(folder, cell, assumed())}")
        return
    built = _rebuild(folder, figures=True, html=form == "html", pdf=form == "latex")
    if form == "latex":
        from fairshare.analysis.article import write_article

        say(f"article: {write_article(built)} (compile it twice with pdflatex)", bold=True)
    elif form == "markdown":
        from fairshare.analysis.markdown import write_markdown

        say(f"tables:  {write_markdown(built)}", bold=True)


def _rebuild(
    folder: Path,
    *,
    figures: bool,
    html: bool,
    pdf: bool = False,
) -> BuiltAnalysis:
    from fairshare.analysis import build
    from fairshare.ui.outcome import show_analysis

    built = build(
        folder,
        figures=figures,
        html=html,
        pdf=pdf,
        price_per_hour=price_per_hour(),
        assumed=assumed(),
    )
    show_analysis(built)
    return built
