"""analyze, plot, report: rebuild what can be rebuilt from the raw records."""

from __future__ import annotations

from pathlib import Path

import click

FOLDER = click.argument("folder", type=click.Path(path_type=Path))


@click.command("analyze")
@FOLDER
def analyze_command(folder: Path) -> None:
    """Rebuild summary.csv and summary.json of FOLDER and print the comparison."""
    _rebuild(folder, figures=False, html=False)


@click.command("plot")
@FOLDER
def plot_command(folder: Path) -> None:
    """Rebuild the figures of FOLDER (and the summary they are drawn from)."""
    _rebuild(folder, figures=True, html=False)


@click.command("report")
@FOLDER
def report_command(folder: Path) -> None:
    """Rebuild the HTML report of FOLDER (and its summary and figures)."""
    _rebuild(folder, figures=True, html=True)


def _rebuild(folder: Path, *, figures: bool, html: bool) -> None:
    from fairshare.analysis import build
    from fairshare.ui.outcome import show_analysis

    show_analysis(build(folder, figures=figures, html=html))
