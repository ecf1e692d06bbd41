"""When open-loop requests are meant to be sent, whatever the server does.

Every process is one of unit rate, stretched: the k-th arrival comes when the rate, summed over
time, reaches the k-th arrival of the unit process. So a rate may change in any way, and the load
scale moves requests without changing which there are.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, count

import numpy as np

from fairshare.spec.workload import (
    ConstantArrivals,
    GammaArrivals,
    OnOffArrivals,
    PhaseArrival,
    PhasedArrivals,
    PoissonArrivals,
    RampArrivals,
    Spacing,
    StepArrivals,
)
from fairshare.workload.rates import Piece, on_off, ramp, steps, through

OpenLoop = PhaseArrival | PhasedArrivals

_BLOCK = 256
_FOREVER = float("inf")


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

    What changes with time (ramp, step, on-off, phases) begins to change at ``window_start_s``:
    before it, during warm-up, all is as it is in the first moment of the window. What is spread
    over the window ends with it (without ``window_s``: with the load), and then stays as it is.
    """
    width_s = duration_s - window_start_s if window_s is None else window_s
    if isinstance(arrival, PhasedArrivals):
        return _phases(
            arrival,
            rng,
            duration_s=duration_s,
            load_scale=load_scale,
            window_start_s=window_start_s,
            width_s=width_s,
        )
    pieces = _pieces(arrival, window_start_s, width_s)
    return through(pieces, _units(arrival, rng), scale=load_scale, end_s=duration_s)


def _pieces(arrival: PhaseArrival, start_s: float, width_s: float) -> Iterator[Piece]:
    match arrival:
        case RampArrivals():
            return ramp(arrival.from_per_s, arrival.to_per_s, start_s, width_s)
        case StepArrivals():
            each_s = arrival.step_s or width_s / len(arrival.rates_per_s)
            return steps(arrival.rates_per_s, start_s, each_s)
        case OnOffArrivals():
            return on_off(arrival.per_s, start_s, arrival.on_s, arrival.off_s)
        case PoissonArrivals() | GammaArrivals() | ConstantArrivals():
            return iter([Piece(0.0, _FOREVER, arrival.per_s, arrival.per_s)])


def _units(arrival: PhaseArrival, rng: np.random.Generator) -> Iterator[float]:
    """Arrivals at one a second, without end."""
    match arrival:
        case PoissonArrivals():
            return _renewal(rng, 1.0)
        case GammaArrivals():
            return _renewal(rng, arrival.burstiness)
        case ConstantArrivals():
            return _equal(rng)
        case _:
            return (
                _equal(rng)
                if arrival.spacing is Spacing.CONSTANT
                else _renewal(rng, arrival.burstiness)
            )


def _renewal(rng: np.random.Generator, shape: float) -> Iterator[float]:
    """Gamma-distributed gaps of mean 1; ``shape`` 1 gives exponential ones."""
    now = 0.0
    while True:
        gaps = rng.exponential(1.0, _BLOCK) if shape == 1 else rng.gamma(shape, 1 / shape, _BLOCK)
        times = now + np.cumsum(gaps)
        yield from times.tolist()
        now = float(times[-1])


def _equal(rng: np.random.Generator) -> Iterator[float]:
    """Counted, not summed, so that a long schedule does not drift."""
    phase = rng.random()
    return (k + phase for k in count())


def _phases(
    arrival: PhasedArrivals,
    rng: np.random.Generator,
    *,
    duration_s: float,
    load_scale: float,
    window_start_s: float,
    width_s: float,
) -> Iterator[float]:
    """Each phase by a generator of its own: how much one draws does not shift the next."""
    generators = rng.spawn(len(arrival.phases))

    def all_phases() -> Iterator[Iterator[float]]:
        begin_s, warmup_s = 0.0, window_start_s
        for phase, generator in zip(arrival.phases, generators, strict=True):
            lasts_s = window_start_s + width_s - begin_s - warmup_s
            lasts_s = phase.for_s if phase.for_s is not None else max(0.0, lasts_s)
            end_s = duration_s if phase.for_s is None else begin_s + warmup_s + lasts_s
            if phase.arrival is not None:
                times = offsets_s(
                    phase.arrival,
                    generator,
                    duration_s=min(end_s, duration_s) - begin_s,
                    load_scale=load_scale,
                    window_start_s=warmup_s,
                    window_s=lasts_s,
                )
                yield (begin_s + time for time in times)
            begin_s, warmup_s = end_s, 0.0
            if begin_s >= duration_s:
                return

    return chain.from_iterable(all_phases())
