"""Fairness is windowed, over backlogged tenants, per weight."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairshare.analysis.arrays import columns
from fairshare.analysis.fairness import (
    backlog_share,
    fairness,
    jain,
    max_service_difference,
    window_length_s,
)
from fairshare.records import ErrorKind, Phase, RequestRecord

S = 1_000_000_000


@pytest.mark.parametrize(
    ("values", "index"),
    [
        ([1, 1, 1, 1], 1.0),
        ([5, 0, 0, 0], 0.25),
        ([1, 2], 0.9),
        ([3, 1], 0.8),
        ([2, 2, 0, 0], 0.5),
        ([7], 1.0),
    ],
)
def test_jain_of_hand_computed_cases(values: list[float], index: float) -> None:
    """(sum x)^2 / (n sum x^2), from equal (1) to one tenant taking all (1/n)."""
    assert jain(np.array(values, float)) == pytest.approx(index, rel=1e-14)


def test_jain_of_no_service_is_absent() -> None:
    """Where nobody was served there is nothing to be fair with."""
    assert jain(np.zeros(3)) is None


@given(st.lists(st.floats(0.001, 1e6), min_size=1, max_size=10), st.floats(0.01, 100))
def test_jain_is_bounded_and_scale_free(values: list[float], scale: float) -> None:
    """The index lies between 1/n and 1 and does not depend on the unit."""
    index = jain(np.array(values))
    assert index is not None
    assert 1 / len(values) - 1e-9 <= index <= 1 + 1e-9
    assert jain(np.array(values) * scale) == pytest.approx(index)


def _busy(tenant: str, start: float, end: float | None, tokens: int = 0) -> RequestRecord:
    """A request outstanding from ``start`` to ``end`` whose tokens arrive evenly, 10 a second."""
    stop = end if end is not None else start
    times = [round((start + 0.05 + n / 10) * S) for n in range(int((stop - start) * 10))]
    return RequestRecord(
        id="q",
        tenant=tenant,
        server="s",
        phase=Phase.MEASURE,
        intended_ns=round(start * S),
        sent_ns=round(start * S),
        end_ns=None if end is None else round(end * S),
        chunk_ns=times if tokens else [],
        chunk_tokens=[tokens] * len(times) if tokens else [],
        first_token_ns=times[0] if tokens and times else None,
        output_tokens=tokens * len(times) if tokens else None,
        error=None if tokens else ErrorKind.UNFINISHED,
    )


def test_an_idle_tenant_is_not_treated_unfairly() -> None:
    """A tenant without outstanding requests does not lower the index of those who compete."""
    requests = columns(
        [_busy("a", 0, 20, 5), _busy("b", 0, 20, 5), _busy("idle", 0, 1, 1)], ["a", "b", "idle"]
    )
    found = fairness(requests, (0.0, 20.0), [1, 1, 1])
    # In the first second of twenty the third tenant competes and gets a fifth: 121/153 there.
    assert found.jain_min == pytest.approx(121 / (3 * 51))
    assert found.jain == pytest.approx((121 / 153 + 19) / 20)
    assert found.windows == 20
    assert found.window_s == 1.0


def test_weights_are_entitlements() -> None:
    """A tenant of weight 3 that gets three times the service is served equally."""
    requests = columns([_busy("a", 0, 20, 3), _busy("b", 0, 20, 1)], ["a", "b"])
    assert fairness(requests, (0.0, 20.0), [3, 1]).jain == pytest.approx(1.0)
    assert fairness(requests, (0.0, 20.0), [1, 1]).jain == pytest.approx(0.8)


def test_tenants_that_never_compete_have_no_index() -> None:
    """Without a window in which two are backlogged the index is absent, not 1."""
    requests = columns([_busy("a", 0, 9, 3), _busy("b", 11, 20, 1)], ["a", "b"])
    found = fairness(requests, (0.0, 20.0), [1, 1])
    assert (found.jain, found.jain_joint, found.max_service_difference) == (None, None, None)
    assert found.windows == 0


def test_a_starved_tenant_shows() -> None:
    """A tenant whose request is outstanding all the time and gets nothing drags the index down."""
    requests = columns([_busy("a", 0, 20, 3), _busy("starved", 0, None)], ["a", "starved"])
    found = fairness(requests, (0.0, 20.0), [1, 1])
    assert found.jain == pytest.approx(0.5)
    assert found.max_service_difference == pytest.approx(2 * 3 * 10 * 20)


def test_only_tenants_that_wait_are_held_to_the_bound() -> None:
    """Requests that run are a backlog to the index; only those without a token are a queue."""
    running = columns([_busy("a", 0, 20, 3), _busy("b", 0, 20, 1)], ["a", "b"])
    found = fairness(running, (0.0, 20.0), [1, 1])
    assert found.max_service_difference == pytest.approx(2 * 2 * 10 * 20)
    assert found.queued_service_difference is None
    queues = [_busy("a", 0, None), _busy("b", 0, None)]
    waiting = columns([_busy("a", 0, 20, 3), _busy("b", 0, 20, 1), *queues], ["a", "b"])
    assert fairness(waiting, (0.0, 20.0), [1, 1]).queued_service_difference == pytest.approx(
        2 * 2 * 10 * 20
    )


def test_the_window_is_a_twentieth_of_the_measured_one() -> None:
    """1 s of the default 20 s, and never above 30 s."""
    assert window_length_s((5.0, 25.0)) == pytest.approx(1.0)
    assert window_length_s((0.0, 3600.0)) == 30.0


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(-5, 25), st.integers(0, 8)), max_size=12))
def test_backlog_share_equals_a_naive_recomputation(spans: list[tuple[int, int]]) -> None:
    """Overlapping requests count once; what lies outside the windows does not count."""
    found = [_busy("a", start, start + length) for start, length in spans]
    edges = np.arange(0.0, 21.0, 2.0)
    ticks = {t for start, length in spans for t in range(start * 4, (start + length) * 4)}
    naive = [sum(t in ticks for t in range(e * 4, e * 4 + 8)) / 8 for e in range(0, 20, 2)]
    share = backlog_share(columns(found, ["a"]), edges)
    assert share == pytest.approx(naive)


@settings(deadline=None)
@given(st.integers(2, 4), st.integers(1, 8), st.randoms(use_true_random=False))
def test_max_service_difference_equals_a_naive_recomputation(
    tenants: int, windows: int, random: object
) -> None:
    """The maximum over all pairs and all stretches in which both were backlogged."""
    draw = random.randint  # type: ignore[attr-defined]  # hypothesis' random.Random
    service = np.array([[draw(0, 9) for _ in range(windows)] for _ in range(tenants)], float)
    busy = np.array([[draw(0, 3) > 0 for _ in range(windows)] for _ in range(tenants)])
    naive = [
        abs(float((service[i, a:b] - service[j, a:b]).sum()))
        for i in range(tenants)
        for j in range(i)
        for a in range(windows)
        for b in range(a + 1, windows + 1)
        if (busy[i, a:b] & busy[j, a:b]).all()
    ]
    assert max_service_difference(service, busy) == (max(naive) if naive else None)
