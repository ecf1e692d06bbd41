"""Round robin: one request of each tenant in turn."""

from __future__ import annotations

from collections import OrderedDict

from fairshare.scheduling.bookkeeping import Bookkeeping
from fairshare.scheduling.offer import Offer
from fairshare.scheduling.policy import Refusal, Request
from fairshare.scheduling.queues import TenantQueues


class RoundRobin(Bookkeeping[TenantQueues]):
    """Tenants with waiting requests stand in a ring; the first gives one and goes to its end.

    Turns are counted, not tokens: who sends long requests gets more.
    """

    name = "round-robin"
    counts_tokens = False

    def __init__(self) -> None:
        super().__init__(TenantQueues())
        self._ring: OrderedDict[str, None] = OrderedDict()

    def arrive(self, request: Request, now_s: float) -> Refusal | None:
        super().arrive(request, now_s)
        self._ring.setdefault(request.tenant)
        return None

    def head(self, now_s: float) -> Request | None:
        for tenant in self._ring:
            return self._waiting.first(tenant)
        return None

    def admit(self, request: Request, now_s: float) -> None:
        super().admit(request, now_s)
        if self._waiting.has(request.tenant):
            self._ring.move_to_end(request.tenant)
        else:
            del self._ring[request.tenant]

    def put_back(self, request: Request, now_s: float, *, preempted: bool) -> None:
        super().put_back(request, now_s, preempted=preempted)
        self._ring[request.tenant] = None
        self._ring.move_to_end(request.tenant, last=False)  # it had its turn, and has it still

    def cancel(self, request: Request, now_s: float, *, refund: bool = False) -> None:
        super().cancel(request, now_s, refund=refund)
        if not self._waiting.has(request.tenant):
            self._ring.pop(request.tenant, None)


OFFER = Offer(
    name=RoundRobin.name,
    says="one request of each tenant in turn",
    make=lambda options, tenants: RoundRobin(),
    aliases={"rr": {}, "QUEUE_ROUND_ROBIN": {}},
)
