"""Deficit round robin over tokens, weighted.

Tenants stand in a ring. In each round a tenant gets one quantum of credit, times its weight, and is
served while it is in credit. An answer's tokens are paid as they come, so a tenant may be deep in
debt; it then waits, or is idle, for as many rounds as pay it off.

No round is walked through: the round in which a tenant will be in credit again follows from its
debt, and who is in credit earliest is next.

Source: Shreedhar and Varghese, SIGCOMM 1995, as modified for language models in VTC's artifact.
"""

from __future__ import annotations

from dataclasses import dataclass

from fairshare.scheduling.bookkeeping import Bookkeeping
from fairshare.scheduling.offer import Offer, option
from fairshare.scheduling.policy import Refusal, Request, Tenants
from fairshare.scheduling.queues import Key, LeastFirst, TenantQueues

FORGET_ABOVE = 1024
"""With fewer tenants than this, nobody is looked at in order to forget him."""


@dataclass(frozen=True, slots=True)
class DrrOptions:
    """How much a turn is worth, and what a token costs."""

    quantum: float = option(500.0, "service of one turn, in weighted tokens", least=1)
    input_price: float = option(1.0, "cost of an input token", least=0)
    output_price: float = option(2.0, "cost of an output token", least=0)


@dataclass(slots=True)
class _Seat:
    """A tenant's place in the ring, and its credit with all quanta up to some round."""

    place: int
    round: int
    credit: float = 0.0


class Drr(Bookkeeping[TenantQueues]):
    """In turn, each time a quantum's worth of tokens (times the weight)."""

    name = "drr"

    def __init__(self, options: DrrOptions, tenants: Tenants) -> None:
        super().__init__(TenantQueues())
        self._options = options
        self._tenants = tenants
        self._seats: dict[str, _Seat] = {}
        self._order = LeastFirst(self._key)
        self._round = 0
        self._places = 0
        self._forget_at = FORGET_ABOVE
        self._charged: dict[Request, float] = {}

    def arrive(self, request: Request, now_s: float) -> Refusal | None:
        was_idle = not self._waiting.has(request.tenant)
        super().arrive(request, now_s)
        if was_idle:
            self._come_back(request.tenant)
            self._order.enter(request.tenant)
        return None

    def head(self, now_s: float) -> Request | None:
        tenant = self._order.least()
        return None if tenant is None else self._waiting.first(tenant)

    def admit(self, request: Request, now_s: float) -> None:
        super().admit(request, now_s)
        seat = self._seats[request.tenant]
        due = self._due(request.tenant)
        seat.credit += (due - seat.round) * self._quantum(request.tenant)
        seat.round = due
        self._round = max(self._round, due)
        if not self._waiting.has(request.tenant):
            self._leave(request.tenant)
        if request not in self._charged:  # else it was preempted, and has paid
            self._charged[request] = 0.0
            self._charge(request, self._options.input_price * request.prompt_tokens)

    def produced(self, request: Request, tokens: int, now_s: float) -> None:
        super().produced(request, tokens, now_s)
        if request in self._charged:
            self._charge(request, self._options.output_price * tokens)

    def counted(self, request: Request, prompt_tokens: int, now_s: float) -> None:
        more = prompt_tokens - request.prompt_tokens
        super().counted(request, prompt_tokens, now_s)
        if request in self._charged:
            self._charge(request, self._options.input_price * more)

    def put_back(self, request: Request, now_s: float, *, preempted: bool) -> None:
        was_idle = not self._waiting.has(request.tenant)
        super().put_back(request, now_s, preempted=preempted)
        if not preempted:
            self._charge(request, -self._charged[request])
            del self._charged[request]
        if was_idle:
            self._come_back(request.tenant)
        self._order.enter(request.tenant)

    def finish(self, request: Request, now_s: float) -> None:
        super().finish(request, now_s)
        self._charged.pop(request, None)

    def cancel(self, request: Request, now_s: float, *, refund: bool = False) -> None:
        super().cancel(request, now_s, refund=refund)
        if not self._waiting.has(request.tenant):
            self._leave(request.tenant)
        if request in self._charged:
            if refund:
                self._charge(request, -self._charged[request])
            del self._charged[request]

    def rank(self, request: Request) -> int:
        """The rounds until its tenant is in credit again."""
        self._seat(request.tenant)
        return max(0, self._due(request.tenant) - self._round)

    def counters(self) -> dict[str, float]:
        """The credit of each tenant in this round; below 0 it is in debt."""
        return {tenant: self._credit(tenant) for tenant in self._seats}

    def _quantum(self, tenant: str) -> float:
        return self._options.quantum * self._tenants.weight(tenant)

    def _key(self, tenant: str) -> Key:
        return self._due(tenant), self._seats[tenant].place

    def _due(self, tenant: str) -> int:
        """The round in which the tenant is in credit (again)."""
        seat = self._seats[tenant]
        if seat.credit > 0:
            return seat.round
        return seat.round + int(-seat.credit / self._quantum(tenant)) + 1

    def _credit(self, tenant: str) -> float:
        """What it has in this round, quanta that it has not drawn yet included."""
        seat = self._seats[tenant]
        return seat.credit + max(0, self._round - seat.round) * self._quantum(tenant)

    def _come_back(self, tenant: str) -> None:
        """It was idle: quanta have paid off its debt, and what was beyond that is lost."""
        seat = self._seat(tenant)
        if seat.round < self._round:
            seat.credit = min(0.0, self._credit(tenant))
            seat.round = self._round

    def _leave(self, tenant: str) -> None:
        self._order.leave(tenant)
        if len(self._seats) > self._forget_at:
            self._forget_idle()

    def _seat(self, tenant: str) -> _Seat:
        seat = self._seats.get(tenant)
        if seat is None:
            self._places += 1
            seat = self._seats[tenant] = _Seat(self._places, self._round)
        return seat

    def _charge(self, request: Request, cost: float) -> None:
        self._charged[request] += cost
        self._seat(request.tenant).credit -= cost
        if cost < 0 and request.tenant in self._order:
            self._order.enter(request.tenant)

    def _forget_idle(self) -> None:
        """Drop idle tenants without debt."""
        self._seats = {
            tenant: seat
            for tenant, seat in self._seats.items()
            if tenant in self._order or self._credit(tenant) < 0
        }
        self._forget_at = 2 * len(self._seats) + FORGET_ABOVE


OFFER = Offer(
    name=Drr.name,
    says="tenants in turn, each for a quantum of tokens times its weight (deficit round robin)",
    make=Drr,
    options=DrrOptions,
    aliases={"mdrr_fair": {}, "wrr": {}},
)
