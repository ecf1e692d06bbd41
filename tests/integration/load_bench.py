"""A bench on which the driver and the fake server meet."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from fairshare.load.driver import drive
from fairshare.load.load import DriveReport, TenantLoad
from fairshare.load.target import Target
from fairshare.load.transports import DEFAULT_TRANSPORT
from fairshare.records import RequestRecord, TransportKind
from fairshare.spec.lengths import FixedLength
from fairshare.spec.scenario import Api, Tenant, Timing
from fairshare.spec.workload import (
    Arrival,
    ClosedLoop,
    PoissonArrivals,
    Sampling,
    SyntheticPrompts,
)
from fairshare.testing.fake_server import FakeServer
from fairshare.units import NS_PER_S
from fairshare.workload.requests import PlannedRequest


@dataclass
class Bench:
    """What carries the requests of all runs; tests go through every transport."""

    transport: TransportKind = DEFAULT_TRANSPORT


BENCH = Bench()


def tenant(name: str = "a", arrival: Arrival | None = None, **fields: Any) -> Tenant:
    """A tenant with fixed lengths."""
    return Tenant(
        name=name,
        arrival=arrival or ClosedLoop(),
        prompts=SyntheticPrompts(tokens=FixedLength(tokens=3)),
        output=FixedLength(tokens=8),
        **fields,
    )


def target(server: FakeServer, name: str = "a", **fields: Any) -> Target:
    """A target on ``server``: streamed completions with vLLM's extras unless told otherwise."""
    given: dict[str, Any] = {
        "tenant": name,
        "server": "s0",
        "base_url": server.base_url,
        "model": server.model,
        "api": Api.COMPLETIONS,
        "stream": True,
        "api_key": None,
        "token_id_prompts": True,
        "continuous_usage": True,
        "sampling": Sampling(),
        "timeout_s": 30.0,
        "stall_s": 30.0,
    }
    return Target(**(given | fields))


def requests(
    name: str = "a", offsets_s: Sequence[float] | None = None, max_tokens: int = 8
) -> Iterator[PlannedRequest]:
    """Planned requests: endless without offsets, else one for each."""
    times = itertools.repeat(None) if offsets_s is None else offsets_s
    for number, offset_s in enumerate(times):
        intended_ns = None if offset_s is None else round(offset_s * NS_PER_S)
        yield PlannedRequest(f"{name}-{number}", name, intended_ns, [1, 2, 3], "abc", 3, max_tokens)


def closed(
    server: FakeServer,
    concurrency: int = 1,
    name: str = "a",
    *,
    think_s: float = 0.0,
    max_tokens: int = 8,
    **fields: Any,
) -> TenantLoad:
    """A closed-loop load."""
    return TenantLoad(
        tenant(name, ClosedLoop(think_time_s=think_s)),
        target(server, name, **fields),
        concurrency,
        partial(requests, name, max_tokens=max_tokens),
    )


def scheduled(
    server: FakeServer, offsets_s: Sequence[float], name: str = "a", **fields: Any
) -> TenantLoad:
    """An open-loop load."""
    return TenantLoad(
        tenant(name, PoissonArrivals(rate_per_s=1)),
        target(server, name, **fields),
        None,
        partial(requests, name, offsets_s),
    )


@dataclass
class Outcome:
    """What a run left behind."""

    report: DriveReport
    records: list[RequestRecord]
    windows: list[str] = field(default_factory=list)


async def run(
    loads: Sequence[TenantLoad],
    timing: Timing,
    *,
    stop: asyncio.Event | None = None,
    on_record: Callable[[RequestRecord], None] = lambda record: None,
) -> Outcome:
    """Drive ``loads`` and collect everything."""
    records: list[RequestRecord] = []
    windows: list[str] = []

    def sink(record: RequestRecord) -> None:
        records.append(record)
        on_record(record)

    report = await drive(
        loads,
        timing,
        sink,
        stop=stop or asyncio.Event(),
        on_window=windows.append,
        transport=BENCH.transport,
    )
    return Outcome(report, records, windows)
