"""Differences of service: VTC's D(t), accumulated gaps, fair shares. All worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairshare.analysis.arrays import Floats, columns
from fairshare.analysis.difference import (
    accumulated_difference,
    fair_shares,
    satisfaction,
    service_difference,
    ticks_s,
)
from fairshare.analysis.service import charged, evenly_charged, service_flow
from fairshare.records import ErrorKind, Phase, RequestRecord

S = 1_000_000_000
EVER = np.array([-1e6, 1e6])


def answer(
    tenant: str, sent: float, first: float, end: float, tokens: tuple[int, int]
) -> RequestRecord:
    """A request of which only first token and end were timed; ``tokens`` of prompt and output."""
    return RequestRecord(
        id="q", tenant=tenant, server="s", phase=Phase.MEASURE, intended_ns=round(sent * S),
        sent_ns=round(sent * S), first_token_ns=round(first * S), end_ns=round(end * S),
        prompt_tokens=tokens[0], output_tokens=tokens[1], finish_reason="length",
    )  # fmt: skip


def refused(tenant: str, sent: float) -> RequestRecord:
    """A request that was thrown out at once."""
    return RequestRecord(
        id="r", tenant=tenant, server="s", phase=Phase.MEASURE, intended_ns=round(sent * S),
        sent_ns=round(sent * S), end_ns=round(sent * S), error=ErrorKind.ABORTED,
    )  # fmt: skip


def test_ticks_are_those_of_the_published_evaluation() -> None:
    """Of ten minutes: 30 + 28.5 i seconds, i from 1 to 19; of other windows in proportion."""
    assert ticks_s((0.0, 600.0)) == pytest.approx([30 + 28.5 * i for i in range(1, 20)])
    assert ticks_s((100.0, 160.0)) == pytest.approx([103 + 2.85 * i for i in range(1, 20)])


def test_d_of_a_hand_computed_run() -> None:
    """One tenant served at 5/s throughout, one at 10/s in the second half; both asked at 0.

    Windows are 2 s long, at 1 + 0.95 i. Until i = 8 the second tenant gets nothing and asks for
    nothing: 0. Around 9.55 s it is served for 0.55 s, around 10.5 s for 1.5 s, later all the time;
    the last window ends 0.05 s after both. A refused request is in neither demand nor service.
    """
    requests = columns(
        [answer("a", 0, 0, 20, (20, 40)), answer("b", 0, 10, 20, (20, 40)), refused("b", 5)]
    )
    _, d = service_difference(requests, (0.0, 20.0), np.ones(2))
    assert d == pytest.approx([0.0] * 8 + [2.25, 2.5] + [5.0] * 8 + [4.875])


def test_a_met_demand_is_no_difference() -> None:
    """A light tenant that gets all it asks for adds nothing, however much others get."""
    light = [answer("light", t, t, t + 1, (10, 10)) for t in range(20)]
    heavy = [answer("heavy", 0, 0, 20, (1000, 1000))]
    _, d = service_difference(columns(light + heavy), (0.0, 20.0), np.ones(2))
    demand_edges = 30 / 2  # one request more or less lies in a window of 2 s
    assert d.max() <= demand_edges + 1e-9


def test_d_is_of_service_per_weight() -> None:
    """A tenant of weight 3 that gets three times the service is served alike."""
    requests = columns([answer("a", 0, 0, 20, (0, 30)), answer("b", 0, 0, 20, (0, 10))])
    _, weighted = service_difference(requests, (0.0, 20.0), np.array([3.0, 1.0]))
    _, plain = service_difference(requests, (0.0, 20.0), np.ones(2))
    assert weighted == pytest.approx(np.zeros(19))
    assert plain == pytest.approx([1.0] * 18 + [0.975])  # 1/s got, and 2/s short of the other


def test_accumulated_difference_is_the_widest_gap_so_far() -> None:
    """Totals since the window began: 4-1, then 5-4, then 5-8."""
    service = np.array([[4.0, 1.0, 0.0], [1.0, 3.0, 4.0]])
    assert accumulated_difference(service) == pytest.approx([3.0, 1.0, 3.0])


@pytest.mark.parametrize(
    ("demand", "weights", "capacity", "shares"),
    [
        ([10, 10], [1, 1], 10, [5, 5]),
        ([2, 10], [1, 1], 10, [2, 8]),
        ([10, 10, 10], [1, 2, 2], 10, [2, 4, 4]),
        ([1, 10, 10], [1, 1, 1], 15, [1, 7, 7]),
        ([3, 4], [1, 1], 10, [3, 4]),
        ([0, 4], [1, 1], 2, [0, 2]),
    ],
)
def test_water_is_filled_by_weight_and_to_the_brim(
    demand: list[float], weights: list[float], capacity: float, shares: list[float]
) -> None:
    """Nobody gets more than the demand, and what is left over goes to the others."""
    found = fair_shares(np.array(demand, float), np.array(weights, float), capacity)
    assert found == pytest.approx(shares)


def test_the_worst_served_tenant_gives_the_satisfaction() -> None:
    """First window: 30 and 10 where 20 each were fair. Second: both get what is fair."""
    requests = columns(
        [answer("a", 0, 0, 1, (0, 15)), answer("b", 0, 0, 1, (0, 5)), answer("a", 0, 1, 2, (0, 10)),
         answer("b", 0, 1, 2, (0, 20))]
    )  # fmt: skip
    found = satisfaction(requests, np.array([0.0, 1.0, 2.0, 3.0]), np.ones(2))
    assert found[:2] == pytest.approx([0.5, 1.0])
    assert np.isnan(found[2])


RECORDS = st.lists(
    st.builds(
        lambda tenant, sent, wait, length, tokens: answer(
            tenant, sent, sent + wait, sent + wait + length, tokens
        ),
        st.sampled_from("abc"), st.floats(0, 100), st.floats(0, 50), st.floats(0.001, 50),
        st.tuples(st.integers(0, 1000), st.integers(1, 1000)),
    ),
    min_size=1,
    max_size=20,
)  # fmt: skip


@settings(deadline=None)
@given(RECORDS, st.lists(st.floats(-10, 250), min_size=2, max_size=8, unique=True))
def test_both_creditings_give_out_all_service_once(
    records: list[RequestRecord], inner: list[float]
) -> None:
    """However the time is cut, parts add up to what was charged; no part is negative."""
    requests = columns(records)
    edges: Floats = np.concatenate(([EVER[0]], np.sort(inner), [EVER[1]]))
    for flow in (service_flow(requests), evenly_charged(requests)[1]):
        parts = flow.by_tenant(edges, len(requests.tenants))
        assert parts.min() >= -1e-6
        assert parts.sum() == pytest.approx(charged(requests).sum())
        for number in range(len(requests.tenants)):
            own = charged(requests)[requests.tenant == number].sum()
            assert parts[number].sum() == pytest.approx(own)


@settings(deadline=None)
@given(RECORDS)
def test_no_difference_is_negative(records: list[RequestRecord]) -> None:
    """D(t) is 0 at least, and so are satisfaction and its distance from 1."""
    requests = columns(records)
    weights = np.ones(len(requests.tenants))
    assert service_difference(requests, (0.0, 120.0), weights)[1].min() >= 0
    found = satisfaction(requests, np.linspace(0, 120, 7), weights)
    found = found[~np.isnan(found)]
    assert ((found >= 0) & (found <= 1)).all()
