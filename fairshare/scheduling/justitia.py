"""Justitia: agents are served in the order in which they would end if all shared memory equally.

An agent is an interaction, of one call or of several. A call with p prompt and d output tokens
holds p d + d^2 / 2 tokens of KV cache times steps; that is its cost, and an agent's is the sum.
In an ideal server all agents progress alike; virtual time V is how far each has come since the
beginning, and an agent that comes at V with cost C ends at F = V + C / weight. Least F first.

V follows the service that is really given, not the clock: each output token of a request that
holds k tokens is k units, divided among the agents of the ideal server. So no speed is assumed.

Source: Justitia, arXiv 2510.17015; virtual time as in weighted fair queuing. With costs known and
an agent's calls all there when it comes, it ends at most 2 M D units of service after its ideal
end: M tokens fit into the cache, and D is the most output tokens of a call.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from heapq import heappop, heappush

from fairshare.scheduling.bookkeeping import Bookkeeping
from fairshare.scheduling.offer import Offer, option
from fairshare.scheduling.policy import Refusal, Request, Tenants
from fairshare.scheduling.queues import Sorted

REMEMBERED = 65_536
"""So many agents between two calls are remembered, the longest idle forgotten first."""


@dataclass(frozen=True, slots=True)
class JustitiaOptions:
    """How an answer's length is known before it comes."""

    prediction: str = option(
        "average",
        "output tokens of a call: its limit, its application's mean so far, or the truth",
        one_of=("limit", "average", "oracle"),
    )


@dataclass(slots=True)
class _Agent:
    """One interaction, from its first request until none of it is open and its last call came."""

    finish: float
    """F, the virtual time at which it ends in the ideal server."""
    open: int = 0
    last_seen: bool = False


def kv_cost(prompt_tokens: float, output_tokens: float) -> float:
    """Tokens of KV cache times steps that a call holds: p d + d^2 / 2."""
    return prompt_tokens * output_tokens + output_tokens * output_tokens / 2


class IdealServer:
    """Agents that share the service equally (by weight), and its virtual time."""

    def __init__(self) -> None:
        self.virtual_time = 0.0
        self._ends: list[tuple[float, float]] = []  # F and the weight, of those not at their end
        self._weight = 0.0

    def arrive(self, cost: float, weight: float) -> float:
        """An agent comes; when it ends, in virtual time."""
        finish = self.virtual_time + cost / weight
        heappush(self._ends, (finish, weight))
        self._weight += weight
        return finish

    def serve(self, units: float) -> None:
        """So much service is given, to all who are here; nobody gets more than he needs."""
        while self._ends:
            finish, weight = self._ends[0]
            needed = (finish - self.virtual_time) * self._weight
            if units < needed:
                self.virtual_time += units / self._weight
                return
            units -= needed
            self.virtual_time = finish
            heappop(self._ends)
            self._weight -= weight
        self._weight = 0.0  # exactly, whatever was rounded


class _Lengths:
    """The mean output of each application's whole answers, else the request's limit."""

    def __init__(self, prediction: str) -> None:
        self._prediction = prediction
        self._seen: dict[str, tuple[int, int]] = {}

    def learn(self, request: Request) -> None:
        """It was answered completely."""
        answers, tokens = self._seen.get(request.app, (0, 0))
        self._seen[request.app] = (answers + 1, tokens + request.produced)

    def of(self, request: Request) -> float:
        """The output tokens that are expected of it."""
        if self._prediction == "oracle" and request.output_tokens is not None:
            return request.output_tokens
        if self._prediction == "average" and request.app in self._seen:
            answers, tokens = self._seen[request.app]
            return tokens / answers
        return request.max_output_tokens


class Justitia(Bookkeeping[Sorted]):
    """All calls of an agent have its F; of one agent the earlier call goes first."""

    name = "justitia"

    def __init__(self, options: JustitiaOptions, tenants: Tenants) -> None:
        self._ends: dict[Request, float] = {}
        super().__init__(Sorted(self._ends.__getitem__))
        self._tenants = tenants
        self._lengths = _Lengths(options.prediction)
        self._ideal = IdealServer()
        self._agents: dict[tuple[str, str], _Agent] = {}
        self._idle: OrderedDict[tuple[str, str], None] = OrderedDict()  # between two calls

    def arrive(self, request: Request, now_s: float) -> Refusal | None:
        if request not in self._ends:
            self._ends[request] = self._finish(request)
        super().arrive(request, now_s)
        return None

    def head(self, now_s: float) -> Request | None:
        return self._waiting.first()

    def produced(self, request: Request, tokens: int, now_s: float) -> None:
        before = request.produced
        super().produced(request, tokens, now_s)
        if request.produced > before:
            held = kv_cost(request.prompt_tokens, request.produced)
            self._ideal.serve(held - kv_cost(request.prompt_tokens, before))

    def finish(self, request: Request, now_s: float) -> None:
        if request in self._ends:
            self._lengths.learn(request)
        super().finish(request, now_s)
        self._end(request)

    def cancel(self, request: Request, now_s: float, *, refund: bool = False) -> None:
        super().cancel(request, now_s, refund=refund)
        self._end(request)

    def rank(self, request: Request) -> int:
        """By how much its agent's ideal end lies after the beginning, in units of service."""
        return int(self._ends[request])

    def _finish(self, request: Request) -> float:
        """F of its agent, which comes with its first request."""
        weight = self._tenants.weight(request.tenant)
        one = kv_cost(request.prompt_tokens, self._lengths.of(request))
        if request.interaction is None:
            return self._ideal.arrive(one, weight)
        key = (request.tenant, request.interaction)
        if (agent := self._agents.get(key)) is None:
            left = max(1, request.calls - request.call + 1)
            agent = self._agents[key] = _Agent(self._ideal.arrive(one * left, weight))
        self._idle.pop(key, None)
        agent.open += 1
        agent.last_seen = agent.last_seen or request.call >= request.calls
        return agent.finish

    def _end(self, request: Request) -> None:
        """It waits and runs no more; nor does its agent, if this was the last of it."""
        if self._ends.pop(request, None) is None or request.interaction is None:
            return
        key = (request.tenant, request.interaction)
        agent = self._agents[key]
        agent.open -= 1
        if agent.open:
            return
        if agent.last_seen:
            del self._agents[key]
            return
        self._idle[key] = None
        if len(self._idle) > REMEMBERED:
            del self._agents[self._idle.popitem(last=False)[0]]


OFFER = Offer(
    name=Justitia.name,
    says="the agent (interaction) that would end first if all shared the KV cache equally",
    make=Justitia,
    options=JustitiaOptions,
    aliases={"QUEUE_Justitia": {"prediction": "limit"}},
)
