"""Requests made ready ahead of their time, so that sending costs no more than sending."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from fairshare.load.target import Target
from fairshare.workload.requests import PlannedRequest
from fairshare.workload.turns import Turn

MAX_AHEAD_BYTES = 32 << 20  # long prompts are not piled up without bound


@dataclass(frozen=True, slots=True)
class Prepared:
    """A planned request and the bytes of its body."""

    id: str
    intended_ns: int | None
    body: bytes
    max_tokens: int
    turn: Turn | None = None


class RequestQueue:
    """A tenant's next requests, encoded; refilled one by one between other work of the loop.

    After :meth:`prime`, a failure to make the next request goes to ``on_error`` and ends the queue:
    it is found in callbacks, which cannot raise.
    """

    def __init__(
        self,
        target: Target,
        requests: Iterator[PlannedRequest],
        *,
        ahead: int,
        on_error: Callable[[Exception], None],
    ) -> None:
        self._target = target
        self._requests = requests
        self._ahead = ahead
        self._on_error = on_error
        self._ready: deque[Prepared] = deque()
        self._bytes = 0
        self._refilling = False
        self.exhausted = False

    def prime(self) -> None:
        """Fill the queue now, before the clock runs.

        Raises:
            SpecError: a request has no prompt in the form that the server takes.
        """
        while self._wants_more():
            self._make()

    def peek(self) -> Prepared | None:
        """The next request, which stays in the queue; None if there are no more."""
        if not self._ready and not self.exhausted:
            self._try_make()
        return self._ready[0] if self._ready else None

    def take(self) -> Prepared | None:
        """The next request; None if there are no more."""
        request = self.peek()
        if request is not None:
            self._ready.popleft()
            self._bytes -= len(request.body)
            if not self._refilling and self._wants_more():
                self._refilling = True
                asyncio.get_running_loop().call_soon(self._refill)
        return request

    def _refill(self) -> None:
        self._refilling = False
        if self._wants_more():
            self._try_make()
            self._refilling = True
            asyncio.get_running_loop().call_soon(self._refill)

    def _wants_more(self) -> bool:
        return (
            not self.exhausted and len(self._ready) < self._ahead and self._bytes < MAX_AHEAD_BYTES
        )

    def _try_make(self) -> None:
        try:
            self._make()
        except Exception as error:  # a generator's or a file's; the driver raises it
            self.exhausted = True
            self._on_error(error)

    def _make(self) -> None:
        planned = next(self._requests, None)
        if planned is None:
            self.exhausted = True
            return
        body = self._target.body(planned)
        self._bytes += len(body)
        self._ready.append(
            Prepared(planned.id, planned.intended_ns, body, planned.max_tokens, planned.turn)
        )
