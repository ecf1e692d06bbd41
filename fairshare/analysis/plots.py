"""The figures of a result folder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from fairshare.analysis.aggregate import Row
from fairshare.analysis.drawing import Panel, draw_curves, draw_panel
from fairshare.analysis.frames import curves_frame, estimates_frame
from fairshare.analysis.model import Analysis, CellAnalysis, Drawn
from fairshare.analysis.style import Look, looks, panels, remove_old, save, themed, wrapped
from fairshare.analysis.table import TOTAL
from fairshare.analysis.timeline import draw_timeline
from fairshare.records import Mode
from fairshare.results import ResultStore, StoredCell
from fairshare.results.layout import cell_folder

_MOST_TENANTS = 4  # more are shown as their total alone
_MOST_CELLS = 6  # columns of the timeline


@dataclass(frozen=True, slots=True)
class _Subject:
    """One scenario at one load scale: what a figure is about."""

    name: str
    rows: list[Row]
    cells: list[CellAnalysis]
    stored: dict[str, StoredCell]

    @property
    def looks(self) -> dict[str, Look]:
        ordered = sorted(
            {(list(Mode).index(row.mode), row.mode_label, row.mode) for row in self.rows}
        )
        return looks([(label, mode) for _, label, mode in ordered])

    @property
    def tenants(self) -> list[str]:
        names = list(dict.fromkeys(row.tenant for row in self.rows if row.tenant is not None))
        return names if len(names) <= _MOST_TENANTS else []

    @property
    def frame(self) -> pd.DataFrame:
        return estimates_frame(self.rows)

    @property
    def busiest(self) -> list[CellAnalysis]:
        """The cells of the highest concurrency."""
        highest = max(cell.result.key.concurrency or 0 for cell in self.cells)
        return [cell for cell in self.cells if (cell.result.key.concurrency or 0) == highest]


def draw(store: ResultStore, analysis: Analysis, rows: Sequence[Row], folder: Path) -> list[Drawn]:
    """Draw all figures into ``folder``, as PNG and SVG; what was there before is removed.

    Raises:
        ResultsError: damaged telemetry.
    """
    remove_old(folder)
    stored = {cell.result.id: cell for cell in store.cells()}
    drawn: list[Drawn] = []
    with themed():
        for subject in _subjects(analysis, rows, stored):
            for kind, title, caption, figure in _figures(subject):
                name = f"{kind}_{cell_folder(subject.name.replace(' ', '_'))}"
                about = Drawn(
                    name=name,
                    title=f"{title}: {subject.name}",
                    caption=caption,
                    png=folder / f"{name}.png",
                    svg=folder / f"{name}.svg",
                    provenance=tuple(dict.fromkeys(row.provenance.value for row in subject.rows)),
                    marks=marked_modes(subject.rows),
                )
                drawn.append(save(figure, about))
    return drawn


def marked_modes(rows: Sequence[Row]) -> tuple[str, ...]:
    """Each mark once, with the modes that it is about unless these are all."""
    modes: dict[str, dict[str, None]] = {}
    for row in rows:
        for mark in row.marks:
            modes.setdefault(mark.value, {})[row.mode_label] = None
    count = len({row.mode_label for row in rows})
    return tuple(
        mark if len(found) == count else f"{mark} ({', '.join(found)})"
        for mark, found in modes.items()
    )


def _subjects(
    analysis: Analysis, rows: Sequence[Row], stored: dict[str, StoredCell]
) -> Iterator[_Subject]:
    for scenario, scale in dict.fromkeys((r.setting.scenario, r.setting.load_scale) for r in rows):
        yield _Subject(
            name=scenario if scale == 1.0 else f"{scenario} x{scale:g}",
            rows=[
                r for r in rows if (r.setting.scenario, r.setting.load_scale) == (scenario, scale)
            ],
            cells=[
                cell
                for cell in analysis.measured
                if (cell.result.key.scenario, cell.result.key.load_scale) == (scenario, scale)
            ],
            stored=stored,
        )


def _figures(subject: _Subject) -> Iterator[tuple[str, str, str, Figure]]:
    """File name, title, caption and figure of everything that can be drawn of a subject."""
    yield from _speed_figures(subject)
    yield from _sharing_figures(subject)
    if (timeline := _timeline(subject)) is not None:
        yield (
            "resources",
            "Processor use over time",
            "First repetition at the highest concurrency; the measured window is shaded.",
            timeline,
        )


def _speed_figures(subject: _Subject) -> Iterator[tuple[str, str, str, Figure]]:
    yield (
        "throughput",
        "Throughput",
        "Output tokens per second, of each tenant and of all together. Error bars are 95 % "
        "intervals. Exclusive is each tenant alone, in turn, and has no total.",
        _grid(subject, [("output_tokens_per_s", "output tokens/s", 1.0)]),
    )
    yield (
        "tail-latency",
        "Tail latency (P99)",
        "99th percentile of the time to the first token and of the whole request. Of an "
        "open-loop tenant it counts from the schedule, of a closed-loop tenant from the sending.",
        _grid(
            subject,
            [
                _latency_panel(subject, "ttft_p99_s", "P99 TTFT"),
                _latency_panel(subject, "e2e_p99_s", "P99 E2E"),
            ],
        ),
    )
    if subject.tenants:
        yield (
            "latency-ecdf",
            "Latency distribution",
            "Share of the requests that took at most so long, by tenant, at the highest "
            "concurrency; one line per repetition.",
            _curves(subject),
        )


def _sharing_figures(subject: _Subject) -> Iterator[tuple[str, str, str, Figure]]:
    if any("jain" in row.estimates for row in subject.rows):
        yield (
            "fairness",
            "Fairness and its price",
            "Jain's index over backlogged tenants (1 is equal service per weight) beside what it "
            "costs: throughput, completed requests and the tail.",
            _fairness(subject),
        )
    if any("slowdown_e2e_p99" in row.estimates for row in subject.rows):
        yield (
            "slowdown",
            "Slowdown against being alone",
            "P99 when sharing over P99 of the same tenant alone on the whole device.",
            _grid(
                subject,
                [
                    ("slowdown_ttft_p99", "P99 TTFT / alone", 1.0),
                    ("slowdown_e2e_p99", "P99 E2E / alone", 1.0),
                ],
                total=False,
            ),
        )


def _latency_panel(subject: _Subject, metric: str, name: str) -> tuple[str, str, float]:
    """Seconds, or milliseconds where all values are below one second."""
    values = [value for row in subject.rows if (value := row.value(metric)) is not None]
    return (
        (metric, f"{name} (ms)", 1000.0)
        if max(values, default=0) < 1
        else (metric, f"{name} (s)", 1.0)
    )


def _grid(
    subject: _Subject, metrics: Sequence[tuple[str, str, float]], *, total: bool = True
) -> Figure:
    """Metrics down, tenants across."""
    frame, styles = subject.frame, subject.looks
    tenants = [*subject.tenants, *([TOTAL] if total or not subject.tenants else [])]
    figure, grid = wrapped(len(metrics), len(tenants))
    for row, (metric, axis, factor) in zip(grid, metrics, strict=True):
        for axes, tenant in zip(row, tenants, strict=True):
            title = "all tenants" if tenant == TOTAL else tenant
            draw_panel(axes, frame, Panel(metric, tenant, title, axis, factor), styles)
    if frame["concurrency"].nunique() > 1:
        shown = set(frame[frame["metric"].isin([metric for metric, _, _ in metrics])]["mode"])
        _legend(figure, {mode: look for mode, look in styles.items() if mode in shown})
    return figure


def _curves(subject: _Subject) -> Figure:
    frame = curves_frame(subject.busiest)
    tenants = subject.tenants
    figure, grid = wrapped(2, len(tenants))
    for row, metric in zip(grid, ("ttft", "e2e"), strict=True):
        for axes, tenant in zip(row, tenants, strict=True):
            part = frame[(frame["tenant"] == tenant) & (frame["metric"] == metric)]
            draw_curves(axes, part, tenant, f"{metric.upper()} (ms)", subject.looks)
    _legend(figure, subject.looks, markers=False)
    return figure


def _fairness(subject: _Subject) -> Figure:
    frame = subject.frame
    styles = {
        label: look
        for label, look in subject.looks.items()
        if ((frame["mode"] == label) & (frame["metric"] == "jain")).any()
    }
    metric, axis, factor = _latency_panel(subject, "e2e_p99_s", "P99 E2E")
    shown = [
        Panel("jain", TOTAL, "fairness", "Jain's index", top=1.1),
        Panel("output_tokens_per_s", TOTAL, "throughput", "output tokens/s"),
        Panel("completion_rate", TOTAL, "completion", "completed (%)", 100, top=112),
        Panel(metric, TOTAL, "tail latency", axis, factor),
    ]
    figure, grid = panels(2, 2)
    for axes, panel in zip([*grid[0], *grid[1]], shown, strict=True):
        draw_panel(axes, frame, panel, styles)
    if frame["concurrency"].nunique() > 1:
        _legend(figure, styles)
    return figure


def _timeline(subject: _Subject) -> Figure | None:
    chosen = [
        (cell.result.mode_label, cell)
        for cell in subject.busiest
        if cell.result.key.repetition == 1
    ]
    chosen = [
        (f"{label}: {alone}" if (alone := cell.result.key.tenant) else label, cell)
        for label, cell in chosen
    ]
    if len(chosen) > _MOST_CELLS:
        chosen = [(label, cell) for label, cell in chosen if not cell.result.key.tenant]
    return draw_timeline(
        [(label, subject.stored[cell.result.id]) for label, cell in chosen[:_MOST_CELLS]]
    )


def _legend(figure: Figure, styles: dict[str, Look], *, markers: bool = True) -> None:
    lines = [
        Line2D(
            [], [], color=look.colour, linestyle=look.line, marker=look.marker if markers else ""
        )
        for look in styles.values()
    ]
    figure.legend(lines, list(styles), loc="outside right upper", frameon=False)
