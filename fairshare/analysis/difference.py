"""How far tenants' service drifts apart: VTC's D(t), accumulated differences, fair shares."""

from __future__ import annotations

import numpy as np

from fairshare.analysis.arrays import Floats, Mask, Requests
from fairshare.analysis.service import arrival_s, charged, evenly_charged, moments, service_flow

_TICKS = 20
_LEAD = 1 / 20  # of the window, before the first tick: 30 s of VTC's 600 s
_HALF = 1 / 20  # of the window, on each side of a tick
_LONG_AGO_S = -1e12


def ticks_s(window: tuple[float, float]) -> Floats:
    """The times at which D(t) is taken.

    Of VTC's 600 s these are 30 + 28.5 i seconds, i = 1 to 19; of other windows in proportion.
    """
    start, length = window[0], window[1] - window[0]
    step = length * (1 - _LEAD) / _TICKS
    found: Floats = start + length * _LEAD + step * np.arange(1, _TICKS, dtype=np.float64)
    return found


def service_difference(
    requests: Requests, window: tuple[float, float], weights: Floats
) -> tuple[Floats, Floats]:
    """D(t) of VTC's evaluation at each tick (arXiv 2401.00588), and the ticks.

    D = sum over tenants of min(max_j s_j - s_i, abs(d_i - s_i)). s is the rate of service per
    weight around the tick, d that of what was asked for then: a tenant whose demand is met adds
    nothing. Only requests that were answered count, in both.
    """
    ticks = ticks_s(window)
    half = (window[1] - window[0]) * _HALF
    kept, flow = evenly_charged(requests)
    cost, asked_s = charged(kept), arrival_s(kept)
    tenants = len(requests.tenants)
    found = np.empty(len(ticks))
    for number, tick in enumerate(ticks):
        edges = np.array([tick - half, tick + half])
        served = flow.by_tenant(edges, tenants)[:, 0] / (2 * half) / weights
        asked = (asked_s >= edges[0]) & (asked_s < edges[1])
        demand = np.bincount(kept.tenant[asked], cost[asked], tenants) / (2 * half) / weights
        gaps = np.minimum(served.max(initial=0.0) - served, np.abs(demand - served))
        found[number] = gaps.sum()
    return ticks, found


def max_service_difference(service: Floats, backlogged: Mask) -> float | None:
    """Largest difference in service per weight of two tenants while both were backlogged.

    ``service`` and ``backlogged`` are tenants x windows. The maximum is over all pairs and all
    stretches of neighbouring windows in which both were backlogged; None without any.
    """
    tenants, windows = service.shape
    total = np.zeros((tenants, tenants))
    low, high = np.zeros_like(total), np.zeros_like(total)
    worst, seen = 0.0, False
    for number in range(windows):
        busy = backlogged[:, number]
        both = busy[:, None] & busy[None, :]
        np.fill_diagonal(both, val=False)
        seen = seen or bool(both.any())
        difference = service[:, None, number] - service[None, :, number]
        total = np.where(both, total + difference, 0.0)
        low = np.where(both, np.minimum(low, total), 0.0)
        high = np.where(both, np.maximum(high, total), 0.0)
        worst = max(worst, float((high - low).max(initial=0.0)))
    return worst if seen else None


def accumulated_difference(service: Floats) -> Floats:
    """Largest minus smallest service per weight since the window began, at the end of each part.

    ``service`` is tenants x parts.
    """
    total = np.cumsum(service, axis=1)
    found: Floats = total.max(axis=0, initial=0.0) - total.min(axis=0, initial=np.inf)
    return found


def fair_shares(demand: Floats, weights: Floats, capacity: float) -> Floats:
    """Water-filling: ``capacity`` by weight, and nobody gets more than the demand."""
    order = np.argsort(demand / weights, kind="stable")
    level, left, weight_left = 0.0, capacity, float(weights.sum())
    shares = np.empty_like(demand)
    for tenant in order:
        level = max(left, 0.0) / weight_left if weight_left > 0 else 0.0
        shares[tenant] = min(float(demand[tenant]), level * float(weights[tenant]))
        left -= float(shares[tenant])
        weight_left -= float(weights[tenant])
    return shares


def satisfaction(requests: Requests, edges: Floats, weights: Floats) -> Floats:
    """The worst served tenant's service over its fair share, at most 1, for each window.

    A tenant's demand is what it had asked for until the window's end less what it had got before
    the window; the fair shares divide what all together got in the window. NaN where nobody got
    anything.
    """
    tenants = len(requests.tenants)
    since_ever = np.concatenate(([_LONG_AGO_S], edges))
    asking = moments(arrival_s(requests), charged(requests), requests.tenant)
    asked = np.cumsum(asking.by_tenant(since_ever, tenants), axis=1)[:, 1:]
    served = service_flow(requests).by_tenant(since_ever, tenants)
    demand = np.maximum(asked - np.cumsum(served, axis=1)[:, :-1], served[:, 1:])
    found = np.full(len(edges) - 1, np.nan)
    for number, (got, wanted) in enumerate(zip(served[:, 1:].T, demand.T, strict=True)):
        fair = fair_shares(wanted, weights, float(got.sum()))
        if (some := fair > 0).any():
            found[number] = min(1.0, float((got[some] / fair[some]).min()))
    return found
