"""The verdict on a terminal: a line per goal, as short as it can be without hiding doubt."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from fairshare.analysis.verdict import Answer, State, Verdict

_STYLES = {
    State.CLEAR: "green",
    State.ALIKE: "green",
    State.CLOSE: "yellow",
    State.UNSURE: "yellow",
    State.ALONE: "yellow",
    State.MISSING: "dim",
}


def show_verdict(console: Console, answers: Sequence[Answer]) -> None:
    """Print what to run for which goal, and how sure that is."""
    for answer in answers:
        shown = Table(
            title=Text(f"{answer.title}: what to run for which goal"),
            title_justify="left",
            title_style="bold",
        )
        shown.add_column("goal")
        shown.add_column("run", style="bold")
        shown.add_column("figure, 95 % interval")
        shown.add_column("ahead of the next, 95 % interval")
        shown.add_column("how sure")
        for line in answer.lines:
            shown.add_row(*_cells(line))
        console.print(shown)
        if answer.left_out:
            modes = ", ".join(answer.left_out)
            console.print(Text(f"left out, for figures that are impossible: {modes}"))


def _cells(line: Verdict) -> list[Text]:
    figure = f"{line.value} ({line.interval})" if line.interval else line.value
    lead = f"{line.lead} ({line.lead_interval})" if line.lead_interval else line.lead
    sure = Text(line.state.value, style=_STYLES[line.state])
    if line.badges:
        sure.append(f" [{', '.join(line.badges)}]", style="dim")
    return [
        Text(line.goal.title),
        Text(line.answer if line.winner else ""),
        Text(figure if line.winner else line.advice),
        Text(lead),
        sure,
    ]
