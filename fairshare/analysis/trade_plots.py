"""Figures that weigh one thing against another: speed against tails, a victim against its rival."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure

from fairshare.analysis.aggregate import Estimate, Row, Setting
from fairshare.analysis.style import legend, name_axes, panels, short, wrapped
from fairshare.analysis.subjects import Subject
from fairshare.records import Mode

_UNKNOWN = (0.6, 0.6, 0.6)
_LEGEND_LENGTH = 84  # characters that fit beside each other
_SHADES = "viridis"  # even to the eye, and to eyes that see fewer colours
_MARKERS = ("o", "s", "D", "v", "^", "P", "X", "*")
Colour = tuple[float, float, float]
_TRADE = "worst_ttft_p99_s"


def trade_figures(subject: Subject) -> Iterator[tuple[str, str, str, Figure]]:
    """File name, title, caption and figure: trade-off, and victims against aggressors."""
    totals = [row for row in subject.rows if row.tenant is None and _TRADE in row.estimates]
    if totals:
        yield (
            "trade-off",
            "Trade-off",
            "Throughput of all tenants against the P99 TTFT of the tenant that waits longest: up "
            "and to the left is better. The filling is Jain's index (1 is equal service); grey "
            "where no two tenants were backlogged. Bars are 95 % intervals; numbers are requests "
            "in flight per closed-loop tenant.",
            _trade_off(subject, totals),
        )
    highest = max(row.setting.load_scale for row in subject.all_loads)
    if subject.rows[0].setting.load_scale == highest and (victims := _victims(subject)):
        yield (
            "aggressors",
            "Victims against aggressors",
            "A tenant's P99 TTFT against the requests per second that all other tenants sent, by "
            "mode, at every load that was measured. A flat line is isolation. Left out are tenants "
            "whose own rate changed more than that of the others.",
            _aggressors(subject, victims),
        )


def _trade_off(subject: Subject, totals: Sequence[Row]) -> Figure:
    figure, ((axes,),) = panels(1, 1, width=7.4, height=4.0)
    scale = 1000.0 if max(row.estimates[_TRADE].value for row in totals) < 1 else 1.0
    span, shades = _span([row.value("jain") for row in totals]), colormaps[_SHADES]
    marks = _told_apart(subject)
    for label, look in subject.looks.items():
        points = sorted(
            (row for row in totals if row.mode_label == label),
            key=lambda row: row.setting.concurrency or 0,
        )
        if points:
            _trail(axes, points, (span, shades), scale, (marks[label], look.colour))
            axes.plot(
                [], [], marks[label], label=short(label, _LEGEND_LENGTH), linestyle="none",
                markerfacecolor="white", markeredgecolor=look.colour, markeredgewidth=2,
            )  # fmt: skip
    name_axes(
        axes, f"P99 TTFT of the worst tenant ({'ms' if scale > 1 else 's'})", "output tokens/s"
    )
    # From 0 on the margins of points near each other would be too small for their marks.
    axes.set_xlim(0, 1.05 * axes.get_xlim()[1])
    axes.set_ylim(0, 1.05 * axes.get_ylim()[1])
    longest = max((len(label) for label in subject.looks), default=0)
    columns = max(1, min(3, _LEGEND_LENGTH // max(1, longest)))
    # The axes' own and not the figure's: the layout keeps it clear of the line of provenance.
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=columns, frameon=False)
    if any(row.value("jain") is not None for row in totals):
        bar = figure.colorbar(ScalarMappable(span, shades), ax=axes, pad=0.02)
        bar.set_label("Jain's index")
    return figure


def _told_apart(subject: Subject) -> dict[str, str]:
    """A marker of its own for each mode and policy: colour says something else here."""
    known = {label: look.marker for label, look in subject.looks.items()}
    if len(set(known.values())) == len(known):
        return known
    return {label: _MARKERS[number % len(_MARKERS)] for number, label in enumerate(known)}


def _trail(
    axes: Axes,
    points: Sequence[Row],
    shading: tuple[Normalize, Colormap],
    scale: float,
    mark: tuple[str, Colour],
) -> None:
    """One mode's points, joined in the order of their load."""
    span, shades = shading
    marker, edge = mark
    x = [row.estimates[_TRADE].value * scale for row in points]
    y = [row.estimates["output_tokens_per_s"].value for row in points]
    axes.plot(x, y, color="0.75", linewidth=1.0, zorder=1)
    for row, across, up in zip(points, x, y, strict=True):
        jain = row.value("jain")
        axes.errorbar(
            [across], [up],
            xerr=_reach(row.estimates[_TRADE], scale),
            yerr=_reach(row.estimates["output_tokens_per_s"], 1.0),
            ecolor="0.45", elinewidth=1.0, fmt="none", zorder=2,
        )  # fmt: skip
        axes.scatter(
            [across], [up], s=85, marker=marker, zorder=3, edgecolors=[edge], linewidths=2.0,
            color=_UNKNOWN if jain is None else shades(float(span(jain))),
        )  # fmt: skip
        if row.setting.concurrency is not None and len(points) > 1:
            axes.annotate(
                str(row.setting.concurrency), (across, up), (6, 5), textcoords="offset points",
                fontsize=8, color="0.25",
            )  # fmt: skip


def _span(values: Sequence[float | None]) -> Normalize:
    """From the least index, or a little below 1 where all are alike, to 1."""
    known = [value for value in values if value is not None]
    return Normalize(min([*known, 0.95]), 1.0)


def _reach(estimate: Estimate, scale: float) -> list[list[float]] | None:
    if estimate.interval is None:
        return None
    low, high = estimate.interval.low, estimate.interval.high
    return [[(estimate.value - low) * scale], [(high - estimate.value) * scale]]


_Point = tuple[float, Estimate]
_Lines = dict[str, list[_Point]]


def _victims(subject: Subject) -> dict[str, _Lines]:
    """By tenant and mode: what the others sent per second, and the tenant's tail then.

    Only where the others sent at several rates, and these and not its own make the difference.
    """
    shared = [row for row in subject.all_loads if row.mode is not Mode.EXCLUSIVE]
    sent: dict[tuple[Setting, str], dict[str, float]] = {}
    for row in shared:
        if row.tenant is not None and (rate := row.value("sent_per_s")) is not None:
            sent.setdefault((row.setting, row.mode_label), {})[row.tenant] = rate
    found: dict[str, _Lines] = {}
    own: dict[str, list[float]] = {}
    for row in shared:
        others = sent.get((row.setting, row.mode_label), {})
        if row.tenant not in subject.tenants or "ttft_p99_s" not in row.estimates:
            continue
        if len(others) < 2:
            continue
        rate = sum(value for name, value in others.items() if name != row.tenant)
        own.setdefault(str(row.tenant), []).append(others.get(str(row.tenant), 0.0))
        lines = found.setdefault(str(row.tenant), {})
        lines.setdefault(row.mode_label, []).append((rate, row.estimates["ttft_p99_s"]))
    return {
        tenant: {mode: sorted(points, key=lambda p: p[0]) for mode, points in lines.items()}
        for tenant, lines in found.items()
        if any(len(points) > 1 for points in lines.values())
        and _spread(own[tenant]) <= _spread([x for points in lines.values() for x, _ in points])
    }


def _spread(rates: Sequence[float]) -> float:
    """How many times the least of them the largest is."""
    return max(rates) / min(rates) if min(rates) > 0 else math.inf


def _aggressors(subject: Subject, victims: dict[str, _Lines]) -> Figure:
    figure, (row,) = wrapped(1, len(victims), height=3.1)
    values = [e.value for lines in victims.values() for points in lines.values() for _, e in points]
    scale = 1000.0 if max(values) < 1 else 1.0
    for axes, (tenant, lines) in zip(row, victims.items(), strict=True):
        for mode, look in subject.looks.items():
            points = lines.get(mode, [])
            x = [rate for rate, _ in points]
            y = [estimate.value * scale for _, estimate in points]
            reach = [_reach(estimate, scale) or [[0.0], [0.0]] for _, estimate in points]
            if not points:
                continue
            axes.errorbar(
                x, y, yerr=np.hstack([np.array(each) for each in reach]), color=look.colour,
                marker=look.marker, linestyle=look.line, markersize=6, linewidth=1.6,
                elinewidth=1.2,
            )  # fmt: skip
        name_axes(
            axes,
            "requests/s sent by the others",
            f"P99 TTFT ({'ms' if scale > 1 else 's'})",
            tenant,
        )
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=0)
    legend(figure, {mode: look for mode, look in subject.looks.items() if mode != "exclusive"})
    return figure
