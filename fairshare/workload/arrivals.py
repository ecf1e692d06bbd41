"""When open-loop requests are meant to be sent, whatever the server does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from fairshare.spec.workload import ConstantArrivals, GammaArrivals, PoissonArrivals, RampArrivals

OpenLoop = PoissonArrivals | GammaArrivals | ConstantArrivals | RampArrivals

_BLOCK = 256

Floats = NDArray[np.float64]


def offsets_s(
    arrival: OpenLoop,
    rng: np.random.Generator,
    *,
    duration_s: float,
    load_scale: float,
    window_start_s: float = 0.0,
    window_s: float | None = None,
) -> Iterator[float]:
    """Intended send times in seconds since the tenant's start, rising, below ``duration_s``.

    A ramp has its first rate before the window, rises or falls linearly within
    ``window_start_s`` to ``window_start_s + window_s`` (without it: to the end), and keeps its last
    rate after it.
    """
    match arrival:
        case PoissonArrivals():
            mean_s = 1 / (arrival.per_s * load_scale)
            return _renewal(lambda n: rng.exponential(mean_s, n), duration_s)
        case GammaArrivals():
            shape = arrival.burstiness
            scale_s = 1 / (arrival.per_s * load_scale * shape)
            return _renewal(lambda n: rng.gamma(shape, scale_s, n), duration_s)
        case ConstantArrivals():
            return _constant(1 / (arrival.per_s * load_scale), rng.random(), duration_s)
        case RampArrivals():
            window_end_s = duration_s if window_s is None else window_start_s + window_s
            return _ramp(arrival, rng, duration_s, load_scale, (window_start_s, window_end_s))


def _renewal(gaps_s: Callable[[int], Floats], duration_s: float) -> Iterator[float]:
    now = 0.0
    while True:
        times = now + np.cumsum(gaps_s(_BLOCK))
        for time in times.tolist():
            if time >= duration_s:
                return
            yield time
        now = float(times[-1])


def _constant(gap_s: float, phase: float, duration_s: float) -> Iterator[float]:
    """Multiplied, not summed, so that a long schedule does not drift."""
    k = 0
    while (time := (k + phase) * gap_s) < duration_s:
        yield time
        k += 1


def _ramp(
    arrival: RampArrivals,
    rng: np.random.Generator,
    duration_s: float,
    load_scale: float,
    window_s: tuple[float, float],
) -> Iterator[float]:
    """A Poisson process by time change: unit-rate arrivals through the inverse of the summed rate.

    Within the window, ``u`` seconds after its start, ``a*u + (b - a)*u^2/(2w)`` requests are due.
    """
    start, end = window_s
    width = end - start
    a, b = arrival.from_per_s * load_scale, arrival.to_per_s * load_scale
    due_at_start, due_in_window = a * start, (a + b) / 2 * width

    def time_of(due: float) -> float:
        if due < due_at_start:
            return due / a
        inside = due - due_at_start
        if inside < due_in_window:
            # the root of (b-a)/(2w) u^2 + a u - inside = 0 in the form that survives b == a
            rate_then = sqrt(max(0.0, a * a + 2 * (b - a) / width * inside))
            return start + 2 * inside / (a + rate_then)
        return end + (inside - due_in_window) / b if b > 0 else float("inf")

    for due in _renewal(lambda n: rng.exponential(1.0, n), float("inf")):
        if (time := time_of(due)) >= duration_s:
            return
        yield time
