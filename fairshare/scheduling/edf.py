"""Earliest deadline first."""

from __future__ import annotations

import math

from fairshare.scheduling.bookkeeping import Bookkeeping
from fairshare.scheduling.offer import Offer
from fairshare.scheduling.policy import Request, Tenants
from fairshare.scheduling.queues import Sorted

_LAST = 2**53  # a rank behind every deadline, and still exact in any engine's numbers


class Edf(Bookkeeping[Sorted]):
    """The request that must be answered soonest goes first; those without a deadline go last.

    A request that names no deadline has its arrival plus what its tenant was promised end to end.
    """

    name = "edf"
    counts_tokens = False

    def __init__(self, tenants: Tenants) -> None:
        super().__init__(Sorted(self._deadline_s))
        self._tenants = tenants

    def head(self, now_s: float) -> Request | None:
        return self._waiting.first()

    def rank(self, request: Request) -> int:
        """The deadline in milliseconds."""
        deadline_s = self._deadline_s(request)
        return int(deadline_s * 1000) if math.isfinite(deadline_s) else _LAST

    def _deadline_s(self, request: Request) -> float:
        if request.deadline_s is not None:
            return request.deadline_s
        promised_s = self._tenants[request.tenant].slo_e2e_s
        return math.inf if promised_s is None else request.arrival_s + promised_s


OFFER = Offer(
    name=Edf.name,
    says="the earliest deadline",
    make=lambda options, tenants: Edf(tenants),
    aliases={"edf-ordering-policy": {}},
)
