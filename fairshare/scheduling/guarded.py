"""A policy whose mistakes cost its order, and never a request or a server.

A policy is asked inside engines and gateways, where an exception of its own would end everybody's
requests, or leave a place at the server taken for ever.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from typing import TypeVar

from fairshare.scheduling.fcfs import Fcfs
from fairshare.scheduling.policy import Refusal, Request, SchedulingPolicy

T = TypeVar("T")


class Guarded(SchedulingPolicy):
    """Asks another policy; after its first mistake all that is here goes on in order of arrival.

    A mistake is any exception, and a head that does not wait. ``failed`` is told once, with where
    it happened and what it was.
    """

    def __init__(self, policy: SchedulingPolicy, failed: Callable[[str], None]) -> None:
        self.name = policy.name
        self.counts_tokens = policy.counts_tokens
        self.error: str | None = None
        """What the policy's mistake was, once it has made one."""
        self._policy = policy
        self._failed = failed
        self._waits: dict[Request, bool] = {}  # all that is here; False for those that run

    def arrive(self, request: Request, now_s: float) -> Refusal | None:
        if request in self._waits:
            raise ValueError(f"request {request.id!r} of {request.tenant!r} is here already")
        refusal = self._ask(lambda policy: policy.arrive(request, now_s))
        if refusal is None:
            self._waits[request] = True
        return refusal

    def head(self, now_s: float) -> Request | None:
        head = self._ask(lambda policy: policy.head(now_s))
        if head is not None and not self._waits.get(head):
            self._fall_back(f"its head {head.id!r} does not wait")
            head = self._policy.head(now_s)
        return head

    def admit(self, request: Request, now_s: float) -> None:
        if not self._waits.get(request):
            raise ValueError(f"request {request.id!r} of {request.tenant!r} does not wait here")
        self._ask(lambda policy: policy.admit(request, now_s))
        self._waits[request] = False

    def does_not_fit(self, now_s: float) -> list[tuple[Request, Refusal]]:
        thrown = self._ask(lambda policy: policy.does_not_fit(now_s))
        for request, _ in thrown:
            self._waits.pop(request, None)
        return thrown

    def put_back(self, request: Request, now_s: float, *, preempted: bool) -> None:
        if self._waits.get(request, True):
            raise ValueError(f"request {request.id!r} of {request.tenant!r} does not run")
        self._ask(lambda policy: policy.put_back(request, now_s, preempted=preempted))
        self._waits[request] = True

    def produced(self, request: Request, tokens: int, now_s: float) -> None:
        self._ask(lambda policy: policy.produced(request, tokens, now_s))

    def counted(self, request: Request, prompt_tokens: int, now_s: float) -> None:
        self._ask(lambda policy: policy.counted(request, prompt_tokens, now_s))

    def finish(self, request: Request, now_s: float) -> None:
        self._ask(lambda policy: policy.finish(request, now_s))
        self._waits.pop(request, None)

    def cancel(self, request: Request, now_s: float, *, refund: bool = False) -> None:
        self._ask(lambda policy: policy.cancel(request, now_s, refund=refund))
        self._waits.pop(request, None)

    def rank(self, request: Request) -> int:
        return self._ask(lambda policy: policy.rank(request))

    def counters(self) -> dict[str, float]:
        return self._ask(lambda policy: policy.counters())

    def waiting(self) -> Iterator[Request]:
        return (request for request, waits in self._waits.items() if waits)

    def __len__(self) -> int:
        return len(self._policy)

    def _ask(self, event: Callable[[SchedulingPolicy], T]) -> T:
        try:
            return event(self._policy)
        except Exception:  # whatever it is, who waits here is not to suffer for it
            if self.error is not None:  # of the plainest policy: the caller's mistake
                raise
            self._fall_back(traceback.format_exc(limit=-2).strip())
            return event(self._policy)

    def _fall_back(self, error: str) -> None:
        """Tell the plainest policy of all that is here, as it was before the event."""
        self.error = error
        self._policy = Fcfs()
        for request, waits in self._waits.items():
            self._policy.arrive(request, request.arrival_s)
            if not waits:
                self._policy.admit(request, request.arrival_s)
        self._failed(error)
