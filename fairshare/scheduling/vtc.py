"""VTC, the Virtual Token Counter: the tenant that has been served least is next.

Each tenant has a counter of the service it has got, divided by its weight. A tenant that comes back
from being idle is lifted to where the others are, so that idleness is not saved up.

Source: VTC, arXiv 2401.00588, algorithms 2 (VTC), 3 (length prediction) and 4 (general costs).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fairshare.scheduling.bookkeeping import Bookkeeping
from fairshare.scheduling.costs import Cost, Linear, Profiled
from fairshare.scheduling.counters import Counters
from fairshare.scheduling.offer import Offer, option
from fairshare.scheduling.policy import Refusal, Request, Tenants
from fairshare.scheduling.prediction import predictor
from fairshare.scheduling.queues import TenantQueues


@dataclass(frozen=True, slots=True)
class VtcOptions:
    """What a token costs, and what is known of an answer's length before it comes."""

    cost: str = option(
        "linear",
        "weighted tokens, or the quadratic function that VTC's authors fitted to a 7B model",
        one_of=("linear", "profiled"),
    )
    input_price: float = option(1.0, "cost of an input token (linear)", least=0)
    output_price: float = option(2.0, "cost of an output token (linear)", least=0)
    charge_cached: bool = option(True, "prompt tokens from the prefix cache cost like others")
    prediction: str = option(
        "none",
        "output tokens charged at admission: none, the tenant's average so far, or the truth",
        one_of=("none", "average", "oracle"),
    )
    error_fraction: float = option(0.0, "by how much the oracle may be wrong", least=0, most=1)
    seed: int = option(0, "fixes the oracle's errors")

    def function(self) -> Cost:
        """The cost function."""
        if self.cost == "profiled":
            return Profiled()
        return Linear(self.input_price, self.output_price)


@dataclass(slots=True)
class _Account:
    """What a running (or preempted) request has been charged, before the division by the weight."""

    input_tokens: int
    paid_tokens: float
    """Output tokens that are paid for: those produced, or predicted if they are more."""
    charged: float


class Vtc(Bookkeeping[TenantQueues]):
    """The least counter first; the prompt is charged at admission, each token as it is produced.

    With U = max(w_p L_input, w_q M), M the tokens that fit into a batch: counters of tenants that
    wait differ by at most U; the service of two tenants that are backlogged all the time differs by
    at most 2 U; nobody gets more than 4 U beyond what a backlogged tenant got.
    """

    name = "vtc"
    lifts: ClassVar[bool] = True

    def __init__(self, options: VtcOptions, tenants: Tenants) -> None:
        super().__init__(TenantQueues())
        self._charge_cached = options.charge_cached
        self._cost = options.function()
        self._predictor = predictor(options.prediction, options.error_fraction, options.seed)
        self._accounts: dict[Request, _Account] = {}
        self._counters = Counters(
            self._waiting,
            tenants,
            lambda: ((request.tenant, paid.charged) for request, paid in self._accounts.items()),
            lift=self.lifts,
        )

    def arrive(self, request: Request, now_s: float) -> Refusal | None:
        was_idle = not self._waiting.has(request.tenant)
        super().arrive(request, now_s)
        if was_idle:
            self._counters.enter(request.tenant)
        return None

    def head(self, now_s: float) -> Request | None:
        tenant = self._counters.least()
        return None if tenant is None else self._waiting.first(tenant)

    def admit(self, request: Request, now_s: float) -> None:
        super().admit(request, now_s)
        if not self._waiting.has(request.tenant):
            self._counters.leave(request.tenant)
        if request in self._accounts:  # it was preempted, and has paid
            return
        predicted = self._predictor.tokens(request) or 0.0
        input_tokens = self._input_tokens(request)
        cost = self._cost.of(input_tokens, predicted)
        self._accounts[request] = _Account(input_tokens, predicted, cost)
        self._counters.charge(request.tenant, cost)

    def produced(self, request: Request, tokens: int, now_s: float) -> None:
        super().produced(request, tokens, now_s)
        account = self._accounts.get(request)
        if account is not None and request.produced > account.paid_tokens:
            more = self._cost.more(account.input_tokens, account.paid_tokens, request.produced)
            account.paid_tokens = request.produced
            account.charged += more
            self._counters.charge(request.tenant, more)

    def counted(self, request: Request, prompt_tokens: int, now_s: float) -> None:
        super().counted(request, prompt_tokens, now_s)
        account = self._accounts.get(request)
        if account is None:
            return
        before = self._cost.of(account.input_tokens, account.paid_tokens)
        account.input_tokens = self._input_tokens(request)
        more = self._cost.of(account.input_tokens, account.paid_tokens) - before
        account.charged += more
        self._counters.charge(request.tenant, more)

    def put_back(self, request: Request, now_s: float, *, preempted: bool) -> None:
        super().put_back(request, now_s, preempted=preempted)
        if not preempted:
            self._counters.charge(request.tenant, -self._accounts.pop(request).charged)
        self._counters.enter(request.tenant, lift=False)

    def finish(self, request: Request, now_s: float) -> None:
        if request in self._running:
            self._predictor.learn(request)
        super().finish(request, now_s)
        self._settle(request, refund=False)

    def cancel(self, request: Request, now_s: float, *, refund: bool = False) -> None:
        super().cancel(request, now_s, refund=refund)
        if not self._waiting.has(request.tenant):
            self._counters.leave(request.tenant)
        self._settle(request, refund=refund)

    def rank(self, request: Request) -> int:
        """The tenant's counter."""
        return int(self._counters.of(request.tenant))

    def counters(self) -> dict[str, float]:
        return self._counters.all()

    def _input_tokens(self, request: Request) -> int:
        """Those of the prompt that are charged."""
        cached = 0 if self._charge_cached else request.cached_tokens
        return request.prompt_tokens - cached

    def _settle(self, request: Request, *, refund: bool) -> None:
        """The request has ended: predicted tokens that it did not produce are paid back, or all."""
        account = self._accounts.pop(request, None)
        if account is None:
            return
        unused = self._cost.more(account.input_tokens, request.produced, account.paid_tokens)
        back = account.charged if refund else unused
        if back > 0:
            self._counters.charge(request.tenant, -back)


OFFER = Offer(
    name=Vtc.name,
    says="the tenant that has got least service for its weight (Virtual Token Counter)",
    make=Vtc,
    options=VtcOptions,
    aliases={
        "vtc_fair": {},
        "vtc_len_predict": {"prediction": "average"},
        "vtc_oracle": {"prediction": "oracle"},
        "VTC": {},
        "QUEUE_VTC": {},
    },
)
