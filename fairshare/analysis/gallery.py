"""All figures of a result folder, drawn on all cores.

What draws (pandas, matplotlib, seaborn: seconds to import) is imported by the processes that draw,
while this one still reads records.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path

from fairshare.analysis.aggregate import Row
from fairshare.analysis.evidence import absent
from fairshare.analysis.model import Analysis, Drawn
from fairshare.analysis.subjects import Subject, subjects
from fairshare.analysis.workers import cores, side_by_side
from fairshare.results import ResultStore
from fairshare.results.files import writing

_FORMATS = (".png", ".svg", ".pdf")


class Family(StrEnum):
    """The figures of a subject that are drawn together, in the order of the page."""

    TRADE = "trade"  # what is won and lost from mode to mode
    SPEED = "speed"  # throughput and latency
    SHARING = "sharing"  # fairness, and what sharing costs
    POLICIES = "policies"  # service over time, counters
    ROUNDS = "rounds"  # repetitions
    CPU = "cpu"  # gauges of the host over time
    GPU = "gpu"  # gauges of the device over time


@dataclass(frozen=True, slots=True)
class Gallery:
    """The figures on disk, and a line for each usual one that there is no data for."""

    drawn: list[Drawn]
    left_out: list[str]


def draw(
    store: ResultStore,
    analysis: Analysis,
    rows: Sequence[Row],
    folder: Path,
    *,
    pdf: bool = False,
) -> Gallery:
    """Draw all figures into ``folder``, as PNG, SVG and with ``pdf`` as such.

    What was there before is removed.

    Raises:
        ResultsError: damaged telemetry.
    """
    _remove_old(folder)
    found = list(subjects(analysis, rows, {cell.result.id: cell for cell in store.cells()}))
    parts = _parts(found)
    work = partial(_draw, folder=folder, pdf=pdf)
    figures: dict[str, dict[str, Drawn]] = {subject.name: {} for subject in found}
    for (subject, _), drawn in zip(parts, side_by_side(work, parts), strict=True):
        figures[subject.name].update(drawn)
    return Gallery(
        [each for drawn in figures.values() for each in drawn.values()],
        [line for each in found for line in absent(figures[each.name], each, analysis.matrix)],
    )


def _parts(found: Sequence[Subject]) -> list[tuple[Subject, tuple[Family, ...]]]:
    """What one process draws: a subject, or some of its figures where cores would be idle."""
    if len(found) >= cores():
        return [(subject, tuple(Family)) for subject in found]
    return [(subject, (family,)) for subject in found for family in Family]


def _draw(part: tuple[Subject, tuple[Family, ...]], *, folder: Path, pdf: bool) -> dict[str, Drawn]:
    from fairshare.analysis.plots import draw_families  # noqa: PLC0415  (pandas and matplotlib)

    return draw_families(*part, folder, pdf=pdf)


def _remove_old(folder: Path) -> None:
    """Remove the figures of an earlier analysis: what is shown belongs to the same records."""
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for path in folder.iterdir():
            if path.suffix in _FORMATS:
                path.unlink()
