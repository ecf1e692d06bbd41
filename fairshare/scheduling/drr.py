"""Deficit round robin over tokens, weighted.

Tenants stand in a ring. Whoever is first may be served while it is in credit; who has spent its
credit gets one quantum more and goes to the end. An answer's tokens are paid as they come, so a
deficit may be deep; it is paid off with further quanta, in waiting or idle.

Source: Shreedhar and Varghese, SIGCOMM 1995, as modified for language models in VTC's artifact.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from fairshare.scheduling.bookkeeping import Bookkeeping
from fairshare.scheduling.offer import Offer, option
from fairshare.scheduling.policy import Refusal, Request, Tenants
from fairshare.scheduling.queues import TenantQueues


@dataclass(frozen=True, slots=True)
class DrrOptions:
    """How much a turn is worth, and what a token costs."""

    quantum: float = option(500.0, "service of one turn, in weighted tokens", above=0)
    input_price: float = option(1.0, "cost of an input token", least=0)
    output_price: float = option(2.0, "cost of an output token", least=0)


class Drr(Bookkeeping[TenantQueues]):
    """In turn, each time a quantum's worth of tokens (times the weight)."""

    name = "drr"

    def __init__(self, options: DrrOptions, tenants: Tenants) -> None:
        super().__init__(TenantQueues())
        self._options = options
        self._tenants = tenants
        self._ring: OrderedDict[str, None] = OrderedDict()
        self._deficits: dict[str, float] = {}
        self._charged: dict[Request, float] = {}

    def arrive(self, request: Request, now_s: float) -> Refusal | None:
        super().arrive(request, now_s)
        self._ring.setdefault(request.tenant)
        return None

    def head(self, now_s: float) -> Request | None:
        if not self._waiting:
            return None
        while True:
            tenant = next(iter(self._ring))
            deficit = self._deficits.get(tenant, 0.0)
            if deficit > 0 and self._waiting.has(tenant):
                return self._waiting.first(tenant)
            self._pass_by(tenant, deficit)

    def admit(self, request: Request, now_s: float) -> None:
        super().admit(request, now_s)
        if request not in self._charged:  # else it was preempted, and has paid
            self._charged[request] = 0.0
            self._charge(request, self._options.input_price * request.prompt_tokens)

    def produced(self, request: Request, tokens: int, now_s: float) -> None:
        super().produced(request, tokens, now_s)
        if request in self._charged:
            self._charge(request, self._options.output_price * tokens)

    def put_back(self, request: Request, now_s: float, *, preempted: bool) -> None:
        super().put_back(request, now_s, preempted=preempted)
        if not preempted:
            self._charge(request, -self._charged[request])
            del self._charged[request]
        self._ring.setdefault(request.tenant)

    def finish(self, request: Request, now_s: float) -> None:
        super().finish(request, now_s)
        self._charged.pop(request, None)

    def cancel(self, request: Request, now_s: float, *, refund: bool = False) -> None:
        super().cancel(request, now_s, refund=refund)
        charged = self._charged.pop(request, 0.0)
        if refund:
            self._deficits[request.tenant] = self._deficits.get(request.tenant, 0.0) + charged
            self._ring.setdefault(request.tenant)

    def rank(self, request: Request) -> int:
        """What its tenant owes: the deeper its deficit, the later."""
        return -int(self._deficits.get(request.tenant, 0.0))

    def counters(self) -> dict[str, float]:
        return dict(self._deficits)

    def _charge(self, request: Request, cost: float) -> None:
        self._charged[request] += cost
        self._deficits[request.tenant] = self._deficits.get(request.tenant, 0.0) - cost
        self._ring.setdefault(request.tenant)

    def _pass_by(self, tenant: str, deficit: float) -> None:
        """The first of the ring cannot be served: it gets a quantum, or leaves."""
        if deficit >= 0 and not self._waiting.has(tenant):
            del self._ring[tenant]  # idle and out of debt: what is left of its credit is lost
            self._deficits.pop(tenant, None)
            return
        quantum = self._options.quantum * self._tenants.weight(tenant)
        self._deficits[tenant] = deficit + quantum
        if self._deficits[tenant] <= 0:
            self._ring.move_to_end(tenant)


OFFER = Offer(
    name=Drr.name,
    says="tenants in turn, each for a quantum of tokens times its weight (deficit round robin)",
    make=Drr,
    options=DrrOptions,
    aliases={"mdrr_fair": {}, "wrr": {}},
)
