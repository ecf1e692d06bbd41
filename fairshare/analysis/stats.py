"""Percentiles, and intervals of means, shares and differences. Nothing here is random."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import count as numbers

import numpy as np

from fairshare.analysis.arrays import Floats

CONFIDENCE = 0.95
NORMAL = 1.959963984540054  # standard errors to each side
ENOUGH_FOR_P99 = 100  # below, the P99 is the largest value or close to it
_CLOSE = 1e-13
_TINY = 1e-300


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
    first: float,
    first_interval: Interval,
    second: float,
    second_interval: Interval,
    freedoms: tuple[float, float] = (math.inf, math.inf),
) -> Interval:
    """The interval of ``second - first`` from those of either, which know nothing of each other.

    Each end moves by the root of the summed squares of the distances that could move it (MOVER,
    Zou and Donner 2008, doi:10.1002/sim.3095). ``freedoms`` are the degrees of freedom with which
    the widths of the two are known; of the sum they are more (Welch 1947, Satterthwaite 1946), so
    that two Student's intervals give Welch's.
    """
    change = second - first
    down = _together((first_interval.high - first, second - second_interval.low), freedoms)
    up = _together((first - first_interval.low, second_interval.high - second), freedoms)
    return Interval(change - down, change + up)


def _together(distances: tuple[float, float], freedoms: tuple[float, float]) -> float:
    """Root of summed squares, narrower by what two widths that are known badly tell together."""
    errors = [each / _t(known) for each, known in zip(distances, freedoms, strict=True)]
    square = sum(error**2 for error in errors)
    if not square:
        return 0.0
    doubt = sum(error**4 / known for error, known in zip(errors, freedoms, strict=True))
    return _t(square**2 / doubt if doubt else math.inf) * math.sqrt(square)


def _t(degrees: float) -> float:
    return NORMAL if math.isinf(degrees) else t_quantile(round(degrees, 2))


def wilson(successes: float, total: float) -> Interval | None:
    """Wilson's score interval of a proportion (Wilson 1927); None of nothing.

    Numbers need not be whole: so many independent ones that dependent ones are worth.
    """
    if total == 0:
        return None
    z, share = NORMAL, successes / total
    denominator = 1 + z * z / total
    centre = (share + z * z / (2 * total)) / denominator
    half = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total)) / denominator
    # Its ends are exactly 0 and 1 there; in floating point they would be so almost.
    low = max(0.0, centre - half) if successes else 0.0
    high = min(1.0, centre + half) if successes < total else 1.0
    return Interval(low, high)


@lru_cache(maxsize=4096)
def t_quantile(degrees: float, confidence: float = CONFIDENCE) -> float:
    """The t with ``P(|T| <= t) = confidence``, by bisection of the exact distribution."""
    low, high = 0.0, 1e6
    while high - low > 1e-9 * (1 + low):
        middle = (low + high) / 2
        # A square root of the beta distribution's x, so that t and x move together.
        beyond = beta_share(degrees / (degrees + middle * middle), degrees / 2, 0.5)
        if 1 - beyond < confidence:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def beta_share(x: float, a: float, b: float) -> float:
    """The regularised incomplete beta function I_x(a, b), by its continued fraction.

    (DLMF 8.17.22, https://dlmf.nist.gov/8.17, evaluated by Lentz's method.)
    """
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):  # where the fraction converges slowly
        return 1 - beta_share(1 - x, b, a)
    logarithm = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    front = math.exp(logarithm + a * math.log(x) + b * math.log1p(-x)) / a
    value, above, below = 1.0, 1.0, 0.0
    for number in numbers(1):
        m, even = number // 2, number % 2 == 0
        up = m * (b - m) if even else -(a + m) * (a + b + m)
        term = up * x / ((a + number - 1) * (a + number))
        below = 1 / ((1 + term * below) or _TINY)
        above = (1 + term / above) or _TINY
        value *= above * below
        if abs(above * below - 1) < _CLOSE:
            break
    return front / value
