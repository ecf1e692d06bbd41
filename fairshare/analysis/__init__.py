"""From raw records to summaries, figures and a page. Needs neither a GPU nor a server."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fairshare.analysis.violations import NOTHING_ASSUMED, Assumed

if TYPE_CHECKING:
    from fairshare.analysis.pipeline import BuiltAnalysis

__all__ = ["build"]


def build(
    directory: Path,
    *,
    figures: bool = True,
    html: bool = True,
    pdf: bool = False,
    price_per_hour: float | None = None,
    assumed: Assumed = NOTHING_ASSUMED,
) -> BuiltAnalysis:
    """Rebuild the ``analysis/`` folder of a result folder from its raw records.

    ``summary.csv`` and ``summary.json`` are always written; ``figures`` draws ``figures/*`` and
    ``html`` writes ``report.html`` (with the figures that exist); ``pdf`` draws them as such too.
    ``price_per_hour`` of the device adds the goal of cost; ``assumed`` is what figures are held
    against where a folder does not say.

    Raises:
        SpecError: what is assumed is not in the catalogue.
        ResultsError: the folder is missing, damaged or of another format version.
        StoppedEarlyError: the disk is full.
    """
    from fairshare.analysis.pipeline import build_analysis  # noqa: PLC0415  (numpy is heavy)

    return build_analysis(
        directory,
        figures=figures,
        html=html,
        pdf=pdf,
        price_per_hour=price_per_hour,
        assumed=assumed,
    )
