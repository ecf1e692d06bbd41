"""SLO-greedy: the tenant of whose requests the greatest part was late is next.

A baseline of ExFairS's artifact (QUEUE_SLOGreedy). A request keeps the place that its tenant's
ratio gave it when it came. Nothing bounds how long the others wait.
"""

from __future__ import annotations

from dataclasses import dataclass

from fairshare.scheduling.bookkeeping import Bookkeeping
from fairshare.scheduling.experience import Experience
from fairshare.scheduling.offer import Offer, option
from fairshare.scheduling.policy import Refusal, Request, Tenants
from fairshare.scheduling.queues import Sorted


@dataclass(frozen=True, slots=True)
class SloGreedyOptions:
    """What is late, and what is thought of a tenant of whom little is known."""

    latency_slo_s: float = option(
        5.0, "an answer is late after so long, where the tenant's terms say nothing", above=0
    )
    enough: int = option(10, "requests of a tenant from which its ratio counts", least=1)
    unknown: float = option(0.5, "the ratio of a tenant with fewer", least=0, most=1)


class SloGreedy(Bookkeeping[Sorted]):
    """The greatest part of late requests first, of equals by arrival."""

    name = "slo-greedy"
    counts_tokens = False

    def __init__(self, options: SloGreedyOptions, tenants: Tenants) -> None:
        self._ratios: dict[Request, float] = {}  # of all that wait or run
        super().__init__(Sorted(lambda request: -self._ratios[request]))
        self._options = options
        self._tenants = tenants
        self._experiences: dict[str, Experience] = {}

    def arrive(self, request: Request, now_s: float) -> Refusal | None:
        self._ratios.setdefault(request, self._ratio(request.tenant, now_s))
        super().arrive(request, now_s)
        self._experiences[request.tenant].arrived(request, now_s)
        return None

    def head(self, now_s: float) -> Request | None:
        return self._waiting.first()

    def finish(self, request: Request, now_s: float) -> None:
        super().finish(request, now_s)
        self._end(request, now_s, whole=True)

    def cancel(self, request: Request, now_s: float, *, refund: bool = False) -> None:
        super().cancel(request, now_s, refund=refund)
        self._end(request, now_s, whole=False)

    def rank(self, request: Request) -> int:
        """The part that was not late when it came, in thousandths."""
        return int(1000 * (1 - self._ratios[request]))

    def _ratio(self, tenant: str, now_s: float) -> float:
        """The part of the tenant's requests that was late, or that is by now."""
        found = self._experiences.get(tenant)
        if found is None:
            slo_s = self._tenants[tenant].slo_e2e_s
            found = Experience(self._options.latency_slo_s if slo_s is None else slo_s)
            self._experiences[tenant] = found
        if found.sent < self._options.enough:
            return self._options.unknown
        return found.violations(now_s) / found.sent

    def _end(self, request: Request, now_s: float, *, whole: bool) -> None:
        if self._ratios.pop(request, None) is not None:
            self._experiences[request.tenant].ended(request, now_s, whole=whole)


OFFER = Offer(
    name=SloGreedy.name,
    says="the tenant of whose requests the greatest part was late",
    make=SloGreedy,
    options=SloGreedyOptions,
    aliases={"QUEUE_SLOGreedy": {}},
)
