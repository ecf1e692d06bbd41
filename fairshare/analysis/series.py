"""What happened in each window: what figures over time are drawn from."""

from __future__ import annotations

import numpy as np

from fairshare.analysis.arrays import Floats, Ints, Mask, Requests
from fairshare.analysis.model import Series
from fairshare.analysis.service import arrival_s, moments, output_flow, prompt_flow


def series(
    requests: Requests, edges: Floats, service: Floats, accumulated: Floats, jain: Floats
) -> Series:
    """The windows between ``edges``; ``service``, ``accumulated`` and ``jain`` are of them."""
    tokens = prompt_flow(requests).between(edges) + output_flow(requests).between(edges)
    ended = ~np.isnan(requests.end_s)
    answered = _count(requests, ended & requests.ok, edges)
    with np.errstate(divide="ignore", invalid="ignore"):
        completion = answered / _count(requests, ended, edges)
    means, p99 = _response_times(requests, edges)
    return Series(
        edges_s=edges,
        tenants=requests.tenants,
        service=service,
        accumulated_difference=accumulated,
        jain=jain,
        tokens_per_s=tokens / np.diff(edges),
        completion_rate=completion,
        ttft_mean_s=means,
        ttft_p99_s=p99,
    )


def _count(requests: Requests, chosen: Mask, edges: Floats) -> Floats:
    when = requests.end_s[chosen]
    return moments(when, np.ones_like(when), requests.tenant[chosen]).between(edges)


def _response_times(requests: Requests, edges: Floats) -> tuple[Floats, Floats]:
    """Mean TTFT by tenant, and the P99 of all, of the first tokens that came in each window."""
    chosen = requests.ok & ~np.isnan(requests.first_token_s)
    when, owner = requests.first_token_s[chosen], requests.tenant[chosen]
    waited = when - arrival_s(requests)[chosen]
    tenants = len(requests.tenants)
    with np.errstate(divide="ignore", invalid="ignore"):
        means = moments(when, waited, owner).by_tenant(edges, tenants)
        means /= moments(when, np.ones_like(when), owner).by_tenant(edges, tenants)
    return means, _p99(when, waited, edges)


def _p99(when: Floats, waited: Floats, edges: Floats) -> Floats:
    order = np.argsort(when, kind="stable")
    place: Ints = np.searchsorted(when[order], edges)
    parts = np.split(waited[order], place)[1:-1]
    return np.array([np.percentile(part, 99) if len(part) else np.nan for part in parts])
