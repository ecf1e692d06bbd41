"""Percentiles and intervals. Everything here is seeded: the same records, the same digits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from fairshare.analysis.arrays import Floats, Mask

CONFIDENCE = 0.95
ENOUGH_FOR_P99 = 100  # below, the P99 is the largest value or close to it
_SEED = 20240217
_RESAMPLES = 200
_SORTED_SOONER = 600
_AT_ONCE = 1_000_000  # values that are resampled in one array
_ENOUGH_FOR_CORRELATION = 20
_LONGEST_LAG = 1000
_MAX_DRAWS = 4_000_000  # above, fewer resamples: the interval of many values is narrow anyway


@dataclass(frozen=True, slots=True)
class Interval:
    """A 95 % confidence interval."""

    low: float
    high: float

    def within(self, least: float, most: float) -> Interval:
        """The part of it that is possible."""
        return Interval(min(max(self.low, least), most), max(min(self.high, most), least))


def percentile(values: Floats, percent: float) -> float | None:
    """Percentile with linear interpolation between order statistics; None of no values."""
    return float(np.percentile(values, percent)) if len(values) else None


def percentiles(values: Floats, percents: Sequence[float]) -> list[float] | list[None]:
    """Several percentiles of the same values, as :func:`percentile` gives each."""
    return np.percentile(values, percents).tolist() if len(values) else [None] * len(percents)


def mean(values: Floats) -> float | None:
    """Arithmetic mean; None of no values."""
    return float(np.mean(values)) if len(values) else None


def percentile_intervals(values: Floats, percents: Sequence[float]) -> list[Interval | None]:
    """Within-run intervals of percentiles: the wider of two methods' on each side.

    Order statistics hold what few values cannot show, counting values that follow each other alike
    as fewer (:func:`independent`); the block bootstrap draws neighbours together. ``values`` are in
    the order of their time. None where the true percentile may well lie beyond all values: with
    fewer than 6 independent ones for a P50, 368 for a P99. What differs from run to run is in
    neither.
    """
    ordered = np.sort(values)
    ranks = [_ranks(values, ordered, percent) for percent in percents]
    if not any(ranks):
        return [None] * len(ranks)
    return [
        None
        if rank is None
        else Interval(min(low, float(ordered[rank[0]])), max(high, float(ordered[rank[1]])))
        for rank, (low, high) in zip(ranks, _bootstrap(values, percents), strict=True)
    ]


def _ranks(values: Floats, ordered: Floats, percent: float) -> tuple[int, int] | None:
    """Places in ``ordered`` between which the percentile lies, as if of independent values."""
    count = len(values)
    if order_ranks(count, percent) is None:
        return None
    worth = independent(values <= np.percentile(ordered, percent))
    ranks = order_ranks(worth, percent)
    if ranks is None:
        return None
    return ranks[0] * count // worth, -(-(ranks[1] + 1) * count // worth) - 1


def independent(series: Floats | Mask) -> int:
    """How many independent values a series is worth, at least 1.

    n / (1 + 2 x the sum of its autocorrelations), summed from lag 1 on until one is lost in noise,
    below 1 / sqrt(n) (after the initial positive sequence of Geyer 1992). Of fewer than 20 values
    nothing can be said, and each counts.
    """
    count = len(series)
    if count < _ENOUGH_FOR_CORRELATION:
        return max(1, count)
    deviation = series - np.mean(series)
    square = float(deviation @ deviation)
    together = 1.0
    for lag in range(1, min(count // 4, _LONGEST_LAG) + 1 if square else 1):
        r = float(deviation[lag:] @ deviation[:-lag]) / square
        if r <= 1 / math.sqrt(count):
            break
        together += 2 * r
    return max(1, int(count / together))


def order_ranks(count: int, percent: float) -> tuple[int, int] | None:
    """Indices of the order statistics between which a percentile lies with 95 % confidence.

    The number of values below the true percentile is binomial; 2.5 % at most are left on each
    side. None where even the smallest and the largest value are not far enough apart.
    """
    if count == 0:
        return None
    share, k = percent / 100, np.arange(count)
    ratios = np.log((count - k) / (k + 1)) + math.log(share / (1 - share))
    logs = count * math.log1p(-share) + np.concatenate(([0.0], np.cumsum(ratios)))
    at_most = np.cumsum(np.exp(logs))  # P(at most k values lie below)
    tail = (1 - CONFIDENCE) / 2
    # value k is above the percentile if at most k lie below it, and below it if more than k do
    low = int(np.searchsorted(at_most, tail, side="right")) - 1
    high = int(np.searchsorted(at_most, 1 - tail))
    return (low, high) if low >= 0 and high < count else None


def _bootstrap(values: Floats, percents: Sequence[float]) -> list[tuple[float, float]]:
    """Ends of the circular block bootstrap's intervals (Politis and Romano 1992).

    Blocks of n^(1/3) neighbours are drawn instead of single values.
    """
    count = len(values)
    length = max(1, round(count ** (1 / 3)))
    blocks = math.ceil(count / length)
    resamples = max(50, min(_RESAMPLES, _MAX_DRAWS // count))
    random = np.random.default_rng(_SEED)
    drawn = np.empty((resamples, len(percents)))
    circle = np.concatenate((values, values[: length - 1]))
    block_from = np.lib.stride_tricks.sliding_window_view(circle, length)
    together = max(1, _AT_ONCE // count)  # as one array: few values need no pass each
    for first in range(0, resamples, together):
        part = drawn[first : first + together]
        starts = random.integers(0, count, size=(len(part), blocks))
        resampled = block_from[starts].reshape(len(part), -1)[:, :count]
        if count <= _SORTED_SOONER:  # than its order statistics are found
            resampled.sort(axis=1)
        part[:] = np.percentile(resampled, percents, axis=1, overwrite_input=True).T
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(drawn, [tail, 100 - tail], axis=0)
    return [(float(a), float(b)) for a, b in zip(low, high, strict=True)]


def t_interval(values: Sequence[float] | Floats) -> Interval | None:
    """Student's t interval of the mean; None with fewer than two values."""
    count = len(values)
    if count < 2:
        return None
    centre = float(np.mean(values))
    half = t_quantile(count - 1) * float(np.std(values, ddof=1)) / math.sqrt(count)
    return Interval(centre - half, centre + half)


def series_interval(values: Sequence[float] | Floats) -> Interval | None:
    """The t interval of the mean of values that follow each other in time.

    Where neighbours are alike there are fewer independent values than there seem to be: with a
    lag-1 correlation of r, n (1 - r) / (1 + r) of n (a first-order autoregression). An r below
    1 / sqrt(n) is noise.
    """
    plain = t_interval(values)
    if plain is None:
        return None
    series = np.asarray(values, float)
    deviation = series - series.mean()
    square = float((deviation * deviation).sum())
    r = float((deviation[1:] * deviation[:-1]).sum()) / square if square else 0.0
    if r <= 1 / math.sqrt(len(series)):
        return plain
    centre = (plain.low + plain.high) / 2
    half = (plain.high - centre) * math.sqrt((1 + r) / (1 - r))
    return Interval(centre - half, centre + half)


def difference_interval(
    first: float, first_interval: Interval, second: float, second_interval: Interval
) -> Interval:
    """The interval of ``second - first`` from those of either, which know nothing of each other.

    Each end moves by the root of the summed squares of the distances that could move it (MOVER,
    Zou and Donner 2008, doi:10.1002/sim.3095). Two Student's intervals give Welch's, about.
    """
    change = second - first
    down = math.hypot(second - second_interval.low, first_interval.high - first)
    up = math.hypot(second_interval.high - second, first - first_interval.low)
    return Interval(change - down, change + up)


def wilson(successes: float, total: float) -> Interval | None:
    """Wilson's score interval of a proportion (Wilson 1927); None of nothing.

    Numbers need not be whole: so many independent ones that dependent ones are worth.
    """
    if total == 0:
        return None
    z = 1.959963984540054
    share = successes / total
    denominator = 1 + z * z / total
    centre = (share + z * z / (2 * total)) / denominator
    half = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total)) / denominator
    # Its ends are exactly 0 and 1 there; in floating point they would be so almost.
    low = max(0.0, centre - half) if successes else 0.0
    high = min(1.0, centre + half) if successes < total else 1.0
    return Interval(low, high)


@lru_cache(maxsize=1024)
def t_quantile(degrees: int, confidence: float = CONFIDENCE) -> float:
    """The t with ``P(|T| <= t) = confidence``, by bisection of the exact distribution."""
    low, high = 0.0, 1e6
    for _ in range(100):
        middle = (low + high) / 2
        if _t_within(middle, degrees) < confidence:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _t_within(t: float, degrees: int) -> float:
    """``P(|T| <= t)`` for whole degrees of freedom (Abramowitz and Stegun 26.7.3, 26.7.4)."""
    angle = math.atan2(t, math.sqrt(degrees))
    cosine, sine = math.cos(angle), math.sin(angle)
    odd = degrees % 2 == 1
    term = cosine if odd else 1.0
    total = term if degrees > 1 else 0.0
    for k in range(3 if odd else 2, degrees - 1, 2):
        term *= cosine * cosine * (k - 1) / k
        total += term
    return 2 / math.pi * (angle + sine * total) if odd else sine * total
