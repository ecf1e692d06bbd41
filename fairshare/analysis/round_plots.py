"""Each client's performance from round to round."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fairshare.analysis.arrays import Floats
from fairshare.analysis.model import Rounds
from fairshare.analysis.style import name_axes, short, wrapped
from fairshare.analysis.subjects import Subject

_MOST_CELLS = 6
_MOST_NAMED = 8  # tenants; of more, each has a thin line without a name


def round_figures(subject: Subject) -> Iterator[tuple[str, str, str, Figure]]:
    """File name, title, caption and figure, where windows consist of rounds."""
    cells = [
        (cell.result.mode_label, cell.rounds) for cell in subject.shared if cell.rounds is not None
    ]
    if cells:
        yield (
            "rounds",
            "Each client from round to round",
            "Mean time of whole requests, and output tokens of those that were answered, by the "
            "round in which they were sent. In a round requests are sent for a fixed time, then "
            "all outstanding ones are awaited. First repetition at the highest concurrency.",
            _rounds(cells[:_MOST_CELLS]),
        )


def _rounds(cells: Sequence[tuple[str, Rounds]]) -> Figure:
    figure, (above, below) = wrapped(2, len(cells))
    for axes, tokens, (label, found) in zip(above, below, cells, strict=True):
        _draw(axes, found, found.e2e_mean_s)
        _draw(tokens, found, found.output_tokens)
        name_axes(axes, "round", "mean E2E (s)", label)
        name_axes(tokens, "round", "output tokens", label)
    for places in (above, below):
        top = max(axes.get_ylim()[1] for axes in places)
        for axes in places:
            axes.set_ylim(0, top)
    return figure


def _draw(axes: Axes, found: Rounds, values: Floats) -> None:
    """A line per tenant; named where they are few."""
    named = len(found.tenants) <= _MOST_NAMED
    colours = sns.color_palette("colorblind" if named else "viridis", len(found.tenants))
    numbers = np.arange(1, values.shape[1] + 1)
    for tenant, own, colour in zip(found.tenants, values, colours, strict=True):
        known = ~np.isnan(own)
        axes.plot(
            numbers[known], own[known], color=colour, marker="o", markersize=3.5,
            linewidth=1.5 if named else 0.8, label=short(tenant, 18),
        )  # fmt: skip
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlim(0.7, len(numbers) + 0.3)
    if named:
        axes.legend(loc="best", framealpha=0.8, handlelength=1.6, fontsize=7.5)
