"""Percentiles and intervals: known values, and coverage where it can be checked."""

from __future__ import annotations

import numpy as np
import pytest

from fairshare.analysis.stats import (
    Interval,
    beta_share,
    difference_interval,
    mean,
    percentile,
    series_interval,
    t_interval,
    t_quantile,
    wilson,
)


@pytest.mark.parametrize(
    ("degrees", "quantile"),
    # Published two-sided 95 % points of Student's t.
    [(1, 12.706205), (2, 4.302653), (3, 3.182446), (4, 2.776445), (5, 2.570582), (30, 2.042272)],
)
def test_t_quantiles_are_the_published_ones(degrees: int, quantile: float) -> None:
    """No table and no SciPy, and still the textbook's numbers."""
    assert t_quantile(degrees) == pytest.approx(quantile, abs=1e-6)


def test_t_interval_of_a_known_sample() -> None:
    """Mean 2, standard deviation 1, n = 3: 2 +- 4.302653 / sqrt(3)."""
    interval = t_interval([1.0, 2.0, 3.0])
    assert interval is not None
    assert (interval.low, interval.high) == pytest.approx((-0.484138, 4.484138), abs=1e-6)
    assert t_interval([1.0]) is None


def test_a_series_whose_neighbours_are_alike_says_less() -> None:
    """It holds the true mean of an autoregressive series far more often than the plain interval."""
    random = np.random.default_rng(4)
    hits, plain_hits = 0, 0
    for _ in range(300):
        noise = random.normal(size=60)
        series = [0.0]
        for step in noise:
            series.append(0.5 * series[-1] + float(step))
        wide, plain = series_interval(series[-20:]), t_interval(series[-20:])
        assert wide is not None
        assert plain is not None
        hits += wide.low <= 0 <= wide.high
        plain_hits += plain.low <= 0 <= plain.high
    assert hits / 300 >= 0.86
    assert plain_hits / 300 < 0.82


def test_a_series_without_such_neighbours_has_the_plain_interval() -> None:
    """Alternating or constant values are not made to look more certain, nor less."""
    for values in ([1.0, 3.0] * 5, [2.0] * 5):
        found, plain = series_interval(values), t_interval(values)
        assert found is not None
        assert plain is not None
        assert (found.low, found.high) == pytest.approx((plain.low, plain.high))
    assert series_interval([1.0]) is None


def test_wilson_of_known_proportions() -> None:
    """Even 0 of 10 and 10 of 10 leave room for doubt (Wilson's published 0.278)."""
    none, all_ = wilson(0, 10), wilson(10, 10)
    assert none is not None
    assert all_ is not None
    assert (none.low, none.high) == pytest.approx((0.0, 0.27753), abs=1e-5)
    assert (all_.low, all_.high) == pytest.approx((0.72247, 1.0), abs=1e-5)
    assert wilson(0, 0) is None
    for count in range(1, 200):
        none, all_ = wilson(0, count), wilson(count, count)
        assert none is not None
        assert all_ is not None
        assert (none.low, all_.high) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("x", "a", "b", "share"),
    # Closed forms: x for (1, 1), 1 - (1 - x)^n for (1, n), the arcsine law, a binomial sum.
    [(0.3, 1, 1, 0.3), (0.1, 1, 8, 1 - 0.9**8), (0.25, 0.5, 0.5, 1 / 3), (0.5, 3, 4, 42 / 64),
     (0.0, 2, 3, 0.0), (1.0, 2, 3, 1.0)],
)  # fmt: skip
def test_the_beta_distribution_is_that_of_closed_forms(
    x: float, a: float, b: float, share: float
) -> None:
    """Where the distribution is known by hand, the continued fraction comes to the same."""
    assert beta_share(x, a, b) == pytest.approx(share, abs=1e-12)


def test_two_students_intervals_give_welchs() -> None:
    """Of 3 and 3 runs with the same spread: t of 4 degrees, as the textbook has it."""
    first, second = t_interval([1.0, 2.0, 3.0]), t_interval([4.0, 5.0, 6.0])
    assert first is not None
    assert second is not None
    found = difference_interval(2.0, first, 5.0, second, (2, 2))
    half = t_quantile(4) * (2 / 3) ** 0.5
    assert (found.low, found.high) == pytest.approx((3 - half, 3 + half), abs=1e-6)
    wider = difference_interval(2.0, first, 5.0, second)
    assert wider.high - wider.low > found.high - found.low
    point = Interval(1.0, 1.0)
    assert difference_interval(1.0, point, 1.0, point, (1, 1)) == Interval(0.0, 0.0)


def test_of_nothing_there_is_no_percentile() -> None:
    """An empty sample has neither percentile nor mean."""
    assert percentile(np.array([]), 50) is None
    assert mean(np.array([])) is None


def test_an_interval_is_cut_to_what_is_possible() -> None:
    """A share's interval ends at 1, and one that lies outside collapses onto the bound."""
    assert Interval(-0.2, 1.3).within(0, 1) == Interval(0, 1)
    assert Interval(1.1, 1.3).within(0, 1) == Interval(1, 1)
