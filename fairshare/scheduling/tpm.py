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
"""What is used within a 60th of the window counts as used at its end, so little has to be kept."""


@dataclass(frozen=True, slots=True)
class TpmOptions:
    """The quota."""

    limit: int = option(10_000, "tokens of a tenant in any window, prompts and answers", least=1)
    window_s: float = option(60.0, "seconds that are counted", above=0)


@dataclass(slots=True)
class _Step:
    """Tokens that were used at about the same time, and leave the window together."""

    first_s: float
    last_s: float
    tokens: int


class _Use:
    """A tenant's tokens in the window before the last time that was told."""

    def __init__(self, window_s: float) -> None:
        self.total = 0
        self._window_s = window_s
        self._steps: deque[_Step] = deque()

    def add(self, tokens: int, now_s: float) -> None:
        """It has used so many."""
        last = self._steps[-1] if self._steps else None
        if last is not None and now_s - last.first_s < self._window_s / _STEPS:
            last.last_s = now_s
            last.tokens += tokens
        else:
            self._steps.append(_Step(now_s, now_s, tokens))
        self.total += tokens

    def take_back(self, tokens: int, since_s: float) -> None:
        """So many of those used since then do not count, as far as they are still counted."""
        for step in self._steps:
            if step.last_s >= since_s:
                back = min(tokens, step.tokens)
                step.tokens -= back
                self.total -= back
                tokens -= back

    def pass_time(self, now_s: float) -> None:
        """What has left the window counts no more."""
        while self._steps and now_s - self._steps[0].last_s >= self._window_s:
            self.total -= self._steps.popleft().tokens

    def is_empty(self) -> bool:
        """Whether nothing is in the window."""
        return not self._steps

    def below_s(self, limit: int) -> float:
        """When fewer than ``limit`` will be counted, if no more are used."""
        left = self.total
        for step in self._steps:
            left -= step.tokens
            if left < limit:
                return step.last_s + self._window_s
        raise AssertionError("a limit is at least 1, and with all steps nothing is left")


class Tpm(Fcfs):
    """No new request of a tenant that has used ``limit`` tokens in the window."""

    name = "tpm"
    counts_tokens = True

    def __init__(self, options: TpmOptions) -> None:
        super().__init__()
        self._options = options
        self._uses: OrderedDict[str, _Use] = OrderedDict()  # who used some last is last
        self._paid_s: dict[Request, float] = {}  # when the prompt was

    def arrive(self, request: Request, now_s: float) -> Refusal | None:
        limit, window_s = self._options.limit, self._options.window_s
        use = self._uses.get(request.tenant)
        if use is not None:
            use.pass_time(now_s)
            if use.total >= limit:
                reason = f"tenant {request.tenant!r} used {use.total} tokens within {window_s:g} s"
                return Refusal(reason, use.below_s(limit) - now_s)
        return super().arrive(request, now_s)

    def admit(self, request: Request, now_s: float) -> None:
        super().admit(request, now_s)
        if request not in self._paid_s:  # else it was preempted, and has paid
            self._paid_s[request] = now_s
            self._use(request.tenant, request.prompt_tokens, now_s)

    def produced(self, request: Request, tokens: int, now_s: float) -> None:
        super().produced(request, tokens, now_s)
        if request in self._paid_s:
            self._use(request.tenant, tokens, now_s)

    def counted(self, request: Request, prompt_tokens: int, now_s: float) -> None:
        more = prompt_tokens - request.prompt_tokens
        super().counted(request, prompt_tokens, now_s)
        if request in self._paid_s and more > 0:
            self._use(request.tenant, more, now_s)
        else:
            self._take_back(request, -more)

    def put_back(self, request: Request, now_s: float, *, preempted: bool) -> None:
        super().put_back(request, now_s, preempted=preempted)
        if not preempted:
            self._take_back(request, request.prompt_tokens + request.produced)
            del self._paid_s[request]

    def finish(self, request: Request, now_s: float) -> None:
        super().finish(request, now_s)
        self._paid_s.pop(request, None)

    def cancel(self, request: Request, now_s: float, *, refund: bool = False) -> None:
        super().cancel(request, now_s, refund=refund)
        if refund:
            self._take_back(request, request.prompt_tokens + request.produced)
        self._paid_s.pop(request, None)

    def counters(self) -> dict[str, float]:
        """Tokens of each tenant that were in the window when it was looked at last."""
        return {tenant: float(use.total) for tenant, use in self._uses.items()}

    def _use(self, tenant: str, tokens: int, now_s: float) -> None:
        use = self._uses.get(tenant)
        if use is None:
            use = self._uses[tenant] = _Use(self._options.window_s)
        use.add(tokens, now_s)
        self._uses.move_to_end(tenant)
        self._forget_idle(now_s)

    def _take_back(self, request: Request, tokens: int) -> None:
        since_s = self._paid_s.get(request)
        use = self._uses.get(request.tenant)
        if since_s is not None and use is not None:
            use.take_back(tokens, since_s)

    def _forget_idle(self, now_s: float) -> None:
        """Drop tenants that have used nothing in the window."""
        while self._uses:
            tenant, use = next(iter(self._uses.items()))
            use.pass_time(now_s)
            if not use.is_empty():
                break
            del self._uses[tenant]


OFFER = Offer(
    name=Tpm.name,
    says="a quota of tokens per minute for each tenant, then the order of arrival",
    make=lambda options, tenants: Tpm(options),
    options=TpmOptions,
)
