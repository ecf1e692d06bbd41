"""First come, first served: what engines do by themselves."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from fairshare.scheduling.policy import Refusal, Request, SchedulingPolicy


class Fcfs(SchedulingPolicy):
    """Requests go in the order of their arrival, whoever sends them."""

    name = "fcfs"
    counts_tokens = False

    def __init__(self) -> None:
        self._queue: deque[Request] = deque()

    def arrive(self, request: Request, now_s: float) -> Refusal | None:
        self._queue.append(request)
        return None

    def head(self, now_s: float) -> Request | None:
        return self._queue[0] if self._queue else None

    def admit(self, request: Request, now_s: float) -> None:
        self._queue.remove(request)  # the head, so this looks no further than at the first

    def put_back(self, request: Request, now_s: float, *, preempted: bool) -> None:
        self._queue.appendleft(request)

    def produced(self, request: Request, tokens: int, now_s: float) -> None:
        request.produced += tokens

    def finish(self, request: Request, now_s: float) -> None:
        pass

    def cancel(self, request: Request, now_s: float, *, refund: bool = False) -> None:
        if request in self._queue:
            self._queue.remove(request)

    def waiting(self) -> Iterator[Request]:
        return iter(self._queue)

    def __len__(self) -> int:
        return len(self._queue)
