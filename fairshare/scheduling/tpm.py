"""Tokens per minute: a quota of each tenant, beyond which requests are refused; then FCFS.

Tokens count when they are used: the prompt's as the request is admitted, the answer's as they come.
So the request that crosses the limit is answered to its end (as in gateways that account after the
response), and so are those that wait already.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass

from fairshare.scheduling.fcfs import Fcfs
from fairshare.scheduling.offer import Offer, option
from fairshare.scheduling.policy import Refusal, Request

_STEPS = 60
"""The window is counted in so many steps, so what is kept of a tenant is bounded."""


@dataclass(frozen=True, slots=True)
class TpmOptions:
    """The quota."""

    limit: int = option(10_000, "tokens of a tenant in any window, prompts and answers", least=1)
    window_s: float = option(60.0, "seconds that are counted", above=0)


class _Use:
    """A tenant's tokens in the window, by the step in which they were used."""

    def __init__(self) -> None:
        self.total = 0
        self._steps: deque[list[int]] = deque()  # [number of the step, tokens]

    def add(self, step: int, tokens: int) -> None:
        """It used so many."""
        if self._steps and self._steps[-1][0] == step:
            self._steps[-1][1] += tokens
        else:
            self._steps.append([step, tokens])
        self.total += tokens

    def forget_before(self, step: int) -> None:
        """What was used before that step counts no more."""
        while self._steps and self._steps[0][0] < step:
            self.total -= self._steps.popleft()[1]

    def is_empty(self) -> bool:
        """Whether nothing counts."""
        return not self._steps

    def below(self, limit: int) -> int:
        """The last step whose tokens must have left so that fewer than ``limit`` are counted."""
        left = self.total
        for step, tokens in self._steps:
            left -= tokens
            if left < limit:
                return step
        return self._steps[-1][0]


class Tpm(Fcfs):
    """No new request of a tenant that has used ``limit`` tokens in the window."""

    name = "tpm"
    counts_tokens = True

    def __init__(self, options: TpmOptions) -> None:
        super().__init__()
        self._options = options
        self._step_s = options.window_s / _STEPS
        self._uses: OrderedDict[str, _Use] = OrderedDict()  # who used some last is last

    def arrive(self, request: Request, now_s: float) -> Refusal | None:
        oldest = int(now_s / self._step_s) - _STEPS + 1
        use = self._uses.get(request.tenant)
        if use is not None:
            use.forget_before(oldest)
            if use.total >= self._options.limit:
                free_s = (use.below(self._options.limit) + _STEPS) * self._step_s
                reason = (
                    f"tenant {request.tenant!r} used {use.total} tokens within "
                    f"{self._options.window_s:g} s"
                )
                return Refusal(reason, max(0.0, free_s - now_s))
        return super().arrive(request, now_s)

    def admit(self, request: Request, now_s: float) -> None:
        super().admit(request, now_s)
        if not request.produced:  # else it was preempted, and has paid
            self._use(request.tenant, request.prompt_tokens, now_s)

    def produced(self, request: Request, tokens: int, now_s: float) -> None:
        super().produced(request, tokens, now_s)
        self._use(request.tenant, tokens, now_s)

    def put_back(self, request: Request, now_s: float, *, preempted: bool) -> None:
        super().put_back(request, now_s, preempted=preempted)
        if not request.produced:  # it pays when it is admitted again
            self._use(request.tenant, -request.prompt_tokens, now_s)

    def cancel(self, request: Request, now_s: float, *, refund: bool = False) -> None:
        ran = request in self._running
        super().cancel(request, now_s, refund=refund)
        if refund and ran:
            self._use(request.tenant, -request.prompt_tokens - request.produced, now_s)

    def counters(self) -> dict[str, float]:
        """Tokens that the last decision counted."""
        return {tenant: float(use.total) for tenant, use in self._uses.items()}

    def _use(self, tenant: str, tokens: int, now_s: float) -> None:
        step = int(now_s / self._step_s)
        use = self._uses.get(tenant)
        if use is None:
            use = self._uses[tenant] = _Use()
        use.add(step, tokens)
        self._uses.move_to_end(tenant)
        self._forget(step - _STEPS + 1)

    def _forget(self, oldest: int) -> None:
        """Drop tenants that have used nothing in the window."""
        while self._uses:
            tenant, use = next(iter(self._uses.items()))
            use.forget_before(oldest)
            if not use.is_empty():
                break
            del self._uses[tenant]


OFFER = Offer(
    name=Tpm.name,
    says="a quota of tokens per minute for each tenant, then the order of arrival",
    make=lambda options, tenants: Tpm(options),
    options=TpmOptions,
)
