"""Percentiles and intervals: known values, and coverage where it can be checked."""

from __future__ import annotations

import numpy as np
import pytest

from fairshare.analysis.stats import (
    Interval,
    bootstrap,
    mean,
    percentile,
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


def test_wilson_of_known_proportions() -> None:
    """Even 0 of 10 and 10 of 10 leave room for doubt (Wilson's published 0.278)."""
    none, all_ = wilson(0, 10), wilson(10, 10)
    assert none is not None
    assert all_ is not None
    assert (none.low, none.high) == pytest.approx((0.0, 0.27753), abs=1e-5)
    assert (all_.low, all_.high) == pytest.approx((0.72247, 1.0), abs=1e-5)
    assert wilson(0, 0) is None


def test_the_bootstrap_covers_the_true_median() -> None:
    """Of 200 independent samples about 95 % of the intervals hold the true median."""
    random = np.random.default_rng(5)
    hits = 0
    for _ in range(200):
        (interval,) = bootstrap(random.exponential(size=200), (50,))
        assert interval is not None
        hits += interval.low <= np.log(2) <= interval.high
    assert 0.88 <= hits / 200 <= 0.99


def test_the_bootstrap_is_repeatable_and_needs_some_values() -> None:
    """Equal values give equal intervals; fewer than five give none."""
    values = np.random.default_rng(1).normal(size=300)
    assert bootstrap(values, (50, 99)) == bootstrap(values, (50, 99))
    assert bootstrap(values[:4], (50, 99)) == [None, None]


def test_of_nothing_there_is_no_percentile() -> None:
    """An empty sample has neither percentile nor mean."""
    assert percentile(np.array([]), 50) is None
    assert mean(np.array([])) is None


def test_an_interval_is_cut_to_what_is_possible() -> None:
    """A share's interval ends at 1, and one that lies outside collapses onto the bound."""
    assert Interval(-0.2, 1.3).within(0, 1) == Interval(0, 1)
    assert Interval(1.1, 1.3).within(0, 1) == Interval(1, 1)
