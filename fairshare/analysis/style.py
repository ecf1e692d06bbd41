"""One look for all figures: colour-blind safe, the same mode always in the same colour."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import matplotlib as mpl
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D

from fairshare.analysis.model import Drawn
from fairshare.analysis.table import visible
from fairshare.records import Mode
from fairshare.results.files import writing

mpl.use("agg")  # no screen

_PALETTE: list[tuple[float, float, float]] = sns.color_palette("colorblind")
_COLOURS = {
    Mode.EXCLUSIVE: (0.45, 0.45, 0.45),
    Mode.LOGICAL: _PALETTE[0],
    Mode.TIMESLICE: _PALETTE[3],
    Mode.MPS: _PALETTE[1],
    Mode.MIG: _PALETTE[2],
}
_MARKERS = {
    Mode.EXCLUSIVE: "X",
    Mode.LOGICAL: "o",
    Mode.TIMESLICE: "v",
    Mode.MPS: "s",
    Mode.MIG: "D",
}
_LINES: tuple[Literal["-", "--", ":", "-."], ...] = ("-", "--", ":", "-.")
_TITLE_LETTER_IN = 0.105  # widths of letters at the sizes used, in inches
_LEGEND_LETTER_IN = 0.075
_LEGEND_IN = 0.6  # of its lines and edges
_COLUMNS = 3
_RC: Any = {
    "svg.hashsalt": "fairshare",
    "pdf.fonttype": 42,  # TrueType: what journals ask for
    "svg.fonttype": "none",
    "font.family": "DejaVu Sans",
    "axes.titlesize": 10,
    "axes.labelsize": 9.5,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "legend.fontsize": 8.5,
    "figure.dpi": 100,
    "savefig.dpi": 150,
    "text.parse_math": False,  # names are text, whatever they contain
}


@dataclass(frozen=True, slots=True)
class Look:
    """How one mode (with its policy) is drawn."""

    colour: tuple[float, float, float]
    marker: str
    line: Literal["-", "--", ":", "-."]


def looks(modes: Sequence[tuple[str, Mode]]) -> dict[str, Look]:
    """A look per label. Labels of the same mode (policies) differ by colour and line.

    Where there is one mode only, its policies have all the colours; else they have shades of it.
    """
    labels = dict(modes)
    alone = len(set(labels.values())) == 1
    found: dict[str, Look] = {}
    for label, mode in labels.items():
        same = sum(look.marker == _MARKERS[mode] for look in found.values())
        count = list(labels.values()).count(mode)
        colour = _COLOURS[mode]
        if alone and count > 1:
            colour = _PALETTE[same % len(_PALETTE)]
        elif count > 1:
            colour = _shade(colour, same / count)
        found[label] = Look(colour, _MARKERS[mode], _LINES[same % len(_LINES)])
    return found


def _shade(colour: tuple[float, float, float], paleness: float) -> tuple[float, float, float]:
    """The colour itself at 0, closer to white the nearer to 1."""
    red, green, blue = (part + (1 - part) * 0.8 * paleness for part in colour)
    return red, green, blue


@contextmanager
def themed() -> Iterator[None]:
    """Seaborn's theme with our own settings, for the length of a block."""
    with mpl.rc_context():
        sns.set_theme(context="notebook", style="whitegrid", palette="colorblind")
        mpl.rcParams.update(_RC)
        yield


def panels(
    rows: int, columns: int, *, width: float = 3.5, height: float = 2.9
) -> tuple[Figure, list[list[Axes]]]:
    """A figure and its grid of axes (rows x columns)."""
    figure = Figure(figsize=(max(5.6, width * columns), height * rows + 0.9))
    engine = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1, wspace=0.03, hspace=0.03)
    figure.set_layout_engine(engine)
    grid = figure.subplots(rows, columns, squeeze=False)
    return figure, [list(row) for row in grid]


def wrapped(groups: int, count: int, *, height: float = 2.9) -> tuple[Figure, list[list[Axes]]]:
    """A figure with ``count`` panels for each of ``groups``, at most three side by side."""
    columns = 2 if count == 4 else min(count, _COLUMNS)
    lines = math.ceil(count / columns)
    figure, grid = panels(groups * lines, columns, height=height)
    found = []
    for group in range(groups):
        places = [axes for row in grid[group * lines : (group + 1) * lines] for axes in row]
        for axes in places[count:]:
            axes.remove()
        found.append(places[:count])
    return figure, found


def legend(figure: Figure, styles: Mapping[str, Look], *, markers: bool = True) -> None:
    """What each look stands for, beside the panels."""
    handles = _handles(styles, markers=markers)
    figure.legend(handles, list(styles), loc="outside right upper", frameon=False)


def legend_in(axes: Axes, styles: Mapping[str, Look], *, markers: bool = True) -> None:
    """The same in the place of a panel: long names leave no room beside the others."""
    axes.axis("off")
    handles = _handles(styles, markers=markers)
    axes.legend(handles, [short(name, 44) for name in styles], loc="upper left", frameon=False)


def _handles(styles: Mapping[str, Look], *, markers: bool) -> list[Line2D]:
    return [
        Line2D(
            [], [], color=look.colour, linestyle=look.line, marker=look.marker if markers else ""
        )
        for look in styles.values()
    ]


def name_axes(axes: Axes, x: str, y: str, title: str = "") -> None:
    """Labels with units, and a title cut to what fits."""
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.set_title(short(title, 34))
    sns.despine(ax=axes)


def short(text: str, length: int) -> str:
    """``text`` on one line of printable characters, cut in the middle if it is too long."""
    text = visible(text).replace("\n", " ")
    if len(text) <= length:
        return text
    head = (length - 1) // 2
    return f"{text[:head]}…{text[len(text) - (length - 1 - head) :]}"


def distinct(labels: Sequence[str]) -> tuple[list[str], str]:
    """Modes for narrow places: what tells them apart, one part below the other; what they share.

    ``logical + fcfs (gateway)`` beside ``logical + vtc (gateway)`` is ``fcfs`` beside ``vtc``, and
    what they share is ``logical, gateway``.
    """
    parts = [label.replace(" + ", "\n").replace(" (", "\n(").split("\n") for label in labels]
    head, tail = parts[0][0], parts[0][-1]
    shared = []
    if all(len(part) == 3 for part in parts) and len(parts) > 1:
        if all(part[0] == head for part in parts):
            shared.append(head)
            parts = [part[1:] for part in parts]
        if all(part[-1] == tail for part in parts):
            shared.append(tail.strip("()"))
            parts = [part[:-1] for part in parts]
    return ["\n".join(short(each, 18) for each in part) for part in parts], ", ".join(shared)


def save(figure: Figure, drawn: Drawn) -> Drawn:
    """Write PNG, SVG and perhaps PDF with title and provenance; equal figures give equal bytes."""
    with warnings.catch_warnings():
        # A name in another script is drawn as boxes; the tables have it as it is.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        _save(figure, drawn)
    return drawn


def _room(figure: Figure) -> int:
    """Characters of a title that fit beside the legend; the caption has the whole name."""
    names = [len(text.get_text()) for each in figure.legends for text in each.get_texts()]
    legend_in = _LEGEND_IN + _LEGEND_LETTER_IN * max(names) if names else 0.0
    return max(24, int((figure.get_figwidth() - legend_in - 0.2) / _TITLE_LETTER_IN))


def _save(figure: Figure, drawn: Drawn) -> None:
    title = short(drawn.title, _room(figure))
    figure.suptitle(title, fontsize=11.5, fontweight="bold", x=0.01, ha="left")
    origin = "; ".join((*drawn.provenance, *drawn.marks))
    figure.supxlabel(short(origin, 110), fontsize=8, color="0.35", x=0.01, ha="left")
    engine = figure.get_layout_engine()
    if engine is not None:  # lay it out once, not for each format
        engine.execute(figure)
        figure.set_layout_engine("none")
    for path, metadata in (
        (drawn.png, {"Software": None}),
        (drawn.svg, {"Date": None}),
        (drawn.pdf, {"CreationDate": None}),
    ):
        if path is None:
            continue
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(f".{path.name}")
            figure.savefig(temporary, format=path.suffix[1:], metadata=metadata)
            temporary.replace(path)
