"""The search for the highest load that is served: what a point shows, and which comes next. Pure.

A point is a load (a factor on all rates, or a number in flight) with windows measured at it. The
bracket begins where the user says and doubles or halves the load until a served and an unserved
point are known; then it is halved by ratio until both are as near as was asked for. While nothing
is decided the load is doubled.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from statistics import NormalDist

from fairshare.analysis.stats import CONFIDENCE, Interval, t_quantile, wilson
from fairshare.records import CellKey

LEAST_WINDOWS = 2
"""A single window is no evidence of how windows differ."""
FARTHEST = 64.0
"""How far from where it began a search goes, as a factor."""
_NORMAL = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
_DIGITS = 3  # of a load: it is part of a cell's name


class Verdict(StrEnum):
    """What a point shows."""

    MET = "met"  # every tenant's interval lies at or above what is required
    MISSED = "missed"  # some tenant's interval lies wholly below it
    UNDECIDED = "not decided"  # neither, after as many windows as were allowed
    FAILED = "failed"  # a window could not be measured, for another reason than the load


_AGAINST = {Verdict.MISSED, Verdict.FAILED}


class Axis(StrEnum):
    """What is searched."""

    LOAD_SCALE = "load_scale"  # a factor on the rates of all open-loop tenants
    CONCURRENCY = "concurrency"  # requests in flight of every closed-loop tenant


@dataclass(frozen=True, slots=True)
class Tally:
    """One tenant's requests of one window: within the SLO, and all."""

    met: int
    asked: int


Window = Mapping[str, Tally]
"""A window of a cell: the tally of each tenant that was promised something."""


@dataclass(frozen=True, slots=True)
class Bracket:
    """The highest load that is met and the lowest above it that is not; None where there is none.

    A load that is not decided, or failed, is not met; what a load above shows counts for it.
    """

    low: float | None
    high: float | None


def axis_of(key: CellKey, *, open_loop: bool) -> Axis | None:
    """What can be varied in a cell of this key; ``open_loop``: some tenant of it has a schedule.

    None where every tenant has a fixed number in flight.
    """
    if open_loop:
        return Axis.LOAD_SCALE
    return None if key.concurrency is None else Axis.CONCURRENCY


def load_of(key: CellKey, axis: Axis) -> float:
    """Where on the axis a cell lies."""
    return key.load_scale if axis is Axis.LOAD_SCALE else float(key.concurrency or 1)


def subject_of(key: CellKey, axis: Axis) -> CellKey:
    """What the cells of one search have in common."""
    if axis is Axis.LOAD_SCALE:
        return replace(key, repetition=1, load_scale=1.0)
    return replace(key, repetition=1, concurrency=None)


def attainment(tallies: Sequence[Tally]) -> Interval:
    """Wilson's interval of one tenant's share of requests within its SLO, over all windows.

    Requests of one window meet the same queue, so they are worth fewer independent ones: as many
    as the spread between the windows shows (the design effect of cluster sampling; Kish 1965), and
    never more than there are. Of few windows that spread is hardly known, so what they are worth
    shrinks by the square of normal over Student's quantile (Korn and Graubard 1998). A single
    window counts as if windows did not differ.
    """
    asked, met = sum(t.asked for t in tallies), sum(t.met for t in tallies)
    effect = _design_effect(tallies, asked, met)
    if len(tallies) > 1:
        effect *= (t_quantile(len(tallies) - 1) / _NORMAL) ** 2
    return wilson(met / effect, asked / effect) or Interval(0.0, 1.0)


def _design_effect(tallies: Sequence[Tally], asked: int, met: int) -> float:
    count = len(tallies)
    if count < 2 or not 0 < met < asked:
        return 1.0
    share = met / asked
    between = sum((t.met - share * t.asked) ** 2 for t in tallies) * count / (count - 1)
    return max(1.0, between / (asked * share * (1 - share)))


def attainments(windows: Sequence[Window]) -> dict[str, Interval]:
    """The interval of each tenant over the windows of a point."""
    tenants = dict.fromkeys(tenant for window in windows for tenant in window)
    return {
        tenant: attainment([window[tenant] for window in windows if tenant in window])
        for tenant in tenants
    }


def judge(windows: Sequence[Window | None], required: float, at_most: int) -> Verdict | None:
    """What the windows of a point show; None while another one is to be measured.

    A window that is None could not be measured. ``required`` is a fraction of requests.
    """
    measured = [window for window in windows if window is not None]
    if len(measured) < len(windows):
        return Verdict.FAILED
    if len(measured) < min(LEAST_WINDOWS, at_most):
        return None
    intervals = attainments(measured).values()
    if any(interval.high < required for interval in intervals):
        return Verdict.MISSED
    if intervals and all(interval.low >= required for interval in intervals):
        return Verdict.MET
    return Verdict.UNDECIDED if len(measured) >= at_most else None


def bracket(verdicts: Mapping[float, Verdict]) -> Bracket:
    """Between which loads the knee lies.

    A load that is not decided below one that is met had too few requests, and is passed over.
    """
    missed = min((load for load, v in verdicts.items() if v in _AGAINST), default=math.inf)
    met = (load for load, v in verdicts.items() if v is Verdict.MET and load < missed)
    low = max(met, default=None)
    above = (load for load, v in verdicts.items() if v is not Verdict.MET and load > (low or 0.0))
    return Bracket(low, min(above, default=None))


def narrow(found: Bracket, resolution: float, *, whole: bool) -> bool:
    """Whether both ends are known and as near to each other as was asked for."""
    if found.low is None or found.high is None:
        return False
    neighbours = whole and found.high - found.low <= 1
    return neighbours or found.high / found.low <= (1 + resolution) * (1 + 1e-9)


def next_load(
    verdicts: Mapping[float, Verdict], start: float, resolution: float, *, whole: bool
) -> float | None:
    """The load to try next, given what the others showed; None at the end of the search."""
    if not verdicts:
        return start
    found = bracket(verdicts)
    if found.low is None or found.high is None:
        return _outside(verdicts, start, whole=whole)
    if narrow(found, resolution, whole=whole):
        return None
    middle = _rounded(math.sqrt(found.low * found.high), whole=whole)
    if whole:
        middle = min(max(middle, found.low + 1), found.high - 1)
    return middle if found.low < middle < found.high else None


def _outside(verdicts: Mapping[float, Verdict], start: float, *, whole: bool) -> float | None:
    """A load above or below all others: only one end of the bracket is known, or none."""
    if not _AGAINST & set(verdicts.values()):
        # All are met; or nothing is decided, and more load is more requests, which decide more.
        return _beyond(max(verdicts) * 2, start, verdicts, whole=whole)
    if [verdicts[load] for load in sorted(verdicts)[:2]] == [Verdict.UNDECIDED] * 2:
        return None  # the knee is not so wide: these had too few requests, and lower still fewer
    return _beyond(min(verdicts) / 2, start, verdicts, whole=whole)


def _beyond(
    load: float, start: float, verdicts: Mapping[float, Verdict], *, whole: bool
) -> float | None:
    """A load on the far side of all others, unless that is too far from the start."""
    rounded = _rounded(load, whole=whole)
    near = start / FARTHEST <= max(load, rounded) and rounded <= start * FARTHEST
    return rounded if near and rounded not in verdicts else None


def _rounded(load: float, *, whole: bool) -> float:
    return max(1, math.floor(load)) if whole else float(f"{load:.{_DIGITS}g}")
