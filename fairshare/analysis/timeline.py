"""What GPU and CPUs did while a cell ran."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fairshare.analysis.frames import telemetry_frame
from fairshare.analysis.style import name_axes, short, wrapped
from fairshare.records import CellResult
from fairshare.results import StoredCell, layout
from fairshare.units import NS_PER_S

GPU_UTILISATION = "gpu_utilisation"
_MOST_SERVERS = 6  # more are shown as the machine's line alone


def draw_timeline(cells: Sequence[tuple[str, StoredCell]]) -> Figure | None:
    """One column per cell (title, cell): CPU above, GPU utilisation below where it was sampled.

    None if nothing was sampled at all.
    """
    host = [telemetry_frame(cell.dir / layout.HOST) for _, cell in cells]
    gpu = [telemetry_frame(cell.dir / layout.GPU) for _, cell in cells]
    gpu = [frame if frame is not None and GPU_UTILISATION in frame else None for frame in gpu]
    kinds = [
        (frames, draw, axis)
        for frames, draw, axis in (
            (host, _draw_host, "CPU (% of one core)"),
            (gpu, _draw_gpu, "GPU utilisation (%)"),
        )
        if any(frame is not None for frame in frames)
    ]
    if not kinds:
        return None
    figure, grid = wrapped(len(kinds), len(cells), height=2.4)
    for shown, (frames, draw, axis) in zip(grid, kinds, strict=True):
        for axes, frame, (title, cell) in zip(shown, frames, cells, strict=True):
            if frame is not None:
                draw(axes, frame)
                _shade_window(axes, cell.result)
            name_axes(axes, "time (s)", axis, title)
        top = max(axes.get_ylim()[1] for axes in shown)
        for axes in shown:
            axes.set_ylim(0, top)
    return figure


def _draw_host(axes: Axes, frame: pd.DataFrame) -> None:
    frame = frame.assign(cpu_percent=pd.to_numeric(frame["cpu_percent"], errors="coerce"))
    names = list(dict.fromkeys(frame["server"].astype(str)))
    servers = [name for name in names if name != "(machine)"]
    if len(servers) > _MOST_SERVERS:
        servers = []
    colours = sns.color_palette("colorblind", max(1, len(servers)))
    lines = list(zip(servers, colours, ("-",) * len(servers), strict=True))
    lines += [("(machine)", (0.35, 0.35, 0.35), "--")] if "(machine)" in names else []
    for name, colour, style in lines:
        part = frame[frame["server"].astype(str) == name].dropna(subset=["cpu_percent"])
        axes.plot(
            part["t_s"], part["cpu_percent"], color=colour, linestyle=style, linewidth=1.3,
            label=short(name.strip("()"), 16),
        )  # fmt: skip
    axes.set_ylim(bottom=0)
    if lines:
        axes.legend(loc="best", framealpha=0.8, handlelength=1.6, fontsize=7.5)


def _draw_gpu(axes: Axes, frame: pd.DataFrame) -> None:
    values = pd.to_numeric(frame[GPU_UTILISATION], errors="coerce") * 100
    axes.plot(frame["t_s"], values, color=sns.color_palette("colorblind")[2], linewidth=1.3)
    axes.set_ylim(0, 101)


def _shade_window(axes: Axes, result: CellResult) -> None:
    if result.window_ns is not None:
        start, end = (time / NS_PER_S for time in result.window_ns)
        axes.axvspan(start, end, color="0.5", alpha=0.12, linewidth=0)
