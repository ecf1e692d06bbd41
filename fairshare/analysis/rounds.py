"""How each tenant fared from round to round, in cells whose window consists of rounds."""

from __future__ import annotations

import numpy as np

from fairshare.analysis.arrays import Floats, Mask, Requests
from fairshare.analysis.metrics import start_s
from fairshare.analysis.model import Rounds


def rounds(requests: Requests, open_loop: Mask) -> Rounds | None:
    """Means by tenant and round over measured requests; None where there are no rounds.

    ``open_loop`` is indexed by tenant: latencies of answered requests are from the schedule where
    there is one, from the sending where the loop is closed.
    """
    inside = requests.select(requests.measured & (requests.round >= 0))
    if not len(inside):
        return None
    shape = (len(inside.tenants), int(inside.round.max()) + 1)
    place = np.ravel_multi_index((inside.tenant, inside.round), shape)

    def total(values: Floats) -> Floats:
        known = inside.ok & ~np.isnan(values)
        counted = np.bincount(place[known], values[known], minlength=shape[0] * shape[1])
        return counted.reshape(shape).astype(np.float64)

    begun = start_s(inside, open_loop)
    answers = total(np.ones(len(inside)))
    ttft, e2e = inside.first_token_s - begun, inside.end_s - begun
    with np.errstate(divide="ignore", invalid="ignore"):
        return Rounds(
            tenants=inside.tenants,
            answers=answers,
            output_tokens=total(inside.output_tokens),
            ttft_mean_s=total(ttft) / total(np.where(np.isnan(ttft), np.nan, 1.0)),
            e2e_mean_s=total(e2e) / answers,
        )
