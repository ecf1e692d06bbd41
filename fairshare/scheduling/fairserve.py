"""FairServe: users are equal in typical requests, and no chain of calls is broken half-way.

A user runs applications; what he does once is an interaction of several calls. Its parts are
separate: how service is counted (``fairserve_wsc``), whom it throttles (``fairserve_oit``), and the
expectation that a running chain goes on, for which its user is preferred.

Source: FairServe, arXiv 2411.15997, and its artifact's schedulers. The tenant is the user.
"""

from __future__ import annotations

from collections import Counter

from fairshare.scheduling.bookkeeping import Bookkeeping
from fairshare.scheduling.counters import Counters
from fairshare.scheduling.fairserve_oit import THROTTLES, Limit, Thrown
from fairshare.scheduling.fairserve_options import ARTIFACT, FairServeOptions
from fairshare.scheduling.fairserve_wsc import COUNTERS, Apps
from fairshare.scheduling.offer import Offer
from fairshare.scheduling.policy import Refusal, Request, Tenants
from fairshare.scheduling.queues import Key, LeastFirst, TenantQueues


class FairServe(Bookkeeping[TenantQueues]):
    """The least weighted service first, but rather a user whose chain runs; see the options.

    Unless ``expectation`` is ``always``: counters of users that wait differ by at most the lead (0
    for ``never``) and the charges of the requests that fit into a batch.
    """

    name = "fairserve"

    def __init__(self, options: FairServeOptions, tenants: Tenants) -> None:
        super().__init__(TenantQueues())
        self.counts_tokens = options.counter == "components"
        self._apps = Apps(options.typical())
        self._counter = COUNTERS[options.counter](self._apps)
        self._throttle = THROTTLES[options.throttle](
            Limit("user", options.user_limit), Limit("application", options.app_limit)
        )
        leads = {"never": float("-inf"), "bounded": options.lead, "always": float("inf")}
        self._lead = leads[options.expectation]
        self._charged: dict[Request, float] = {}  # admitted, and not ended
        self._chains: Counter[str] = Counter()  # running calls that are not their chain's last
        self._counters = Counters(
            self._waiting,
            tenants,
            lambda: ((request.tenant, charged) for request, charged in self._charged.items()),
        )
        self._chained = LeastFirst(self._key)  # who waits and has such a call
        self._owes_turns = options.service_debt
        self._turns: Counter[str] = Counter()
        self._turn_counted: set[Request] = set()

    def arrive(self, request: Request, now_s: float) -> Refusal | None:
        was_idle = not self._waiting.has(request.tenant)
        super().arrive(request, now_s)
        if (refusal := self._throttle.arrive(request, now_s)) is not None:
            self._waiting.remove(request)
            return refusal
        self._apps.arrived(request)
        if was_idle:
            self._enter(request.tenant, lift=True)
        return None

    def head(self, now_s: float) -> Request | None:
        user = self._preferred()
        if user is None:
            return None
        if self._turns.get(user):
            user = self._counters.second() or user
        return self._waiting.first(user)

    def admit(self, request: Request, now_s: float) -> None:
        owing = self._preferred() if self._turns else None
        super().admit(request, now_s)
        if owing is not None and owing != request.tenant and self._turns[owing]:
            self._turns[owing] -= 1
        self._gone(request, admitted=True)
        if request not in self._charged:  # else it was preempted, and has paid
            self._charged[request] = 0.0
            self._charge(request, self._counter.admission(request))
        self._chain(request, 1)

    def does_not_fit(self, now_s: float) -> Thrown:
        head = self.head(now_s)
        if head is None or head in self._charged:
            return []
        if self._owes_turns and head.call > 1 and head not in self._turn_counted:
            self._turn_counted.add(head)
            self._turns[head.tenant] += 1
        thrown = self._throttle.overload(head, now_s)
        for request, _ in thrown:
            self._waiting.remove(request)
            self._gone(request, admitted=False)
        return thrown

    def put_back(self, request: Request, now_s: float, *, preempted: bool) -> None:
        super().put_back(request, now_s, preempted=preempted)
        if not preempted:
            self._charge(request, -self._charged[request])
            del self._charged[request]
        self._chain(request, -1)
        self._enter(request.tenant, lift=False)

    def produced(self, request: Request, tokens: int, now_s: float) -> None:
        super().produced(request, tokens, now_s)
        if self.counts_tokens and request in self._charged:
            self._charge(request, self._counter.tokens(request, tokens))

    def counted(self, request: Request, prompt_tokens: int, now_s: float) -> None:
        if request not in self._charged:
            return
        before = self._counter.admission(request)
        super().counted(request, prompt_tokens, now_s)
        self._charge(request, self._counter.admission(request) - before)

    def finish(self, request: Request, now_s: float) -> None:
        if request in self._charged:
            self._apps.answered(request)
        self._ended(request)
        super().finish(request, now_s)
        self._gone(request, admitted=False)
        self._settle(request, refund=False)

    def cancel(self, request: Request, now_s: float, *, refund: bool = False) -> None:
        self._ended(request)
        super().cancel(request, now_s, refund=refund)
        self._gone(request, admitted=False)
        self._settle(request, refund=refund)

    def rank(self, request: Request) -> int:
        """The user's counter in hundredths, since a typical request is only 1."""
        return int(100 * self._counters.of(request.tenant))

    def counters(self) -> dict[str, float]:
        return self._counters.all()

    def _preferred(self) -> str | None:
        """The least served user, or one with a running chain who is not too far ahead."""
        user = self._counters.least()
        if user is None or user in self._chained:
            return user
        chained = self._chained.least()
        if chained is None:
            return user
        ahead = self._counters.of(chained) - self._counters.of(user)
        return chained if ahead <= self._lead else user

    def _enter(self, user: str, *, lift: bool) -> None:
        self._counters.enter(user, lift=lift)
        if self._chains.get(user):
            self._chained.enter(user)

    def _gone(self, request: Request, *, admitted: bool) -> None:
        """It waits no longer."""
        self._throttle.left(request, admitted=admitted)
        self._turn_counted.discard(request)
        if not self._waiting.has(request.tenant):
            self._counters.leave(request.tenant)
            self._chained.leave(request.tenant)

    def _chain(self, request: Request, more: int) -> None:
        """A call starts or stops running; if it is not the last, more are expected of its user."""
        if request.call >= request.calls:
            return
        user = request.tenant
        self._chains[user] += more
        if not self._chains[user]:
            del self._chains[user]
            self._chained.leave(user)
        elif user not in self._chained and self._waiting.has(user):
            self._chained.enter(user)

    def _charge(self, request: Request, amount: float) -> None:
        if not amount:
            return
        self._charged[request] += amount
        self._counters.charge(request.tenant, amount)
        if amount < 0 and request.tenant in self._chained:
            self._chained.enter(request.tenant)

    def _ended(self, request: Request) -> None:
        """If it runs, it is about to run no longer."""
        if request in self._running:
            self._chain(request, -1)

    def _settle(self, request: Request, *, refund: bool) -> None:
        """What an admitted request has cost is made right at its end, or paid back."""
        charged = self._charged.get(request)
        if charged is not None:
            self._charge(request, -charged if refund else self._counter.end(request, charged))
            del self._charged[request]

    def _key(self, user: str) -> Key:
        return self._counters.of(user), self._waiting.place(user)


OFFER = Offer(
    name=FairServe.name,
    says="the user with the least service in typical requests; no chain of calls is broken",
    make=FairServe,
    options=FairServeOptions,
    aliases=ARTIFACT,
)
