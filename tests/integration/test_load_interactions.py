"""Calls of an interaction wait for each other, and say so in their records."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from load_bench import Outcome, run, target, tenant

from fairshare.load.load import TenantLoad
from fairshare.records import RequestRecord
from fairshare.spec.scenario import Tenant, Timing
from fairshare.spec.workload import ClosedLoop, ConstantArrivals, Interaction
from fairshare.testing.behaviour import Behaviour, Kind
from fairshare.testing.fake_server import FakeServer
from fairshare.workload.prompts import Vocabulary
from fairshare.workload.requests import planned_requests

THINK_S = 0.05


def _load(
    server: FakeServer, asked: Tenant, window_s: float, concurrency: int | None
) -> TenantLoad:
    plan = planned_requests(
        asked,
        cell_seed=1,
        horizon_s=window_s,
        window_start_s=0.0,
        window_s=window_s,
        load_scale=1.0,
        vocabulary=Vocabulary(500),
        base_dir=Path(),
    )
    return TenantLoad(asked, target(server), concurrency, lambda: plan)


def _chain(calls: int, think_s: float = THINK_S) -> Interaction:
    return Interaction(app="agent", calls=calls, think_time_s=think_s)


def _by_interaction(records: Sequence[RequestRecord]) -> dict[str, list[RequestRecord]]:
    found = defaultdict(list)
    for record in sorted(records, key=lambda record: record.intended_ns):
        assert record.interaction is not None
        found[record.interaction].append(record)
    return found


def _assert_chained(calls: Sequence[RequestRecord], think_s: float = THINK_S) -> None:
    """Numbered from 1; each is due when the one before was answered and the pause is over."""
    assert [record.call for record in calls] == list(range(1, len(calls) + 1))
    for before, after in itertools.pairwise(calls):
        assert before.end_ns is not None
        assert after.sent_ns is not None
        assert after.intended_ns == before.end_ns + round(think_s * 1e9)
        assert after.sent_ns >= after.intended_ns


async def _open(
    behaviour: Behaviour, chain: Interaction, window_s: float, rate: float = 10
) -> Outcome:
    async with FakeServer(behaviour) as server:
        asked = tenant(arrival=ConstantArrivals(rate_per_s=rate), interaction=chain)
        timing = Timing(warmup_s=0, window_s=window_s, drain_s=5)
        return await run([_load(server, asked, window_s, None)], timing)


async def test_open_loop_interactions_arrive_freely_and_their_calls_wait() -> None:
    """First calls keep the schedule whatever the server does; later ones are due after answers."""
    outcome = await _open(Behaviour(ttft_s=0.06), _chain(3), window_s=1.0)
    interactions = _by_interaction(outcome.records)
    first = [calls[0].intended_ns for calls in interactions.values()]
    assert len(first) == 10
    assert {round((b - a) / 1e6) for a, b in itertools.pairwise(first)} == {100}
    for calls in interactions.values():
        _assert_chained(calls)
        assert {(record.app, record.calls) for record in calls} == {("agent", 3)}
    assert sum(len(calls) == 3 for calls in interactions.values()) >= 3
    assert outcome.report.client["schedule_lag_ms"]["p50"] < 20  # waiting is not lateness


async def test_nothing_of_an_interaction_is_meant_for_after_the_window() -> None:
    """Calls that fall due when the window is over are not sent, nor recorded."""
    outcome = await _open(Behaviour(ttft_s=0.15), _chain(5, 0.0), window_s=0.4)
    assert outcome.records
    assert max(record.intended_ns for record in outcome.records) < 400_000_000
    assert all(len(calls) < 5 for calls in _by_interaction(outcome.records).values())


async def test_no_call_is_sent_in_the_drain_of_a_window_that_ended_early() -> None:
    """Once enough requests were measured, neither pauses nor answers lead to another call."""
    async with FakeServer(Behaviour(ttft_s=0.1)) as server:
        asked = tenant(arrival=ConstantArrivals(rate_per_s=40), interaction=_chain(5, 0.03))
        timing = Timing(warmup_s=0, window_s=5, drain_s=5, requests=20)
        outcome = await run([_load(server, asked, 5, None)], timing)
    end_ns = outcome.report.window_ns[1]
    assert end_ns < 5_000_000_000
    pausing = [r for r in outcome.records if end_ns - 30_000_000 < (r.end_ns or 0) < end_ns]
    waiting = [r for r in outcome.records if (r.end_ns or 0) > end_ns]
    assert pausing
    assert waiting
    assert max(record.intended_ns for record in outcome.records) < end_ns


async def test_a_failed_call_breaks_its_interaction_off() -> None:
    """What would have followed is not sent; other interactions go on."""
    outcome = await _open(Behaviour(kind=Kind.HTTP_500, after=4), _chain(2), window_s=1.0, rate=5)
    interactions = _by_interaction(outcome.records)
    assert [len(calls) for calls in interactions.values()].count(2) == 2
    for calls in interactions.values():
        assert all(record.ok for record in calls[:-1])
        assert len(calls) == 2 or not calls[-1].ok
    assert len(interactions) == 5


async def test_a_closed_loop_client_has_one_interaction_after_the_other() -> None:
    """N clients mean N interactions at a time; the calls of one are never another client's."""
    async with FakeServer(Behaviour(ttft_s=0.01)) as server:
        asked = tenant(arrival=ClosedLoop(think_time_s=0.02), interaction=_chain(3, 0.0))
        timing = Timing(warmup_s=0, window_s=0.6, drain_s=5)
        outcome = await run([_load(server, asked, 1.0, 2)], timing)
        assert server.peak_running == 2
    interactions = _by_interaction(outcome.records)
    for calls in interactions.values():
        _assert_chained(calls, 0.0)
    whole = [calls for calls in interactions.values() if len(calls) == 3]
    assert len(whole) >= len(interactions) - 2 >= 4


async def test_a_failed_call_costs_a_closed_loop_client_its_interaction() -> None:
    """The client begins another interaction; the rest of the broken one is not sent."""
    async with FakeServer(Behaviour(kind=Kind.HTTP_500, after=3)) as server:
        asked = tenant(arrival=ClosedLoop(), interaction=_chain(2, 0.0))
        timing = Timing(warmup_s=0, window_s=0.5, drain_s=5)
        outcome = await run([_load(server, asked, 1.0, 1)], timing)
    counts: list[Any] = [len(calls) for calls in _by_interaction(outcome.records).values()]
    assert counts[:2] == [2, 2]  # the second failed at its last call
    assert set(counts[2:]) == {1}
