"""Open-loop interactions: a call is sent when its time has come and the one before is answered."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from fairshare.load.ahead import Prepared
from fairshare.records import RequestRecord
from fairshare.units import NS_PER_S
from fairshare.workload.turns import Turn

Send = Callable[[Prepared, int, Callable[[RequestRecord], None]], None]
"""Sends a request that is meant to be sent at a monotonic time, and calls back with its record."""


@dataclass(slots=True)
class _Call:
    request: Prepared
    turn: Turn
    intended_ns: int


@dataclass(slots=True)
class _Chain:
    """Calls of one interaction whose own time has come; ``busy`` while one is sent or armed."""

    waiting: deque[_Call] = field(default_factory=deque)
    busy: bool = False
    free_ns: int | None = None  # when the call before was answered
    due_ns: int = 0
    handle: asyncio.TimerHandle | None = None


class Chains:
    """The interactions of one tenant that have begun and not ended.

    When a call fails its interaction is broken off: the calls after it are not sent.
    """

    def __init__(self, send: Send, origin_ns: Callable[[], int]) -> None:
        self._send = send
        self._origin_ns = origin_ns
        self._chains: dict[str, _Chain] = {}
        self._end_ns = 0

    def open(self, end_ns: int) -> None:
        """Begin afresh; what falls due at ``end_ns`` or later is not sent."""
        self._chains.clear()
        self._end_ns = end_ns

    def shut(self, end_ns: int) -> None:
        """Send what fell due before ``end_ns``, however late, then nothing more."""
        end_ns = min(end_ns, self._end_ns)
        for chain in self._chains.values():
            if chain.handle is not None:
                chain.handle.cancel()
                chain.handle = None
                if chain.due_ns < end_ns:
                    self._launch(chain)
        self._end_ns = 0

    def offer(self, request: Prepared, turn: Turn, intended_ns: int) -> None:
        """A call whose own time has come: send it, or keep it until the one before is answered."""
        assert turn.interaction is not None  # noqa: S101  (the caller looked)
        if turn.call == 1:
            self._chains[turn.interaction] = _Chain()
        chain = self._chains.get(turn.interaction)
        if chain is None:
            return  # it was broken off, or began before the sending was last opened
        chain.waiting.append(_Call(request, turn, intended_ns))
        if not chain.busy:
            self._arm(chain)

    def _arm(self, chain: _Chain) -> None:
        call = chain.waiting[0]
        due_ns = call.intended_ns
        if chain.free_ns is not None:
            due_ns = max(due_ns, chain.free_ns + round(call.turn.think_s * NS_PER_S))
        if due_ns >= self._end_ns:
            return
        chain.busy, chain.due_ns = True, due_ns
        delay_s = (due_ns - time.monotonic_ns()) / NS_PER_S
        if delay_s > 0:
            loop = asyncio.get_running_loop()
            chain.handle = loop.call_later(delay_s, self._launch, chain)
        else:
            self._launch(chain)

    def _launch(self, chain: _Chain) -> None:
        chain.handle = None
        call = chain.waiting.popleft()
        self._send(call.request, chain.due_ns, lambda record: self._done(chain, call.turn, record))

    def _done(self, chain: _Chain, turn: Turn, record: RequestRecord) -> None:
        assert record.end_ns is not None and turn.interaction is not None  # noqa: S101
        if not record.ok or turn.call == turn.calls:
            if self._chains.get(turn.interaction) is chain:
                del self._chains[turn.interaction]
            return
        chain.busy = False
        chain.free_ns = record.end_ns + self._origin_ns()
        if chain.waiting:
            self._arm(chain)
