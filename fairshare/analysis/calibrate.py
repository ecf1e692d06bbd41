"""What a device reaches of its peaks, fitted to requests that were measured alone on it.

The requests of an exclusive cell are replayed through the simulated engine at the times at which
they were sent. The first half of them is fitted, the second half says how good the fit is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from fairshare.errors import ResultsError
from fairshare.records import RequestRecord
from fairshare.units import NS_PER_S
from fairshare.virtual.clock import Clock
from fairshare.virtual.contention import Alone
from fairshare.virtual.course import Lane
from fairshare.virtual.engine import Engine, Limits
from fairshare.virtual.engine import Sequence as Sequence_
from fairshare.virtual.models import VirtualModel
from fairshare.virtual.physics import PUBLISHED, Constants, Costs, Gpu
from fairshare.virtual.rules import TimeSliced
from fairshare.virtual.simulated import Flight, SimulatedServer

LEAST_REQUESTS = 20
_ROUNDS, _STILL, _DAMPING = 40, 1e-4, 0.7
_SPREAD = 0.15  # of TTFT, below which prompts count as equally long
_SURE = 0.1  # standard error of how TTFT grows with the prompt, over that growth
_EFFICIENCIES = ("compute_efficiency", "memory_efficiency")
_LEAST, _MOST = 0.05, 1.0


@dataclass(frozen=True, slots=True)
class Measured:
    """One request as it was served, alone on a device; seconds."""

    sent_s: float
    prompt_tokens: int
    output_tokens: int
    ttft_s: float
    e2e_s: float

    @property
    def tpot_s(self) -> float:
        """Time per output token after the first."""
        return (self.e2e_s - self.ttft_s) / max(1, self.output_tokens - 1)


Pair = tuple[Measured, tuple[float, float]]
"""A request and the TTFT and E2E that are predicted for it."""


@dataclass(frozen=True, slots=True)
class Served:
    """By what the requests were served."""

    gpu: Gpu
    model: VirtualModel
    limits: Limits
    eager: bool = False


@dataclass(frozen=True, slots=True)
class Errors:
    """Predicted over measured, less one, of means over requests."""

    ttft: float
    tpot: float
    e2e: float


@dataclass(frozen=True, slots=True)
class Calibration:
    """The constants that fit, how well they fit, and how well they predict requests kept back."""

    constants: Constants
    requests: int
    fitted: Errors
    held_out: Errors
    uncalibrated: Errors


def measured_requests(records: Sequence[RequestRecord]) -> list[Measured]:
    """What was measured well, in the order of sending."""
    found = []
    for r in records:
        if not r.ok or r.sent_ns is None or r.first_token_ns is None or r.end_ns is None:
            continue
        if not r.prompt_tokens or not r.output_tokens or r.output_tokens < 2 or r.cached_tokens:
            continue
        times = [(t - r.sent_ns) / NS_PER_S for t in (r.first_token_ns, r.end_ns)]
        sent_s = r.sent_ns / NS_PER_S
        found.append(Measured(sent_s, r.prompt_tokens, r.output_tokens, *times))
    return sorted(found, key=lambda each: each.sent_s)


def calibrate(
    cells: Sequence[tuple[Served, Sequence[Measured]]], start: Constants = PUBLISHED
) -> Calibration:
    """Fit the efficiencies (and the front end's delay) to all cells at once.

    Raises:
        ResultsError: there are too few requests to fit anything.
    """
    count = sum(len(requests) for _, requests in cells)
    if count < LEAST_REQUESTS:
        raise ResultsError(
            f"{count} exclusive requests were measured, and {LEAST_REQUESTS} are needed to fit",
            hint="measure longer (--window), in mode exclusive",
        )

    fitted = start
    for _ in range(_ROUNDS):
        before, fitted = fitted, _improved(cells, fitted)
        moved = max(abs(math.log(getattr(fitted, n) / getattr(before, n))) for n in _EFFICIENCIES)
        if moved < _STILL:
            break
    first, second = _errors(cells, fitted, half=0), _errors(cells, fitted, half=1)
    return Calibration(fitted, count, first, second, _errors(cells, start, half=1))


def replayed(
    served: Served, requests: Sequence[Measured], constants: Constants
) -> list[tuple[float, float]]:
    """TTFT and E2E that the model predicts for each request, sent when it was sent."""
    clock = Clock()
    costs = Costs.of(served.gpu, served.model, constants, eager=served.eager)
    server = SimulatedServer(
        clock,
        Alone(clock),
        Engine(served.limits),
        Lane(costs, constants),
        TimeSliced(constants),
        front_end_s=constants.front_end_s,
        keep_token_times=False,
    )
    flights = [
        Flight(Sequence_(str(i), "", r.prompt_tokens, r.output_tokens), lambda flight: None)
        for i, r in enumerate(requests)
    ]
    for flight, request in zip(flights, requests, strict=True):
        clock.at(request.sent_s, server.submit, flight)
    clock.run(until=lambda: False)
    times = []
    for flight in flights:
        assert flight.first_token_s is not None and flight.end_s is not None  # noqa: S101  (all ran)
        times.append((flight.first_token_s - flight.sent_s, flight.end_s - flight.sent_s))
    return times


def _improved(
    cells: Sequence[tuple[Served, Sequence[Measured]]], constants: Constants
) -> Constants:
    """Constants that come closer, by what each of them does that the others do not.

    Compute scales how TTFT grows with the prompt, the front end shifts it, and memory traffic
    scales the time of each further token. Where all prompts wait equally long, or requests scatter
    too much, nothing tells the first two apart: the front end stays what it was.
    """
    pairs = _pairs(cells, constants, half=0)
    ttft = np.array([[m.ttft_s, t - constants.front_end_s] for m, (t, _) in pairs])
    measured, predicted = ttft[:, 0], ttft[:, 1]
    front_end_s = constants.front_end_s
    slope = (measured.mean() - front_end_s) / predicted.mean()
    if predicted.std() > _SPREAD * predicted.mean():
        (steep, shift_s), spread = np.polyfit(predicted, measured, 1, cov=True)
        if spread[0, 0] ** 0.5 < _SURE * steep:  # else requests scatter more than prompts tell
            slope, front_end_s = steep, shift_s
    faster = math.exp(_DAMPING * math.log(min(max(float(slope), 0.25), 4.0)))
    shorter = 1 / _tpot(pairs)
    return replace(
        constants,
        compute_efficiency=_within(constants.compute_efficiency / faster),
        memory_efficiency=_within(constants.memory_efficiency / shorter),
        front_end_s=max(0.0, float(front_end_s)),
    )


def _within(efficiency: float) -> float:
    return min(max(efficiency, _LEAST), _MOST)


def _pairs(
    cells: Sequence[tuple[Served, Sequence[Measured]]], constants: Constants, *, half: int
) -> list[Pair]:
    """The first or the second half of each cell's requests, with what is predicted for them."""
    pairs: list[Pair] = []
    for served, requests in cells:
        middle = len(requests) // 2
        part = slice(middle, None) if half else slice(0, middle)
        predicted = replayed(served, requests, constants)
        pairs += zip(requests[part], predicted[part], strict=True)
    return pairs


def _tpot(pairs: Sequence[Pair]) -> float:
    predicted = sum((e - t) / max(1, m.output_tokens - 1) for m, (t, e) in pairs)
    return predicted / sum(m.tpot_s for m, _ in pairs)


def _errors(
    cells: Sequence[tuple[Served, Sequence[Measured]]], constants: Constants, *, half: int
) -> Errors:
    pairs = _pairs(cells, constants, half=half)
    return Errors(
        ttft=sum(t for _, (t, _) in pairs) / sum(m.ttft_s for m, _ in pairs) - 1,
        tpot=_tpot(pairs) - 1,
        e2e=sum(e for _, (_, e) in pairs) / sum(m.e2e_s for m, _ in pairs) - 1,
    )
