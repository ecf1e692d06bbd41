"""What somebody may want of a shared device, and what of a cell says how well it was met."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from fairshare.analysis.differences import Difference, Sample
from fairshare.analysis.model import CellAnalysis, TenantMetrics
from fairshare.analysis.slowdown import interactive, isolation_index, isolation_interval
from fairshare.analysis.stats import Interval
from fairshare.analysis.table import format_index, format_number, format_seconds

_TOKENS = 1e6  # what a price is of
_HOUR_S = 3600.0
_ANSWERED = 0.99
"""Of fewer requests with an answer no P99 is known: the slowest hundredth never came."""


@dataclass(frozen=True, slots=True)
class Goal:
    """One goal: what is compared, which way is better, and why it may be missing."""

    title: str
    compared: str
    higher: bool
    form: Callable[[float], str]
    sample: Callable[[CellAnalysis], Sample | None]
    missing: str
    """What a reader does to get it."""
    most: float = math.inf
    """The largest value that there is."""
    over: float | None = None
    """What is shown is this over what is compared: a price over a rate."""

    @property
    def more_is_better(self) -> bool:
        """Of what is shown."""
        return self.higher and self.over is None

    def shown(self, value: float) -> float:
        """What is shown of a value that is compared."""
        return value if self.over is None else self.over / value

    def shown_interval(self, interval: Interval | None) -> Interval | None:
        """The same of its interval; None where that has no end."""
        if interval is None or self.over is None:
            return interval
        if interval.low <= 0:
            return None
        return Interval(self.shown(interval.high), self.shown(interval.low))

    def shown_difference(self, between: Difference) -> Difference:
        """The same of a difference: that of the first with what would lie so far from it."""
        if self.over is None:
            return between
        first, apart = between.first, between.interval
        ends = None if apart is None else Interval(first + apart.low, first + apart.high)
        if (found := self.shown_interval(ends)) is not None:
            found = Interval(found.low - self.shown(first), found.high - self.shown(first))
        return Difference(self.shown(first), self.shown(between.second), between.pairs, found)


def goals(price_per_hour: float | None = None) -> list[Goal]:
    """All goals; that of cost only with the price of an hour of the device."""
    found = [
        Goal(
            "Throughput", "output tokens per second, all tenants", True, format_number,
            lambda cell: _of_total(cell, "output_tokens_per_s"),
            "tenants were measured one at a time only: add another of --modes",
        ),
        Goal(
            "Interactive tail latency", "TTFT P99 of the worst interactive tenant", False,
            format_seconds, _tail,
            "fewer than 99 of 100 requests were answered: less load, or a longer --window",
        ),
        Goal(
            "Fairness", "Jain's index of backlogged tenants", True, format_index, _jain,
            "no two tenants were backlogged at once: raise the load (--concurrency, --load-scale)",
            most=1.0,
        ),
        Goal(
            "Isolation", "isolation index: E2E P99 alone / when sharing, worst interactive tenant",
            True, format_index, _isolation,
            "it takes two tenants, exclusive in --modes, and 99 of 100 requests answered",
            most=1.0,
        ),
        Goal(
            "SLO goodput", "requests per second within all limits", True, format_number, _goodput,
            "no tenant has limits: set slo in the scenario",
        ),
    ]  # fmt: skip
    if price_per_hour is not None:
        found.append(
            Goal(
                "Cost", f"per million output tokens, at {price_per_hour:g} an hour", True,
                format_number, _paid, "no output token came in the window",
                over=price_per_hour / _HOUR_S * _TOKENS,
            )
        )  # fmt: skip
    return found


def _of_total(cell: CellAnalysis, metric: str) -> Sample | None:
    if cell.total is None:
        return None
    value = cell.total.values()[metric]
    return None if value is None else Sample(float(value), cell.total.intervals.get(metric))


def _tail(cell: CellAnalysis) -> Sample | None:
    if cell.total is None:
        return None
    rows = interactive(cell)
    if not _answered(rows):
        return None
    waited = [
        (value, row.intervals.get("ttft_p99_s"))
        for row in rows
        if (value := row.latency["ttft"].p99) is not None
    ]
    if not waited:
        return None
    worst = max(waited, key=lambda pair: pair[0])
    # Another tenant's may be the worst in truth: known only where each tenant's is.
    known = all(interval is not None for _, interval in waited)
    return Sample(worst[0], worst[1] if known else None)


def _jain(cell: CellAnalysis) -> Sample | None:
    if cell.fairness is None or cell.fairness.jain is None:
        return None
    return Sample(cell.fairness.jain, cell.fairness.interval)


def _isolation(cell: CellAnalysis) -> Sample | None:
    index = isolation_index(cell)
    if index is None or not _answered(interactive(cell)):
        return None
    return Sample(index, isolation_interval(cell))


def _answered(rows: Iterable[TenantMetrics]) -> bool:
    """Whether there is a P99 of all that was asked, and not only of what was answered.

    Who refuses half has a short tail.
    """
    return all(row.completion_rate is None or row.completion_rate >= _ANSWERED for row in rows)


def _goodput(cell: CellAnalysis) -> Sample | None:
    found, shares = _of_total(cell, "goodput_per_s"), _of_total(cell, "slo_attainment")
    if found is None or shares is None or shares.interval is None or not cell.window_s:
        return found
    if not shares.value:
        return found
    asked = found.value / shares.value  # requests with limits per second, whatever became of them
    interval = Interval(asked * shares.interval.low, asked * shares.interval.high)
    return Sample(found.value, interval)


def _paid(cell: CellAnalysis) -> Sample | None:
    """The tokens per second of which a price is: who has more of them pays less for each."""
    found = _of_total(cell, "output_tokens_per_s")
    return found if found is not None and found.value else None
