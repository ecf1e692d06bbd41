"""Which split of the device is best, by goals that are said: computed from a sweep over shares."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np

from fairshare.analysis.model import Analysis, CellAnalysis
from fairshare.analysis.stats import Interval, t_interval
from fairshare.records import CellKey, Mark, Provenance


class Goal(StrEnum):
    """What a split can be best at."""

    WORST = "worst tenant's SLO goodput"
    TOTAL = "total throughput"


MEANING = {
    Goal.WORST: "each tenant's goodput (requests a second within its SLO) as a share of the most "
    "that it had under any split; of these the smallest",
    Goal.TOTAL: "output tokens a second of all tenants",
}


@dataclass(frozen=True, slots=True)
class Split:
    """What one split gave: a value per repetition for each goal that can be judged."""

    shares: str
    values: Mapping[Goal, Mapping[int, float]]
    goodput_per_s: Mapping[str, float]
    """Of each tenant with an SLO, the mean over repetitions."""
    marks: tuple[Mark, ...]

    def value(self, goal: Goal) -> float:
        """The mean over repetitions."""
        return float(np.mean(list(self.values[goal].values())))


@dataclass(frozen=True, slots=True)
class Rival:
    """Another split, by how much the best one is ahead of it, and in which interval."""

    shares: str
    ahead: float
    interval: Interval | None

    @property
    def told_apart(self) -> bool:
        """Whether the best split is better beyond doubt."""
        return self.interval is not None and self.interval.low > 0


@dataclass(frozen=True, slots=True)
class Best:
    """The split that is best for a goal."""

    goal: Goal
    split: Split
    rivals: tuple[Rival, ...]
    """The others, nearest first."""

    @property
    def says(self) -> str:
        """How sure that is."""
        if not self.rivals:
            return "no other split was measured"
        if self.rivals[0].interval is None:
            return "one run each: not decided without --num-runs 3"
        if all(rival.told_apart for rival in self.rivals):
            return "beyond doubt"
        close = [rival.shares for rival in self.rivals if not rival.told_apart]
        return f"not told apart: {', '.join(close)}"


@dataclass(frozen=True, slots=True)
class SplitAnswer:
    """All splits of one scenario, load and mode, and the best for each goal."""

    scenario: str
    concurrency: int | None
    load_scale: float
    mode: str
    provenance: Provenance
    splits: tuple[Split, ...]
    best: tuple[Best, ...]


def split_answers(analysis: Analysis) -> list[SplitAnswer]:
    """One answer per scenario, load and mode of which several splits were measured."""
    groups: dict[tuple[CellKey, str, Provenance], list[CellAnalysis]] = {}
    for cell in analysis.measured:
        result = cell.result
        if result.key.shares is not None:
            alike = replace(result.key, repetition=1, shares=None)
            groups.setdefault((alike, result.label, result.provenance), []).append(cell)
    return [
        _answer(key, label, provenance, _alike(cells))
        for (key, label, provenance), cells in groups.items()
    ]


def _alike(cells: Sequence[CellAnalysis]) -> list[CellAnalysis]:
    """Cells of repetitions that every split has, if there are such: else some are not over yet."""
    runs: dict[str | None, set[int]] = {}
    for cell in cells:
        runs.setdefault(cell.result.key.shares, set()).add(cell.result.key.repetition)
    common = set.intersection(*runs.values())
    return [c for c in cells if c.result.key.repetition in common] if common else list(cells)


def _answer(
    key: CellKey, label: str, provenance: Provenance, cells: Sequence[CellAnalysis]
) -> SplitAnswer:
    most = _most_goodput(cells)
    by_split: dict[str, list[CellAnalysis]] = {}
    for cell in cells:
        by_split.setdefault(str(cell.result.key.shares), []).append(cell)
    splits = [_split(shares, own, most) for shares, own in by_split.items()]
    goals = [goal for goal in Goal if all(goal in split.values for split in splits)]
    return SplitAnswer(
        scenario=key.scenario,
        concurrency=key.concurrency,
        load_scale=key.load_scale,
        mode=label,
        provenance=provenance,
        splits=tuple(splits),
        best=tuple(_best(goal, splits) for goal in goals),
    )


def _split(shares: str, cells: Sequence[CellAnalysis], most: Mapping[str, float]) -> Split:
    worst = {cell.result.key.repetition: _worst(cell, most) for cell in cells}
    total = {
        cell.result.key.repetition: cell.total.output_tokens_per_s for cell in cells if cell.total
    }
    known = {run: value for run, value in worst.items() if value is not None}
    values: dict[Goal, Mapping[int, float]] = {Goal.WORST: known} if known else {}
    return Split(
        shares=shares,
        values={**values, Goal.TOTAL: total},
        goodput_per_s=_mean_goodput(cells),
        marks=tuple(dict.fromkeys(mark for cell in cells for mark in cell.marks)),
    )


def _goodput(cell: CellAnalysis) -> dict[str, float]:
    return {
        row.tenant: row.goodput_per_s
        for row in cell.tenants
        if row.tenant is not None and row.goodput_per_s is not None
    }


def _mean_goodput(cells: Iterable[CellAnalysis]) -> dict[str, float]:
    found: dict[str, list[float]] = {}
    for cell in cells:
        for tenant, value in _goodput(cell).items():
            found.setdefault(tenant, []).append(value)
    return {tenant: float(np.mean(values)) for tenant, values in found.items()}


def _most_goodput(cells: Sequence[CellAnalysis]) -> dict[str, float]:
    """The most that each tenant had under any split, the mean over repetitions."""
    by_split: dict[str | None, list[CellAnalysis]] = {}
    for cell in cells:
        by_split.setdefault(cell.result.key.shares, []).append(cell)
    means = [_mean_goodput(own) for own in by_split.values()]
    tenants = dict.fromkeys(tenant for mean in means for tenant in mean)
    return {tenant: max(mean.get(tenant, 0.0) for mean in means) for tenant in tenants}


def _worst(cell: CellAnalysis, most: Mapping[str, float]) -> float | None:
    shares = [
        value / most[tenant] if most[tenant] else 0.0 for tenant, value in _goodput(cell).items()
    ]
    return min(shares, default=None)


def _best(goal: Goal, splits: Sequence[Split]) -> Best:
    ordered = sorted(splits, key=lambda split: -split.value(goal))
    first, *others = ordered
    return Best(goal, first, tuple(_rival(goal, first, other) for other in others))


def _rival(goal: Goal, first: Split, other: Split) -> Rival:
    """Repetitions have the same requests under every split, so they are compared in pairs."""
    mine, theirs = first.values[goal], other.values[goal]
    pairs = [mine[run] - theirs[run] for run in sorted(mine.keys() & theirs.keys())]
    ahead = first.value(goal) - other.value(goal)
    return Rival(other.shares, ahead, t_interval(pairs))
