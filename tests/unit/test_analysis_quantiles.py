"""Intervals of percentiles: known ranks, and what neighbours that are alike are worth."""

from __future__ import annotations

import numpy as np
import pytest

from fairshare.analysis.quantiles import fractional_ranks, percentile_intervals, worth
from fairshare.analysis.stats import Interval


@pytest.mark.parametrize(
    ("count", "percent", "least"), [(6, 50, 0.9), (30, 50, 0.9), (200, 50, 0.9), (400, 99, 0.92)]
)
def test_the_interval_of_a_percentile_covers_the_true_one(
    count: int, percent: int, least: float
) -> None:
    """Of 200 samples, small ones too, about 95 % of the intervals hold the truth."""
    random = np.random.default_rng(5)
    truth = -np.log(1 - percent / 100)
    hits = given = 0
    for _ in range(200):
        (interval,) = percentile_intervals(random.exponential(size=count), (percent,))
        if interval is not None:  # where the few largest stand together by chance there is none
            given += 1
            hits += interval.low <= truth <= interval.high
    assert given >= 180
    assert hits / given >= least


@pytest.mark.parametrize(
    ("count", "share", "outer", "inner"),
    # Published exact two-sided ranks of the median, which hold it 97.85, 95.86 and 96.48 times
    # of 100; a rank further in they would hold it less than 95 times.
    [(10, 0.5, (2, 9), (3, 8)), (20, 0.5, (6, 15), (7, 14)), (100, 0.5, (40, 61), (41, 60))],
)
def test_fractional_ranks_lie_between_the_published_whole_ones(
    count: int, share: float, outer: tuple[int, int], inner: tuple[int, int]
) -> None:
    """Whole ranks hold a median too often or too seldom; those with fractions lie between."""
    low, high = fractional_ranks(count, share)
    assert outer[0] < low < inner[0]
    assert inner[1] < high < outer[1]
    assert low + high == pytest.approx(count + 1, abs=1e-4)  # as the median is in the middle


def test_intervals_of_percentiles_are_repeatable_and_need_enough_values() -> None:
    """Equal values give equal intervals; 5 values have no median to be sure of, 367 no P99."""
    values = np.random.default_rng(1).normal(size=400)
    assert percentile_intervals(values, (50, 99)) == percentile_intervals(values, (50, 99))
    for count, percent in ((5, 50), (367, 99)):
        assert percentile_intervals(values[:count], (percent,)) == [None]
        assert percentile_intervals(values[: count + 1], (percent,)) != [None]
    assert percentile_intervals(values[:0], (50, 99)) == [None, None]


def test_neighbours_that_are_alike_are_worth_fewer() -> None:
    """Runs of eight equal values are worth little more than the runs are; mixed they all count."""
    runs = np.repeat(np.random.default_rng(2).normal(size=50), 8)
    mixed = np.random.default_rng(3).permutation(runs)
    likely, sure = worth(runs)
    assert 40 <= likely <= 80
    assert sure < likely
    assert worth(mixed)[0] >= 300
    (together,), (apart,) = (percentile_intervals(v, (50,)) for v in (runs, mixed))
    assert together is not None
    assert apart is not None
    assert together.high - together.low > 1.2 * (apart.high - apart.low)


def test_what_lasts_long_shows_below_the_noise_of_each_request() -> None:
    """A slow wave a third as strong as the noise: lag by lag hardly seen, in blocks clearly."""
    random = np.random.default_rng(6)
    wave = np.repeat(random.normal(size=20), 50)
    assert worth(wave * 0.6 + random.normal(size=1000))[0] < 200


def test_equal_values_have_an_interval_of_no_width() -> None:
    """Nothing varies, so nothing is alike either."""
    assert worth(np.ones(100)) == (100, 100)
    assert percentile_intervals(np.ones(100), (50,)) == [Interval(1.0, 1.0)]


def test_a_series_that_only_climbs_is_worth_a_handful() -> None:
    """All of it is one long change, whatever the number of its values."""
    assert worth(np.arange(1000) < 500)[0] < 10
    assert worth(np.arange(1000) < 500)[1] < worth(np.arange(1000) < 500)[0]
