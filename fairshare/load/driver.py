"""Drives all tenants of a cell at once and reports how that went."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack

from fairshare.load.ahead import RequestQueue
from fairshare.load.collector import collection_paused
from fairshare.load.conductor import Conductor
from fairshare.load.descriptors import allow_many_connections
from fairshare.load.flights import Flights, Sink
from fairshare.load.lane import Lane
from fairshare.load.load import DriveReport, TenantLoad, adjusted_requests
from fairshare.load.pulse import OnPulse, Pulse
from fairshare.load.selfcheck import SelfCheck
from fairshare.load.senders import ClosedSender, ScheduledSender, Sender
from fairshare.load.transport import Transport
from fairshare.load.transports import DEFAULT_TRANSPORT, transport_to
from fairshare.records import TransportKind
from fairshare.spec.scenario import Timing
from fairshare.spec.workload import ClosedLoop

OPEN_LOOP_AHEAD = 64  # requests kept ready for an open-loop tenant
MAX_CLOSED_LOOP_AHEAD = 512
OPEN_LOOP_CONNECTIONS = 16  # opened ahead; more are opened as they are needed


async def drive(
    loads: Sequence[TenantLoad],
    timing: Timing,
    sink: Sink,
    *,
    stop: asyncio.Event,
    on_window: Callable[[str], None] | None = None,
    on_pulse: OnPulse | None = None,
    transport: TransportKind = DEFAULT_TRANSPORT,
    barrier: Callable[[], Awaitable[int]] | None = None,
) -> DriveReport:
    """Run one cell's load: all tenants from one barrier, which is t = 0 of the records.

    ``sink`` gets each record when it is complete. ``stop`` ends it early: nothing more is sent,
    what is in flight has a few seconds to end and is then cancelled (UNFINISHED). ``on_window``
    is told ``warmup``, ``measure`` and ``drain`` as they begin, ``on_pulse`` every two seconds how
    many requests of each tenant are in flight. ``barrier`` is asked, once all is ready, for the
    moment (monotonic) on which all start; without it that is soon.

    Raises:
        SpecError: a request has no prompt in the form that its server takes.
        Exception: whatever ``sink`` raised, after everything was stopped.
    """
    allow_many_connections()
    check = SelfCheck({load.tenant.name: load.concurrency for load in loads}, transport)
    flights = Flights(sink, check)
    async with AsyncExitStack() as stack:
        transports = _transports(loads, transport, stack)
        senders = [_sender(load, transports[load.target.base_url], flights) for load in loads]
        names = [load.tenant.name for load in loads]
        conductor = Conductor(
            senders,
            flights,
            check=check,
            timing=timing,
            tenants=names,
            on_window=on_window or (lambda phase: None),
            barrier=barrier,
        )
        watch = asyncio.create_task(stop.wait())
        watch.add_done_callback(lambda task: None if task.cancelled() else conductor.stop())
        stack.callback(watch.cancel)
        pulse = Pulse(on_pulse, check.in_flight)
        stack.callback(pulse.end)
        stack.push_async_callback(_land_all, flights, senders)
        for url, connection_count in _connections(loads).items():
            await transports[url].prepare(connection_count)
        with collection_paused():
            pulse.begin()
            await conductor.run()
    if flights.error is not None:
        raise flights.error
    return DriveReport(
        window_ns=conductor.window_ns,
        end_ns=time.monotonic_ns() - flights.origin_ns,
        stopped=conductor.stopped,
        client={**check.report(), "adjusted_requests": adjusted_requests(loads)},
    )


def _transports(
    loads: Sequence[TenantLoad], kind: TransportKind, stack: AsyncExitStack
) -> dict[str, Transport]:
    """One for each server, closed with the stack."""
    made: dict[str, Transport] = {}
    for url in dict.fromkeys(load.target.base_url for load in loads):
        transport = made[url] = transport_to(url, kind)
        stack.push_async_callback(transport.close)
    return made


def _connections(loads: Sequence[TenantLoad]) -> Counter[str]:
    """How many requests each server will have in flight, as far as that is known."""
    wanted: Counter[str] = Counter()
    for load in loads:
        wanted[load.target.base_url] += load.concurrency or OPEN_LOOP_CONNECTIONS
    return wanted


def _sender(load: TenantLoad, transport: Transport, flights: Flights) -> Sender:
    closed = load.concurrency is not None
    ahead = min(2 * (load.concurrency or 0), MAX_CLOSED_LOOP_AHEAD) if closed else OPEN_LOOP_AHEAD
    queue = RequestQueue(load.target, load.requests(), ahead=ahead, on_error=flights.fail)
    queue.prime()
    lane = Lane(load.target, transport, load.target.headers(), queue)
    if load.concurrency is None:
        first = queue.peek()
        if first is not None and first.intended_ns is None:
            raise ValueError(f"{load.tenant.name}: an open loop needs a plan with times")
        return ScheduledSender(lane, flights)
    arrival = load.tenant.arrival
    think_s = arrival.think_time_s if isinstance(arrival, ClosedLoop) else 0.0
    return ClosedSender(lane, flights, load.concurrency, think_s)


async def _land_all(flights: Flights, senders: Sequence[Sender]) -> None:
    """Whatever ended the run: nothing stays in flight, every request has its record."""
    for sender in senders:
        sender.shut(0)
    flights.cancel()
    if flights.active:
        await asyncio.wait(flights.active)
