"""How far apart VTC may let two backlogged tenants drift: 2U of its proof."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fairshare.analysis.arrays import Floats, Requests
from fairshare.analysis.decisions import Decisions
from fairshare.analysis.service import OUTPUT_PRICE, PROMPT_PRICE


def service_bound(
    requests: Requests, shares: Sequence[Mapping[str, Any]], decisions: Decisions | None
) -> float | None:
    """2U, U = max(prompt price x longest prompt, output price x tokens that can be in flight).

    In flight are at most as many as the KV cache holds (arXiv 2401.00588), or, where a gateway
    keeps a window of requests, that many of the longest answers. None where neither is known. It
    bounds differences under VTC; of other policies it is only something to compare with.
    """
    prompt = _largest(requests.prompt_tokens)
    in_flight = _capacity(shares)
    if decisions is not None and decisions.window is not None:
        in_flight = decisions.window * _largest(requests.output_tokens)
    if not prompt or not in_flight:
        return None
    return 2 * max(PROMPT_PRICE * prompt, OUTPUT_PRICE * in_flight)


def _largest(tokens: Floats) -> float:
    known = tokens[~np.isnan(tokens)]
    return float(known.max(initial=0.0))


def _capacity(shares: Sequence[Mapping[str, Any]]) -> float | None:
    """Tokens that the KV cache of the only server holds, where it told."""
    if len(shares) != 1:
        return None
    told = shares[0].get("kv_cache_tokens")
    report = shares[0].get("engine")
    if told is None and isinstance(report, Mapping):
        told = report.get("kv_cache_tokens")
    return float(told) if type(told) is int and told > 0 else None
