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
    """2U, U = max(prompt price x longest prompt, output price x tokens that the KV cache holds).

    (arXiv 2401.00588.) Where a gateway keeps a window of requests, U is the price of the longest
    prompt and of that many of the longest answers: of both, since the answers in flight do not
    include prompts, as the tokens of the cache do. None where neither is known. It bounds
    differences under VTC; of other policies it is only something to compare with.
    """
    prompt = _largest(requests.prompt_tokens)
    if decisions is not None and decisions.window is not None:
        answers = decisions.window * _largest(requests.output_tokens)
        return 2 * (PROMPT_PRICE * prompt + OUTPUT_PRICE * answers) if prompt and answers else None
    capacity = _capacity(shares)
    if not prompt or not capacity:
        return None
    return 2 * max(PROMPT_PRICE * prompt, OUTPUT_PRICE * capacity)


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
