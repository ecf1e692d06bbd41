"""What was done for each tenant, what was refused, and what was done in vain.

Definitions: docs/metrics.md.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fairshare.analysis.arrays import ERROR_KINDS, Floats, Mask, Requests
from fairshare.analysis.model import Interactions, TenantMetrics, Work
from fairshare.analysis.service import (
    OUTPUT_PRICE,
    PROMPT_PRICE,
    computed_tokens,
    evenly_charged,
    output_flow,
    prompt_flow,
)
from fairshare.records import ErrorKind

_THROTTLED, _ABORTED, _UNFINISHED = (
    ERROR_KINDS.index(kind)
    for kind in (ErrorKind.THROTTLED, ErrorKind.ABORTED, ErrorKind.UNFINISHED)
)


def work(
    requests: Requests,
    window: tuple[float, float],
    run_s: float | None,
    interactions: Interactions | None,
) -> Work:
    """The work for ``requests`` (of one tenant, or of all); ``run_s`` is the run's length."""
    edges = np.array(window)
    prompts, output = (flow(requests).between(edges)[0] for flow in (prompt_flow, output_flow))
    service = float(PROMPT_PRICE * prompts + OUTPUT_PRICE * output)
    tokens, asked = computed_tokens(requests), int(requests.measured.sum())
    refused = int((throttled(requests) & requests.measured).sum())
    done, wasted = _single(requests, tokens)
    if interactions is not None:
        done += interactions.tokens - interactions.cut_tokens
        wasted += interactions.wasted_tokens
    answered = float(tokens[requests.ok].sum())
    return Work(
        service=service,
        service_even=float(evenly_charged(requests)[1].between(edges)[0]),
        service_rate=service / (window[1] - window[0]),
        service_share=None,
        throttled=refused,
        throttled_rate=refused / asked if asked else None,
        wasted_work_tokens=wasted,
        wasted_work_share=wasted / done if done else None,
        run_tokens_per_s=answered / run_s if run_s else None,
    )


def with_shares(rows: list[TenantMetrics]) -> list[TenantMetrics]:
    """The same rows (tenants, then the total), each with its share of the total's service."""
    total = rows[-1].work
    if total is None or not total.service:
        return rows
    return [
        replace(row, work=replace(row.work, service_share=row.work.service / total.service))
        if row.work is not None
        else row
        for row in rows
    ]


def throttled(requests: Requests) -> Mask:
    """Which requests were refused: told to come later, or aborted before their first token."""
    aborted = np.equal(requests.error, _ABORTED) & np.isnan(requests.first_token_s)
    found: Mask = np.equal(requests.error, _THROTTLED) | aborted
    return found


def _single(requests: Requests, tokens: Floats) -> tuple[int, int]:
    """Tokens of requests outside of interactions: of all that were decided, and of failures."""
    alone = np.equal(requests.interaction, -1) & ~np.equal(requests.error, _UNFINISHED)
    alone &= requests.measured
    return int(tokens[alone].sum()), int(tokens[alone & ~requests.ok].sum())
