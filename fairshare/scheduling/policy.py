"""The seam of all schedulers: what happens to requests is told, who is next is asked.

A policy holds the requests that wait. Whoever serves them (the gateway, vLLM's own scheduler, the
simulated engine) tells it each event, with the time at which it happened, and asks for the head::

    refusal = policy.arrive(request, now_s)          # None: it waits now
    while (head := policy.head(now_s)) is not None:
        if not fits(head):
            dropped = policy.does_not_fit(now_s)     # most policies: nobody; the head waits on
            break                                    # a head that does not fit is not overtaken
        policy.admit(head, now_s)                    # it runs, and is charged for its prompt
    policy.produced(request, tokens, now_s)          # whenever it has got tokens
    policy.finish(request, now_s)                    # or: cancel, put_back

A policy has no clock, does no I/O and draws no random number that its seed does not fix: the same
events give the same order. It uses the standard library alone, since it is imported by engines that
live in another interpreter.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field


@dataclass(slots=True, eq=False)
class Request:
    """One request as a scheduler knows it, while it waits and while it runs."""

    id: str
    tenant: str
    prompt_tokens: int
    max_output_tokens: int
    """At most so many are produced; with a forced length, exactly so many."""
    arrival_s: float = 0.0
    app: str = ""
    """The application that the user called, whose typical request FairServe knows."""
    interaction: str | None = None
    """What the user did once; its calls share this name."""
    call: int = 1
    """The how-manieth call of its interaction this is, from 1."""
    calls: int = 1
    """The calls of the whole interaction."""
    system_tokens: int = 0
    """The part of ``prompt_tokens`` that the application put there."""
    cached_tokens: int = 0
    """The part of ``prompt_tokens`` that was in the prefix cache, where it is known."""
    deadline_s: float | None = None
    """When it must have been answered, on the clock of ``arrival_s``."""
    output_tokens: int | None = None
    """How many it will really produce, where that is known beforehand (simulations: an oracle)."""
    produced: int = 0
    """Tokens that it has got so far; kept by the policy."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What one tenant is entitled to and was promised."""

    weight: float = 1.0
    slo_e2e_s: float | None = None
    slo_ttft_s: float | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request is not served, and after how long it may be tried again (None: unknown)."""

    reason: str
    retry_after_s: float | None = None


@dataclass(slots=True)
class Tenants:
    """The terms of all tenants; one that was never named has the default ones."""

    named: Mapping[str, Terms] = field(default_factory=dict)
    default: Terms = field(default_factory=Terms)

    def __getitem__(self, tenant: str) -> Terms:
        return self.named.get(tenant, self.default)

    def weight(self, tenant: str) -> float:
        """The tenant's weight: twice the weight, twice the service."""
        return self[tenant].weight


class SchedulingPolicy(ABC):
    """Who is next. See the module for the order of calls; times are seconds and never fall."""

    name: str
    """As the user writes it."""
    counts_tokens: bool = True
    """Whether output tokens change who is next; if not, they may be told when the request ends."""

    @abstractmethod
    def arrive(self, request: Request, now_s: float) -> Refusal | None:
        """A request has come; it waits now, unless a reason is given why it is refused."""

    @abstractmethod
    def head(self, now_s: float) -> Request | None:
        """The one to be served next, or None if none waits (or none may go now).

        It stays the same until another event is told, so that it can be looked at and then
        admitted.
        """

    @abstractmethod
    def admit(self, request: Request, now_s: float) -> None:
        """The head is being served now: it no longer waits, and is charged for its prompt.

        Raises:
            ValueError: the request does not wait here.
        """

    def does_not_fit(self, now_s: float) -> list[tuple[Request, Refusal]]:
        """There is no room for the head; those that are thrown out for it, with the reason."""
        del now_s
        return []

    @abstractmethod
    def put_back(self, request: Request, now_s: float, *, preempted: bool) -> None:
        """An admitted request waits again, before all others of its tenant; nobody is lifted.

        ``preempted``: its work was lost, and it is not charged a second time when it is admitted
        again. Otherwise it was never begun, and what its admission cost is refunded.
        """

    @abstractmethod
    def produced(self, request: Request, tokens: int, now_s: float) -> None:
        """A running request has got so many output tokens more."""

    def counted(self, request: Request, prompt_tokens: int, now_s: float) -> None:
        """The server has counted the prompt of a running request, which was only estimated.

        What its admission cost is corrected, up or down, by whoever charges for prompts.
        """
        del now_s
        request.prompt_tokens = prompt_tokens

    @abstractmethod
    def finish(self, request: Request, now_s: float) -> None:
        """A running request was answered completely."""

    @abstractmethod
    def cancel(self, request: Request, now_s: float, *, refund: bool = False) -> None:
        """A request is gone, whether it waited or ran, and what it has cost stays charged.

        ``refund``: the server failed before it gave anything, so what it cost is paid back.
        A request that is not known here is passed over.
        """

    def rank(self, request: Request) -> int:
        """Its place for an engine with priorities of its own: smaller is sooner.

        It is asked once, right after the request was admitted.
        """
        del request
        return 0

    def counters(self) -> dict[str, float]:
        """What the policy compares, by tenant: virtual counters, deficits or credits."""
        return {}

    @abstractmethod
    def waiting(self) -> Iterator[Request]:
        """All that wait, in no promised order but each once."""

    @abstractmethod
    def __len__(self) -> int:
        """How many wait."""
