"""The result as an IEEE-style article: LaTeX that compiles whatever names contain."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from fairshare import __version__
from fairshare.analysis.model import Drawn
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
from fairshare.analysis.table import FEW
from fairshare.analysis.tex import Tex, escape
from fairshare.results import layout
from fairshare.results.files import read_bytes, write_atomic, writing

_SHOWN = (
    "throughput", "tail-latency", "trade-off", "fairness", "slowdown", "latency-ecdf", "rounds",
    "counters", "gpu",
)  # fmt: skip
_MOST_FIGURES = 24
_MOST_ROWS = 28  # of a table on one page


def write_article(built: BuiltAnalysis) -> Path:
    """Write ``analysis/article/article.tex`` and its figures, drawn with ``pdf``; returns its path.

    Raises:
        ResultsError: a figure cannot be read.
        StoppedEarlyError: the disk is full.
    """
    folder = built.summary_csv.parent / layout.ARTICLE
    with writing(folder):
        folder.mkdir(exist_ok=True)
    shown = _chosen(built.drawn)
    for figure in shown:
        if figure.pdf is not None:
            write_atomic(folder / figure.pdf.name, read_bytes(figure.pdf))
    path = folder / "article.tex"
    write_atomic(path, _render(built, shown).encode())
    return path


def _chosen(drawn: Sequence[Drawn]) -> list[Drawn]:
    """The figures that a reader of an article needs, in the order of the argument."""
    found = [each for kind in _SHOWN for each in drawn if each.name.partition("_")[0] == kind]
    return found[:_MOST_FIGURES]


def _render(built: BuiltAnalysis, shown: Sequence[Drawn]) -> str:
    environment = Environment(
        loader=PackageLoader("fairshare.analysis"),
        autoescape=False,  # noqa: S701  (finalize escapes for LaTeX, which is not HTML)
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        block_start_string="<%",
        block_end_string="%>",
        variable_start_string="<<",
        variable_end_string=">>",
        comment_start_string="<#",
        comment_end_string="#>",
        finalize=lambda value: value if isinstance(value, Tex) else escape(str(value)),
    )
    failed = failure_sheet(built)
    results = [part for sheet in figure_sheets(built, narrow=True) for part in _pages(sheet)]
    return environment.get_template("article.tex.j2").render(
        name=built.analysis.name,
        version=__version__,
        worked=sum(each.worked for each in built.outcomes),
        cells=len(built.outcomes),
        scenarios=list(dict.fromkeys(row.setting.scenario for row in built.rows)),
        modes=list(dict.fromkeys(row.mode_label for row in built.rows)),
        repetitions=_span([row.repetitions for row in built.rows]),
        windows=_span([round(cell.window_s or 0) for cell in built.analysis.measured]),
        origins=origins(built),
        verdicts=[_tabular(sheet) for sheet in verdict_sheets(built)],
        results=[_tabular(sheet) for sheet in results],
        failed=[_tabular(part) for part in _pages(failed)] if failed else [],
        provenance=[_tabular(part) for part in _pages(provenance_sheet(built))],
        figures=shown,
        further=len(built.drawn) - len(shown),
        few=FEW,
        tex=Tex,
    )


def _span(values: Sequence[int]) -> str:
    ends = (min(values, default=0), max(values, default=0))
    return f"{ends[0]}" if ends[0] == ends[1] else f"{ends[0]} to {ends[1]}"


def _pages(sheet: Sheet) -> Iterator[Sheet]:
    """The sheet in parts that fit a page each."""
    for start in range(0, len(sheet.rows), _MOST_ROWS):
        title = sheet.title if start == 0 else f"{sheet.title} (continued)"
        rows = sheet.rows[start : start + _MOST_ROWS]
        yield Sheet(title, sheet.header, rows, sheet.names)


def _tabular(sheet: Sheet) -> tuple[str, Tex]:
    """A table's title, and its tabular with booktabs rules."""
    text_only = sheet.names == len(sheet.header)
    width = 0.9 / len(sheet.header)
    wrapped = f">{{\\raggedright\\arraybackslash}}p{{{width:.3f}\\textwidth}}"
    column = wrapped if text_only else "l"
    columns = column * sheet.names + "r" * (len(sheet.header) - sheet.names)
    lines = [f"\\begin{{tabular}}{{@{{}}{columns}@{{}}}}", r"\toprule"]
    lines += [_line([escape(title) for title in sheet.header]), r"\midrule"]
    before = None
    for row in sheet.rows:
        if before is not None and (text_only or before != row[0].text):
            lines.append(r"\addlinespace")
        lines.append(_line([_entry(entry, nested=not text_only) for entry in row]))
        before = row[0].text
    lines += [r"\bottomrule", r"\end{tabular}"]
    return sheet.title, Tex("\n".join(lines))


def _line(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"


def _entry(entry: Entry, *, nested: bool) -> str:
    """A figure with its interval in small print below, or behind it where lines are broken."""
    text = f"\\textbf{{{escape(entry.text)}}}" if entry.best else escape(entry.text)
    if not entry.below:
        return text
    small = f"{{\\tiny {escape(entry.below)}}}"
    if not nested:
        return f"{text} {small}"
    return f"\\begin{{tabular}}[t]{{@{{}}r@{{}}}}{text}\\\\[-3pt]{small}\\end{{tabular}}"
