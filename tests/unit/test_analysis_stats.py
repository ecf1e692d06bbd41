"""Percentiles and intervals: known values, and coverage where it can be checked."""

from __future__ import annotations

import numpy as np
import pytest

from fairshare.analysis.stats import (
    Interval,
    mean,
    order_ranks,
    percentile,
    percentile_intervals,
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


@pytest.mark.parametrize(("count", "percent"), [(6, 50), (30, 50), (200, 50), (400, 99)])
def test_the_interval_of_a_percentile_covers_the_true_one(count: int, percent: int) -> None:
    """Of 200 samples, small ones too, at least about 95 % of the intervals hold the truth."""
    random = np.random.default_rng(5)
    truth = -np.log(1 - percent / 100)
    hits = given = 0
    for _ in range(200):
        (interval,) = percentile_intervals(random.exponential(size=count), (percent,))
        if interval is not None:  # where the few largest stand together by chance there is none
            given += 1
            hits += interval.low <= truth <= interval.high
    assert given >= 180
    assert hits / given >= 0.92


@pytest.mark.parametrize(
    ("count", "percent", "ranks"),
    # Published two-sided 95 % ranks of the median (counted from 0 here), and 0.99^n <= 2.5 %.
    [(5, 50, None), (6, 50, (0, 5)), (10, 50, (1, 8)), (20, 50, (5, 14)), (367, 99, None)],
)
def test_order_statistics_are_the_published_ones(
    count: int, percent: int, ranks: tuple[int, int] | None
) -> None:
    """Where even the largest value is likely below the percentile there is no interval."""
    assert order_ranks(count, percent) == ranks
    assert order_ranks(368, 99) == (359, 367)
    assert order_ranks(0, 50) is None


def test_intervals_of_percentiles_are_repeatable_and_need_enough_values() -> None:
    """Equal values give equal intervals; a P99 of a hundred values has none."""
    values = np.random.default_rng(1).normal(size=400)
    assert percentile_intervals(values, (50, 99)) == percentile_intervals(values, (50, 99))
    median, p99 = percentile_intervals(values[:150], (50, 99))
    assert median is not None
    assert p99 is None
    assert percentile_intervals(values[:5], (50, 99)) == [None, None]


def test_neighbours_that_are_alike_widen_the_interval() -> None:
    """Values that come in runs say less than as many independent ones."""
    runs = np.repeat(np.random.default_rng(2).normal(size=50), 8)
    mixed = np.random.default_rng(3).permutation(runs)
    (together,), (apart,) = (percentile_intervals(v, (50,)) for v in (runs, mixed))
    assert together is not None
    assert apart is not None
    assert together.high - together.low > 1.2 * (apart.high - apart.low)


def test_of_nothing_there_is_no_percentile() -> None:
    """An empty sample has neither percentile nor mean."""
    assert percentile(np.array([]), 50) is None
    assert mean(np.array([])) is None


def test_an_interval_is_cut_to_what_is_possible() -> None:
    """A share's interval ends at 1, and one that lies outside collapses onto the bound."""
    assert Interval(-0.2, 1.3).within(0, 1) == Interval(0, 1)
    assert Interval(1.1, 1.3).within(0, 1) == Interval(1, 1)
