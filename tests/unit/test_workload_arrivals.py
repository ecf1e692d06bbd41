"""Open-loop arrivals have the rates and the shape that were asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairshare.spec.workload import (
    ConstantArrivals,
    GammaArrivals,
    OnOffArrivals,
    Phase,
    PhasedArrivals,
    PoissonArrivals,
    RampArrivals,
    Spacing,
    StepArrivals,
)
from fairshare.workload.arrivals import OpenLoop, offsets_s


def _times(
    arrival: OpenLoop, duration_s: float, *, seed: int = 1, load_scale: float = 1.0, **window: float
) -> np.ndarray[Any, Any]:
    rng = np.random.default_rng(seed)
    return np.array(
        list(offsets_s(arrival, rng, duration_s=duration_s, load_scale=load_scale, **window))
    )


ALL: list[OpenLoop] = [
    PoissonArrivals(rate_per_s=5),
    GammaArrivals(rate_per_s=5, burstiness=0.3),
    ConstantArrivals(rate_per_s=5),
    RampArrivals(from_per_s=2, to_per_s=8),
    StepArrivals(rates_per_s=[2, 8, 5]),
    OnOffArrivals(rate_per_s=10, on_s=20, off_s=20),
    PhasedArrivals(
        phases=[
            Phase(for_s=25, arrival=PoissonArrivals(rate_per_s=5)),
            Phase(arrival=GammaArrivals(rate_per_s=5, burstiness=0.5)),
        ]
    ),
]


@pytest.mark.parametrize("arrival", ALL, ids=lambda a: a.kind)
def test_times_rise_and_stay_within_the_duration(arrival: OpenLoop) -> None:
    """Offsets start at 0 or later, never fall, and end before the duration."""
    times = _times(arrival, 200)
    assert times[0] >= 0
    assert (np.diff(times) >= 0).all()
    assert times[-1] < 200


@pytest.mark.parametrize("arrival", ALL, ids=lambda a: a.kind)
@pytest.mark.parametrize("load_scale", [0.5, 1.0, 3.0])
def test_the_mean_rate_is_the_asked_one(arrival: OpenLoop, load_scale: float) -> None:
    """5 requests per second, times the load scale, within 5 percent."""
    times = _times(arrival, 2000, load_scale=load_scale)
    assert len(times) / 2000 == pytest.approx(5 * load_scale, rel=0.05)


def test_poisson_gaps_are_exponential() -> None:
    """The coefficient of variation of the gaps is 1, their median ln 2 of the mean."""
    gaps = np.diff(_times(PoissonArrivals(rate_per_min=600), 2000))
    assert gaps.std() / gaps.mean() == pytest.approx(1, rel=0.03)
    assert np.median(gaps) / gaps.mean() == pytest.approx(np.log(2), rel=0.03)


@pytest.mark.parametrize("burstiness", [0.25, 1.0, 4.0])
def test_gamma_gaps_have_the_asked_burstiness(burstiness: float) -> None:
    """Burstiness is 1 over the squared coefficient of variation of the gaps."""
    gaps = np.diff(_times(GammaArrivals(rate_per_s=10, burstiness=burstiness), 4000))
    assert (gaps.mean() / gaps.std()) ** 2 == pytest.approx(burstiness, rel=0.08)


def test_constant_arrivals_are_equally_spaced_with_a_phase_of_their_own() -> None:
    """All gaps are equal without drift; two tenants (seeds) do not send in lockstep."""
    times = _times(ConstantArrivals(rate_per_s=40), 500)
    assert np.diff(times) == pytest.approx(0.025, abs=1e-9)
    assert len(times) == 500 * 40
    assert 0 <= times[0] < 0.025
    assert times[0] != _times(ConstantArrivals(rate_per_s=40), 1, seed=2)[0]


@pytest.mark.parametrize(("low", "high"), [(0.0, 20.0), (2.0, 20.0), (20.0, 2.0), (20.0, 0.0)])
def test_a_ramp_changes_linearly_over_the_window_alone(low: float, high: float) -> None:
    """Constant before and after the window; within it each tenth has its share of the change."""
    times = _times(
        RampArrivals(from_per_s=low, to_per_s=high), 1400, window_start_s=200, window_s=1000
    )
    counts, _ = np.histogram(times, bins=np.arange(0, 1401, 100))
    middles = np.clip((np.arange(50, 1400, 100) - 200) / 1000, 0, 1)
    expected = (low + (high - low) * middles) * 100
    assert np.abs(counts - expected).max() <= 4 * np.sqrt(expected.max())
    assert (counts[expected == 0] == 0).all()


def test_a_level_ramp_is_poisson() -> None:
    """A ramp from a rate to itself has that rate and exponential gaps."""
    times = _times(RampArrivals(from_per_s=10, to_per_s=10), 1000)
    gaps = np.diff(times)
    assert len(times) == pytest.approx(10_000, rel=0.05)
    assert gaps.std() / gaps.mean() == pytest.approx(1, rel=0.05)


@pytest.mark.parametrize("arrival", ALL, ids=lambda a: a.kind)
def test_a_longer_plan_begins_as_the_shorter_one(arrival: OpenLoop) -> None:
    """How long a cell lasts does not change when its first requests come."""
    short = _times(arrival, 60, window_start_s=0.0, window_s=50.0)
    assert len(short) > 100
    long = _times(arrival, 300, window_start_s=0.0, window_s=50.0)
    assert short.tolist() == long[: len(short)].tolist()


@pytest.mark.parametrize("spacing", [Spacing.POISSON, Spacing.CONSTANT])
def test_on_off_sends_while_it_is_on_alone(spacing: Spacing) -> None:
    """The rate holds in every burst, the first of which begins with the window; else silence."""
    arrival = OnOffArrivals(rate_per_s=20, on_s=30, off_s=70, spacing=spacing)
    times = _times(arrival, 2040, window_start_s=40, window_s=2000)
    warmup, window = times[times < 40], times[times >= 40] - 40
    assert len(warmup) == pytest.approx(20 * 40, rel=0.12)
    assert (window % 100 < 30).all()
    assert len(window) / 2000 == pytest.approx(20 * 0.3, rel=0.05)
    each = np.histogram(window, bins=np.arange(0, 2001, 100))[0]
    spread = 1 if spacing is Spacing.CONSTANT else 4 * np.sqrt(600)
    assert np.abs(each - 600).max() <= spread


def test_steps_are_equal_parts_of_the_window_or_as_long_as_they_say() -> None:
    """Each rate has its time, warm-up the first one, and what follows the last one the last one."""
    bins = np.arange(0, 1001, 100)
    in_parts = _times(StepArrivals(rates_per_s=[5, 0, 10]), 1000, window_start_s=100, window_s=600)
    expected = np.array([5, 5, 5, 0, 0, 10, 10, 10, 10, 10]) * 100
    counts, _ = np.histogram(in_parts, bins=bins)
    assert np.abs(counts - expected).max() <= 4 * np.sqrt(1000)
    assert (counts[expected == 0] == 0).all()
    arrival = StepArrivals(rates_per_s=[5, 0, 10], step_s=100, spacing=Spacing.CONSTANT)
    timed, _ = np.histogram(_times(arrival, 1000, window_start_s=100, window_s=600), bins=bins)
    assert np.abs(timed - np.array([5, 5, 0, 10, 10, 10, 10, 10, 10, 10]) * 100).max() <= 1


def test_phases_follow_each_other_and_may_be_silent() -> None:
    """Each phase lasts as long as it says, silence included; after the last nothing is sent."""
    arrival = PhasedArrivals(
        phases=[
            Phase(for_s=100, arrival=ConstantArrivals(rate_per_s=4)),
            Phase(for_s=100),
            Phase(for_s=100, arrival=OnOffArrivals(rate_per_s=10, on_s=50, off_s=50)),
            Phase(for_s=100, arrival=RampArrivals(from_per_s=0, to_per_s=20)),
        ]
    )
    times = _times(arrival, 600, window_start_s=50, window_s=550)
    counts, _ = np.histogram(times, bins=np.arange(0, 601, 50))
    assert counts[:3].tolist() == [200, 200, 200]
    expected = np.array([0, 0, 500, 0, 250, 750, 0, 0, 0])
    assert (counts[3:][expected == 0] == 0).all()
    assert np.abs(counts[3:] - expected).max() <= 4 * np.sqrt(750)


def test_a_tenant_can_begin_late() -> None:
    """A silent first phase takes the warm-up with it, and the rest begins when it is over."""
    arrival = PhasedArrivals(
        phases=[Phase(for_s=30), Phase(arrival=PoissonArrivals(rate_per_s=50))]
    )
    times = _times(arrival, 100, window_start_s=10, window_s=90)
    assert 40 <= times[0] < 41
    assert len(times) == pytest.approx(60 * 50, rel=0.1)


def test_a_phase_does_not_shift_the_next_one() -> None:
    """More load in one phase leaves the times of the next one alone."""

    def second(rate: float) -> list[float]:
        first = Phase(for_s=50, arrival=PoissonArrivals(rate_per_s=rate))
        phases = [first, Phase(arrival=PoissonArrivals(rate_per_s=3))]
        times = _times(PhasedArrivals(phases=phases), 100)
        return [float(time) for time in times if time >= 50]

    assert second(1) == second(10)


@given(
    rates=st.lists(st.floats(0, 50), min_size=1, max_size=6).filter(any),
    step_s=st.floats(0.5, 40),
    scale=st.floats(0.1, 5),
    start_s=st.floats(0, 20),
)
def test_as_many_are_sent_as_the_rates_add_up_to(
    rates: list[float], step_s: float, scale: float, start_s: float
) -> None:
    """With constant spacing the number sent by any time is the summed rate, to one request."""
    arrival = StepArrivals(rates_per_s=rates, step_s=step_s, spacing=Spacing.CONSTANT)
    end_s = start_s + len(rates) * step_s
    times = _times(arrival, end_s, load_scale=scale, window_start_s=start_s, window_s=end_s)
    for k in range(len(rates) + 1):
        due = (rates[0] * start_s + sum(rates[:k]) * step_s) * scale
        assert abs((times <= start_s + k * step_s).sum() - due) <= 1 + 1e-6


@pytest.mark.parametrize("spacing", list(Spacing))
def test_a_varying_rate_keeps_the_burstiness_of_its_spacing(spacing: Spacing) -> None:
    """Seen through the summed rate, gaps are those of the unit process."""
    burstiness = 0.25 if spacing is Spacing.GAMMA else 1.0
    arrival = RampArrivals(from_per_s=5, to_per_s=45, spacing=spacing, burstiness=burstiness)
    times = _times(arrival, 1000)
    due = 5 * times + 40 / 1000 * times**2 / 2
    variation = np.diff(due).std() / np.diff(due).mean()
    expected = {Spacing.POISSON: 1.0, Spacing.GAMMA: 2.0, Spacing.CONSTANT: 0.0}[spacing]
    assert variation == pytest.approx(expected, abs=0.05)
