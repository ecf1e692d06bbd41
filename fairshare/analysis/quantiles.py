"""Intervals of percentiles within one run, whose neighbouring requests met the same queue."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from fairshare.analysis.arrays import Floats, Mask
from fairshare.analysis.stats import CONFIDENCE, NORMAL, Interval, beta_share, t_quantile

_TAIL = (1 - CONFIDENCE) / 2
_LOOSE_TAIL = 0.05  # of values that are worth so few: above, nothing is said at all
_ENOUGH_FOR_CORRELATION = 20
_LONGEST_BLOCK = 0.8  # the power of the series' length
_BIAS = 1.25  # of the variance of few blocks; a mean that is estimated too makes it 1
_CLEAR = 2.0  # standard errors by which blocks must vary more than single values do


def percentile_intervals(values: Floats, percents: Sequence[float]) -> list[Interval | None]:
    """95 % intervals of percentiles; ``values`` are in the order of their time.

    The ends are fractional order statistics (Hutson 1999, doi:10.1080/02664769922458), of as many
    values as the series is worth independent ones (:func:`worth`). None where the true percentile
    may well lie beyond all values: with fewer than 6 for a P50, 368 for a P99, or with a series
    that is worth much fewer. What differs from run to run is not in it.
    """
    ordered = np.sort(values)
    return [_interval(values, ordered, percent / 100) for percent in percents]


def _interval(values: Floats, ordered: Floats, share: float) -> Interval | None:
    count = len(values)
    if not _spans(count, share, _TAIL):
        return None
    likely, sure = worth(values <= np.quantile(ordered, share))
    if not _spans(likely, share, _LOOSE_TAIL):
        return None
    if not _spans(sure, share, _TAIL):
        return Interval(float(ordered[0]), float(ordered[-1]))
    # Each of the fewer independent values stands for its part of the series, in the middle of it.
    ranks = np.array(fractional_ranks(float(f"{sure:.3g}"), share))
    places = (ranks - 0.5) * count / sure - 0.5
    low, high = np.interp(places, np.arange(count), ordered)
    return Interval(float(low), float(high))


def _spans(count: float, share: float, tail: float) -> bool:
    """Whether a quantile lies between the least and the greatest of so many values, but for tails.

    That all of ``count`` independent values lie on one side has a probability of ``share`` to the
    power of ``count``, or of what is left of 1.
    """
    return float(max(share, 1 - share) ** count) <= tail


def freedom(count: int, share: float) -> float:
    """Degrees of freedom with which the width of a quantile's interval is known.

    It is made of the gaps between so many neighbouring values, and each varies like its mean.
    """
    return max(1.0, NORMAL * math.sqrt(count * share * (1 - share)))


@lru_cache(maxsize=4096)
def fractional_ranks(count: float, share: float) -> tuple[float, float]:
    """Ranks from 1 on, with fractions, between which a quantile lies with 95 % confidence.

    Of ``count`` independent values the one of rank r is below the quantile with a probability of
    I_share(r, count + 1 - r), the regularised incomplete beta function; between whole ranks values
    are interpolated.
    """

    def rank(probability: float) -> float:
        low, high = 0.0, count + 1
        while high - low > 1e-6 * count:
            middle = (low + high) / 2
            if beta_share(share, middle, count + 1 - middle) > probability:
                low = middle
            else:
                high = middle
        return low

    return rank(1 - _TAIL), rank(_TAIL)


def worth(series: Mask | Floats) -> tuple[float, float]:
    """How many independent values a series is worth: most likely, and to be counted on.

    Means of circular blocks of neighbours vary more than those of as many single values where
    neighbours are alike: by how much is the variance of the circular block bootstrap (Politis and
    Romano 1992), in closed form. Blocks of 2, 4, 8, ... up to n^0.8 values are tried, since
    what lasts a minute does not show in blocks of a second; the largest ratio beyond noise counts.
    The second number is less by what so few blocks leave unknown (Student's t against the normal
    distribution, 3 n / 2 l degrees of freedom for blocks of l). Of fewer than 20 values nothing can
    be said, and each counts.
    """
    count = len(series)
    if count < _ENOUGH_FOR_CORRELATION:
        return count, count
    deviation = series - np.mean(series)
    plain = float(deviation @ deviation)
    likely = sure = 1.0
    around = np.concatenate(([0.0], np.cumsum(np.concatenate((deviation, deviation)))))
    length = 2
    while plain > 0 and length <= count**_LONGEST_BLOCK:
        sums = around[length : length + count] - around[:count]
        blocks = 1.5 * count / length
        excess = float(sums @ sums) / length / plain / (1 - length / count) ** _BIAS
        if excess > 1 + _CLEAR * math.sqrt(2 / blocks):
            likely = max(likely, excess)
            sure = max(sure, excess * (t_quantile(int(blocks)) / NORMAL) ** 2)
        length *= 2
    return count / likely, count / sure
