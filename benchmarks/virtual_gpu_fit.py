"""The constants of the hardware model that fit some published rows best, by a fixed procedure.

1. The whole experiment is simulated at points spread evenly over a box of constants (a Latin
   hypercube, seeded), each with other chances. A median of a closed loop jumps with the last
   millisecond; the quadratic surface through the logarithms of each figure does not, and says what
   follows from any constants.
2. On these surfaces, the squares of what the fitted rows are off are made least.
3. How differences are weighed, and how widely requests scatter in the front end, is chosen by the
   fitted rows alone: each is left out in turn and predicted from the others. The first of the
   candidates stands unless the best one is better by more than two standard errors.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
# Between these each constant is looked for; "scatter" is the front end's.
BOX: Mapping[str, tuple[float, float]] = {
    "compute_efficiency": (0.45, 0.70),
    "memory_efficiency": (0.70, 0.98),
    "timeslice_tax": (1.03, 1.17),
    "front_end_s": (0.010, 0.060),
    "scatter": (0.1, 1.0),
}
ALL = "all"  # the rows of both splits, fitted and held out: from these are the shipped constants
FITTED = tuple(name for name in BOX if name != "scatter")
ALLOWED = np.array([0.03, 0.15, 0.05])  # errors of tok/s, TTFT and ITL that are aimed at
WEIGHTS = {"allowed": 1 / ALLOWED, "equal": np.full(3, 1 / ALLOWED[0])}
SCATTERS = (0.5, 0.25, 0.75, 1.0)  # the first was assumed before anything was fitted
POINTS, SEED = 96, 1
_LEAST_MOVE = 1e-7


@dataclass(frozen=True, slots=True)
class Published:
    """Logarithms of what was measured: tok/s, TTFT and ITL of each row; what is not fitted is nan.

    ``taxes`` are time-slicing taxes that were measured otherwise.
    """

    figures: Floats
    taxes: Sequence[float]


@dataclass(frozen=True, slots=True)
class Candidate:
    """Weights and scatter, and what rows that were left out in turn say of them.

    ``scores`` are each row's mean error in parts of what is allowed.
    """

    weights: str
    scatter: float
    scores: tuple[float, ...]

    @property
    def score(self) -> float:
        """Of all rows."""
        return statistics.mean(self.scores)


@dataclass(frozen=True, slots=True)
class Fit:
    """The constants that fit best, in the way that was chosen among ``candidates``."""

    constants: dict[str, float]
    chosen: Candidate
    candidates: list[Candidate]


class Surface:
    """The figures of all rows as quadratic functions of the constants, from simulated points."""

    def __init__(self, simulate: Callable[[dict[str, float], int], Floats]) -> None:
        """``simulate`` is told the constants and the number of the point, for other chances."""
        points = _spread(POINTS, SEED)
        values = np.stack([np.log(simulate(_named(p), n)) for n, p in enumerate(points)])
        self._shape = values.shape[1:]
        terms = np.stack([_terms(point) for point in points])
        self._factors, *_ = np.linalg.lstsq(terms, values.reshape(POINTS, -1), rcond=None)
        left = 1 - np.einsum("ij,ji->i", terms, np.linalg.pinv(terms))
        missed = (values.reshape(POINTS, -1) - terms @ self._factors) / left[:, None]
        self.errors: Floats = np.sqrt((missed**2).mean(axis=0)).reshape(self._shape)
        """Of the surface itself, at a point that it was not laid through."""

    def at(self, point: Floats) -> Floats:
        """Logarithms of tok/s, TTFT and ITL of each row."""
        found: Floats = (_terms(point) @ self._factors).reshape(self._shape)
        return found


def fit(surface: Surface, published: Published, rows: Sequence[int]) -> Fit:
    """Fit some rows, and nothing else."""
    candidates = [
        Candidate(name, scatter, _left_out(surface, published, rows, weights, scatter))
        for name, weights in WEIGHTS.items()
        for scatter in SCATTERS
    ]
    chosen = min(candidates, key=lambda each: each.score)
    if _no_better(chosen, candidates[0]):
        chosen = candidates[0]
    point = _nearest(surface, published, rows, WEIGHTS[chosen.weights], chosen.scatter)
    constants = {name: float(f"{_named(point)[name]:.4g}") for name in FITTED}
    return Fit(constants, chosen, candidates)


def _no_better(one: Candidate, than: Candidate) -> bool:
    gains = [b - a for a, b in zip(one.scores, than.scores, strict=True)]
    return statistics.mean(gains) <= 2 * statistics.stdev(gains) / len(gains) ** 0.5


def _left_out(
    surface: Surface, published: Published, rows: Sequence[int], weights: Floats, scatter: float
) -> tuple[float, ...]:
    """How far off each row is when the others are fitted, in parts of the allowed errors."""
    scores = []
    for row in rows:
        others = [each for each in rows if each != row]
        point = _nearest(surface, published, others, weights, scatter)
        off = np.abs(np.expm1(surface.at(point)[row] - published.figures[row])) / ALLOWED
        scores.append(float(np.nanmean(off)))
    return tuple(scores)


def _nearest(
    surface: Surface, published: Published, rows: Sequence[int], weights: Floats, scatter: float
) -> Floats:
    """The point of the box at which the squares are least: Levenberg's and Marquardt's method."""
    fixed = len(FITTED)
    point = np.zeros(len(BOX))
    low, high = BOX["scatter"]
    point[fixed] = (2 * scatter - low - high) / (high - low)

    def residuals(at: Floats) -> Floats:
        off = (surface.at(at) - published.figures)[rows] * weights
        taxes = np.log(_named(at)["timeslice_tax"] / np.array(published.taxes)) * weights[0]
        return np.append(off[~np.isnan(off)], taxes)

    now, damping = residuals(point), 1e-3
    while damping < 1e9:
        slopes = _slopes(residuals, point, now, fixed)
        normal = slopes.T @ slopes + damping * np.eye(fixed)
        tried = point.copy()
        tried[:fixed] += np.linalg.solve(normal, -slopes.T @ now)
        tried = tried.clip(-1.0, 1.0)
        after = residuals(tried)
        if after @ after >= now @ now:
            damping *= 4
            continue
        moved = float(np.abs(tried - point).max())
        point, now, damping = tried, after, damping / 4
        if moved < _LEAST_MOVE:
            break
    return point


def _slopes(residuals: Callable[[Floats], Floats], point: Floats, now: Floats, free: int) -> Floats:
    step = 1e-5
    moved = [point + step * np.eye(len(point))[i] for i in range(free)]
    return np.stack([(residuals(each) - now) / step for each in moved], axis=1)


def _spread(count: int, seed: int) -> Floats:
    """Points in the box, whose sides reach from -1 to 1: a Latin hypercube."""
    rng = np.random.default_rng(seed)
    strata = np.stack([rng.permutation(count) for _ in BOX], axis=1)
    points: Floats = 2 * (strata + rng.uniform(size=strata.shape)) / count - 1
    return points


def _named(point: Floats) -> dict[str, float]:
    """The constants at a point."""
    return {
        name: float(low + (high - low) * (1 + x) / 2)
        for (name, (low, high)), x in zip(BOX.items(), point, strict=True)
    }


def _terms(point: Floats) -> Floats:
    pairs = [a * b for a, b in combinations_with_replacement(point, 2)]
    return np.array([1.0, *point, *pairs])
