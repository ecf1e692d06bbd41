"""What a figure is about: the cells of one scenario at one load scale."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fairshare.analysis.aggregate import Row
from fairshare.analysis.model import Analysis, CellAnalysis
from fairshare.records import Mode, Provenance
from fairshare.results import StoredCell

if TYPE_CHECKING:
    import pandas as pd

    from fairshare.analysis.style import Look

_MOST_TENANTS = 4  # more are shown as their total alone


@dataclass(frozen=True, slots=True)
class Subject:
    """One scenario at one load scale."""

    name: str
    rows: list[Row]
    cells: list[CellAnalysis]
    stored: dict[str, StoredCell]
    all_loads: list[Row]
    """Rows of the same scenario at every load scale."""

    @property
    def looks(self) -> dict[str, Look]:
        """How each mode is drawn."""
        from fairshare.analysis.style import looks  # noqa: PLC0415  (seaborn)

        ordered = sorted(
            {(list(Mode).index(row.mode), row.mode_label, row.mode) for row in self.rows}
        )
        return looks([(label, mode) for _, label, mode in ordered])

    @property
    def tenants(self) -> list[str]:
        """Those that have panels of their own; none if there are too many."""
        names = list(dict.fromkeys(row.tenant for row in self.rows if row.tenant is not None))
        return names if len(names) <= _MOST_TENANTS else []

    @property
    def policies(self) -> int:
        """How many policies compete."""
        return len({(row.policy, row.scheduling) for row in self.rows if "jain" in row.estimates})

    @property
    def shared(self) -> list[CellAnalysis]:
        """One cell of each mode and policy in which tenants competed: the first repetition's."""
        found: dict[str, CellAnalysis] = {}
        for cell in sorted(self.busiest, key=lambda cell: cell.result.key.repetition):
            if cell.series is not None:
                found.setdefault(cell.result.mode_label, cell)
        return [found[label] for label in self.looks if label in found]

    @property
    def frame(self) -> pd.DataFrame:
        """All figures, one per line."""
        from fairshare.analysis.frames import estimates_frame  # noqa: PLC0415  (pandas)

        return estimates_frame(self.rows)

    @property
    def busiest(self) -> list[CellAnalysis]:
        """The cells of the highest concurrency."""
        highest = max(cell.result.key.concurrency or 0 for cell in self.cells)
        return [cell for cell in self.cells if (cell.result.key.concurrency or 0) == highest]


def subjects(
    analysis: Analysis, rows: Sequence[Row], stored: dict[str, StoredCell]
) -> Iterator[Subject]:
    """One subject per scenario and load scale of ``rows``.

    Where a mode has figures of several origins there is one per origin: they are not of one line.
    """
    for scenario, scale in dict.fromkeys((r.setting.scenario, r.setting.load_scale) for r in rows):
        name = scenario if scale == 1.0 else f"{scenario} x{scale:g}"
        everywhere = [r for r in rows if r.setting.scenario == scenario]
        own = [r for r in everywhere if r.setting.load_scale == scale]
        cells = [
            cell
            for cell in analysis.measured
            if (cell.result.key.scenario, cell.result.key.load_scale) == (scenario, scale)
        ]
        origins = list(dict.fromkeys(_origin(row.provenance) for row in own))
        mixed = len({(r.mode_label, r.provenance) for r in own}) > len({r.mode_label for r in own})
        for origin in origins if mixed else [None]:
            yield Subject(
                name=name if origin is None else f"{name} ({origin.value})",
                rows=[r for r in own if origin in (None, _origin(r.provenance))],
                cells=[c for c in cells if origin in (None, _origin(c.result.provenance))],
                stored=stored,
                all_loads=[r for r in everywhere if origin in (None, _origin(r.provenance))],
            )


def _origin(provenance: Provenance) -> Provenance:
    """What may stand in one figure: an emulated mode beside those measured on the same device."""
    return Provenance.MEASURED if provenance is Provenance.EMULATED else provenance
