"""The page that holds predictions against what was measured."""

from __future__ import annotations

from pathlib import Path

from benchmarks.gpu_predicted import page_of
from fairshare.analysis.analyze import analyze
from fairshare.records import Mode, Provenance
from fairshare.runner.against import Compared, Unpredicted
from tests.results_factory import make_results


def _compared(cell: str, measured: float, predicted: float) -> Compared:
    return Compared(cell, "chat", "TTFT P50", measured, predicted, Provenance.MEASURED, False)


def test_errors_are_told_by_mode_and_by_cell(tmp_path: Path) -> None:
    """Means of absolute errors, each figure, what has none and why, and the client's own lag."""
    store = make_results(
        tmp_path / "out", modes=(Mode.LOGICAL, Mode.MPS), concurrency=(4,), repetitions=2
    )
    cells = analyze(store).cells
    slugs = {cell.result.key.slug: cell.result.mode_label for cell in cells}
    first, second = (slug for slug, label in slugs.items() if label == "mps-cpu")
    compared = [_compared(first, 0.10, 0.12), _compared(second, 0.10, 0.09)]
    page = "\n".join(page_of(cells, compared, [Unpredicted("other", "failed: a | b")]))
    assert "# Predicted beside measured (measured)" in page
    assert "| mps-cpu | 15.0 % |" in page
    assert f"| {first} | chat | TTFT P50 | 0.1 | 0.12 | +20.0 % |" in page
    assert "| other | failed: a / b |" in page
    assert all(f"| {slug} | " in page.partition("own lag")[2] for slug in slugs)
    assert "No figure is beyond what the GPU can do." in page
