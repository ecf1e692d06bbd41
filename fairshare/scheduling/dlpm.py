"""DLPM: the longest known prefix first, but only of tenants that still have a deficit to spend.

Each tenant spends its deficit on prompt tokens that are not cached and on output tokens. Of those
with a deficit above 0 the request with the longest prefix that is likely to be cached goes first;
when no waiting tenant has any left, each waiting tenant gets a quantum (times its weight).

Source: DLPM, arXiv 2501.14312. A deficit lies above -U and at most at the quantum Q, where U is
what a tenant's running requests cost; so two tenants that are backlogged all the time differ in
service for their weight by at most 2 (U + Q).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import floor

from fairshare.scheduling.bookkeeping import Bookkeeping
from fairshare.scheduling.dlpm_prefixes import Prefixes, PrefixQueues
from fairshare.scheduling.offer import Offer, option
from fairshare.scheduling.policy import Refusal, Request, Tenants
from fairshare.scheduling.queues import LeastFirst


@dataclass(frozen=True, slots=True)
class DlpmOptions:
    """The quantum, and what a token costs."""

    quantum: float = option(1000.0, "service that each waiting tenant gets at a refill", above=0)
    input_price: float = option(1.0, "cost of a prompt token that is not cached", least=0)
    output_price: float = option(2.0, "cost of an output token", least=0)


class Deficits:
    """What each tenant may still spend, divided by its weight: granted less spent.

    All waiting tenants get the same, so what was granted is one number for all, and a refill costs
    only what is done for those whom it makes able to spend. Who does not wait gets nothing.
    """

    def __init__(self, quantum: float, queues: PrefixQueues) -> None:
        self._quantum = quantum
        self._queues = queues
        self._granted = 0.0
        self._spent: dict[str, float] = {}  # of those that wait
        self._saved: dict[str, float] = {}  # deficits of the others
        self._numbers: dict[str, int] = {}
        self._ready = LeastFirst(queues.key)
        self._empty = LeastFirst(lambda tenant: (self._spent[tenant], self._numbers[tenant]))

    def enter(self, tenant: str) -> None:
        """It waits now; or it does already, and has a new next request."""
        if tenant not in self._spent:
            self._numbers.setdefault(tenant, len(self._numbers))
            self._spent[tenant] = self._granted - self._saved.pop(tenant, 0.0)
        self._place(tenant)

    def leave(self, tenant: str) -> None:
        """It does not wait any more."""
        if tenant in self._spent:
            self._saved[tenant] = self._granted - self._spent.pop(tenant)
            self._ready.leave(tenant)
            self._empty.leave(tenant)

    def spend(self, tenant: str, cost: float) -> None:
        """It has got service, or pays back less."""
        before = self._spent.get(tenant)
        if before is None:
            self._saved[tenant] = self._saved.get(tenant, 0.0) - cost
            return
        self._spent[tenant] = after = before + cost
        if cost < 0 or before < self._granted <= after:
            self._place(tenant)

    def next(self) -> str | None:
        """The tenant with the longest prefix of those with a deficit, after a refill if need be."""
        ready = self._ready.least()
        if ready is not None:
            return ready
        nearest = self._empty.least()
        if nearest is None:
            return None
        missing = self._spent[nearest] - self._granted
        self._granted += self._quantum * (floor(missing / self._quantum) + 1)
        while (tenant := self._empty.least()) is not None and self._able(tenant):
            self._place(tenant)
        return self._ready.least()

    def all(self) -> dict[str, float]:
        """Every tenant's deficit, divided by its weight."""
        waiting = {tenant: self._granted - spent for tenant, spent in self._spent.items()}
        return {**self._saved, **waiting}

    def _able(self, tenant: str) -> bool:
        return self._spent[tenant] < self._granted

    def _place(self, tenant: str) -> None:
        able = self._able(tenant)
        (self._empty if able else self._ready).leave(tenant)
        (self._ready if able else self._empty).enter(tenant)


@dataclass(slots=True)
class _Paid:
    """What an admitted request has paid, before the division by the weight."""

    prompt: float = 0.0
    output: float = 0.0


class Dlpm(Bookkeeping[PrefixQueues]):
    """The longest prefix first, of those that can pay."""

    name = "dlpm"

    def __init__(self, options: DlpmOptions, tenants: Tenants) -> None:
        self._prefixes = Prefixes()
        super().__init__(PrefixQueues(self._prefixes))
        self._options = options
        self._tenants = tenants
        self._deficits = Deficits(options.quantum, self._waiting)
        self._paid: dict[Request, _Paid] = {}

    def arrive(self, request: Request, now_s: float) -> Refusal | None:
        super().arrive(request, now_s)
        if self._waiting.first(request.tenant) is request:
            self._deficits.enter(request.tenant)
        return None

    def head(self, now_s: float) -> Request | None:
        tenant = self._deficits.next()
        return None if tenant is None else self._waiting.first(tenant)

    def admit(self, request: Request, now_s: float) -> None:
        super().admit(request, now_s)
        self._left(request.tenant)
        self._prefixes.served(request)
        if request not in self._paid:  # else it was preempted, and has paid
            self._paid[request] = _Paid()
            self._pay_prompt(request)

    def put_back(self, request: Request, now_s: float, *, preempted: bool) -> None:
        super().put_back(request, now_s, preempted=preempted)
        self._deficits.enter(request.tenant)
        if not preempted:
            paid = self._paid.pop(request)
            self._pay(request, -paid.prompt - paid.output)

    def produced(self, request: Request, tokens: int, now_s: float) -> None:
        super().produced(request, tokens, now_s)
        if (paid := self._paid.get(request)) is not None:
            cost = self._options.output_price * tokens
            paid.output += cost
            self._pay(request, cost)

    def counted(self, request: Request, prompt_tokens: int, now_s: float) -> None:
        super().counted(request, prompt_tokens, now_s)
        self._pay_prompt(request)

    def finish(self, request: Request, now_s: float) -> None:
        if request in self._paid:
            self._prefixes.served(request)
        super().finish(request, now_s)
        self._end(request)

    def cancel(self, request: Request, now_s: float, *, refund: bool = False) -> None:
        super().cancel(request, now_s, refund=refund)
        self._left(request.tenant)
        if refund and (paid := self._paid.pop(request, None)) is not None:
            self._pay(request, -paid.prompt - paid.output)
        self._end(request)

    def counters(self) -> dict[str, float]:
        """Deficits, divided by the weight."""
        return self._deficits.all()

    def _end(self, request: Request) -> None:
        self._left(request.tenant)
        self._pay_prompt(request)  # only now may be known what was cached
        self._paid.pop(request, None)

    def _left(self, tenant: str) -> None:
        if not self._waiting.has(tenant):
            self._deficits.leave(tenant)

    def _pay_prompt(self, request: Request) -> None:
        """Pay for the prompt, or what is missing of it, or get back what was too much."""
        if (paid := self._paid.get(request)) is not None:
            uncached = max(0, request.prompt_tokens - request.cached_tokens)
            cost = self._options.input_price * uncached
            self._pay(request, cost - paid.prompt)
            paid.prompt = cost

    def _pay(self, request: Request, cost: float) -> None:
        if cost:
            self._deficits.spend(request.tenant, cost / self._tenants.weight(request.tenant))


OFFER = Offer(
    name=Dlpm.name,
    says="the longest cached prefix, of tenants that have not used up their share",
    make=Dlpm,
    options=DlpmOptions,
)
