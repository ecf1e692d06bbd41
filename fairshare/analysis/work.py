"""What was done for each tenant, what was refused, and what was done in vain.

Definitions: docs/metrics.md.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fairshare.analysis.arrays import ERROR_KINDS, Mask, Requests
from fairshare.analysis.model import Interactions, TenantMetrics, Work
from fairshare.analysis.service import computed_tokens, evenly_charged, service_flow
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
    service = float(service_flow(requests).between(edges)[0])
    measured = requests.select(requests.measured)
    refused = int(throttled(measured).sum())
    done, wasted = _single(measured)
    if interactions is not None:
        done += interactions.tokens - interactions.cut_tokens
        wasted += interactions.wasted_tokens
    answered = float(computed_tokens(requests)[requests.ok].sum())
    return Work(
        service=service,
        service_even=float(evenly_charged(requests)[1].between(edges)[0]),
        service_rate=service / (window[1] - window[0]),
        service_share=None,
        throttled=refused,
        throttled_rate=refused / len(measured) if len(measured) else None,
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


def _single(measured: Requests) -> tuple[int, int]:
    """Tokens of requests outside of interactions: of all that were decided, and of failures."""
    tokens = computed_tokens(measured)
    alone = np.equal(measured.interaction, -1) & ~np.equal(measured.error, _UNFINISHED)
    return int(tokens[alone].sum()), int(tokens[alone & ~measured.ok].sum())
