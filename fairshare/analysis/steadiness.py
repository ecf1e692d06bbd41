"""Whether figures can be leaned on: a window that began in a steady state, runs that agree.

Every warning names the flag that helps.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fairshare.analysis.arrays import Floats, Requests
from fairshare.analysis.service import output_flow
from fairshare.analysis.stats import Interval, t_interval, t_quantile

_PARTS = 20  # of the window
_FIRST = 4  # of them: a fifth
_REST = 10  # of them, at the end: a half, steady if any of it is
_CONFIDENCE = 0.999  # many tenants in many cells are asked, and few may be wrong
_WORTH_TELLING = 0.1
_WIDE = 0.25  # half of an interval, as a part of the figure
_AIM = 0.1
_MOST_RUNS = 30
WATCHED = {
    "output_tokens_per_s": "output tokens/s",
    "ttft_p50_s": "TTFT P50",
    "e2e_p50_s": "E2E P50",
}
"""Figures whose runs should agree: of each tenant, for the median of all is of no one's."""


@dataclass(frozen=True, slots=True)
class Unsteady:
    """The first fifth of a window was otherwise than its second half, beyond doubt."""

    figure: str
    tenant: str | None
    change: float
    """Of the first fifth against the second half, as a part of the latter."""
    warmup_s: float
    window_s: float

    def __str__(self) -> str:
        """A sentence that ends in the flag."""
        way = "higher" if self.change > 0 else "lower"
        whom = "" if self.tenant is None else f" of {self.tenant}"
        longer = math.ceil(self.warmup_s + self.window_s * _FIRST / _PARTS)
        return (
            f"not steady when the window began: {self.figure}{whom} {abs(self.change):.0%} {way} "
            f"in its first fifth than in its second half; use --warmup {longer}s"
        )


def unsteady(requests: Requests, window: tuple[float, float]) -> Unsteady | None:
    """What began before a steady state, the clearest of it; None where nothing shows.

    Compared are the tokens of all tenants together and the mean time to first token of each, from
    the sending, in twentieths of the window: Student's t at 99.9 %, neighbours that are alike
    counted as fewer, and a tenth of difference at least.
    """
    edges = np.linspace(*window, _PARTS + 1)
    series: dict[tuple[str, str | None], Floats] = {
        ("output tokens/s", None): output_flow(requests).between(edges)
    }
    waits = requests.first_token_s - requests.sent_s
    answered = requests.ok & ~np.isnan(waits)
    place = np.searchsorted(edges, requests.sent_s, side="right") - 1
    inside = answered & (place >= 0) & (place < _PARTS)
    for number, name in enumerate(requests.tenants):
        mine = inside & (requests.tenant == number)
        counts = np.bincount(place[mine], minlength=_PARTS)
        if counts.min() >= 2:
            series["TTFT", name] = np.bincount(place[mine], waits[mine], _PARTS) / counts
    found = [
        Unsteady(figure, tenant, change, window[0], window[1] - window[0])
        for (figure, tenant), values in series.items()
        if (change := _change(values)) is not None
    ]
    return max(found, key=lambda each: abs(each.change), default=None)


def _change(values: Floats) -> float | None:
    """The first parts against the last ones, where they differ by more than the last ones do.

    The spread is that of the last parts alone: a ramp at the start would hide itself in its own.
    """
    first, rest = values[:_FIRST], values[-_REST:]
    usual, change = float(rest.mean()), float(first.mean() - rest.mean())
    if usual <= 0 or abs(change) < _WORTH_TELLING * usual:
        return None
    around = rest - usual
    square = float(around @ around)
    alike = max(0.0, float(around[1:] @ around[:-1]) / square) if square else 0.0
    variance = square / (_REST - 1) * (1 / _FIRST + 1 / _REST) * (1 + alike) / (1 - alike)
    clear = abs(change) > t_quantile(_REST - 1, _CONFIDENCE) * math.sqrt(variance)
    return change / usual if clear else None


def disagreement(samples: Mapping[tuple[str | None, str], Sequence[float]]) -> str | None:
    """Of a few runs that differ much: by how much, and how many would do; the widest figure.

    ``samples`` are the values over repetitions, by tenant (None: all) and metric. None where there
    is one run only (that is said otherwise), or where all intervals are within a quarter of their
    figure.
    """
    widest, said = _WIDE, None
    for (tenant, metric), values in samples.items():
        interval, centre = t_interval(values), float(np.mean(values)) if len(values) else 0.0
        if metric not in WATCHED or interval is None or centre <= 0:
            continue
        part = _half(interval) / centre
        if part > widest:
            widest = part
            whom = "" if tenant is None else f" of {tenant}"
            said = (
                f"unstable: {WATCHED[metric]}{whom} is known to +-{part:.0%} only after "
                f"{len(values)} runs; use --num-runs {_enough(values, _AIM * centre)}, or a longer "
                "--window"
            )
    return said


def _half(interval: Interval) -> float:
    return (interval.high - interval.low) / 2


def _enough(values: Sequence[float], half: float) -> int:
    """Runs after which the interval is about ``half`` to each side, if they go on like this."""
    deviation = float(np.std(values, ddof=1))
    runs = range(len(values) + 1, _MOST_RUNS)
    fits = (n for n in runs if t_quantile(n - 1) * deviation / math.sqrt(n) <= half)
    return next(fits, _MOST_RUNS)


def sentences(found: Iterable[Unsteady | None]) -> list[str]:
    """One sentence for the cells of one row: the clearest, and in how many of them it is so."""
    cells = list(found)
    told = [each for each in cells if each is not None]
    if not told:
        return []
    clearest = max(told, key=lambda each: abs(each.change))
    return [
        str(clearest) + (f" (so in {len(told)} of {len(cells)} runs)" if len(cells) > 1 else "")
    ]
