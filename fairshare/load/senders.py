"""When requests are sent: by N clients that wait for their answers, or by a schedule that does not.

Both work by callbacks of the event loop, so that a send is late by no more than the loop is.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Protocol

from fairshare.load.ahead import Prepared
from fairshare.load.chains import Chains
from fairshare.load.flights import Flights
from fairshare.load.lane import Lane
from fairshare.records import RequestRecord
from fairshare.units import NS_PER_S
from fairshare.workload.pauses import failure_pause_s


class Sender(Protocol):
    """Sends one tenant's requests while it is open."""

    def starters(self, start_ns: int, end_ns: int, plan_ns: int) -> list[Callable[[], None]]:
        """What to call, in turn with other tenants', to begin sending at ``start_ns``.

        What is meant for ``end_ns`` or later is not sent. ``plan_ns`` is the moment of the plan
        (of ``PlannedRequest.intended_ns``) that falls on ``start_ns``.
        """
        ...

    def shut(self, end_ns: int) -> None:
        """Send what was still meant to be sent before ``end_ns``, then nothing more."""
        ...


class ScheduledSender:
    """Open loop: sends at the planned times whatever the server does, without a cap.

    Of an interaction of several calls only the first is so free: see :class:`Chains`.
    """

    def __init__(self, lane: Lane, flights: Flights) -> None:
        self._lane = lane
        self._flights = flights
        self._chains = Chains(partial(flights.launch, lane), lambda: flights.origin_ns)
        self._shift_ns = 0
        self._end_ns = 0
        self._handle: asyncio.TimerHandle | None = None

    def starters(self, start_ns: int, end_ns: int, plan_ns: int) -> list[Callable[[], None]]:
        """One call, which sends the first request or arms its timer."""
        self._shift_ns = start_ns - plan_ns
        self._end_ns = end_ns
        self._chains.open(end_ns)
        return [self._fire]

    def shut(self, end_ns: int) -> None:
        """Send what was meant to be sent before ``end_ns``, however late, then nothing more."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        self._send_before(min(end_ns, self._end_ns))
        self._chains.shut(end_ns)

    def _fire(self) -> None:
        next_ns = self._send_before(min(time.monotonic_ns() + 1, self._end_ns))
        if next_ns is not None and next_ns < self._end_ns:
            delay_s = (next_ns - time.monotonic_ns()) / NS_PER_S
            self._handle = asyncio.get_running_loop().call_later(max(delay_s, 0), self._fire)

    def _send_before(self, end_ns: int) -> int | None:
        """Send what is due before ``end_ns``; return when the next is due, None if never."""
        queue = self._lane.queue
        while (request := queue.peek()) is not None:
            assert request.intended_ns is not None  # noqa: S101  (the driver checked the plan)
            intended_ns = request.intended_ns + self._shift_ns
            if intended_ns >= end_ns:
                return intended_ns
            queue.take()
            if request.turn is not None and (request.turn.calls or 1) > 1:
                self._chains.offer(request, request.turn, intended_ns)
            else:
                self._flights.launch(self._lane, request, intended_ns)
        return None


class ClosedSender:
    """Closed loop: ``concurrency`` clients, each with one request in flight or thinking.

    Where requests are calls of interactions, each client has one interaction after the other.
    """

    def __init__(self, lane: Lane, flights: Flights, concurrency: int, think_s: float) -> None:
        self._clients = [_Client(lane, flights, think_s) for _ in range(concurrency)]

    def starters(self, start_ns: int, end_ns: int, plan_ns: int) -> list[Callable[[], None]]:
        """One call for each client, which sends its first request."""
        del plan_ns  # a closed loop has no plan of times
        return [client.starter(start_ns, end_ns) for client in self._clients]

    def shut(self, end_ns: int) -> None:
        """Let no client send again."""
        del end_ns  # a client's next request is meant to be sent when it is free: now or later
        for client in self._clients:
            client.shut()


class _Client:
    """Waits for an answer, thinks, asks again."""

    def __init__(self, lane: Lane, flights: Flights, think_s: float) -> None:
        self._lane = lane
        self._flights = flights
        self._think_s = think_s
        self._failures = 0
        self._calls: deque[Prepared] = deque()  # what is left of its interaction
        self._session = 0  # which opening a request belongs to
        self._end_ns = 0
        self._handle: asyncio.TimerHandle | None = None

    def starter(self, start_ns: int, end_ns: int) -> Callable[[], None]:
        self._end_ns = end_ns
        self._session += 1
        self._calls.clear()
        return lambda: self._send(start_ns)

    def shut(self) -> None:
        self._end_ns = 0
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _send(self, intended_ns: int) -> None:
        self._handle = None
        if intended_ns >= self._end_ns or (request := self._take()) is None:
            return
        session = self._session
        self._flights.launch(
            self._lane, request, intended_ns, lambda record: self._done(record, session)
        )

    def _take(self) -> Prepared | None:
        """The next call of this client's interaction, else a new one with all of its calls."""
        if self._calls:
            return self._calls.popleft()
        queue = self._lane.queue
        request = queue.take()
        if request is not None and request.turn is not None:
            for _ in range((request.turn.calls or 1) - 1):
                if (call := queue.take()) is not None:
                    self._calls.append(call)
        return request

    def _done(self, record: RequestRecord, session: int) -> None:
        self._failures = 0 if record.ok else self._failures + 1
        if session != self._session:
            return
        if not record.ok:
            self._calls.clear()  # no call can be made of an answer that did not come
        assert record.end_ns is not None  # noqa: S101  (it is complete)
        free_ns = record.end_ns + self._flights.origin_ns
        think_s = self._think_s
        if self._calls and (turn := self._calls[0].turn) is not None:
            think_s = turn.think_s
        intended_ns = free_ns + round(
            (think_s + failure_pause_s(self._failures, record.retry_after_s)) * NS_PER_S
        )
        delay_s = (intended_ns - time.monotonic_ns()) / NS_PER_S
        if delay_s <= 0:
            self._send(intended_ns)
        elif intended_ns < self._end_ns:
            loop = asyncio.get_running_loop()
            self._handle = loop.call_later(delay_s, self._send, intended_ns)
