"""Figures of how tenants fared over time, and of what a policy refused and counted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter

from fairshare.analysis.arrays import Floats
from fairshare.analysis.drawing import Panel, draw_groups, draw_panel
from fairshare.analysis.model import CellAnalysis, Series
from fairshare.analysis.style import Look, legend, legend_in, name_axes, panels, short, wrapped
from fairshare.analysis.subjects import Subject
from fairshare.analysis.table import TOTAL, format_percent

_MOST_CELLS = 6
_MOST_NAMED = 8  # tenants; of more, each has a thin line without a name
_MOST_BARS = 12
_FIRST = "First repetition at the highest concurrency."

Drawing = tuple[str, str, str, Figure]


def policy_figures(subject: Subject) -> Iterator[Drawing]:
    """File name, title, caption and figure of each."""
    cells = subject.shared
    if cells:
        yield (
            "service",
            "Service and response time over time",
            "Service per second of each tenant: prompt tokens at the first token, and twice the "
            "output tokens as they came; below, the mean time to the first tokens that came in "
            "each window. In small print what all got, how many were completed, and the tail. "
            + _FIRST,
            _service(cells),
        )
        yield (
            "fairness-over-time",
            "Fairness over time",
            "Jain's index of backlogged tenants and the difference of service since the window "
            "began (dotted: 2U, VTC's bound while both tenants have a queue, where it is known), "
            "beside throughput, completion and the tail in the same windows. " + _FIRST,
            _over_time(cells, subject.looks),
        )
        yield (
            "response-time",
            "Response time by tenant",
            "Mean and P99 time to the first token of each tenant.",
            by_tenant(subject, [("ttft_mean_s", "mean TTFT (s)"), ("ttft_p99_s", "P99 TTFT (s)")]),
        )
    if any(row.value("throttled") or row.value("wasted_work_tokens") for row in subject.rows):
        yield (
            "waste",
            "Refused and wasted work",
            "Requests that were refused; tokens computed for requests and interactions that were "
            "not completed; what was completed, and how many tokens came.",
            _waste(subject),
        )
    if logged := [cell for cell in cells if cell.decisions and cell.decisions.counters]:
        yield (
            "counters",
            "What the policy counts",
            "Virtual counters, deficits or credits of each tenant, as the scheduler wrote them "
            "down. " + _FIRST,
            _counters(logged),
        )


def _service(cells: Sequence[CellAnalysis]) -> Figure:
    figure, (above, below) = wrapped(2, len(cells[:_MOST_CELLS]))
    for axes, response, cell in zip(above, below, cells, strict=False):
        series = _series(cell)
        lengths = np.diff(series.edges_s)
        _draw_tenants(axes, _steps(series, series.service / lengths))
        _draw_tenants(response, _steps(series, series.ttft_mean_s))
        name_axes(axes, "time (s)", "service/s", cell.result.mode_label)
        name_axes(response, "time (s)", "mean TTFT (s)", cell.result.mode_label)
        _subtitle(axes, cell)
    _same_height(above)
    _same_height(below)
    return figure


def _steps(series: Series, values: Floats) -> dict[str, tuple[Floats, Floats]]:
    """By tenant, the edges of windows and values; the last one twice, so that its step ends."""
    return {
        tenant: (series.edges_s, np.append(own, own[-1:]))
        for tenant, own in zip(series.tenants, values, strict=True)
    }


def _over_time(cells: Sequence[CellAnalysis], styles: Mapping[str, Look]) -> Figure:
    figure, (places,) = wrapped(1, 6)
    shown = {cell.result.mode_label: styles[cell.result.mode_label] for cell in cells}
    for cell in cells:
        series, look = _series(cell), shown[cell.result.mode_label]
        values = (
            series.jain,
            series.accumulated_difference,
            series.tokens_per_s,
            series.completion_rate * 100,
            series.ttft_p99_s,
        )
        for axes, ys in zip(places, values, strict=False):
            _draw_line(axes, series.edges_s, ys, look)
        bound = cell.fairness.service_bound if cell.fairness else None
        if bound is not None:
            places[1].axhline(bound, color=look.colour, linestyle=":", linewidth=1.3)
    titles = (
        ("Jain's index", "fairness"),
        ("service per weight", "difference so far"),
        ("tokens/s", "throughput"),
        ("completed (%)", "completion"),
        ("P99 TTFT (s)", "tail latency"),
    )
    for axes, (axis, title) in zip(places, titles, strict=False):
        name_axes(axes, "time (s)", axis, title)
        axes.set_ylim(bottom=0)
    places[0].set_ylim(0, 1.05)
    places[1].yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    places[3].set_ylim(0, 105)
    legend_in(places[5], shown, markers=False)
    return figure


def by_tenant(subject: Subject, metrics: Sequence[tuple[str, str]]) -> Figure:
    """Metrics (each with its axis) down, bars for each tenant: of the busiest, if too many."""
    frame, styles = subject.frame, subject.looks
    names = list(dict.fromkeys(row.tenant for row in subject.rows if row.tenant is not None))
    if frame["concurrency"].notna().any():
        frame = frame[frame["concurrency"] == frame["concurrency"].max()]
    shown = _busiest_tenants(subject, names)
    title = "by tenant" if shown == names else f"{len(shown)} of {len(names)} tenants, the busiest"
    figure, grid = panels(len(metrics), 1, width=10.5)
    styles = {
        mode: look
        for mode, look in styles.items()
        if mode in set(frame[frame["metric"].isin([metric for metric, _ in metrics])]["mode"])
    }
    for (axes,), (metric, axis) in zip(grid, metrics, strict=True):
        part = frame[(frame["metric"] == metric) & frame["tenant"].isin(names)]
        draw_groups(axes, part, shown, styles)
        name_axes(axes, "", axis, title)
    legend(figure, styles)
    return figure


def _busiest_tenants(subject: Subject, names: Sequence[str]) -> list[str]:
    """Those that got most, where they are too many, in the order of their names."""
    service: dict[str | None, float] = {}
    for row in subject.rows:
        service[row.tenant] = max(service.get(row.tenant, 0.0), row.value("service") or 0.0)
    most = sorted(names, key=lambda name: -service.get(name, 0.0))[:_MOST_BARS]
    return [name for name in names if name in most]


def _waste(subject: Subject) -> Figure:
    shown = [
        Panel("throttled_rate", TOTAL, "throttled", "requests refused (%)", 100),
        Panel("wasted_work_share", TOTAL, "wasted work", "tokens in vain (%)", 100),
        Panel("completion_rate", TOTAL, "completion", "completed (%)", 100, top=112),
        Panel("total_tokens_per_s", TOTAL, "throughput", "tokens/s"),
    ]
    frame, styles = subject.frame, subject.looks
    styles = {
        label: look
        for label, look in styles.items()
        if ((frame["mode"] == label) & (frame["tenant"] == TOTAL)).any()
    }
    figure, (places,) = wrapped(1, len(shown))
    for axes, panel in zip(places, shown, strict=True):
        draw_panel(axes, frame, panel, styles)
    if frame["concurrency"].nunique() > 1:
        legend(figure, styles)
    return figure


def _counters(cells: Sequence[CellAnalysis]) -> Figure:
    figure, (places,) = wrapped(1, len(cells[:_MOST_CELLS]))
    for axes, cell in zip(places, cells, strict=False):
        counters = cell.decisions.counters if cell.decisions else {}
        lines = {tenant: (np.array(t), np.array(y)) for tenant, (t, y) in counters.items()}
        _draw_tenants(axes, lines)
        name_axes(axes, "time since the scheduler began (s)", "counter", cell.result.mode_label)
        _subtitle(axes, cell)
    return figure


def _draw_tenants(axes: Axes, lines: Mapping[str, tuple[Floats, Floats]]) -> None:
    """A line of steps per tenant; named where they are few."""
    named = len(lines) <= _MOST_NAMED
    colours = sns.color_palette("colorblind" if named else "viridis", len(lines))
    for (tenant, (x, y)), colour in zip(lines.items(), colours, strict=True):
        axes.plot(
            x, y, color=colour, linewidth=1.5 if named else 0.8, alpha=1 if named else 0.7,
            drawstyle="steps-post", label=short(tenant, 18),
        )  # fmt: skip
    if named:
        axes.legend(loc="best", framealpha=0.8, handlelength=1.6, fontsize=7.5)


def _draw_line(axes: Axes, edges: Floats, values: Floats, look: Look) -> None:
    """One value per window, at the window's middle; nothing where there is none."""
    middle = (edges[:-1] + edges[1:]) / 2
    known = ~np.isnan(values)
    axes.plot(
        middle[known], values[known], color=look.colour, linestyle=look.line, linewidth=1.6,
        marker=".", markersize=3,
    )  # fmt: skip


def _subtitle(axes: Axes, cell: CellAnalysis) -> None:
    """Throughput, completion and tail of the whole cell: fairness is never shown alone."""
    total = cell.total
    if total is None:
        return
    p99 = total.latency["ttft"].p99
    parts = [
        f"{total.total_tokens_per_s:,.0f} tok/s",
        f"{format_percent(total.completion_rate)} done" if total.completion_rate else "none done",
        f"P99 TTFT {p99:.3g} s" if p99 is not None else "",
    ]
    axes.text(
        0.5, 1.0, ", ".join(part for part in parts if part), transform=axes.transAxes, ha="center",
        va="bottom", fontsize=7.5, color="0.3",
    )  # fmt: skip
    axes.set_title(axes.get_title(), pad=16)


def _same_height(places: Sequence[Axes]) -> None:
    top = max((axes.get_ylim()[1] for axes in places), default=1.0)
    for axes in places:
        axes.set_ylim(0, top)


def _series(cell: CellAnalysis) -> Series:
    if cell.series is None:
        raise RuntimeError("a cell without competing tenants has nothing over time")
    return cell.series
