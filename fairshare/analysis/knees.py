"""The answers of a search for the knee, rebuilt from the cells of a result folder."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fairshare.analysis.knee import (
    Axis,
    Bracket,
    Verdict,
    Window,
    attainments,
    axis_of,
    bracket,
    judge,
    load_of,
    narrow,
    subject_of,
)
from fairshare.analysis.stats import Interval
from fairshare.analysis.windows import window_of
from fairshare.records import CellKey, CellResult, CellStatus, Mark, Provenance
from fairshare.results import StoredCell
from fairshare.spec.search import KneeSearch
from fairshare.units import NS_PER_S

_ENDED = (CellStatus.OK, CellStatus.FAILED)
_UNFINISHED = "not finished: continue with --resume"


@dataclass(frozen=True, slots=True)
class Worst:
    """The tenant that comes off worst at a point: its share of requests within its SLO."""

    tenant: str
    share: float
    interval: Interval


@dataclass(frozen=True, slots=True)
class Point:
    """A load with the windows measured at it. ``verdict`` None: the search was cut off in it."""

    load: float
    verdict: Verdict | None
    windows: tuple[Window | None, ...]
    offered_per_s: float | None
    """Requests a second that were meant to be sent in the windows, all tenants together."""
    cells: tuple[str, ...]
    marks: tuple[Mark, ...]

    @property
    def worst(self) -> Worst | None:
        """None where no window could be measured."""
        measured = [window for window in self.windows if window is not None]
        found = attainments(measured)
        if not found:
            return None
        tenant = min(found, key=lambda name: (found[name].low, found[name].high))
        tallies = [window[tenant] for window in measured if tenant in window]
        asked = sum(tally.asked for tally in tallies)
        share = sum(tally.met for tally in tallies) / asked if asked else 0.0
        return Worst(tenant, share, found[tenant])


@dataclass(frozen=True, slots=True)
class Knee:
    """The highest load of a scenario in a mode at which every tenant's SLO is met."""

    scenario: str
    label: str
    tenant: str | None
    """Who has the device alone, in mode exclusive."""
    provenance: Provenance
    axis: Axis
    points: tuple[Point, ...]
    bracket: Bracket
    required: float
    resolution: float

    def at(self, load: float | None) -> Point | None:
        """The point of a load."""
        return next((point for point in self.points if point.load == load), None)

    @property
    def says(self) -> str:
        """The answer, or why there is none, in words."""
        low, high = self.bracket.low, self.at(self.bracket.high)
        if any(point.verdict is None for point in self.points):
            return _UNFINISHED
        if high is None:
            return f"met even at {self.load_text(low)}, the highest that was tried"
        if all(point.verdict is Verdict.UNDECIDED for point in self.points):
            highest = self.load_text(max(point.load for point in self.points))
            return f"not decided up to {highest}: too few requests, use a longer --window"
        if low is None:
            few = high.verdict is Verdict.UNDECIDED
            more = ": use a longer --window or more --num-runs" if few else ""
            return f"{_not_met(high)} even at {self.load_text(high.load)}, the lowest tried{more}"
        if not narrow(self.bracket, self.resolution, whole=self.axis is Axis.CONCURRENCY):
            return _UNFINISHED
        return "found" if high.verdict is Verdict.MISSED else self._open(high)

    def _open(self, high: Point) -> str:
        missed = min((p.load for p in self.points if p.verdict is Verdict.MISSED), default=None)
        further = "" if missed is None else f"; missed from {self.load_text(missed)}"
        return f"{_not_met(high)} at {self.load_text(high.load)}{further}"

    @property
    def ends(self) -> list[Point]:
        """The points that enclose the knee, those that there are."""
        found = (self.at(load) for load in (self.bracket.low, self.bracket.high))
        return [point for point in found if point is not None]

    @property
    def marks(self) -> tuple[Mark, ...]:
        """Reservations of the two loads that enclose the knee."""
        return tuple(dict.fromkeys(mark for end in self.ends for mark in end.marks))

    def load_text(self, load: float | None) -> str:
        """A load as people say it: ``x1.41``, ``16 in flight``."""
        if load is None:
            return "–"
        return f"x{load:g}" if self.axis is Axis.LOAD_SCALE else f"{load:g} in flight"


def knees(stored: Iterable[StoredCell], search: KneeSearch, at_most: int) -> list[Knee]:
    """One answer per scenario, mode, policy and tenant alone, in the order of their cells.

    Raises:
        ResultsError: damaged records.
    """
    groups: dict[CellKey, list[StoredCell]] = {}
    for cell in stored:
        axis = _axis(cell.result)
        if cell.complete and axis is not None and cell.result.status in _ENDED:
            groups.setdefault(subject_of(cell.result.key, axis), []).append(cell)
    made = [_knee(cells, search, at_most) for cells in groups.values()]
    return [
        knee for knee in made if any(window for point in knee.points for window in point.windows)
    ]


def _knee(cells: Sequence[StoredCell], search: KneeSearch, at_most: int) -> Knee:
    result = cells[0].result
    axis = _axis(result) or Axis.LOAD_SCALE
    by_load: dict[float, list[StoredCell]] = {}
    for cell in sorted(cells, key=lambda cell: cell.result.key.repetition):
        by_load.setdefault(load_of(cell.result.key, axis), []).append(cell)
    points = [_point(load, by_load[load], search, at_most) for load in sorted(by_load)]
    verdicts = {point.load: point.verdict for point in points if point.verdict is not None}
    return Knee(
        scenario=result.key.scenario,
        label=result.mode_label,
        tenant=result.key.tenant,
        provenance=result.provenance,
        axis=axis,
        points=tuple(points),
        bracket=bracket(verdicts),
        required=search.attainment,
        resolution=search.resolution,
    )


def _point(load: float, cells: Sequence[StoredCell], search: KneeSearch, at_most: int) -> Point:
    windows = tuple(window_of(cell) for cell in cells)
    return Point(
        load=load,
        verdict=judge(windows, search.attainment, at_most),
        windows=windows,
        offered_per_s=_offered_per_s(cells, windows),
        cells=tuple(cell.result.id for cell in cells),
        marks=tuple(dict.fromkeys(mark for cell in cells for mark in cell.result.marks)),
    )


def _offered_per_s(cells: Sequence[StoredCell], windows: Sequence[Window | None]) -> float | None:
    """Of tenants that were promised something."""
    asked, length_s = 0, 0.0
    for cell, window in zip(cells, windows, strict=True):
        if window is not None and cell.result.window_ns is not None:
            begun_ns, ended_ns = cell.result.window_ns
            length_s += (ended_ns - begun_ns) / NS_PER_S
            asked += sum(tally.asked for tally in window.values())
    return asked / length_s if length_s else None


def _not_met(point: Point) -> str:
    return "missed" if point.verdict is Verdict.MISSED else str(point.verdict)


def _axis(result: CellResult) -> Axis | None:
    open_loop = any(tenant.get("open_loop") for tenant in result.tenants)
    return axis_of(result.key, open_loop=open_loop)
