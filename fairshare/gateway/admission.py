"""The queue in front of the server: what waits, what runs, what is refused. No clock, no I/O.

The policy says who is next; this module says whether anybody may go, keeps the bounds, and tells
the policy what becomes of each request. Callers pass the time (seconds that never fall).
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum, auto

from fairshare.gateway.window import Window
from fairshare.scheduling.policy import Refusal, Request, SchedulingPolicy

RATE_WINDOW_S = 60.0
MOST_RETRY_S = 600.0


class State(StrEnum):
    """Where a request is."""

    QUEUED = auto()
    RUNNING = auto()
    ENDED = auto()


class Decision(StrEnum):
    """What is told of a request, in the order of its life."""

    ARRIVED = auto()
    REFUSED = auto()
    ADMITTED = auto()
    FIRST_TOKEN = auto()
    FINISHED = auto()
    FAILED = auto()  # by the server
    CANCELLED = auto()  # by the client


@dataclass(frozen=True, slots=True)
class Refused:
    """Why a request is not served: an HTTP status, a reason from a closed list, and a text."""

    status: int
    reason: str
    text: str
    retry_after_s: float | None = None


@dataclass(eq=False, slots=True)
class Ticket:
    """One request in the gateway's hands. ``decided`` is called once: None means that it may go."""

    request: Request
    size_bytes: int
    decided: Callable[[Refused | None], None]
    streamed: bool = True
    """Whether its tokens are seen as they are made, and not at the end."""
    sent: bool = False
    """Whether the server has been told of it."""
    state: State = State.QUEUED
    admitted_s: float | None = None
    first_s: float | None = None

    @property
    def reserved_tokens(self) -> int:
        """What it may come to occupy at the server."""
        return self.request.prompt_tokens + self.request.max_output_tokens


@dataclass(frozen=True, slots=True)
class Bounds:
    """What may be in the gateway at once, and for how long."""

    queued: int
    queued_per_tenant: int
    queued_bytes: int
    ttl_s: float
    window_tokens: int | None = None


@dataclass(slots=True)
class _Drain:
    """How fast requests leave, over the last minute, as far as there was one."""

    ended_s: deque[float] = field(default_factory=lambda: deque(maxlen=4096))

    def wait_s(self, requests: float, now_s: float) -> float | None:
        """How long so many requests will take to leave; None if none has left lately."""
        ended = self.ended_s
        while ended and ended[0] < now_s - RATE_WINDOW_S:
            ended.popleft()
        if not ended:
            return None
        return requests * max(now_s - ended[0], 0.001) / len(ended)


class Admission:
    """Requests from their arrival to their end."""

    def __init__(
        self,
        policy: SchedulingPolicy,
        window: Window,
        bounds: Bounds,
        tell: Callable[[Decision, Ticket, float, Refused | None], None],
    ) -> None:
        self.policy = policy
        self.window = window
        self.queued: Counter[str] = Counter()
        self.running: Counter[str] = Counter()
        self.queued_bytes = 0
        self.running_tokens = 0
        self._bounds = bounds
        self._tell = tell
        self._tickets: dict[Request, Ticket] = {}  # those that wait, by age
        self._running = 0
        self._drain = _Drain()

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._tickets)

    @property
    def outstanding(self) -> int:
        """How many are at the server."""
        return self._running

    def arrive(self, ticket: Ticket, now_s: float) -> Refused | None:
        """Take a request in, and send off whoever may go now; or say why it is refused."""
        request = ticket.request
        refused = self._too_many(ticket, now_s)
        self._tell(Decision.ARRIVED, ticket, now_s, None)
        if refused is None and (refusal := self.policy.arrive(request, now_s)) is not None:
            refused = _by_policy(refusal)
        if refused is not None:
            ticket.state = State.ENDED
            self._tell(Decision.REFUSED, ticket, now_s, refused)
            return refused
        self._tickets[request] = ticket
        self.queued[request.tenant] += 1
        self.queued_bytes += ticket.size_bytes
        self.dispatch(now_s)
        return None

    def dispatch(self, now_s: float) -> None:
        """Send off whoever may go now."""
        while (head := self.policy.head(now_s)) is not None:
            if not self._fits(head):
                for request, refusal in self.policy.does_not_fit(now_s):
                    self._drop(self._tickets[request], _by_policy(refusal), now_s)
                return
            self.policy.admit(head, now_s)
            ticket = self._leave_queue(head)
            ticket.state = State.RUNNING
            ticket.admitted_s = now_s
            self._running += 1
            self.running[head.tenant] += 1
            self.running_tokens += ticket.reserved_tokens
            self._tell(Decision.ADMITTED, ticket, now_s, None)
            ticket.decided(None)

    def expire(self, now_s: float) -> None:
        """Refuse those that have waited too long."""
        oldest_s = now_s - self._bounds.ttl_s
        while self._tickets:
            ticket = next(iter(self._tickets.values()))  # the oldest
            if ticket.request.arrival_s > oldest_s:
                return
            self.policy.cancel(ticket.request, now_s)
            text = f"waited {self._bounds.ttl_s:g} s for its turn, which is the limit"
            wait_s = self._wait_s(self.waiting, now_s)
            self._drop(ticket, Refused(503, "expired", text, wait_s), now_s)

    def refuse_all(self, refused: Refused, now_s: float) -> None:
        """Refuse all that wait."""
        for ticket in list(self._tickets.values()):
            self.policy.cancel(ticket.request, now_s)
            self._drop(ticket, refused, now_s)

    def counted(self, ticket: Ticket, prompt_tokens: int, cached: int, now_s: float) -> None:
        """The server has counted the prompt."""
        request = ticket.request
        if prompt_tokens != request.prompt_tokens or cached != request.cached_tokens:
            before = ticket.reserved_tokens
            request.cached_tokens = cached
            self.policy.counted(request, prompt_tokens, now_s)
            self.running_tokens += ticket.reserved_tokens - before

    def produced(self, ticket: Ticket, tokens: int, now_s: float) -> None:
        """A running request has got so many tokens more."""
        if ticket.first_s is None:
            ticket.first_s = now_s
            if ticket.streamed and ticket.admitted_s is not None:
                self.window.answered(now_s - ticket.admitted_s)
            self._tell(Decision.FIRST_TOKEN, ticket, now_s, None)
        self.policy.produced(ticket.request, tokens, now_s)

    def finish(self, ticket: Ticket, now_s: float) -> None:
        """It was answered."""
        self.policy.finish(ticket.request, now_s)
        self._end(ticket, Decision.FINISHED, now_s)

    def fail(self, ticket: Ticket, now_s: float) -> None:
        """The server failed it; what it cost is paid back unless it has got a token."""
        self.policy.cancel(ticket.request, now_s, refund=ticket.first_s is None)
        self._end(ticket, Decision.FAILED, now_s)

    def withdraw(self, ticket: Ticket, now_s: float) -> None:
        """The client has gone; what it has cost stays charged if the server had it."""
        if ticket.state is State.ENDED:
            return
        unsent = ticket.state is State.RUNNING and not ticket.sent
        self.policy.cancel(ticket.request, now_s, refund=unsent)
        if ticket.state is State.QUEUED:
            self._leave_queue(ticket.request)
            ticket.state = State.ENDED
            self._tell(Decision.CANCELLED, ticket, now_s, None)
        else:
            self._end(ticket, Decision.CANCELLED, now_s)

    def _too_many(self, ticket: Ticket, now_s: float) -> Refused | None:
        bounds, tenant = self._bounds, ticket.request.tenant
        if self.waiting >= bounds.queued:
            wait_s = self._wait_s(self.waiting / 2, now_s)
            return Refused(429, "queue_full", f"{self.waiting} requests wait already", wait_s)
        if self.queued[tenant] >= bounds.queued_per_tenant:
            own = self.queued[tenant]
            wait_s = self._wait_s(own / 2, now_s)
            return Refused(429, "tenant_queue_full", f"{own} of {tenant} wait already", wait_s)
        if self.queued_bytes + ticket.size_bytes > bounds.queued_bytes and self.waiting:
            wait_s = self._wait_s(self.waiting / 2, now_s)
            return Refused(429, "queue_bytes", "the requests that wait are too large", wait_s)
        return None

    def _fits(self, head: Request) -> bool:
        if self._running >= self.window.size:
            return False
        most = self._bounds.window_tokens
        if most is None or not self._running:  # one that is too large for it goes alone
            return True
        return self.running_tokens + self._tickets[head].reserved_tokens <= most

    def _wait_s(self, requests: float, now_s: float) -> float:
        return min(max(self._drain.wait_s(requests, now_s) or 1.0, 1.0), MOST_RETRY_S)

    def _drop(self, ticket: Ticket, refused: Refused, now_s: float) -> None:
        """Refuse one that waits, and that the policy does not know any more."""
        self._leave_queue(ticket.request)
        ticket.state = State.ENDED
        self._tell(Decision.REFUSED, ticket, now_s, refused)
        ticket.decided(refused)

    def _leave_queue(self, request: Request) -> Ticket:
        ticket = self._tickets.pop(request)
        self.queued_bytes -= ticket.size_bytes
        _less(self.queued, request.tenant)
        return ticket

    def _end(self, ticket: Ticket, decision: Decision, now_s: float) -> None:
        ticket.state = State.ENDED
        self._running -= 1
        self.running_tokens -= ticket.reserved_tokens
        _less(self.running, ticket.request.tenant)
        self._drain.ended_s.append(now_s)
        self._tell(decision, ticket, now_s, None)
        self.dispatch(now_s)


def _less(counts: Counter[str], tenant: str) -> None:
    counts[tenant] -= 1
    if not counts[tenant]:
        del counts[tenant]


def _by_policy(refusal: Refusal) -> Refused:
    return Refused(429, "policy", refusal.reason, refusal.retry_after_s)
