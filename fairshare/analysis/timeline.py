"""What GPU and CPUs did while a cell ran."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fairshare.analysis.frames import telemetry_frame
from fairshare.analysis.style import name_axes, short, wrapped
from fairshare.records import CellResult
from fairshare.results import StoredCell, layout
from fairshare.units import NS_PER_S

_MOST_SERVERS = 6  # more are shown as the machine's line alone
_MACHINE = "(machine)"


@dataclass(frozen=True, slots=True)
class Gauge:
    """A row of panels: which file and column of a cell, and how it is drawn."""

    file: str
    column: str
    axis: str
    factor: float = 1.0
    """Turns the column's unit into the axis's."""
    top: float | None = None


CPU = (Gauge(layout.HOST, "cpu_percent", "CPU (% of one core)"),)
GPU = (
    Gauge(layout.GPU, "gpu_utilisation", "GPU utilisation (%)", 100, top=101),
    Gauge(layout.GPU, "memory_used_bytes", "GPU memory (GiB)", 2**-30),
    Gauge(layout.GPU, "power_w", "power (W)"),
)


def draw_timeline(
    cells: Sequence[tuple[str, StoredCell]], gauges: Sequence[Gauge]
) -> Figure | None:
    """One column per cell (title, cell), a row per gauge that was read in any of them.

    None if nothing was sampled at all.
    """
    rows = [(gauge, [_samples(cell, gauge) for _, cell in cells]) for gauge in gauges]
    rows = [row for row in rows if any(frame is not None for frame in row[1])]
    if not rows:
        return None
    figure, grid = wrapped(len(rows), len(cells), height=2.4)
    for shown, (gauge, frames) in zip(grid, rows, strict=True):
        draw: Callable[..., None] = _draw_servers if gauge.file == layout.HOST else _draw_device
        for axes, frame, (title, cell) in zip(shown, frames, cells, strict=True):
            if frame is not None:
                draw(axes, frame)
                _shade_window(axes, cell.result)
            name_axes(axes, "time (s)", gauge.axis, title)
        top = gauge.top or max(axes.get_ylim()[1] for axes in shown)
        for axes in shown:
            axes.set_ylim(0, top)
    return figure


def _samples(cell: StoredCell, gauge: Gauge) -> pd.DataFrame | None:
    """Times and values in the axis's unit; None where nothing was read."""
    frame = telemetry_frame(cell.dir / gauge.file)
    if frame is None or gauge.column not in frame:
        return None
    values = pd.to_numeric(frame[gauge.column], errors="coerce") * gauge.factor
    frame = frame.assign(value=values).dropna(subset=["value"])
    return frame if len(frame) else None


def _draw_servers(axes: Axes, frame: pd.DataFrame) -> None:
    names = list(dict.fromkeys(frame["server"].astype(str)))
    servers = [name for name in names if name != _MACHINE]
    if len(servers) > _MOST_SERVERS:
        servers = []
    colours = sns.color_palette("colorblind", len(servers))
    lines = [(name, colour, "-") for name, colour in zip(servers, colours, strict=True)]
    lines += [(_MACHINE, (0.35, 0.35, 0.35), "--")] if _MACHINE in names else []
    for name, colour, style in lines:
        part = frame[frame["server"].astype(str) == name]
        axes.plot(
            part["t_s"], part["value"], color=colour, linestyle=style, linewidth=1.3,
            label=short(name.strip("()"), 16),
        )  # fmt: skip
    axes.set_ylim(bottom=0)
    if lines:
        axes.legend(loc="best", framealpha=0.8, handlelength=1.6, fontsize=7.5)


def _draw_device(axes: Axes, frame: pd.DataFrame) -> None:
    colour = sns.color_palette("colorblind")[2]
    axes.plot(frame["t_s"], frame["value"], color=colour, linewidth=1.3)
    axes.set_ylim(bottom=0)


def _shade_window(axes: Axes, result: CellResult) -> None:
    if result.window_ns is not None:
        start, end = (time / NS_PER_S for time in result.window_ns)
        axes.axvspan(start, end, color="0.5", alpha=0.12, linewidth=0)
