"""ExFairS: in each round, those whose requests were late get priority over those who fared well.

Source: ExFairS, AAAI-26 40(43):36271-36279: experiential fairness.
"""

from __future__ import annotations

from dataclasses import dataclass

from fairshare.scheduling.bookkeeping import Bookkeeping
from fairshare.scheduling.exfairs_queue import OvertakingQueue
from fairshare.scheduling.exfairs_rounds import (
    Exchange,
    Standing,
    exchange,
    published,
    shares_and_violations,
    signed,
)
from fairshare.scheduling.experience import Experience
from fairshare.scheduling.offer import Offer, option
from fairshare.scheduling.policy import Refusal, Request, Tenants

OUTPUT_PRICE = 2.0


@dataclass(frozen=True, slots=True)
class ExFairSOptions:
    """Rounds, the formula, the exchange of priorities, and the overtaking in the queue."""

    round_s: float = option(60.0, "length of a round", above=0)
    alpha: float = option(0.7, "weight of late requests against service", least=0, most=1)
    latency_slo_s: float = option(
        5.0, "an answer is late after so long, where the tenant's terms say nothing", above=0
    )
    threshold: float = option(0.1, "least difference of f for an exchange", least=0)
    sensitivity: float = option(1.0, "step of an exchange per difference of f", above=0)
    max_step: float = option(0.5, "longest step of an exchange; 0.1 is one priority", above=0)
    multiplier: int = option(2, "places gained for each that a newcomer may pass", least=1)
    max_positions: int = option(50, "most places that a newcomer gains", least=0)


class ExFairS(Bookkeeping[OvertakingQueue]):
    """A request has the priority that its tenant has when it comes; rounds change priorities."""

    name = "exfairs"
    counts_tokens = False

    def __init__(self, options: ExFairSOptions, tenants: Tenants) -> None:
        self._priorities: dict[Request, int] = {}  # of all that wait or run
        super().__init__(
            OvertakingQueue(self._priorities.__getitem__, options.multiplier, options.max_positions)
        )
        self._options = options
        self._rule = Exchange(options.threshold, options.sensitivity, options.max_step)
        self._tenants = tenants
        self._experiences: dict[str, Experience] = {}
        self._standings: dict[str, Standing] = {}
        self._round_end_s: float | None = None

    def arrive(self, request: Request, now_s: float) -> Refusal | None:
        self._pass_time(now_s)
        experience = self._experience(request.tenant)
        self._priorities.setdefault(request, self._standings[request.tenant].priority)
        super().arrive(request, now_s)
        experience.arrived(request, now_s)
        return None

    def head(self, now_s: float) -> Request | None:
        return self._waiting.first()

    def admit(self, request: Request, now_s: float) -> None:
        self._pass_time(now_s)
        super().admit(request, now_s)

    def produced(self, request: Request, tokens: int, now_s: float) -> None:
        self._pass_time(now_s)
        super().produced(request, tokens, now_s)

    def finish(self, request: Request, now_s: float) -> None:
        self._pass_time(now_s)
        super().finish(request, now_s)
        if self._priorities.pop(request, None) is not None:
            experience = self._experience(request.tenant)
            experience.ended(request, now_s, whole=True)
            experience.service += request.prompt_tokens + OUTPUT_PRICE * request.produced

    def cancel(self, request: Request, now_s: float, *, refund: bool = False) -> None:
        self._pass_time(now_s)
        super().cancel(request, now_s, refund=refund)
        if self._priorities.pop(request, None) is not None:
            self._experience(request.tenant).ended(request, now_s, whole=False)

    def rank(self, request: Request) -> int:
        """The priority that its tenant had when it came."""
        return self._priorities[request]

    def counters(self) -> dict[str, float]:
        """Credits: what a tenant has paid in places, less what it has gained."""
        return {name: standing.credit for name, standing in self._standings.items()}

    def _experience(self, tenant: str) -> Experience:
        if (found := self._experiences.get(tenant)) is None:
            slo_s = self._tenants[tenant].slo_e2e_s
            found = Experience(self._options.latency_slo_s if slo_s is None else slo_s)
            self._experiences[tenant] = found
            self._standings[tenant] = Standing()
        return found

    @staticmethod
    def _unfairness(share: float, violations: float, alpha: float) -> float:
        return published(share, violations, alpha)

    def _pass_time(self, now_s: float) -> None:
        """End the round if its time is over; those that passed in silence served nobody."""
        round_s = self._options.round_s
        if self._round_end_s is None:
            self._round_end_s = now_s + round_s
        if now_s < self._round_end_s:
            return
        fared = shares_and_violations(self._experiences, self._round_end_s)
        alpha = self._options.alpha
        unfairness = {name: self._unfairness(*both, alpha) for name, both in fared.items()}
        exchange(unfairness, self._standings, self._rule)
        for experience in self._experiences.values():
            experience.restart()
        self._round_end_s += ((now_s - self._round_end_s) // round_s + 1) * round_s


class ExFairSSigned(ExFairS):
    """ExFairS, except that a large share of the service speaks against a tenant, not for it."""

    name = "exfairs-signed"

    @staticmethod
    def _unfairness(share: float, violations: float, alpha: float) -> float:
        return signed(share, violations, alpha)


OFFER = Offer(
    name=ExFairS.name,
    says="whoever's requests were late in the last round gains places (published formula)",
    make=ExFairS,
    options=ExFairSOptions,
    aliases={"ExFairS": {}, "QUEUE_ExFairS": {}, "QUEUE_LFS": {}},
)

SIGNED_OFFER = Offer(
    name=ExFairSSigned.name,
    says="the same, with a large share of service counted against a tenant",
    make=ExFairSSigned,
    options=ExFairSOptions,
)
