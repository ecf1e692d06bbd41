"""A search in place of a grid: which cell comes next depends on what the ones before it showed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from fairshare.analysis.knee import (
    Axis,
    Window,
    axis_of,
    judge,
    load_of,
    next_load,
    subject_of,
)
from fairshare.analysis.windows import window_of
from fairshare.errors import SpecError
from fairshare.records import CellKey, CellStatus
from fairshare.results.store import StoredCell
from fairshare.runner.plan import PlannedCell, RunPlan, at
from fairshare.runner.settings import Settings
from fairshare.spec.search import KneeSearch
from fairshare.spec.workload import ClosedLoop


@dataclass(slots=True)
class _Trail:
    """One search: the cell that it began with, and the windows measured at each load so far."""

    first: PlannedCell
    axis: Axis
    start: float
    windows: dict[float, list[Window | None]] = field(default_factory=dict)


class KneeHunt:
    """The searches of a sweep, one per scenario, mode, policy and tenant alone.

    Each is told of its cells as they end and says which one is to be measured next. It remembers
    nothing but windows, so one that was cut off goes on from the cells on disk as it would have.
    """

    def __init__(self, spec: KneeSearch, at_most: int) -> None:
        self._spec = spec
        self._at_most = at_most
        self._trails: dict[CellKey, _Trail] = {}
        self.overloaded: set[str] = set()
        """Ids of cells that failed because nothing was served in time: what a search looks for."""

    def spread(self, plan: RunPlan, stored: Iterable[StoredCell]) -> RunPlan:
        """The plan with every cell of a search that is on disk, whatever its definition was."""
        found = [cell.result.key for cell in stored]
        deployments = []
        for deployment in plan.deployments:
            cells = list(deployment.cells)
            for first in deployment.cells:
                axis = _axis(first)
                if axis is not None:
                    cells += [_moved(first, key, axis) for key in found if _of(key, first, axis)]
            unique = {cell.id: cell for cell in cells}
            deployments.append(replace(deployment, cells=tuple(unique.values())))
        return replace(plan, deployments=tuple(deployments))

    def begin(self, plan: RunPlan, done: Mapping[str, StoredCell]) -> RunPlan:
        """The plan with the next cell of each search in place of its first; ``done`` are on disk.

        Cells whose tenants were promised nothing are left out: there is nothing to search.
        """
        deployments = []
        for deployment in plan.deployments:
            cells = [
                cell
                for first in deployment.cells
                if _hindrance(first) is None
                for cell in self._resumed(first, done)
            ]
            deployments.append(replace(deployment, cells=tuple(cells)))
        return replace(plan, deployments=tuple(d for d in deployments if d.cells))

    def after(self, cell: PlannedCell, stored: StoredCell) -> list[PlannedCell]:
        """What is to be measured now that the cell has ended: one cell, or none any more.

        Raises:
            ResultsError: its records cannot be read.
        """
        axis = _axis_known(cell)
        trail = self._trails[subject_of(cell.key, axis)]
        windows = trail.windows.setdefault(load_of(cell.key, axis), [])
        windows.append(window_of(stored))
        if windows[-1] is not None and stored.result.status is CellStatus.FAILED:
            self.overloaded.add(cell.id)
        return self._next(trail)

    def _resumed(self, first: PlannedCell, done: Mapping[str, StoredCell]) -> list[PlannedCell]:
        axis = _axis_known(first)
        trail = _Trail(first, axis, load_of(first.key, axis))
        self._trails[subject_of(first.key, axis)] = trail
        found = self._next(trail)
        while found and found[0].id in done:
            found = self.after(found[0], done[found[0].id])
        return found

    def _next(self, trail: _Trail) -> list[PlannedCell]:
        verdicts = {}
        for load, windows in trail.windows.items():
            verdict = judge(windows, self._spec.attainment, self._at_most)
            if verdict is None:
                return [_at_load(trail.first, trail.axis, load, len(windows) + 1)]
            verdicts[load] = verdict
        whole = trail.axis is Axis.CONCURRENCY
        further = next_load(verdicts, trail.start, self._spec.resolution, whole=whole)
        return [] if further is None else [_at_load(trail.first, trail.axis, further, 1)]


def knee_hunt(settings: Settings) -> KneeHunt | None:
    """The searches that the sweep is, where it is some."""
    search = settings.matrix.search
    if not isinstance(search, KneeSearch):
        return None
    return KneeHunt(search, settings.matrix.windows_per_point)


def typical_points(search: KneeSearch) -> int:
    """How many loads a search tries whose knee lies within a factor of two of where it begins."""
    return 2 + math.ceil(math.log2(max(2.0, math.log(2) / math.log1p(search.resolution))))


def check_search(settings: Settings, plan: RunPlan) -> None:
    """Refuse a search for the knee where there is none to be found.

    Raises:
        SpecError: in no cell has a tenant an SLO and a load that can be varied.
    """
    if not isinstance(settings.matrix.search, KneeSearch) or not plan.cells:
        return
    reasons = [_hindrance(cell) for cell in plan.cells]
    if all(reason is not None for reason in reasons):
        raise SpecError(
            f"--find-knee: {reasons[0]}",
            hint="give tenants an slo, such as {ttft_s: 500ms, tpot_s: 50ms}, and a rate or a "
            "concurrency that the scenario does not fix",
        )


def _hindrance(cell: PlannedCell) -> str | None:
    """Why there is no knee to be found for a cell, None if there is one."""
    if _axis(cell) is None:
        return f"{cell.key.slug} has a fixed number of requests in flight, and no rate"
    if not any(tenant.slo.model_dump(exclude_none=True) for tenant in cell.tenants):
        return f"no tenant of {cell.key.slug} has an SLO to meet"
    return None


def _axis(cell: PlannedCell) -> Axis | None:
    open_loop = any(not isinstance(tenant.arrival, ClosedLoop) for tenant in cell.tenants)
    return axis_of(cell.key, open_loop=open_loop)


def _axis_known(cell: PlannedCell) -> Axis:
    axis = _axis(cell)
    assert axis is not None, f"{cell.id} is part of no search"  # noqa: S101  (see _hindrance)
    return axis


def _of(key: CellKey, first: PlannedCell, axis: Axis) -> bool:
    return subject_of(key, axis) == subject_of(first.key, axis)


def _moved(first: PlannedCell, key: CellKey, axis: Axis) -> PlannedCell:
    return _at_load(first, axis, load_of(key, axis), key.repetition)


def _at_load(first: PlannedCell, axis: Axis, load: float, repetition: int) -> PlannedCell:
    value = load if axis is Axis.LOAD_SCALE else int(load)
    return at(first, repetition=repetition, **{axis.value: value})
