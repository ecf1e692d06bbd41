"""From raw records to summaries, figures and a page. Needs neither a GPU nor a server."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fairshare.analysis.pipeline import BuiltAnalysis

__all__ = ["build"]


def build(directory: Path, *, figures: bool = True, html: bool = True) -> BuiltAnalysis:
    """Rebuild the ``analysis/`` folder of a result folder from its raw records.

    ``summary.csv`` and ``summary.json`` are always written; ``figures`` draws ``figures/*`` and
    ``html`` writes ``report.html`` (with the figures that exist).

    Raises:
        ResultsError: the folder is missing, damaged or of another format version.
        StoppedEarlyError: the disk is full.
    """
    from fairshare.analysis.pipeline import build_analysis  # noqa: PLC0415  (numpy is heavy)

    return build_analysis(directory, figures=figures, html=html)
