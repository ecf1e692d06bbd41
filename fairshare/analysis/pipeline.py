"""Everything in ``analysis/``, rebuilt from the raw records."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fairshare.analysis.aggregate import Row, rows
from fairshare.analysis.analyze import analyze
from fairshare.analysis.gallery import draw
from fairshare.analysis.interference import interference
from fairshare.analysis.model import Analysis, CellAnalysis, Drawn, Outcome
from fairshare.analysis.searched import Searched, searched
from fairshare.analysis.summary import summary_csv, summary_json
from fairshare.analysis.table import Table, interaction_tables, policy_tables, tables, visible
from fairshare.analysis.verdict import Answer, answers
from fairshare.analysis.violations import NOTHING_ASSUMED, Assumed
from fairshare.analysis.workers import prepare
from fairshare.records import CellStatus
from fairshare.results import ResultStore, layout
from fairshare.results.files import write_atomic, writing


@dataclass(frozen=True, slots=True)
class BuiltAnalysis:
    """What :func:`fairshare.analysis.build` computed and wrote."""

    analysis: Analysis
    rows: tuple[Row, ...]
    tables: tuple[Table, ...]
    """One per setting, ready to print."""
    interactions: tuple[Table, ...]
    """One per setting in which there are interactions."""
    policies: tuple[Table, ...]
    """One per setting in which policies compete: fairness beside its price."""
    answers: tuple[Answer, ...]
    """Which mode for which goal, per scenario."""
    outcomes: tuple[Outcome, ...]
    summary_csv: Path
    summary_json: Path
    figures: tuple[Path, ...]
    report: Path | None
    drawn: tuple[Drawn, ...] = ()
    left_out: tuple[str, ...] = ()
    """A line for each usual figure that there was no data for."""
    searched: Searched | None = None
    """The answer of a sweep that looked for one."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Titles of the columns of :attr:`table`."""
        titles = {column.title: None for table in self.tables for column in table.columns}
        return ("setting", "mode", "tenant", *titles)

    @property
    def table(self) -> list[tuple[str, ...]]:
        """All settings in one table of text, one tuple per mode and tenant."""
        lines = []
        for table in self.tables:
            for row in table.rows:
                found = dict(
                    zip((c.title for c in table.columns), map(str, row.figures), strict=True)
                )
                figures = (found.get(title, "") for title in self.columns[3:])
                lines.append((table.title, row.mode, row.tenant, *figures))
        return lines

    @property
    def failed(self) -> list[Outcome]:
        """The cells that have no figures."""
        return [outcome for outcome in self.outcomes if not outcome.worked]


def build_analysis(
    directory: Path,
    *,
    figures: bool,
    html: bool,
    pdf: bool = False,
    price_per_hour: float | None = None,
    assumed: Assumed = NOTHING_ASSUMED,
) -> BuiltAnalysis:
    """Rebuild ``analysis/``; see :func:`fairshare.analysis.build`."""
    store = ResultStore.open(directory)
    if figures:
        prepare()  # while records are read
    analysis = analyze(store, assumed)
    made = rows(analysis)
    folder = directory / layout.ANALYSIS
    with writing(folder):
        folder.mkdir(exist_ok=True)
    write_atomic(folder / layout.SUMMARY_CSV, summary_csv(analysis))
    write_atomic(folder / layout.SUMMARY_JSON, summary_json(analysis, made))
    looked_for = searched(store, analysis)
    for name, data in looked_for.files.items() if looked_for else ():
        write_atomic(folder / name, data)
    shown = looked_for.shown(analysis) if looked_for else analysis
    if shown is not analysis:
        made = rows(shown)
    answer, chained, found = (
        tables(made),
        interaction_tables(made),
        answers(shown, price_per_hour),
    )
    policies = policy_tables(made)
    drawn: list[Drawn] = []
    left_out: list[str] = []
    if figures:
        gallery = draw(store, shown, made, folder / layout.FIGURES, pdf=pdf)
        drawn, left_out = gallery.drawn, gallery.left_out
    report = None
    outcomes = _outcomes(analysis)
    if html:
        from fairshare.analysis.report import render  # noqa: PLC0415  (jinja2)

        report = folder / layout.REPORT
        page = render(
            store,
            analysis,
            tables=answer,
            interactions=chained,
            policies=policies,
            answers=found,
            matrices=interference(made),
            outcomes=outcomes,
            figures=drawn,
            searched=looked_for,
        )
        write_atomic(report, page.encode("utf-8", "replace"))
    return BuiltAnalysis(
        analysis=analysis,
        rows=tuple(made),
        tables=tuple(answer),
        interactions=tuple(chained),
        policies=tuple(policies),
        answers=tuple(found),
        outcomes=tuple(outcomes),
        summary_csv=folder / layout.SUMMARY_CSV,
        summary_json=folder / layout.SUMMARY_JSON,
        figures=tuple(figure.png for figure in drawn),
        drawn=tuple(drawn),
        left_out=tuple(left_out),
        report=report,
        searched=looked_for,
    )


def build_cell_page(directory: Path, cell_id: str, assumed: Assumed = NOTHING_ASSUMED) -> Path:
    """Write the page of one cell, with figures of its own, below ``analysis/cells``.

    Raises:
        ResultsError: there is no such cell, or the folder is damaged.
    """
    from fairshare.analysis.cell_views import cell_view  # noqa: PLC0415  (yaml)
    from fairshare.analysis.report import render_cell  # noqa: PLC0415  (jinja2)

    prepare()
    store = ResultStore.open(directory)
    analysis = analyze(store, assumed, only=cell_id)
    folder = directory / layout.ANALYSIS / layout.CELLS / layout.cell_folder(cell_id)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    drawn = draw(store, analysis, rows(analysis), folder / layout.FIGURES).drawn
    stored = next(cell for cell in store.cells() if cell.result.id == cell_id)
    page = render_cell(cell_view(stored, analysis.cells[0], "cell"), analysis.name, drawn)
    path = folder / layout.CELL_PAGE
    write_atomic(path, page.encode("utf-8", "replace"))
    return path


def _outcomes(analysis: Analysis) -> list[Outcome]:
    found = [_outcome(cell) for cell in analysis.cells]
    killed = CellStatus.INTERRUPTED.value
    found += [
        Outcome(visible(name), killed, "the run was killed while it was measured")
        for name in analysis.killed
    ]
    return found


def _outcome(cell: CellAnalysis) -> Outcome:
    result = cell.result
    return Outcome(
        cell=visible(result.id),
        status=result.status.value,
        reason=visible(result.reason) if result.reason else None,
        provenance=result.provenance.value if cell.tenants else None,
        marks=tuple(mark.value for mark in cell.marks) if cell.tenants else (),
    )
