"""Whether the same cells came out otherwise the later they were measured.

A GPU that warms up, or a machine that fills, shifts all figures from round to round. Each cell is
held against its own mean over the rounds, so only its trend is left; the mean trend of all cells is
tested. Cells of one round share what happened then, so the rounds are what is counted, not cells.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from fairshare.analysis.arrays import Floats
from fairshare.analysis.model import CellAnalysis
from fairshare.analysis.stats import Interval, t_quantile
from fairshare.records import CellKey

METRICS = {
    "output_tokens_per_s": "output tokens per second",
    "ttft_p50_s": "TTFT P50",
    "e2e_p50_s": "E2E P50",
}
_FEWEST_ROUNDS = 3
_WORTH_TELLING = 0.02  # of change over all rounds; less is not worth anybody's morning


@dataclass(frozen=True, slots=True)
class Drift:
    """How one figure changed from round to round, in all cells together.

    ``per_round`` is the relative change a round with its 95 % interval, ``in_all`` that from the
    first to the last round; ``by_round`` the mean of each round relative to the mean of all.
    """

    metric: str
    per_round: float
    interval: Interval
    in_all: float
    rounds: int
    cells: int
    by_round: tuple[float, ...]

    @property
    def told(self) -> bool:
        """Whether it is a trend, and large enough to matter."""
        clear = self.interval.low > 0 or self.interval.high < 0
        return clear and abs(self.in_all) >= _WORTH_TELLING

    def __str__(self) -> str:
        """A sentence without its end."""
        moved = "rose" if self.per_round > 0 else "fell"
        low, high = sorted((abs(self.interval.low), abs(self.interval.high)))
        return (
            f"{METRICS[self.metric]} {moved} by {abs(self.per_round):.1%} a round "
            f"(95 %: {low:.1%} to {high:.1%}), {abs(self.in_all):.1%} over {self.rounds} rounds "
            f"of {self.cells} cells"
        )

    def document(self) -> dict[str, Any]:
        """As in ``summary.json``."""
        return {**asdict(self), "trend": self.told}


def drifts(cells: Iterable[CellAnalysis]) -> list[Drift]:
    """The trend of each figure over the rounds; none where there are fewer than three."""
    measured = [cell for cell in cells if cell.tenants]
    found = (_drift(metric, _by_cell(measured, metric)) for metric in METRICS)
    return [drift for drift in found if drift is not None]


def _by_cell(cells: Iterable[CellAnalysis], metric: str) -> dict[CellKey, dict[int, float]]:
    """Values of each cell by round, of all its tenants together."""
    values: dict[CellKey, dict[int, float]] = {}
    for cell in cells:
        key = cell.result.key
        value = cell.rows()[-1].values().get(metric)
        if value is not None and value > 0:
            values.setdefault(replace(key, repetition=0), {})[key.repetition] = float(value)
    return values


def _drift(metric: str, values: Mapping[CellKey, Mapping[int, float]]) -> Drift | None:
    """The regression of the rounds' mean logarithms on their numbers."""
    rounds = sorted({number for of_cell in values.values() for number in of_cell})
    whole = [of_cell for of_cell in values.values() if len(of_cell) == len(rounds)]
    if len(rounds) < _FEWEST_ROUNDS or not whole:
        return None
    logs = np.log(np.array([[of_cell[number] for number in rounds] for of_cell in whole]))
    means = (logs - logs.mean(axis=1, keepdims=True)).mean(axis=0)
    slope, half = _slope(np.array(rounds, float), means)
    return Drift(
        metric=metric,
        per_round=math.expm1(slope),
        interval=Interval(math.expm1(slope - half), math.expm1(slope + half)),
        in_all=math.expm1(slope * (rounds[-1] - rounds[0])),
        rounds=len(rounds),
        cells=len(whole),
        by_round=tuple(float(each) for each in np.expm1(means)),
    )


def _slope(x: Floats, y: Floats) -> tuple[float, float]:
    """Least squares: the slope, and half of its 95 % interval (Student's t, n - 2 degrees)."""
    deviation = x - x.mean()
    square = float((deviation * deviation).sum())
    slope = float((deviation * y).sum()) / square
    rest = y - y.mean() - slope * deviation
    degrees = len(x) - 2
    error = math.sqrt(float((rest * rest).sum()) / degrees / square)
    return slope, t_quantile(degrees) * error
