"""Lengths in tokens, drawn from what a scenario says about them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from fairshare.spec.lengths import (
    FixedLength,
    Length,
    LognormalLength,
    MixLength,
    NormalLength,
    QuantileLength,
    UniformLength,
)

BLOCK = 256
_MAX_REDRAWS = 64

Integers = NDArray[np.int64]


def sample(length: Length, rng: np.random.Generator, n: int) -> list[int]:
    """``n`` lengths in tokens, each at least 1."""
    drawn: list[int] = _draw(length, rng, n).tolist()
    return drawn


def endless(length: Length, rng: np.random.Generator) -> Iterator[int]:
    """Lengths without end, drawn in blocks: the k-th depends on the seed and k alone."""
    while True:
        yield from sample(length, rng, BLOCK)


def _draw(length: Length, rng: np.random.Generator, n: int) -> Integers:
    match length:
        case FixedLength():
            return np.full(n, length.tokens, dtype=np.int64)
        case UniformLength():
            return rng.integers(length.min, length.max + 1, n)
        case NormalLength(mean=mean, stddev=stddev):
            return _bounded(length, n, lambda m: rng.normal(mean, stddev, m))
        case LognormalLength(sigma=sigma):
            log_median = np.log(length.median)
            return _bounded(length, n, lambda m: rng.lognormal(log_median, sigma, m))
        case QuantileLength():
            return np.rint(np.interp(rng.random(n), length.probabilities, length.values)).astype(
                np.int64
            )
        case MixLength():
            return _mixture(length, rng, n)


def _bounded(
    length: NormalLength | LognormalLength, n: int, draw: Callable[[int], NDArray[np.float64]]
) -> Integers:
    """Rounded draws, redrawn outside the bounds; what stays outside after many tries is clipped."""
    values = np.empty(n)
    missing = np.arange(n)
    for _ in range(_MAX_REDRAWS):
        values[missing] = np.rint(draw(missing.size))
        missing = missing[(values[missing] < length.min) | (values[missing] > length.max)]
        if not missing.size:
            break
    return np.clip(values, length.min, length.max).astype(np.int64)


def _mixture(length: MixLength, rng: np.random.Generator, n: int) -> Integers:
    weights = np.array([part.weight for part in length.parts])
    chosen = rng.choice(len(length.parts), size=n, p=weights / weights.sum())
    values = np.empty(n, dtype=np.int64)
    for index, part in enumerate(length.parts):
        mask = chosen == index
        values[mask] = _draw(part.length, rng, int(mask.sum()))
    return values
