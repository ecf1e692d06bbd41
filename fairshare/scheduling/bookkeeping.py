"""What all policies keep alike: a request is unknown, waits, or runs, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

from fairshare.scheduling.policy import Refusal, Request, SchedulingPolicy
from fairshare.scheduling.queues import Waiting

W = TypeVar("W", bound=Waiting)


class Bookkeeping(SchedulingPolicy, Generic[W]):
    """A policy without a rule: who waits is kept in ``_waiting``, who runs in ``_running``.

    A policy adds ``head`` and, where events cost something, its own part to them; it calls these
    first, since they raise before anything has changed.
    """

    def __init__(self, waiting: W) -> None:
        self._waiting = waiting
        self._running: set[Request] = set()

    def arrive(self, request: Request, now_s: float) -> Refusal | None:
        if request in self._running or request in self._waiting:
            raise ValueError(f"request {request.id!r} of {request.tenant!r} is here already")
        self._waiting.append(request)
        return None

    def admit(self, request: Request, now_s: float) -> None:
        if not self._waiting.remove(request):
            raise ValueError(f"request {request.id!r} of {request.tenant!r} does not wait here")
        self._running.add(request)

    def put_back(self, request: Request, now_s: float, *, preempted: bool) -> None:
        if request not in self._running:
            raise ValueError(f"request {request.id!r} of {request.tenant!r} does not run")
        self._running.discard(request)
        self._waiting.prepend(request)

    def produced(self, request: Request, tokens: int, now_s: float) -> None:
        if request in self._running or request in self._waiting:
            request.produced += tokens

    def finish(self, request: Request, now_s: float) -> None:
        self._running.discard(request)

    def cancel(self, request: Request, now_s: float, *, refund: bool = False) -> None:
        if not self._waiting.remove(request):
            self._running.discard(request)

    def waiting(self) -> Iterator[Request]:
        return iter(self._waiting)

    def __len__(self) -> int:
        return len(self._waiting)
