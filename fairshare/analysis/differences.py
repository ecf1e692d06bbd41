"""How far two sets of runs lie apart, paired by seed: between folders, and between modes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from fairshare.analysis.aggregate import HIGHER_IS_BETTER, Setting, figures_of
from fairshare.analysis.model import CellAnalysis
from fairshare.analysis.quantiles import freedom
from fairshare.analysis.stats import Interval, difference_interval, t_interval
from fairshare.records import Mode, Provenance

BETTER_IS_HIGHER = HIGHER_IS_BETTER | {"goodput_per_s": True, "completion_rate": True}
"""Figures of which it is known which way is better."""
_PERCENTILES = {"_p50_": 0.50, "_p99_": 0.99}
_POOLED = ("ttft", "tpot", "e2e")  # of all tenants together: whoever starves the slow one wins


@dataclass(frozen=True, slots=True)
class Sample:
    """A figure of one run, with the interval that this run itself carries."""

    value: float
    interval: Interval | None
    freedom: float = math.inf
    """Degrees of freedom with which the width of the interval is known."""


@dataclass(frozen=True, slots=True)
class Difference:
    """The figures of two sides, and how sure it is that they differ."""

    first: float
    second: float
    """Means over the pairs."""
    pairs: int
    interval: Interval | None
    """Of ``second - first``; of several pairs Student's t of their differences, of one pair from
    what either run knows of itself, which what differs from run to run is not in."""

    @property
    def change(self) -> float:
        """``second - first``."""
        return self.second - self.first

    @property
    def relative(self) -> float | None:
        """The change as a part of the first; None where that is 0."""
        return self.change / self.first if self.first else None

    @property
    def certain(self) -> bool:
        """Whether the interval leaves no room for "no difference"."""
        return self.interval is not None and (self.interval.low > 0 or self.interval.high < 0)

    def for_the_worse(self, metric: str) -> float:
        """By how much it is worse, as a part of the first; negative where it is better."""
        change = self.relative
        if change is None:
            change = math.copysign(math.inf, self.change) if self.change else 0.0
        return -change if BETTER_IS_HIGHER[metric] else change


def difference(first: Mapping[int, Sample], second: Mapping[int, Sample]) -> Difference | None:
    """``second`` against ``first``, both by repetition; None where none has a partner.

    Repetitions of the same number answered the same requests (docs/workloads.md), so what the
    requests have to do with it is in both and not in their difference.
    """
    common = sorted(first.keys() & second.keys())
    if not common:
        return None
    before, after = ([side[number].value for number in common] for side in (first, second))
    if len(common) > 1:
        interval = t_interval(np.subtract(after, before))
    else:
        interval = _of_one(first[common[0]], second[common[0]])
    return Difference(float(np.mean(before)), float(np.mean(after)), len(common), interval)


def _of_one(first: Sample, second: Sample) -> Interval | None:
    if first.interval is None or second.interval is None:
        return None
    return difference_interval(
        first.value,
        first.interval,
        second.value,
        second.interval,
        (first.freedom, second.freedom),
    )


def samples(cell: CellAnalysis) -> dict[tuple[str | None, str], Sample]:
    """What of a cell can be compared, by tenant (None: all of them) and metric."""
    found: dict[tuple[str | None, str], Sample] = {}
    for row in cell.rows():
        numbers, within = figures_of(cell, row)
        for metric in BETTER_IS_HIGHER:
            value = numbers.get(metric)
            if value is None or (row.tenant is None and metric.startswith(_POOLED)):
                continue
            known = _freedom(metric, row.completed)
            found[row.tenant, metric] = Sample(float(value), within.get(metric), known)
    return found


def _freedom(metric: str, answers: int) -> float:
    """Of percentiles alone: the widths of the other intervals are known better."""
    shares = [share for stat, share in _PERCENTILES.items() if stat in metric]
    return freedom(answers, shares[0]) if shares else math.inf


@dataclass(frozen=True, slots=True)
class Between:
    """Two modes in the same setting: ``second`` against ``first`` in one figure of one tenant."""

    setting: Setting
    tenant: str | None
    metric: str
    first: str
    second: str
    difference: Difference


def between_modes(cells: Iterable[CellAnalysis]) -> list[Between]:
    """Each mode against each before it, in the order of the cells; origins are never mixed.

    The baseline (exclusive) does not compete: what sharing costs is told as slowdown.
    """
    sides: dict[tuple[Setting, str | None, str, Provenance], dict[str, dict[int, Sample]]] = {}
    for cell in cells:
        result, key = cell.result, cell.result.key
        if key.mode is Mode.EXCLUSIVE or not cell.tenants:
            continue
        setting = Setting(key.scenario, key.load_scale, key.concurrency)
        for (tenant, metric), sample in samples(cell).items():
            place = sides.setdefault((setting, tenant, metric, result.provenance), {})
            place.setdefault(result.mode_label, {})[key.repetition] = sample
    return [
        Between(setting, tenant, metric, first, second, found)
        for (setting, tenant, metric, _), modes in sides.items()
        for first, second in combinations(modes, 2)
        if (found := difference(modes[first], modes[second])) is not None
    ]
