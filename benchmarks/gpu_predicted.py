"""Predicted beside measured for a result folder, as the page that stands beside its tables.

``python -m benchmarks.gpu_predicted FOLDER [--model NAME]`` writes ``analysis/predicted.md``: the
error by mode and figure, every cell, the load generator's own lag and what is impossible. NAME is
the model of ``fairshare list model`` that the measured one has the shape of. ``make gpu-reference``
does it for each scenario.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from fairshare.analysis.analyze import analyze
from fairshare.analysis.model import CellAnalysis
from fairshare.errors import ExitCode, FairshareError
from fairshare.results.store import ResultStore
from fairshare.runner.against import Compared, Unpredicted, predict_against
from fairshare.virtual.physics import PUBLISHED

PAGE = "analysis/predicted.md"


def main() -> int:
    """Write the page of one folder."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", help="the simulated model of that shape")
    given = parser.parse_args()
    try:
        print(write_page(given.folder, given.model or None))
    except FairshareError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return ExitCode.OK


def write_page(folder: Path, model: str | None) -> Path:
    """Simulate every measured cell, compare, and write the page; its path.

    Raises:
        FairshareError: the folder cannot be used, or nothing is known of its GPU.
    """
    with tempfile.TemporaryDirectory() as scratch:
        compared, missing = predict_against(
            folder, Path(scratch), gpu=None, model=model, constants=PUBLISHED
        )
    cells = analyze(ResultStore.open(folder)).cells
    page = folder / PAGE
    page.parent.mkdir(exist_ok=True)
    page.write_text("\n".join(page_of(cells, compared, missing)) + "\n", encoding="utf-8")
    return page


def page_of(
    cells: Sequence[CellAnalysis], compared: Sequence[Compared], missing: Sequence[Unpredicted]
) -> Iterator[str]:
    """The page's lines."""
    kinds = ", ".join(sorted({each.provenance.value for each in compared})) or "nothing"
    yield f"# Predicted beside measured ({kinds})"
    yield "\nPredictions use published constants; none of them was fitted to these cells."
    yield from _errors(cells, compared)
    yield from _table(
        "Every cell",
        ["cell", "tenant", "figure", "measured", "predicted", "error"],
        _each(compared),
    )
    if missing:
        rows = [[each.cell, each.reason.replace("|", "/")] for each in missing]
        yield from _table("Not predicted", ["cell", "why"], rows)
    yield from _table("The load generator's own lag", _LAGS, map(_lag, _measured(cells)))
    impossible = [text for cell in cells for text in map(str, cell.plausibility.violations)]
    yield "\n## Plausibility\n"
    yield (
        "\n".join(f"- {line}" for line in impossible) or "No figure is beyond what the GPU can do."
    )


def _errors(cells: Sequence[CellAnalysis], compared: Sequence[Compared]) -> Iterator[str]:
    """The mean absolute error of each figure in each mode."""
    labels = {cell.result.key.slug: cell.result.mode_label for cell in cells}
    figures = list(dict.fromkeys(each.figure for each in compared))
    rows = []
    for label in dict.fromkeys(labels[each.cell] for each in compared):
        ours = [each for each in compared if labels[each.cell] == label]
        row = [label]
        for figure in figures:
            errors = [abs(each.error) for each in ours if each.figure == figure]
            row.append(f"{100 * statistics.fmean(errors):.1f} %" if errors else "")
        rows.append(row)
    yield from _table("Mean absolute error by mode", ["mode", *figures], rows)


def _each(compared: Sequence[Compared]) -> Iterator[list[str]]:
    for each in compared:
        figures = [f"{each.measured:.4g}", f"{each.predicted:.4g}", f"{100 * each.error:+.1f} %"]
        yield [each.cell, each.tenant or "all", each.figure, *figures]


_LAGS = ["cell", "event loop P50 / P99, ms", "sends late P99, ms", "waited for a core", "marks"]


def _lag(cell: CellAnalysis) -> list[str]:
    client = cell.result.client
    loop, late = client.get("loop_lag_ms", {}), client.get("schedule_lag_ms", {})
    waited = client.get("cpu_wait_fraction")
    return [
        cell.result.key.slug,
        f"{_figure(loop.get('p50'))} / {_figure(loop.get('p99'))}",
        _figure(late.get("p99")),
        "" if waited is None else f"{100 * waited:.0f} %",
        ", ".join(mark.value for mark in cell.marks),
    ]


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def _measured(cells: Sequence[CellAnalysis]) -> list[CellAnalysis]:
    return [cell for cell in cells if cell.tenants]


def _table(title: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"\n## {title}\n"
    yield f"| {' | '.join(head)} |"
    yield f"|{' --- |' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"


if __name__ == "__main__":
    sys.exit(main())
