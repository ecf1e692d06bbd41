"""Result folders side by side, for people: in what they differ first, then figure by figure."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from fairshare.analysis.compare import Comparison
from fairshare.analysis.comparison import (
    HEADINGS,
    conclusions,
    folder_line,
    letter,
    lines,
    row,
    unpaired_line,
)
from fairshare.analysis.table import visible

_PIPE_WIDTH = 160
_MOST_UNPAIRED = 20
_LEFT = 4  # columns of words; the others are figures


def show_comparison(comparison: Comparison, *, only_changed: bool) -> None:
    """Print everything; ``only_changed`` leaves out figures that show no difference."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_PIPE_WIDTH)
    for number, folder in enumerate(comparison.folders):
        console.print(Text(folder_line(number, folder)), soft_wrap=True)
    _show_origins(console, comparison)
    shown = [
        change
        for change in comparison.changes
        if not only_changed or change.verdict in {"better", "worse"}
    ]
    found = lines(shown)
    for setting in dict.fromkeys(line.setting for line in found):
        table = _table(setting)
        for line in found:
            if line.setting == setting:
                table.add_row(
                    *map(Text, row(line)), style="bold" if line.verdict == "REGRESSION" else ""
                )
        console.print(table)
    if left_out := len(comparison.changes) - len(shown):
        console.print(Text(f"{left_out} figures without a certain difference are left out"))
    _show_unpaired(console, comparison)
    for said in conclusions(comparison):
        console.print(Text(said), soft_wrap=True)


def _show_origins(console: Console, comparison: Comparison) -> None:
    if not comparison.origins:
        console.print(Text("machine, versions and settings are the same"))
        return
    table = Table(title="in what they differ", title_justify="left", title_style="bold")
    table.add_column("what", overflow="fold")
    for number in range(len(comparison.folders)):
        table.add_column(letter(number), overflow="fold")
    for origin in comparison.origins:
        table.add_row(*(Text(visible(text)) for text in (origin.what, *origin.values)))
    console.print(table)


def _table(setting: str) -> Table:
    table = Table(title=Text(setting), title_justify="left", title_style="bold")
    for number, heading in enumerate(HEADINGS):
        words = number < _LEFT or heading == HEADINGS[-1]
        table.add_column(heading, justify="left" if words else "right", no_wrap=not words)
    return table


def _show_unpaired(console: Console, comparison: Comparison) -> None:
    if not comparison.unpaired:
        return
    console.print(Text("cells without a partner:", style="bold"))
    for cell in comparison.unpaired[:_MOST_UNPAIRED]:
        console.print(Text(f"  {unpaired_line(cell)}"), soft_wrap=True)
    if (more := len(comparison.unpaired) - _MOST_UNPAIRED) > 0:
        console.print(Text(f"  and {more} more (--format json has all)"))
