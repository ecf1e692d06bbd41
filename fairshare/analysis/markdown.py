"""The tables as Markdown, for a README: whatever names contain, they are text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from fairshare.analysis.pipeline import BuiltAnalysis
from fairshare.analysis.sheets import (
    Entry,
    Sheet,
    failure_sheet,
    figure_sheets,
    origins,
    provenance_sheet,
    verdict_sheets,
)
from fairshare.analysis.table import BEST, FEW, visible
from fairshare.results import layout
from fairshare.results.files import write_atomic

# Whatever may begin emphasis, code, a link, HTML, an entity, a heading or the next cell.
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~&!$@]|:(?=//))")


def write_markdown(built: BuiltAnalysis) -> Path:
    """Write ``analysis/report.md``, beside the figures that it shows; returns its path.

    Raises:
        StoppedEarlyError: the disk is full.
    """
    path = built.summary_csv.parent / layout.REPORT_MARKDOWN
    write_atomic(path, render_markdown(built).encode("utf-8", "replace"))
    return path


def render_markdown(built: BuiltAnalysis) -> str:
    """Verdict, comparison, failures, figures and provenance."""
    failed = failure_sheet(built)
    parts = [f"# {escape(built.analysis.name)}: which way of sharing serves whom", _about(built)]
    parts += [_table(sheet) for sheet in verdict_sheets(built)]
    parts += [_table(sheet) for sheet in figure_sheets(built)]
    parts.append(
        f"In brackets: 95 % intervals. {escape(BEST)} best of its column, its interval clear of "
        f"all others. {FEW} P99 of fewer than 100 requests: close to the largest value."
    )
    parts += [_table(failed)] if failed else []
    parts += [_figure(each.title, each.caption, each.png.name) for each in built.drawn]
    parts.append(_table(provenance_sheet(built)))
    return "\n\n".join(parts) + "\n"


def escape(text: str) -> str:
    """``text`` on one line, with nothing in it that Markdown would take for its own."""
    plain = visible(text).replace("\n", " ")
    return _SPECIAL.sub(r"\\\1", plain).replace("www.", "www\\.")


def _about(built: BuiltAnalysis) -> str:
    worked = sum(each.worked for each in built.outcomes)
    lines = [f"{worked} of {len(built.outcomes)} cells measured.", *origins(built)]
    return "\n".join(f"- {escape(line)}" for line in lines)


def _table(sheet: Sheet) -> str:
    rules = ["---" if i < sheet.names else "---:" for i in range(len(sheet.header))]
    lines = [_line([escape(title) for title in sheet.header]), _line(rules)]
    lines += [_line([_entry(entry) for entry in row]) for row in sheet.rows]
    return f"## {escape(sheet.title)}\n\n" + "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _entry(entry: Entry) -> str:
    text = f"**{escape(entry.text)}**" if entry.best else escape(entry.text)
    return f"{text} ({escape(entry.below)})" if entry.below else text


def _figure(title: str, caption: str, name: str) -> str:
    return f"![{escape(title)}](figures/{name})\n\n{escape(f'{title}. {caption}')}"
