"""What sharing costs each tenant: its latency when sharing, over its latency alone."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from fairshare.analysis.model import CellAnalysis, TenantMetrics
from fairshare.analysis.stats import Interval, difference_interval
from fairshare.records import Mode, Provenance

METRICS = tuple(f"{name}_{stat}_s" for name in ("ttft", "tpot", "e2e") for stat in ("p50", "p99"))
TAIL = "e2e_p99_s"


def with_slowdowns(cells: Iterable[CellAnalysis]) -> list[CellAnalysis]:
    """The same cells, each with the ratios of its tenants' latencies to those alone.

    Pairs have the same scenario, concurrency, load scale, repetition and origin, so both answered
    the same requests; what is emulated is held against what was measured on the same device. A
    tenant without a pair is left out.
    """
    cells = list(cells)
    alone: dict[tuple[object, ...], TenantMetrics] = {
        (*_pair(cell), metrics.tenant): metrics
        for cell in cells
        if cell.result.key.mode is Mode.EXCLUSIVE
        for metrics in cell.tenants
    }
    return [
        cell if cell.result.key.mode is Mode.EXCLUSIVE else _with_slowdown(cell, alone)
        for cell in cells
    ]


def _with_slowdown(
    cell: CellAnalysis, alone: Mapping[tuple[object, ...], TenantMetrics]
) -> CellAnalysis:
    ratios: dict[str, dict[str, float]] = {}
    intervals: dict[str, dict[str, Interval]] = {}
    for metrics in cell.tenants:
        baseline = alone.get((*_pair(cell), metrics.tenant))
        if baseline is not None and (found := _ratios(metrics, baseline)):
            ratios[str(metrics.tenant)] = found
            intervals[str(metrics.tenant)] = _intervals(metrics, baseline, found)
    return replace(cell, slowdown=ratios, slowdown_intervals=intervals)


def isolation_index(cell: CellAnalysis) -> float | None:
    """What is left of the worst hit tenant's tail: its P99 E2E alone over that when sharing.

    Of the interactive tenants (:func:`interactive`): one that floods the device and then waits for
    itself was not let down by the mode. 1 at most, where nobody's tail is longer than alone; 0.5
    where somebody's is twice as long. None where fewer than two tenants shared, or one of those
    that count was not measured alone.
    """
    found = [cell.slowdown.get(str(row.tenant), {}).get(TAIL) for row in interactive(cell)]
    ratios = [ratio for ratio in found if ratio]
    if len(cell.tenants) < 2 or not ratios or len(ratios) < len(found):
        return None
    return min(1.0, 1 / max(ratios))


def isolation_interval(cell: CellAnalysis) -> Interval | None:
    """The index's interval within the only run; None unless each tenant's slowdown has one.

    Whoever is the worst hit in truth, the index lies between the least of the lower ends and the
    least of the upper ones.
    """
    intervals = cell.slowdown_intervals
    found = [intervals.get(str(row.tenant), {}).get(TAIL) for row in interactive(cell)]
    known = [interval for interval in found if interval is not None]
    if isolation_index(cell) is None or len(known) < len(found):
        return None
    low, high = (1 / max(getattr(each, end) for each in known) for end in ("high", "low"))
    return Interval(low, high).within(0.0, 1.0)


def interactive(cell: CellAnalysis) -> list[TenantMetrics]:
    """The tenants of whom somebody waits for a first token.

    Those with a limit on it; else those with arrivals of their own; else all.
    """
    told: dict[str, Mapping[str, Any]] = {str(t.get("name")): t for t in cell.result.tenants}
    limited = [
        row
        for row in cell.tenants
        if (told.get(str(row.tenant), {}).get("slo") or {}).get("ttft_s") is not None
    ]
    arriving = [row for row in cell.tenants if told.get(str(row.tenant), {}).get("open_loop")]
    return limited or arriving or list(cell.tenants)


def _pair(cell: CellAnalysis) -> tuple[object, ...]:
    key, origin = cell.result.key, cell.result.provenance
    origin = Provenance.MEASURED if origin is Provenance.EMULATED else origin
    return key.scenario, key.concurrency, key.load_scale, key.repetition, origin


def _ratios(shared: TenantMetrics, alone: TenantMetrics) -> dict[str, float]:
    mine, theirs = shared.values(), alone.values()
    return {
        name: value / base
        for name in METRICS
        if (value := mine[name]) is not None and (base := theirs[name])
    }


def _intervals(
    shared: TenantMetrics, alone: TenantMetrics, ratios: Mapping[str, float]
) -> dict[str, Interval]:
    """Within the two runs: the interval of the difference of logarithms, which is of the ratio."""
    found = {}
    for name in ratios:
        mine, theirs = shared.intervals.get(name), alone.intervals.get(name)
        if mine is None or theirs is None or min(mine.low, theirs.low) <= 0:
            continue
        values = (float(row.values()[name] or 0.0) for row in (alone, shared))
        base, value = map(math.log, values)
        logs = difference_interval(base, _logs(theirs), value, _logs(mine))
        found[name] = Interval(math.exp(logs.low), math.exp(logs.high))
    return found


def _logs(interval: Interval) -> Interval:
    return Interval(math.log(interval.low), math.log(interval.high))
