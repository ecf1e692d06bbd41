"""The live table: one line per tenant of the cell under way, and the whole sweep around it."""

from __future__ import annotations

from rich.console import Group
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from fairshare.ui.course import Course, TenantCourse, shown_rate, shown_ttft

_MOST_ROWS = 12  # of more tenants the table would push everything else off the screen


def board(course: Course, now_t: float) -> Group:
    """What is shown now; ``now_t`` is the wall clock's time."""
    parts: list[Text | Table] = []
    if course.cells:
        line = Table.grid()  # a bar alone would not end its line
        line.add_row(ProgressBar(total=course.cells, completed=course.done, width=40))
        parts.append(line)
    number = f"[{course.done + 1}/{course.cells}] " if course.cell is not None else ""
    parts.append(Text(number + course.headline(now_t), style="bold", overflow="fold"))
    if course.cell is not None and course.tenants:
        parts.append(_table(course))
    if machine := course.machine():
        parts.append(Text(machine, style="dim"))
    return Group(*parts)


def _table(course: Course) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("tenant", overflow="ellipsis", max_width=24, no_wrap=True)
    for title in ("rate", "TTFT P50", "TTFT P99", "in flight", "done", "errors"):
        table.add_column(title, justify="right", no_wrap=True)
    names = list(course.tenants)
    for name in names[:_MOST_ROWS]:
        table.add_row(Text(name), *_figures(course.tenants[name]))
    if len(names) > _MOST_ROWS:
        table.add_row(Text(f"and {len(names) - _MOST_ROWS} more", style="dim"))
    return table


def _figures(tenant: TenantCourse) -> tuple[str | Text, ...]:
    return (
        shown_rate(tenant),
        shown_ttft(tenant.ttft_p50_s),
        shown_ttft(tenant.ttft_p99_s),
        str(tenant.in_flight),
        str(tenant.done),
        Text(str(tenant.errors), style="red" if tenant.errors else ""),
    )
