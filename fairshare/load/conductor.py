"""The order of things in a cell: barrier, warm-up, window (by time, requests or rounds), drain."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from itertools import chain, zip_longest

from fairshare.load.flights import Flights
from fairshare.load.selfcheck import SelfCheck
from fairshare.load.senders import Sender
from fairshare.records import Phase
from fairshare.spec.scenario import Timing
from fairshare.units import NS_PER_S

# From here to the barrier everything is ready, and the loop has time to become quiet.
LEAD_S = 0.02
# What begins together with a cell (telemetry, a first look at the servers) must not delay the first
# requests: so many short sleeps in a row have to end in time before the barrier, within a limit.
CALM_SLEEPS = 3
CALM_SLEEP_S = 0.005
CALM_LATE_S = 0.003
CALM_LIMIT_S = 0.5
# After a stop nothing more is sent, and what is in flight has so long to end before it is
# cancelled: answers of a server that works become whole, and those that break off say how.
STOP_DRAIN_S = 5.0
# After a failure of our own nobody can use what is still to come.
FAILED_GRACE_S = 0.2


class Conductor:
    """Opens and shuts the senders as the timing says. Times are on the monotonic clock, in ns."""

    def __init__(
        self,
        senders: Sequence[Sender],
        flights: Flights,
        *,
        check: SelfCheck,
        timing: Timing,
        tenants: Sequence[str],
        on_window: Callable[[str], None],
        barrier: Callable[[], Awaitable[int]] | None = None,
    ) -> None:
        self._senders = senders
        self._flights = flights
        self._check = check
        self._timing = timing
        self._tenants = tenants
        self._on_window = on_window
        self._barrier = barrier or _soon
        self._wake = asyncio.Event()
        self._done: Callable[[], bool] | None = None
        self.stopped = False
        self.window_ns = (0, 0)
        flights.on_landing = self._landed

    def stop(self) -> None:
        """Send nothing more; what is in flight has a few seconds to end."""
        self.stopped = True
        self._wake.set()

    async def run(self) -> None:
        """The whole cell, up to the end of the drain; what is still in flight then is cancelled."""
        timing, flights = self._timing, self._flights
        await self._calm()
        if timing.warmup_s:
            self._tell(Phase.WARMUP)  # a little early, so that listeners delay no request
        origin = flights.origin_ns = await self._barrier()
        await self._until(origin)
        if timing.rounds is None:
            await self._one_window(origin)
        else:
            await self._rounds(origin, timing.rounds)
        self._tell(Phase.DRAIN)
        await self._drain()

    async def _calm(self) -> None:
        """Wait until the event loop keeps time, but not for long."""
        limit_s = time.monotonic() + CALM_LIMIT_S
        calm = 0
        while calm < CALM_SLEEPS and not self._halted:
            before_s = time.monotonic()
            if before_s >= limit_s:
                return
            await asyncio.sleep(CALM_SLEEP_S)
            late_s = time.monotonic() - before_s - CALM_SLEEP_S
            calm = calm + 1 if late_s < CALM_LATE_S else 0

    async def _one_window(self, origin: int) -> None:
        timing = self._timing
        start = self._flights.window_start_ns = origin + _ns(timing.warmup_s)
        limit = start + _ns(timing.window_s)
        self._open(origin, limit, plan_ns=0)
        await self._until(start)
        self._tell(Phase.MEASURE)
        if not self._halted:
            self._check.begin(start - origin)
        if timing.requests is None:
            await self._until(limit)
        else:
            await self._until(limit, lambda: self._each_has_measured(timing.requests or 0))
        self._end_window(start, limit)

    async def _rounds(self, origin: int, rounds: int) -> None:
        timing, flights = self._timing, self._flights
        if timing.warmup_s:
            warm = origin + _ns(timing.warmup_s)
            self._open(origin, warm, plan_ns=0)
            await self._until(warm)
            self._shut(warm)
            await self._until(time.monotonic_ns() + _ns(timing.drain_s), self._idle)
        start = flights.window_start_ns = time.monotonic_ns()
        limit = start + _ns(timing.window_s)
        round_s = timing.round_s or 0.0
        self._tell(Phase.MEASURE)
        for number in range(rounds):
            barrier = time.monotonic_ns()
            if self._halted or barrier >= limit:
                break
            flights.round = number
            self._check.begin(barrier - flights.origin_ns)
            end = min(barrier + _ns(round_s), limit)
            self._open(barrier, end, plan_ns=_ns(timing.warmup_s + number * round_s))
            await self._until(end)
            self._shut(end)
            self._check.end(min(time.monotonic_ns(), end) - flights.origin_ns)
            await self._until(limit, self._idle)
        self._end_window(start, limit)

    def _end_window(self, start: int, limit: int) -> None:
        end = min(limit, time.monotonic_ns())
        self._shut(end)
        origin = self._flights.origin_ns
        self._check.end(end - origin)
        self.window_ns = (min(start, end) - origin, end - origin)

    def _tell(self, phase: Phase) -> None:
        if not self._halted:
            self._on_window(phase.value)

    def _open(self, start: int, end: int, plan_ns: int) -> None:
        """One barrier for all tenants; their clients take turns, so that none is always last."""
        if self._halted:
            return
        starters = [sender.starters(start, end, plan_ns) for sender in self._senders]
        for starter in chain.from_iterable(zip_longest(*starters)):
            if starter is not None:
                starter()

    def _shut(self, end: int) -> None:
        for sender in self._senders:
            sender.shut(0 if self._halted else end)

    async def _drain(self) -> None:
        end = time.monotonic_ns() + _ns(self._grace_s)
        was_halted = self._halted
        while time.monotonic_ns() < end and not self._idle() and self._halted == was_halted:
            await self._wait(end, self._idle)
        if self._halted and not was_halted:
            await self._drain()
            return
        self._flights.cancel()
        if self._flights.active:
            await asyncio.wait(self._flights.active)

    @property
    def _grace_s(self) -> float:
        """How long what is in flight may still take."""
        if self._flights.error is not None:
            return FAILED_GRACE_S
        return min(self._timing.drain_s, STOP_DRAIN_S) if self.stopped else self._timing.drain_s

    @property
    def _halted(self) -> bool:
        return self.stopped or self._flights.error is not None

    def _idle(self) -> bool:
        return not self._flights.active

    def _each_has_measured(self, count: int) -> bool:
        return all(self._flights.measured[tenant] >= count for tenant in self._tenants)

    async def _until(self, deadline: int, done: Callable[[], bool] | None = None) -> None:
        """Wait for a moment, or a condition that answers can bring about, or a stop."""
        while time.monotonic_ns() < deadline and not self._halted and not (done and done()):
            await self._wait(deadline, done)

    async def _wait(self, deadline: int, done: Callable[[], bool] | None) -> None:
        self._wake.clear()
        self._done = done
        try:
            async with asyncio.timeout(max(0, deadline - time.monotonic_ns()) / NS_PER_S):
                await self._wake.wait()
        except TimeoutError:
            return
        finally:
            self._done = None

    def _landed(self) -> None:
        if self._flights.error is not None or (self._done is not None and self._done()):
            self._wake.set()


async def _soon() -> int:
    return time.monotonic_ns() + _ns(LEAD_S)


def _ns(seconds: float) -> int:
    return round(seconds * NS_PER_S)
