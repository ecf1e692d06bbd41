"""How equally tenants were served, over the time in which they competed.

Over a whole finished run every scheduler that serves all requests has the same Jain's index, so
it is computed per window, over the tenants that were backlogged in it, on service per weight.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fairshare.analysis.arrays import Floats, Mask, Requests, sum_between
from fairshare.analysis.metrics import Window, prompt_events, token_events
from fairshare.analysis.model import Fairness
from fairshare.analysis.stats import series_interval

PROMPT_PRICE = 1.0
OUTPUT_PRICE = 2.0  # prices of VTC (arXiv 2401.00588): an output token counts twice
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


def fairness(requests: Requests, window: Window, weights: Sequence[float]) -> Fairness:
    """Fairness among the tenants of one cell; ``weights`` in the order of ``requests.tenants``."""
    length = window_length_s(window)
    count = int((window[1] - window[0]) / length + 1e-9)  # a last part of a window is left out
    edges: Floats = window[0] + np.arange(count + 1, dtype=np.float64) * length
    parts = [requests.of_tenant(name) for name in requests.tenants]
    service = np.array([service_per_window(part, edges) for part in parts])
    service = service.reshape(len(parts), count) / np.array(weights, float)[:, None]
    backlogged = np.array([backlog_share(part, edges) >= BACKLOGGED_SHARE for part in parts])
    backlogged = backlogged.reshape(len(parts), count)
    indices = [
        index
        for number in range(count)
        if (busy := backlogged[:, number]).sum() >= 2
        and (index := jain(service[busy, number])) is not None
    ]
    return Fairness(
        window_s=length,
        windows=len(indices),
        jain=float(np.mean(indices)) if indices else None,
        jain_min=min(indices, default=None),
        jain_joint=_joint(service, backlogged),
        max_service_difference=max_service_difference(service, backlogged),
        interval=series_interval(indices),
    )


def service_per_window(requests: Requests, edges: Floats) -> Floats:
    """Service in each window: prompt tokens, due at the first token, plus twice the output."""
    prompts = sum_between(*prompt_events(requests), edges)
    output = sum_between(*token_events(requests), edges)
    return PROMPT_PRICE * prompts + OUTPUT_PRICE * output


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


def _joint(service: Floats, backlogged: Mask) -> float | None:
    together = backlogged.all(axis=0)
    if len(service) < 2 or not together.any():
        return None
    return jain(service[:, together].sum(axis=1))
