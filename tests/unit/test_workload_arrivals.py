"""Open-loop arrivals have the rates and the shape that were asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fairshare.spec.workload import ConstantArrivals, GammaArrivals, PoissonArrivals, RampArrivals
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
    long = _times(arrival, 300, window_start_s=0.0, window_s=50.0)
    assert short.tolist() == long[: len(short)].tolist()
