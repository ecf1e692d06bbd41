"""Repetitions brought together: one figure per mode, concurrency and tenant, with its interval."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from fairshare.analysis.model import (
    INTERACTION_TIMES,
    STATS,
    Analysis,
    CellAnalysis,
    TenantMetrics,
)
from fairshare.analysis.slowdown import isolation_index, isolation_interval
from fairshare.analysis.stats import ENOUGH_FOR_P99, Interval, t_interval
from fairshare.analysis.steadiness import WATCHED, disagreement, sentences
from fairshare.records import Mark, Mode, Provenance, Scheduling, mode_label

HIGHER_IS_BETTER = {
    "output_tokens_per_s": True,
    "total_tokens_per_s": True,
    "requests_per_s": True,
    "ttft_p50_s": False,
    "ttft_p99_s": False,
    "tpot_p50_s": False,
    "e2e_p50_s": False,
    "e2e_p99_s": False,
    "slo_attainment": True,
    "jain": True,
}
"""Metrics in which modes compete, and which way."""

_SHARES = frozenset(
    {"slo_attainment", "slo_attainment_send", "slo_attainment_schedule", "completion_rate"}
    | {"cached_share"}
    | {"jain", "jain_min", "jain_joint", "jain_even", "jain_attainment"}
    | {"satisfaction", "satisfaction_min", "service_share", "throttled_rate", "wasted_work_share"}
    | {"idle_while_queued", "isolation_index"}
    | {"interaction_completion_rate", "interaction_completion_low", "interaction_completion_high"}
    | {"wasted_share"}
)


_HIDDEN_BY_CUTS = frozenset(
    {"wasted_share"} | {f"{name}_{stat}_s" for name in INTERACTION_TIMES for stat in STATS}
)
Figures = tuple[Mapping[str, float | int | None], Mapping[str, Interval]]
"""Numbers of one run by name, and the intervals that it carries."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """The mean over repetitions. ``across_runs`` tells what the interval is an interval of."""

    value: float
    interval: Interval | None
    across_runs: bool


@dataclass(frozen=True, slots=True)
class Setting:
    """What is compared within: figures of different settings answer different questions."""

    scenario: str
    load_scale: float
    concurrency: int | None

    @property
    def label(self) -> str:
        """For people: ``two-tenants, concurrency 4``."""
        parts = [self.scenario]
        if self.concurrency is not None:
            parts.append(f"concurrency {self.concurrency}")
        if self.load_scale != 1.0:
            parts.append(f"load x{self.load_scale:g}")
        return ", ".join(parts)


@dataclass(frozen=True, slots=True)
class Row:
    """One tenant (None: all) under one mode in one setting, over all repetitions."""

    setting: Setting
    mode: Mode
    label: str
    policy: str
    provenance: Provenance
    tenant: str | None
    repetitions: int
    marks: tuple[Mark, ...]
    notes: tuple[str, ...]
    estimates: Mapping[str, Estimate]
    errors: Mapping[str, int]
    few_for_p99: bool
    scheduling: Scheduling | None = None
    best: frozenset[str] = frozenset()
    """Metrics in which no other mode comes as good, intervals included."""
    apps: Mapping[str, Mapping[str, Estimate]] = field(default_factory=dict)
    """Metrics of interactions by application, where a tenant has several."""

    @property
    def mode_label(self) -> str:
        """The mode as shown to people, with the policy where one decides."""
        return mode_label(self.label, self.policy, self.scheduling)

    @property
    def competes(self) -> bool:
        """Whether it can be best: not the baseline, nor what no device can have done."""
        return self.mode is not Mode.EXCLUSIVE and Mark.IMPOSSIBLE not in self.marks

    def value(self, name: str) -> float | None:
        """The mean of a metric; None where it was not measured."""
        return self.estimates[name].value if name in self.estimates else None


def rows(analysis: Analysis) -> list[Row]:
    """All rows, by setting, mode and tenant, with the best of each column found."""
    groups: dict[tuple[object, ...], list[CellAnalysis]] = {}
    for cell in analysis.measured:
        key, result = cell.result.key, cell.result
        setting = Setting(key.scenario, key.load_scale, key.concurrency)
        identity = (setting, key.mode, result.mode_label, result.provenance)
        groups.setdefault(identity, []).append(cell)
    order = _tenant_order(analysis)
    made = [row for cells in groups.values() for row in _rows(cells, order)]
    return _with_best(made)


def settings(made: Iterable[Row]) -> list[Setting]:
    """The settings of ``made``, each once, in order."""
    return list(dict.fromkeys(row.setting for row in made))


def _tenant_order(analysis: Analysis) -> list[str | None]:
    """The scenario's own order, as cells that hold all tenants have it; the total last."""
    fullest_first = sorted(analysis.measured, key=lambda cell: -len(cell.tenants))
    names = (row.tenant for cell in fullest_first for row in cell.tenants)
    return [*dict.fromkeys(names), None]


def _rows(cells: list[CellAnalysis], order: list[str | None]) -> list[Row]:
    present = {row.tenant for cell in cells for row in cell.rows()}
    tenants = [tenant for tenant in order if tenant in present]
    return [_row(cells, tenant) for tenant in tenants]


def _row(cells: list[CellAnalysis], tenant: str | None) -> Row:
    first = cells[0].result
    found = [(cell, row) for cell in cells for row in cell.rows() if row.tenant == tenant]
    errors: dict[str, int] = {}
    for _, row in found:
        for kind, count in row.errors.items():
            errors[kind] = errors.get(kind, 0) + count
    return Row(
        setting=Setting(first.key.scenario, first.key.load_scale, first.key.concurrency),
        mode=first.key.mode,
        label=first.split_label,
        policy=first.key.policy,
        scheduling=first.key.scheduling,
        provenance=first.provenance,
        tenant=tenant,
        repetitions=len(found),
        marks=tuple(dict.fromkeys(mark for cell, _ in found for mark in cell.marks)),
        notes=(
            *dict.fromkeys(note for cell, _ in found for note in cell.result.notes),
            *_warnings(found),
        ),
        estimates=_estimates([figures_of(cell, row) for cell, row in found]),
        errors=errors,
        few_for_p99=any(row.completed < ENOUGH_FOR_P99 for _, row in found),
        apps=_apps([row for _, row in found]),
    )


def _warnings(found: Sequence[tuple[CellAnalysis, TenantMetrics]]) -> list[str]:
    """What to do about runs that began too early or disagree; once for all tenants of a cell."""
    if found[0][1].tenant is not None and found[0][0].total is not None:
        return []
    samples: dict[tuple[str | None, str], list[float]] = {}
    for cell, _ in found:
        for row in cell.tenants:
            values = row.values()
            for name in WATCHED:
                if (value := values[name]) is not None:
                    samples.setdefault((row.tenant, name), []).append(float(value))
    apart = disagreement(samples)
    return sentences(cell.unsteady for cell, _ in found) + ([apart] if apart else [])


def figures_of(cell: CellAnalysis, row: TenantMetrics) -> Figures:
    """All numbers of one tenant (or the total) in one cell, with their intervals."""
    numbers, within = row.values(), dict(row.intervals)
    if row.tenant is None and cell.fairness is not None:
        numbers |= cell.fairness.values()
        if cell.fairness.interval is not None:
            within["jain"] = cell.fairness.interval
    if cell.window_s:
        numbers["sent_per_s"] = row.requests / cell.window_s
    if row.tenant is None:
        numbers["isolation_index"] = isolation_index(cell)
        if (interval := isolation_interval(cell)) is not None:
            within["isolation_index"] = interval
    else:
        for name, ratio in cell.slowdown.get(row.tenant, {}).items():
            numbers[f"slowdown_{name.removesuffix('_s')}"] = ratio
        for name, interval in cell.slowdown_intervals.get(row.tenant, {}).items():
            within[f"slowdown_{name.removesuffix('_s')}"] = interval
    return numbers, within


def _apps(found: Sequence[TenantMetrics]) -> dict[str, dict[str, Estimate]]:
    cells = [row.interactions.apps for row in found if row.interactions is not None]
    return {
        app: _estimates(
            [(apps[app].values(), apps[app].intervals) for apps in cells if app in apps]
        )
        for app in sorted({app for apps in cells for app in apps})
    }


def _estimates(cells: Sequence[Figures]) -> dict[str, Estimate]:
    samples: dict[str, list[float]] = {}
    intervals: dict[str, Interval] = {}
    for numbers, within in cells:
        intervals |= within
        for name, value in numbers.items():
            if value is not None:
                samples.setdefault(name, []).append(float(value))
    return _despite_cuts(
        {name: _estimate(name, values, intervals.get(name)) for name, values in samples.items()}
    )


def _despite_cuts(made: dict[str, Estimate]) -> dict[str, Estimate]:
    """Only intervals that hold whatever would have become of interactions that were cut."""
    if "interactions_cut" not in made or not made["interactions_cut"].value:
        return made
    kept = {
        name: replace(estimate, interval=None) if name in _HIDDEN_BY_CUTS else estimate
        for name, estimate in made.items()
    }
    rate = kept.get("interaction_completion_rate")
    low, high = (kept[f"interaction_completion_{end}"].interval for end in ("low", "high"))
    if rate is not None and low is not None and high is not None:
        interval = Interval(low.low, high.high)
        kept["interaction_completion_rate"] = replace(rate, interval=interval)
    return kept


def _estimate(name: str, values: list[float], within: Interval | None) -> Estimate:
    across = len(values) > 1
    interval = t_interval(values) if across else within
    if interval is not None:
        # No metric here can be negative, and shares end at 1.
        interval = interval.within(0.0, 1.0 if name in _SHARES else math.inf)
    return Estimate(float(np.mean(values)), interval, across_runs=across)


def _with_best(made: list[Row]) -> list[Row]:
    """Mark what is best beyond doubt; only figures of one origin compete."""
    rivals: dict[tuple[Setting, str | None, Provenance], list[Row]] = {}
    for row in made:
        if row.competes:
            rivals.setdefault((row.setting, row.tenant, row.provenance), []).append(row)
    return [
        _marked(row, [o for o in rivals[row.setting, row.tenant, row.provenance] if o is not row])
        if row.competes
        else row
        for row in made
    ]


def _marked(row: Row, others: list[Row]) -> Row:
    """``row`` with what it is best in.

    A total has no best latency: it is pooled, so whoever lets the slow tenant starve would win.
    """
    best = {
        name
        for name, higher in HIGHER_IS_BETTER.items()
        if others
        and (higher or row.tenant is not None)
        and all(_beats(row, other, name, higher=higher) for other in others)
    }
    return replace(row, best=frozenset(best))


def _beats(row: Row, other: Row, name: str, *, higher: bool) -> bool:
    """Whether ``row`` is better than ``other`` with intervals that do not overlap.

    The P99 of a few requests of one run is close to their largest: no interval helps there.
    """
    if "p99" in name and any(r.few_for_p99 and r.repetitions == 1 for r in (row, other)):
        return False
    mine, theirs = row.estimates.get(name), other.estimates.get(name)
    if mine is None or theirs is None or mine.interval is None or theirs.interval is None:
        return False
    if higher:
        return mine.interval.low > theirs.interval.high
    return mine.interval.high < theirs.interval.low
