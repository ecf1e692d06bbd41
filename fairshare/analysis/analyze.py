"""From a result store to the figures of all its cells."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from fairshare.analysis.arrays import Requests, gathered
from fairshare.analysis.bounds import service_bound
from fairshare.analysis.decisions import read_decisions
from fairshare.analysis.fairness import fairness_over_time, with_tenants
from fairshare.analysis.metrics import tenant_metrics
from fairshare.analysis.model import Analysis, CellAnalysis, TenantMetrics
from fairshare.analysis.plausibility import plausibility
from fairshare.analysis.rounds import rounds
from fairshare.analysis.slowdown import with_slowdowns
from fairshare.analysis.steadiness import unsteady
from fairshare.analysis.violations import NOTHING_ASSUMED, Assumed
from fairshare.analysis.workers import side_by_side
from fairshare.errors import ResultsError
from fairshare.records import CellStatus, Mark, Mode
from fairshare.results import ResultStore, StoredCell, layout, packed
from fairshare.units import NS_PER_S

_WORTH_PROCESSES_BYTES = 32 << 20  # less is read sooner than a process has started


def analyze(
    store: ResultStore, assumed: Assumed = NOTHING_ASSUMED, only: str | None = None
) -> Analysis:
    """Compute everything from the raw records of ``store``.

    ``assumed`` is what figures are held against where the folder does not say; ``only`` is the id
    of a cell, if no other is asked for.

    Raises:
        ResultsError: a damaged cell, or no such cell.
        SpecError: what is assumed is not in the catalogue.
    """
    stored = store.cells()
    repeated = _repetitions(stored)
    chosen = _chosen(stored, only)
    cells = side_by_side(
        partial(_analyze_cell, repeated=repeated, assumed=assumed),
        chosen,
        worthwhile=_recorded_bytes(chosen) > _WORTH_PROCESSES_BYTES,
    )
    return Analysis(
        name=str(store.matrix.get("name") or store.dir.resolve().name),
        matrix=store.matrix,
        cells=tuple(with_slowdowns(sorted(cells, key=_order))),
        killed=tuple(store.killed()),
    )


def _recorded_bytes(stored: list[StoredCell]) -> int:
    """Size of the raw records, packed ones as they are."""
    files = (packed.stored(cell.dir / layout.REQUESTS) for cell in stored)
    return sum(path.stat().st_size for path in files if path is not None)


def _chosen(stored: list[StoredCell], only: str | None) -> list[StoredCell]:
    found = [cell for cell in stored if only in (None, cell.result.id)]
    if only is not None and not found:
        raise ResultsError(
            f"there is no cell {only!r}",
            hint="the page's table of cells, and summary.csv, have their names",
        )
    return found


def cell_requests(stored: StoredCell) -> tuple[Requests, list[Mapping[str, Any]]]:
    """The columns of a stored cell and its tenants, in the same order.

    A tenant that only the records know is taken as closed-loop and without limits.
    """
    known = {tenant["name"]: tenant for tenant in stored.result.tenants}
    requests = gathered(stored.columns(), tuple(known))
    return requests, [known.get(name, {"name": name}) for name in requests.tenants]


def window_s(stored: StoredCell) -> tuple[float, float] | None:
    """The measured window in seconds, where the cell was measured to its end."""
    window = stored.result.window_ns
    if stored.result.status is not CellStatus.OK or window is None or window[1] <= window[0]:
        return None
    return window[0] / NS_PER_S, window[1] / NS_PER_S


def _analyze_cell(stored: StoredCell, repeated: set[object], assumed: Assumed) -> CellAnalysis:
    result = stored.result
    marks = list(dict.fromkeys(result.marks))
    window = window_s(stored)
    if window is None:
        return CellAnalysis(result, tuple(marks))
    if _group(stored) not in repeated and Mark.WEAK_EVIDENCE not in marks:
        marks.append(Mark.WEAK_EVIDENCE)
    requests, tenants = cell_requests(stored)
    possible = plausibility(stored, requests, window, assumed)
    if possible.violations:
        marks.append(Mark.IMPOSSIBLE)
    run_s = None if result.end_ns is None else result.end_ns / NS_PER_S
    rows = tenant_metrics(requests, window, tenants, run_s)
    alone = result.key.mode is Mode.EXCLUSIVE
    decisions = read_decisions(stored.dir / layout.SCHEDULING)
    compared = None
    if not alone and len(tenants) >= 2:
        weights = [float(tenant.get("weight") or 1.0) for tenant in tenants]
        compared = fairness_over_time(requests, window, weights)
    return CellAnalysis(
        result=result,
        marks=tuple(marks),
        window_s=window[1] - window[0],
        tenants=tuple(rows[:-1]),
        total=_total(rows, alone=alone),
        fairness=replace(
            with_tenants(compared[0], rows[:-1]),
            service_bound=service_bound(requests, result.shares, decisions),
            idle_while_queued=decisions.idle_while_queued if decisions else None,
        )
        if compared
        else None,
        series=compared[1] if compared else None,
        decisions=decisions,
        rounds=rounds(requests, np.array([bool(t.get("open_loop")) for t in tenants], dtype=bool)),
        unsteady=unsteady(requests, window),
        plausibility=possible,
    )


def _total(rows: list[TenantMetrics], *, alone: bool) -> TenantMetrics | None:
    """Tenants that had the device in turn have no common total."""
    return None if alone else rows[-1]


def _group(stored: StoredCell) -> object:
    """What repetitions of the same cell have in common."""
    return replace(stored.result.key, repetition=0)


def _repetitions(stored: list[StoredCell]) -> set[object]:
    """Groups that were measured more than once: their figures are not weak for that reason."""
    seen: set[object] = set()
    repeated: set[object] = set()
    for cell in stored:
        if cell.result.status is CellStatus.OK:
            (repeated if _group(cell) in seen else seen).add(_group(cell))
    return repeated


def _order(cell: CellAnalysis) -> tuple[object, ...]:
    key = cell.result.key
    return (
        key.scenario,
        key.load_scale,
        key.concurrency or 0,
        list(Mode).index(key.mode),
        key.policy,
        key.scheduling or "",
        key.repetition,
        key.tenant or "",
        cell.result.id,
    )
