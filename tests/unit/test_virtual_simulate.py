"""Servers and clients in virtual time: who shares what, when things end, and that all is told."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from statistics import mean

import pytest

from fairshare.devices.constants import gpu_spec
from fairshare.records import ErrorKind, Phase, RequestRecord
from fairshare.spec.scenario import Timing
from fairshare.virtual.clock import Clock
from fairshare.virtual.contention import Alone, Contended, MpsClients, Partition, TimeSlices
from fairshare.virtual.course import Lane
from fairshare.virtual.deployed import GpuFigures
from fairshare.virtual.engine import Engine, Limits
from fairshare.virtual.models import virtual_model
from fairshare.virtual.physics import PUBLISHED, Costs, drawable_bandwidth
from fairshare.virtual.rules import MpsClient, Rule, SharingKind, TimeSliced
from fairshare.virtual.simulate import Simulated, simulate
from fairshare.virtual.simulated import SimulatedServer
from fairshare.virtual.traffic import Source
from fairshare.workload.requests import PlannedRequest
from fairshare.workload.turns import Turn

COSTS = Costs.of(GpuFigures.of(gpu_spec("a100-40")), virtual_model("qwen3-0.6b"))
Make = Callable[[Clock], Partition]


def time_slices(clock: Clock) -> Partition:
    """The driver's time slices."""
    return TimeSlices(clock, PUBLISHED.timeslice_tax)


def time_slices_by_the_rule(clock: Clock) -> Partition:
    """The same, each engine's speed found by the rule that real-time servers use."""
    return Contended(clock, SharingKind.TIMESLICE)


def mps(clock: Clock) -> Partition:
    """MPS clients."""
    return MpsClients(clock, PUBLISHED)


def requests(
    tenant: str, count: int, seed: int = 1, rate: float | None = None
) -> Iterator[PlannedRequest]:
    """Requests of random lengths, with times if there is a rate."""
    rng = random.Random(f"{tenant}{seed}")
    due_s = 0.0
    for k in range(count):
        due_s += rng.expovariate(rate) if rate else 0.0
        intended = round(due_s * 1e9) if rate else None
        lengths = rng.randint(1, 900), rng.randint(1, 200)
        yield PlannedRequest(f"{tenant}-{k}", tenant, intended, None, None, *lengths)


def run(
    make: Make,
    loads: dict[str, tuple[Iterator[PlannedRequest], int | None]],
    timing: Timing,
    *,
    blocks: int = 20_000,
    timeout_s: float = 120.0,
) -> tuple[list[RequestRecord], Simulated, list[Engine]]:
    """One server for each tenant on a partition."""
    clock = Clock()
    partition = make(clock)
    kind = getattr(partition, "_kind", None)
    share = 1 / len(loads) if kind is SharingKind.MPS else 1.0
    rule: Rule = MpsClient(share) if kind is SharingKind.MPS else TimeSliced()
    lane = Lane(COSTS, PUBLISHED, share, drawable_bandwidth(share))
    records: list[RequestRecord] = []
    engines: list[Engine] = []
    sources = []
    for tenant, (plan, concurrency) in loads.items():
        engines.append(Engine(Limits(256, 2048, blocks)))
        server = SimulatedServer(clock, partition, engines[-1], lane, rule, front_end_s=0.01)
        sources.append(Source(tenant, server, tenant, plan, concurrency, 0.0, timeout_s))
    done = simulate(clock, sources, timing, records.append)
    return records, done, engines


def test_every_request_of_a_schedule_becomes_one_record() -> None:
    """Nothing is lost or served twice, first tokens come after sending, tokens are in order."""
    timing = Timing(warmup_s=2, window_s=8, drain_s=200)
    loads = {name: (requests(name, 200, rate=25), None) for name in "ab"}
    records, _, engines = run(time_slices, loads, timing, blocks=300)
    assert sorted(r.id for r in records) == sorted(f"{n}-{k}" for n in "ab" for k in range(200))
    assert sum(engine.preemptions for engine in engines) > 0
    for record in records:
        assert record.ok and record.first_token_ns is not None and record.sent_ns is not None
        assert record.sent_ns + 10_000_000 < record.first_token_ns == record.chunk_ns[0]
        assert record.chunk_ns == sorted(record.chunk_ns)
        assert len(record.chunk_ns) == record.output_tokens
        assert record.chunk_ns[-1] == record.end_ns
        assert (record.phase is Phase.MEASURE) == (record.intended_ns >= 2e9)
    for engine in engines:
        assert not engine.has_work
        assert engine.free_blocks == engine.limits.kv_blocks


def test_a_closed_loop_keeps_its_number_in_flight_and_ends_by_requests() -> None:
    """Concurrency holds at every moment, and the window ends with the last measured request."""
    timing = Timing(warmup_s=1, window_s=100, drain_s=30, requests=50)
    records, done, _ = run(Alone, {"a": (requests("a", 10_000), 7)}, timing)
    moments = sorted(
        [(r.sent_ns or 0, 1) for r in records] + [(r.end_ns or 0, -1) for r in records]
    )
    in_flight = list(itertools.accumulate(change for _, change in moments))
    assert max(in_flight) == 7
    assert done.window_s[1] < 101
    end_ns = round(done.window_s[1] * 1e9)
    measured = [r for r in records if r.phase is Phase.MEASURE and (r.end_ns or 0) <= end_ns]
    assert len(measured) == 50


def test_what_has_not_ended_with_the_drain_is_unfinished() -> None:
    """A request that the drain cuts off has its tokens up to then, and says that it failed."""
    plan = (PlannedRequest(f"a-{k}", "a", None, None, None, 100, 3000) for k in range(5))
    records, done, engines = run(Alone, {"a": (plan, 2)}, Timing(warmup_s=0, window_s=1, drain_s=1))
    assert [record.error for record in records] == [ErrorKind.UNFINISHED] * 2
    assert done.end_s == pytest.approx(2.0)
    for record in records:
        assert record.end_ns == 2_000_000_000
        assert record.chunk_ns and record.chunk_ns[-1] <= 2_000_000_000
        assert record.chunk_ns[-1] > 1_990_000_000
    assert not engines[0].has_work


def test_what_never_began_is_unfinished_too() -> None:
    """A request that the end of the drain finds in the front end, or in a queue, has no token."""
    timing = Timing(warmup_s=0, window_s=0.012, drain_s=0)
    plan = (PlannedRequest(f"a-{k}", "a", None, None, None, 900, 50) for k in range(9))
    records, _, engines = run(Alone, {"a": (plan, 9)}, timing)
    assert [(r.error, r.chunk_ns) for r in records] == [(ErrorKind.UNFINISHED, [])] * 9
    assert not engines[0].has_work


def test_a_request_that_takes_too_long_fails_and_its_client_goes_on() -> None:
    """The timeout ends a request where it is; the next one is sent after a pause."""
    plan = iter([PlannedRequest("a-0", "a", None, None, None, 100, 20_000), *requests("b", 3)])
    timing = Timing(warmup_s=0, window_s=10, drain_s=5)
    records, _, _ = run(Alone, {"a": (plan, 1)}, timing, timeout_s=4.0)
    assert [record.error for record in records] == [ErrorKind.TIMEOUT, None, None, None]
    assert records[0].end_ns == 4_000_000_000
    assert records[1].sent_ns == pytest.approx(4.1e9, abs=20e6)


def test_interactions_wait_for_their_answers() -> None:
    """A further call of a schedule's interaction is sent when the one before is answered."""
    plan = [
        PlannedRequest(
            f"a-{i}", "a", 0, None, None, 50, 20, Turn("app", "one", i + 1, 3, 0.5 if i else 0.0)
        )
        for i in range(3)
    ]
    records, _, _ = run(
        Alone, {"a": (iter(plan), None)}, Timing(warmup_s=0, window_s=20, drain_s=5)
    )
    assert [record.call for record in records] == [1, 2, 3]
    for before, after in itertools.pairwise(records):
        assert after.sent_ns == pytest.approx((before.end_ns or 0) + 0.5e9, abs=10)


def test_rounds_start_together_after_all_is_answered() -> None:
    """No request of a round is sent before every one of the round before has ended."""
    timing = Timing(warmup_s=0, window_s=60, drain_s=5, rounds=3, round_s=1)
    loads: dict[str, tuple[Iterator[PlannedRequest], int | None]] = {
        "a": (requests("a", 1000), 3),
        "b": (requests("b", 1000, rate=5), None),
    }
    records, _, _ = run(time_slices, loads, timing)
    for number in (1, 2):
        started = min(r.sent_ns or 0 for r in records if r.round == number)
        assert started >= max(r.end_ns or 0 for r in records if r.round == number - 1)


def test_one_alone_pays_nothing_whatever_the_mode() -> None:
    """A single tenant under time-slicing or with all of MPS has the times of a dedicated device."""
    timing = Timing(warmup_s=0, window_s=5, drain_s=60)
    ends = []
    for make in (Alone, time_slices, time_slices_by_the_rule, mps):
        records, _, _ = run(make, {"a": (requests("a", 60, rate=15), None)}, timing)
        ends.append([record.end_ns for record in records])
    for others in ends[1:]:
        assert others == pytest.approx(ends[0], abs=1000)


def test_the_common_clock_is_the_rule_of_time_slices() -> None:
    """The fast way and the rule that real-time servers use give the same times to a microsecond."""
    timing = Timing(warmup_s=0, window_s=5, drain_s=60)

    def ends(make: Make) -> dict[str, int | None]:
        loads = {name: (requests(name, 40, rate=10), None) for name in "abc"}
        records, _, _ = run(make, loads, timing)
        return {record.id: record.end_ns for record in records}

    assert ends(time_slices) == pytest.approx(ends(time_slices_by_the_rule), abs=1000)


def test_two_busy_engines_take_turns_and_pay_the_tax() -> None:
    """Beside an equal neighbour that never rests, everything takes twice as long and the tax."""
    timing = Timing(warmup_s=0, window_s=30, drain_s=60, requests=20)

    def tpot(tenants: str) -> float:
        plans = {
            name: (
                (PlannedRequest(f"{name}-{k}", name, None, None, None, 1, 500) for k in range(99)),
                4,
            )
            for name in tenants
        }
        records, _, _ = run(time_slices, plans, timing)
        return mean(
            (r.chunk_ns[-1] - r.chunk_ns[0]) / (len(r.chunk_ns) - 1) for r in records if r.ok
        )

    assert tpot("ab") / tpot("a") == pytest.approx(2 * PUBLISHED.timeslice_tax, rel=0.01)


def test_an_mps_neighbour_costs_bandwidth_and_never_helps() -> None:
    """With half of the SMs each, decoding is slower than alone on half, and not twice as slow."""
    timing = Timing(warmup_s=0, window_s=30, drain_s=60, requests=20)

    def mean_end(loads: str) -> float:
        plans = {name: (requests(name, 500), 16 if name in loads else 0) for name in "ab"}
        records, _, _ = run(mps, plans, timing.model_copy(update={"requests": None}))
        return mean((r.end_ns or 0) - (r.sent_ns or 0) for r in records if r.tenant == "a" and r.ok)

    assert 1.0 < mean_end("ab") / mean_end("a") < 2.0


def test_the_same_requests_give_the_same_bits() -> None:
    """A repeated simulation is identical to the last nanosecond, also under MPS and preemption."""
    timing = Timing(warmup_s=1, window_s=5, drain_s=60)

    def once() -> list[bytes]:
        loads = {name: (requests(name, 80, rate=20), None) for name in "ab"}
        return [record.to_json() for record in run(mps, loads, timing, blocks=300)[0]]

    assert once() == once()
