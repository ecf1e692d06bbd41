"""What goes into one panel: lines against concurrency, bars by mode, distribution curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from fairshare.analysis.arrays import Floats
from fairshare.analysis.style import Look, distinct, name_axes, short
from fairshare.analysis.table import format_number


@dataclass(frozen=True, slots=True)
class Panel:
    """What one panel shows: a metric of one tenant, its title and its axis."""

    metric: str
    tenant: str
    title: str
    axis: str
    factor: float = 1.0
    """Turns the metric's unit into the axis's: 1000 for seconds shown as ms."""
    top: float | None = None
    """Upper end of the axis, where the metric has one."""


def draw_panel(axes: Axes, frame: pd.DataFrame, panel: Panel, looks: Mapping[str, Look]) -> None:
    """The metric by mode: lines if there are several concurrencies, bars if there is one."""
    chosen = frame[(frame["metric"] == panel.metric) & (frame["tenant"] == panel.tenant)].copy()
    for name in ("value", "low", "high"):
        chosen[name] = chosen[name].astype(float) * panel.factor
    levels = sorted(frame["concurrency"].dropna().unique())
    if chosen.empty:
        axes.text(0.5, 0.5, "no value", ha="center", transform=axes.transAxes, color="0.4")
        axes.set_xticks([])
        axes.set_yticks([])
        name_axes(axes, "", panel.axis, panel.title)
    elif len(levels) > 1:
        _lines(axes, chosen, looks, levels)
        name_axes(axes, "requests in flight per tenant", panel.axis, panel.title)
    else:
        shared = _bars(axes, chosen, looks)
        name_axes(axes, shared, panel.axis, panel.title)
    axes.set_ylim(bottom=0)
    if not chosen["value"].any():
        axes.set_ylim(top=1)
    if panel.top is not None:
        axes.set_ylim(top=panel.top)


def _lines(
    axes: Axes, frame: pd.DataFrame, looks: Mapping[str, Look], levels: Sequence[float]
) -> None:
    shown = [mode for mode in looks if mode in set(frame["mode"])]
    for number, mode in enumerate(shown):
        part = frame[frame["mode"] == mode].sort_values("concurrency")
        # Levels stand at equal distances; modes a little apart, so that intervals can be seen.
        place = np.array([levels.index(level) for level in part["concurrency"]], float)
        place += (number - (len(shown) - 1) / 2) * 0.06
        look = looks[mode]
        axes.errorbar(
            place, part["value"], yerr=_reach(part), fmt="none", ecolor=look.colour, elinewidth=1.3
        )
        sns.lineplot(
            x=place, y=part["value"].to_numpy(), ax=axes, color=look.colour, marker=look.marker,
            linestyle=look.line, markersize=6.5, linewidth=1.8, errorbar=None,
        )  # fmt: skip
    axes.set_xticks(range(len(levels)), [f"{level:g}" for level in levels])
    axes.set_xlim(-0.35, len(levels) - 0.65)


def _bars(axes: Axes, frame: pd.DataFrame, looks: Mapping[str, Look]) -> str:
    """One bar per mode; returns what the modes' names have in common and the ticks leave out."""
    shown = [mode for mode in looks if mode in set(frame["mode"])]
    part = frame.set_index("mode").loc[shown]
    colours = {mode: looks[mode].colour for mode in shown}
    sns.barplot(
        x=shown, y=part["value"].to_numpy(), hue=shown, palette=colours, ax=axes, width=0.62,
        errorbar=None, legend=False, saturation=1,
    )  # fmt: skip
    places = np.arange(len(shown), dtype=float)
    axes.errorbar(
        places, part["value"], yerr=_reach(part), fmt="none", ecolor="0.15", capsize=3,
        elinewidth=1.2,
    )  # fmt: skip
    tops = np.fmax(part["value"].to_numpy(float), part["high"].to_numpy(float))
    for place, top, value in zip(places, tops, part["value"], strict=True):
        axes.annotate(
            format_number(value), (place, top), (0, 3), textcoords="offset points", ha="center",
            fontsize=8,
        )  # fmt: skip
    ticks, shared = distinct(shown)
    crowded = sum(max(map(len, tick.split("\n"))) for tick in ticks) > 26
    if crowded:
        ticks = [short(tick.replace("\n", " "), 24) for tick in ticks]
    _name_places(axes, places, ticks, crowded=crowded)
    axes.margins(y=0.16)
    side = max(0.5, (3 - len(shown)) / 2)  # one or two bars do not fill the panel
    axes.set_xlim(-side, len(shown) - 1 + side)
    return shared


def draw_groups(
    axes: Axes, frame: pd.DataFrame, tenants: Sequence[str], looks: Mapping[str, Look]
) -> None:
    """Bars side by side for each tenant, one per mode, with the ends of their intervals."""
    shown = [mode for mode in looks if mode in set(frame["mode"])]
    width = 0.8 / max(1, len(shown))
    for number, mode in enumerate(shown):
        part = frame[frame["mode"] == mode].drop_duplicates("tenant").set_index("tenant")
        part = part.reindex(list(tenants))
        places = np.arange(len(tenants)) + (number - (len(shown) - 1) / 2) * width
        values = part["value"].to_numpy(float)
        axes.bar(places, values, width * 0.92, color=looks[mode].colour, linewidth=0)
        axes.errorbar(
            places, part["value"], yerr=_reach(part), fmt="none", ecolor="0.15", elinewidth=1.0
        )
    names = [short(tenant, 14) for tenant in tenants]
    crowded = sum(map(len, names)) > 80
    _name_places(axes, np.arange(len(tenants), dtype=float), names, crowded=crowded)
    axes.grid(visible=False, axis="x")
    axes.set_ylim(bottom=0)


def _name_places(axes: Axes, places: Floats, names: Sequence[str], *, crowded: bool) -> None:
    """Names below bars; where they have no room side by side, at a slant that ends at its bar."""
    if crowded:
        axes.set_xticks(places, names, rotation=30, ha="right", rotation_mode="anchor")
    else:
        axes.set_xticks(places, names)


def _reach(frame: pd.DataFrame) -> Floats:
    """Lengths of the error bars below and above; NaN, which draws none, without an interval."""
    value = frame["value"].to_numpy(float)
    low, high = frame["low"].to_numpy(float), frame["high"].to_numpy(float)
    reach: Floats = np.clip([value - low, high - value], 0, None)
    return reach


def draw_curves(
    axes: Axes, frame: pd.DataFrame, title: str, axis: str, looks: Mapping[str, Look]
) -> None:
    """Distribution functions of one latency by mode; one thin line per repetition."""
    for mode, look in looks.items():
        part = frame[frame["mode"] == mode]
        for _, curve in part.groupby("cell", sort=True):
            sns.lineplot(
                x=curve["seconds"].to_numpy(float) * 1000,
                y=curve["share"].to_numpy(float) * 100,
                ax=axes, color=look.colour, linestyle=look.line, linewidth=1.5, alpha=0.85,
                errorbar=None, sort=False, estimator=None,
            )  # fmt: skip
    positive = frame[frame["seconds"] > 0]["seconds"]
    if len(positive) and positive.max() / positive.min() > 20:
        axes.set_xscale("log")
        few = positive.max() / positive.min() < 200  # more do not fit beside each other
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 3) if few else (1,)))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_ylim(0, 101)
    name_axes(axes, axis, "requests at most so long (%)", title)
