"""How a sweep went."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from fairshare.records import CellResult, CellStatus


@dataclass(slots=True)
class Outcome:
    """How a sweep went: every cell of the plan is in ``results`` unless the run was stopped.

    ``left`` are cells that no longer fitted into the time budget, by id; the first of them would
    have taken ``next_s``, with what its servers still needed. ``kept_failed`` failed in an earlier
    call and were not run again. ``short`` is what there was too little of to go on.
    """

    results: list[CellResult] = field(default_factory=list)
    starts: list[dict[str, Any]] = field(default_factory=list)
    stopped: bool = False
    left: list[str] = field(default_factory=list)
    next_s: float = 0.0
    short: str | None = None
    kept_failed: list[str] = field(default_factory=list)
    overloaded: set[str] = field(default_factory=set)
    """Cells of a search that failed because nothing was served in time: what it looks for."""

    def condense(self) -> None:
        """Keep of the last result what is counted: a night has thousands; files have the rest."""
        bare = replace(self.results[-1], notes=[], tenants=[], shares=[], client={})
        self.results[-1] = bare

    def count(self, status: CellStatus) -> int:
        """How many cells ended so."""
        return sum(result.status is status for result in self.results)

    @property
    def went_wrong(self) -> int:
        """How many cells failed that should not have."""
        failed = {r.id for r in self.results if r.status is CellStatus.FAILED}
        return len(failed - self.overloaded)
