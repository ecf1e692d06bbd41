"""A comparison of result folders as lines of text, and as JSON, CSV and Markdown."""

from __future__ import annotations

import csv
import io
import string
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import orjson

from fairshare.analysis.aggregate import Setting
from fairshare.analysis.compare import Change, Comparison, Folder, Unpaired
from fairshare.analysis.stats import CONFIDENCE
from fairshare.analysis.summary import plain_text
from fairshare.analysis.table import ABSENT, COLUMNS, TOTAL, format_number, visible

FORMAT_VERSION = 1
_CHANCE = (1 - CONFIDENCE) / 2  # of a figure that did not change to come out worse all the same
_MORE = {
    "total_tokens_per_s": ("total tok/s", format_number),
    "goodput_per_s": ("goodput/s", format_number),
}
_FIGURES: dict[str, tuple[str, Callable[[float], str]]] = {
    column.metric: (column.title, column.form) for column in COLUMNS
} | _MORE


@dataclass(frozen=True, slots=True)
class Line:
    """One change, ready to print."""

    setting: str
    mode: str
    tenant: str
    figure: str
    folder: str
    first: str
    second: str
    change: str
    interval: str
    pairs: str
    verdict: str


HEADINGS = ("mode", "tenant", "figure", "against", "A", "there", "change", "95 % interval", "pairs",
            "verdict")  # fmt: skip


def letter(number: int) -> str:
    """What a folder is called in tables: A, B, ... Z, then by number."""
    return string.ascii_uppercase[number] if number < 26 else f"folder {number + 1}"


def lines(changes: Sequence[Change]) -> list[Line]:
    """The changes as text, by setting, mode, tenant and figure."""
    return [_line(change) for change in changes]


def _line(change: Change) -> Line:
    found, (title, form) = change.difference, _FIGURES[change.metric]
    key = change.key
    interval = ABSENT
    if found.interval is not None:
        interval = f"{_signed(found.interval.low, form)} to {_signed(found.interval.high, form)}"
    relative = "" if found.relative is None else f" ({100 * found.relative:+.1f} %)"
    return Line(
        setting=visible(Setting(key.scenario, key.load_scale, key.concurrency).label),
        mode=visible(change.mode_label),
        tenant=TOTAL if change.tenant is None else visible(change.tenant),
        figure=title,
        folder=letter(change.folder),
        first=form(found.first),
        second=form(found.second),
        change=_signed(found.change, form) + relative,
        interval=interval,
        pairs=str(found.pairs),
        verdict="REGRESSION" if change.regression else change.verdict,
    )


def _signed(value: float, form: Callable[[float], str]) -> str:
    text = form(abs(value))
    return f"{'-' if value < 0 else '+'}{text}" if value else text


def conclusions(comparison: Comparison) -> list[str]:
    """What the table comes to, in sentences."""
    found = comparison.changes
    worse = [change for change in found if change.verdict == "worse"]
    better = [change for change in found if change.verdict == "better"]
    said = [
        f"of {len(found)} figures {len(worse)} are worse and {len(better)} better beyond doubt; "
        f"about {_CHANCE * len(found):.1f} of either come out so by chance alone"
    ]
    if regressed := comparison.regressions:
        said.append(
            f"regressions (worse beyond doubt and by more than the limit): {len(regressed)}"
        )
    if broken := comparison.broken:
        said.append(f"cells that worked in A and have no figures elsewhere: {len(broken)}")
    if any(change.difference.pairs == 1 for change in found):
        said.append(
            "one pair of runs alone cannot tell a change from what differs from run to run; "
            "use --num-runs 5 in both"
        )
    elif any(change.difference.pairs == 2 for change in found):
        said.append("intervals of two pairs are wide; use --num-runs 5 in both")
    return said


def unpaired_line(cell: Unpaired) -> str:
    """Which cell lacks figures, where, and why."""
    return f"{letter(cell.folder)}: {visible(cell.cell)}: {visible(cell.reason)}"


def folder_line(number: int, folder: Folder) -> str:
    """Which folder a letter stands for, and what its figures may be called."""
    said = ", ".join(folder.provenance) or "no figures"
    marks = f" ({', '.join(folder.marks)})" if folder.marks else ""
    return f"{letter(number)} = {visible(str(folder.path))}: {said}{marks}"


def as_json(comparison: Comparison) -> str:
    """Everything, with its own ``format_version``."""
    document = {
        "format_version": FORMAT_VERSION,
        "confidence": CONFIDENCE,
        "folders": [
            {"path": str(folder.path), "provenance": folder.provenance, "marks": folder.marks}
            for folder in comparison.folders
        ],
        "differences_of_origin": [asdict(origin) for origin in comparison.origins],
        "unpaired": [asdict(cell) for cell in comparison.unpaired],
        "changes": [_flat(change) for change in comparison.changes],
        "regressions": len(comparison.regressions) + len(comparison.broken),
    }
    return orjson.dumps(document, option=orjson.OPT_INDENT_2).decode()


def as_csv(comparison: Comparison) -> str:
    """One line per change, seconds and shares as plain numbers."""
    text = io.StringIO()
    rows = [_flat(change) for change in comparison.changes]
    writer = csv.DictWriter(text, list(rows[0]), restval="", lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: _shown(value) for name, value in row.items()})
    return text.getvalue().rstrip("\n")


def _shown(value: Any) -> Any:
    """This table is printed: names in it must not steer a terminal, nor run in a spreadsheet."""
    return plain_text(visible(value)) if isinstance(value, str) else value


def _flat(change: Change) -> dict[str, Any]:
    found, key = change.difference, change.key
    return {
        "scenario": key.scenario,
        "load_scale": key.load_scale,
        "concurrency": key.concurrency,
        "mode": key.mode.value,
        "label": change.mode_label,
        "policy": key.policy,
        "scheduling": None if key.scheduling is None else key.scheduling.value,
        "tenant": change.tenant,
        "metric": change.metric,
        "folder": change.folder,
        "pairs": found.pairs,
        "first": found.first,
        "second": found.second,
        "change": found.change,
        "low": found.interval.low if found.interval else None,
        "high": found.interval.high if found.interval else None,
        "relative": found.relative,
        "verdict": change.verdict,
        "regression": change.regression,
    }


def as_markdown(comparison: Comparison) -> str:
    """Tables for a README or a pull request: in what the folders differ, then the figures."""
    return "\n".join(_markdown(comparison))


def _markdown(comparison: Comparison) -> Iterator[str]:
    yield from (f"- {_safe(folder_line(n, each))}" for n, each in enumerate(comparison.folders))
    if comparison.origins:
        letters = [letter(number) for number in range(len(comparison.folders))]
        rows = [[visible(each.what), *map(visible, each.values)] for each in comparison.origins]
        yield from _grid(["in what they differ", *letters], rows)
    else:
        yield from ("", "Machine, versions and settings are the same.")
    found = lines(comparison.changes)
    for setting in dict.fromkeys(line.setting for line in found):
        yield from ("", f"**{_safe(setting)}**")
        yield from _grid(HEADINGS, [list(row(line)) for line in found if line.setting == setting])
    yield ""
    yield from (f"- {_safe(unpaired_line(cell))}" for cell in comparison.unpaired)
    yield from (f"- {said}" for said in conclusions(comparison))


def row(line: Line) -> tuple[str, ...]:
    """A line's cells below :data:`HEADINGS`."""
    return (
        line.mode, line.tenant, line.figure, line.folder, line.first, line.second, line.change,
        line.interval, line.pairs, line.verdict,
    )  # fmt: skip


def _grid(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield ""
    for cells in (headings, ["---"] * len(headings), *rows):
        yield f"| {' | '.join(map(_safe, cells))} |"


def _safe(text: str) -> str:
    """Text that Markdown shows as it is: names may hold anything."""
    escaped = "".join(f"\\{c}" if c in "\\`*_[]<>|#" else c for c in text.replace("\n", " "))
    return "---" if text == "---" else escaped
