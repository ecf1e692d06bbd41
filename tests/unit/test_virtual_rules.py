"""Sharing rules: the invariants they must keep and the published laws they stand for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairshare.virtual.physics import PUBLISHED, Demand, work_s
from fairshare.virtual.rules import (
    MpsClient,
    Neighbour,
    Partition,
    SharingKind,
    TimeSliced,
    water_fill,
)

DECODE = Demand(compute_s=0.1e-3, memory_s=6e-3, latency_s=2.16e-3)
PREFILL = Demand(compute_s=80e-3, memory_s=7e-3, latency_s=2.16e-3)
SECONDS = st.floats(0, 1, allow_subnormal=False)
DEMANDS = st.builds(Demand, SECONDS, SECONDS, SECONDS)


def alone_s(demand: Demand) -> float:
    """A dedicated device, written out."""
    return demand.latency_s + work_s(demand, 1.0, 1.0)


def neighbour(kind: SharingKind, demand: Demand, step_s: float, share: float = 1.0) -> Neighbour:
    """A busy neighbour."""
    return Neighbour(kind, demand, step_s, share)


@given(DEMANDS)
def test_a_single_tenant_pays_nothing_in_any_mode(demand: Demand) -> None:
    """Alone under time-slicing, MPS 100 % or a whole-GPU partition equals dedicated bit for bit."""
    whole = Partition(1.0, 1.0).scaled(demand)
    assert TimeSliced().step_s(whole, []) == alone_s(demand)
    assert MpsClient(1.0).step_s(whole, []) == alone_s(demand)


@pytest.mark.parametrize("n", [2, 3, 5, 7])
@pytest.mark.parametrize("demand", [DECODE, PREFILL], ids=["decode", "prefill"])
def test_time_slicing_is_n_times_tau(n: int, demand: Demand) -> None:
    """Each of n GPU-bound engines progresses at 1/(n * tau), the latency part included."""
    others = [neighbour(SharingKind.TIMESLICE, DECODE, alone_s(DECODE))] * (n - 1)
    step_s = TimeSliced().step_s(demand, others)
    assert step_s == pytest.approx(n * PUBLISHED.timeslice_tax * alone_s(demand))


@pytest.mark.parametrize(("n", "latency_s"), [(3, 0.293), (5, 0.489), (7, 0.685)])
def test_time_slicing_agrees_with_a_vision_model(n: int, latency_s: float) -> None:
    """YOLOS-small on an A100-80 (nebuly-ai/nos): 0.088 s alone; n pods within 3 %."""
    yolos = Demand(compute_s=0.088, memory_s=0.0, latency_s=0.0)
    others = [neighbour(SharingKind.TIMESLICE, yolos, n * PUBLISHED.timeslice_tax * 0.088)] * (
        n - 1
    )
    assert TimeSliced().step_s(yolos, others) == pytest.approx(latency_s, rel=0.03)


def test_host_bound_engine_leaves_time_to_others() -> None:
    """Two engines that their hosts hold up do not slow each other down."""
    eager = Demand(DECODE.compute_s, DECODE.memory_s, DECODE.latency_s, host_s=39e-3)
    other = neighbour(SharingKind.TIMESLICE, eager, 39e-3)
    assert TimeSliced().step_s(eager, [other]) == pytest.approx(39e-3)
    slowed = TimeSliced().step_s(DECODE, [other])
    assert alone_s(DECODE) < slowed < 2 * PUBLISHED.timeslice_tax * alone_s(DECODE)


@pytest.mark.parametrize(
    ("streams", "itl_s"), [(1, 13.2e-3), (2, 14.1e-3), (4, 15.4e-3)], ids=["1", "2", "4"]
)
def test_partitioned_mps_agrees_with_published_decode(streams: int, itl_s: float) -> None:
    """Two Qwen3-4B at MPS 50 % on an A100-40 (NVIDIA Dynamo), ITL within 5 %."""
    context = 2176 * streams
    demand = Demand(
        compute_s=streams * 9.2e9 / (0.635 * 312e12),
        memory_s=(8044544000 + 147456 * context) / (0.85 * 1555e9),
        latency_s=2.16e-3,
    )
    assert mps_steady_s(demand, 0.5, 2) == pytest.approx(itl_s, rel=0.05)


def mps_steady_s(demand: Demand, share: float, n: int) -> float:
    """The step on which n equal neighbours settle."""
    rule = MpsClient(share)
    step_s = rule.step_s(demand, [])
    for _ in range(50):
        others = [neighbour(SharingKind.MPS, demand, step_s, share)] * (n - 1)
        step_s = rule.step_s(demand, others)
    return step_s


def test_mps_compute_is_isolated_within_its_share() -> None:
    """Compute-bound work at MPS 50 % takes the same time alone and beside another half."""
    compute = Demand(compute_s=50e-3, memory_s=0.0, latency_s=1e-3)
    rule = MpsClient(0.5)
    beside = rule.step_s(compute, [neighbour(SharingKind.MPS, DECODE, 10e-3, 0.5)])
    assert beside == rule.step_s(compute, []) == pytest.approx(101e-3)


def test_mps_bandwidth_is_never_granted_twice() -> None:
    """However many bandwidth-bound clients there are, together they draw at most all of it."""
    for n in (2, 4, 7):
        step_s = mps_steady_s(Demand(0.0, 6e-3, 0.0), 1 / n, n)
        assert n * 6e-3 / step_s <= 1 + 1e-9


def test_oversubscribed_mps_costs_more_than_a_fluid() -> None:
    """100 % + 100 % splits the SMs as 50 % + 50 % does and pays the published tax on top."""
    compute = Demand(compute_s=50e-3, memory_s=0.0, latency_s=0.0)
    halves = MpsClient(0.5).step_s(compute, [neighbour(SharingKind.MPS, compute, 0.1, 0.5)])
    both = MpsClient(1.0).step_s(compute, [neighbour(SharingKind.MPS, compute, 0.1, 1.0)])
    assert both == pytest.approx(1.19 * halves)


def test_mps_clients_take_turns_with_an_outsider_as_one() -> None:
    """A process outside MPS alternates with all clients, who stay concurrent among themselves."""
    outsider = neighbour(SharingKind.TIMESLICE, DECODE, 8e-3)
    client = neighbour(SharingKind.MPS, DECODE, 12e-3, 0.5)
    beside = MpsClient(0.5).step_s(DECODE, [client])
    in_turn = 2 * PUBLISHED.timeslice_tax
    assert MpsClient(0.5).step_s(DECODE, [client, outsider]) == pytest.approx(in_turn * beside)
    sliced = TimeSliced().step_s(DECODE, [client, client])
    assert sliced == pytest.approx(in_turn * alone_s(DECODE))


def test_mig_instance_has_its_fraction_of_everything() -> None:
    """A 3g.20gb of an A100-40: 42 of 108 SMs and half the bandwidth, whatever others do."""
    scaled = Partition(42 / 108, 0.5).scaled(DECODE)
    assert scaled.memory_s == 2 * DECODE.memory_s
    assert scaled.compute_s == pytest.approx(DECODE.compute_s * 108 / 42)
    assert scaled.latency_s == DECODE.latency_s


@given(st.floats(0, 2), st.lists(st.floats(0, 2), max_size=6), st.floats(0.1, 2))
def test_water_filling_is_feasible_and_fair(own: float, others: list[float], cap: float) -> None:
    """Nobody gets more than asked, all together no more than there is, equals get equal."""
    everyone = [own, *others]
    granted = [
        water_fill(everyone[i], everyone[:i] + everyone[i + 1 :], cap) for i in range(len(everyone))
    ]
    assert all(g <= want + 1e-12 for g, want in zip(granted, everyone, strict=True))
    assert sum(granted) == pytest.approx(min(cap, sum(everyone)))


def test_neighbours_slow_down_more_the_more_there_are() -> None:
    """In both rules a further busy neighbour never makes a step faster."""
    for rule, kind in ((TimeSliced(), SharingKind.TIMESLICE), (MpsClient(0.2), SharingKind.MPS)):
        steps = [rule.step_s(DECODE, [neighbour(kind, DECODE, 12e-3, 0.2)] * n) for n in range(5)]
        assert steps == sorted(steps)
        assert steps[4] > steps[0]
