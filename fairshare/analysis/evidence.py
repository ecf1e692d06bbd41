"""What stands behind a figure, for its caption; and why a figure is not there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from fairshare.analysis.model import CellAnalysis
from fairshare.analysis.subjects import Subject

_WITHOUT_BARS = frozenset(
    {"latency-ecdf", "service", "fairness-over-time", "counters", "rounds", "resources", "gpu"}
)
"""Figures of single cells: they show what came, and have no intervals."""


def evidence(kind: str, subject: Subject) -> str:
    """One or two sentences: how many repetitions and answers, and what the error bars are."""
    bars = kind not in _WITHOUT_BARS
    cells = subject.cells if bars else subject.busiest
    counts = [row.completed for cell in cells for row in cell.tenants]
    said = f"n: {_span(_repetitions(cells))} per cell, {_span(counts)} answers per tenant in each."
    return f"{said} {_intervals(subject)}" if bars else said


def _repetitions(cells: Iterable[CellAnalysis]) -> list[str | int]:
    groups: dict[object, int] = {}
    for cell in cells:
        key = cell.result.key
        place = (cell.result.mode_label, key.concurrency, key.tenant)
        groups[place] = groups.get(place, 0) + 1
    counts = sorted(set(groups.values()))
    return [*counts[:-1], f"{counts[-1]} run{'s' * (counts[-1] != 1)}"] if counts else [0]


def _intervals(subject: Subject) -> str:
    estimates = [each for row in subject.rows for each in row.estimates.values() if each.interval]
    across = {each.across_runs for each in estimates}
    if not across:
        return "No intervals: there is too little for any."
    if across == {True}:
        return "Error bars: 95 % t-intervals across runs."
    runs = "; t-intervals where there are several runs" if True in across else ""
    return (
        "Error bars: 95 % intervals within the one run, by blocks of neighbouring requests, where "
        f"these are enough for one{runs}."
    )


def _span(values: list[str | int] | list[int]) -> str:
    """``4`` or ``4 to 17``."""
    ends = [values[0], values[-1]] if isinstance(values[-1], str) else [min(values), max(values)]
    shown = [f"{end:,}" if isinstance(end, int) else end for end in ends]
    return shown[0] if ends[0] == ends[1] else " to ".join(shown)


def absent(drawn: Iterable[str], subject: Subject, matrix: Mapping[str, object]) -> list[str]:
    """A line for each usual figure that is not among the kinds ``drawn``, with the reason."""
    no_gpu = matrix.get("no_gpu_telemetry")
    reasons = {
        "latency-ecdf": "too many tenants for a panel each",
        "fairness": "in no cell two tenants were backlogged at once",
        "service": "in no cell several tenants were served together",
        "response-time": "in no cell several tenants were served together",
        "slowdown": "it needs mode exclusive, each tenant alone, beside another mode",
        "rounds": "no cell's window consists of rounds (timing: rounds)",
        "counters": "no policy wrote down what it counts",
        "resources": "nothing was sampled while cells ran",
        "gpu": "no GPU was sampled" + (f": {no_gpu}" if no_gpu else ""),
    }
    missing = [kind for kind in reasons if kind not in set(drawn)]
    lines = [f"{subject.name}: no figure {kind}: {reasons[kind]}" for kind in missing]
    if len({r.setting.concurrency for r in subject.rows if r.estimates} - {None}) < 2:
        why = "one concurrency was measured (--concurrency 1,4,16 for curves)"
        lines.append(f"{subject.name}: throughput and tail latency as bars: {why}")
    return lines
