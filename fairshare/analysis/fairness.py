"""How equally tenants were served, over the time in which they competed.

Over a whole finished run every scheduler that serves all requests has the same Jain's index, so
it is computed per window, over the tenants that were backlogged in it, on service per weight.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from fairshare.analysis.arrays import Floats, Mask, Requests
from fairshare.analysis.difference import (
    accumulated_difference,
    max_service_difference,
    satisfaction,
    service_difference,
)
from fairshare.analysis.metrics import Window
from fairshare.analysis.model import Fairness, Series, TenantMetrics
from fairshare.analysis.series import series
from fairshare.analysis.service import evenly_charged, service_flow
from fairshare.analysis.stats import mean, series_interval

BACKLOGGED_SHARE = 0.95
_WINDOWS = 20
_LONGEST_S = 30.0


def window_length_s(window: Window) -> float:
    """A twentieth of the measured window (1 s of the default 20 s), 30 s at most."""
    return min((window[1] - window[0]) / _WINDOWS, _LONGEST_S)


def jain(values: Floats) -> float | None:
    """Jain's index (sum x)^2 / (n sum x^2) (Jain, Chiu, Hawe 1984); None where all are 0."""
    squares = float((values * values).sum())
    if squares == 0:
        return None
    return float(values.sum()) ** 2 / (len(values) * squares)


def window_edges_s(window: Window) -> Floats:
    """Where the windows begin and end; a last part of a window is left out."""
    length = window_length_s(window)
    count = int((window[1] - window[0]) / length + 1e-9)
    edges: Floats = window[0] + np.arange(count + 1, dtype=np.float64) * length
    return edges


def fairness(requests: Requests, window: Window, weights: Sequence[float]) -> Fairness:
    """Fairness among the tenants of one cell; ``weights`` in the order of ``requests.tenants``."""
    return fairness_over_time(requests, window, weights)[0]


def fairness_over_time(
    requests: Requests, window: Window, weights: Sequence[float]
) -> tuple[Fairness, Series]:
    """The same, with what happened in each window."""
    edges, per = window_edges_s(window), np.array(weights, float)
    raw = service_flow(requests).by_tenant(edges, len(requests.tenants))
    even = evenly_charged(requests)[1].by_tenant(edges, len(requests.tenants))
    service = raw / per[:, None]
    backlogged = _backlogged(requests, edges)
    queued = _backlogged(replace(requests, end_s=_left_the_queue_s(requests)), edges)
    by_window = windowed_jain(service, backlogged)
    indices = by_window[~np.isnan(by_window)].tolist()
    _, d = service_difference(requests, window, per)
    satisfied = satisfaction(requests, edges, per)
    satisfied = satisfied[~np.isnan(satisfied)]
    accumulated = accumulated_difference(service)
    found = Fairness(
        window_s=window_length_s(window),
        windows=len(indices),
        jain=float(np.mean(indices)) if indices else None,
        jain_min=min(indices, default=None),
        jain_joint=_joint(service, backlogged),
        jain_even=_joint(even / per[:, None], backlogged),
        max_service_difference=max_service_difference(service, backlogged),
        queued_service_difference=max_service_difference(service, queued),
        d_max=float(d.max()),
        d_mean=float(d.mean()),
        d_variance=float(d.var()),
        accumulated_difference_max=float(accumulated.max(initial=0.0)),
        satisfaction=mean(satisfied),
        satisfaction_min=float(satisfied.min()) if len(satisfied) else None,
        interval=series_interval(indices),
    )
    return found, series(requests, edges, raw, accumulated, by_window)


def with_tenants(found: Fairness, rows: Sequence[TenantMetrics]) -> Fairness:
    """The same, with what the tenants' own figures say of how alike they fared."""
    attained = [row.slo_attainment for row in rows if row.slo_attainment is not None]
    waits = [p99 for row in rows if (p99 := row.latency["ttft"].p99) is not None]
    return replace(
        found,
        jain_attainment=jain(np.array(attained)) if len(attained) >= 2 else None,
        worst_ttft_p99_s=max(waits, default=None),
    )


def windowed_jain(service: Floats, backlogged: Mask) -> Floats:
    """Jain's index over the backlogged tenants of each window; NaN where fewer than two are."""
    found = np.full(service.shape[1], np.nan)
    for number in range(service.shape[1]):
        busy = backlogged[:, number]
        if busy.sum() >= 2 and (index := jain(service[busy, number])) is not None:
            found[number] = index
    return found


def _backlogged(requests: Requests, edges: Floats) -> Mask:
    """Tenants x windows: who had requests outstanding (nearly) all the time."""
    shares = [backlog_share(requests.of_tenant(name), edges) for name in requests.tenants]
    found: Mask = np.array(shares).reshape(len(shares), len(edges) - 1) >= BACKLOGGED_SHARE
    return found


def _left_the_queue_s(requests: Requests) -> Floats:
    """When each request no longer waited: at its first token, or when it ended without one.

    VTC's bound is of tenants with requests that wait; those that run are no backlog to it.
    """
    found: Floats = np.fmin(requests.first_token_s, requests.end_s)
    return found


def backlog_share(requests: Requests, edges: Floats) -> Floats:
    """Share of each window in which the tenant had at least one request outstanding.

    A request is outstanding from its intended time (or its sending, if that was earlier) until
    it ended; one without an end stays outstanding.
    """
    starts = np.fmin(requests.intended_s, requests.sent_s)
    ends = np.where(np.isnan(requests.end_s), edges[-1], requests.end_s)
    order = np.argsort(starts, kind="stable")
    starts, ends = starts[order], ends[order]
    if not len(starts):
        return np.zeros(len(edges) - 1)
    reached = np.maximum.accumulate(ends)
    new = np.concatenate(([True], starts[1:] > reached[:-1]))
    begin = starts[new]
    finish = reached[np.concatenate((np.flatnonzero(new)[1:] - 1, [len(starts) - 1]))]
    # Busy time up to t, piecewise linear: its differences at the edges are the busy times.
    busy = np.concatenate(([0.0], np.cumsum(finish - begin)))
    index = np.searchsorted(begin, edges, side="right")
    inside = np.clip(edges - finish[np.maximum(index - 1, 0)], None, 0.0) * (index > 0)
    return np.diff(busy[index] + inside) / np.diff(edges)


def _joint(service: Floats, backlogged: Mask) -> float | None:
    together = backlogged.all(axis=0)
    if len(service) < 2 or not together.any():
        return None
    return jain(service[:, together].sum(axis=1))
