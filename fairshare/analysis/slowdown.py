"""What sharing costs each tenant: its latency when sharing, over its latency alone."""

from __future__ import annotations

from collections.abc import Iterable

from fairshare.analysis.model import CellAnalysis, TenantMetrics
from fairshare.records import CellKey, Mode

METRICS = tuple(f"{name}_{stat}_s" for name in ("ttft", "tpot", "e2e") for stat in ("p50", "p99"))
TAIL = "e2e_p99_s"


def slowdowns(cells: Iterable[CellAnalysis]) -> dict[str, dict[str, dict[str, float]]]:
    """By cell id and tenant, the ratio of each latency to the same tenant's exclusive cell.

    Pairs have the same scenario, concurrency, load scale and repetition, so both answered the
    same requests. A tenant without a pair is left out.
    """
    cells = list(cells)
    alone: dict[tuple[object, ...], TenantMetrics] = {
        (*_pair(cell.result.key), metrics.tenant): metrics
        for cell in cells
        if cell.result.key.mode is Mode.EXCLUSIVE
        for metrics in cell.tenants
    }
    found: dict[str, dict[str, dict[str, float]]] = {}
    for cell in cells:
        if cell.result.key.mode is Mode.EXCLUSIVE:
            continue
        for metrics in cell.tenants:
            baseline = alone.get((*_pair(cell.result.key), metrics.tenant))
            if baseline is not None and (ratios := _ratios(metrics, baseline)):
                found.setdefault(cell.result.id, {})[str(metrics.tenant)] = ratios
    return found


def isolation_index(cell: CellAnalysis) -> float | None:
    """What is left of the worst hit tenant's tail: its P99 E2E alone over that when sharing.

    1 at most, where nobody's tail is longer than alone; 0.5 where somebody's is twice as long.
    None where fewer than two tenants shared, or one of them was not measured alone.
    """
    found = [cell.slowdown.get(str(row.tenant), {}).get(TAIL) for row in cell.tenants]
    ratios = [ratio for ratio in found if ratio]
    if len(ratios) < max(2, len(found)):
        return None
    return min(1.0, 1 / max(ratios))


def _pair(key: CellKey) -> tuple[object, ...]:
    return key.scenario, key.concurrency, key.load_scale, key.repetition


def _ratios(shared: TenantMetrics, alone: TenantMetrics) -> dict[str, float]:
    mine, theirs = shared.values(), alone.values()
    return {
        name: value / base
        for name in METRICS
        if (value := mine[name]) is not None and (base := theirs[name])
    }
