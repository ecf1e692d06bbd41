"""Results of the reference runs are packed small, and nothing that counts is lost."""

from __future__ import annotations

from pathlib import Path

from benchmarks.gpu_reference import is_packed, pack
from fairshare.analysis.pipeline import build_analysis
from fairshare.records import Mode
from fairshare.results.store import ResultStore
from tests.results_factory import make_results


def test_a_packed_folder_gives_the_same_summary(tmp_path: Path) -> None:
    """Logs go, records are compressed, and what is built from them is the same byte for byte."""
    folder = tmp_path / "out"
    make_results(folder, modes=(Mode.LOGICAL, Mode.MPS), concurrency=(4,), repetitions=1)
    summary = build_analysis(folder, figures=False, html=False).summary_csv
    before = summary.read_bytes()
    (folder / "cells/killed.partial").mkdir()
    (folder / "superseded/older").mkdir(parents=True)
    for cell in ResultStore.open(folder).cells():
        (cell.dir / "servers").mkdir(exist_ok=True)
        (cell.dir / "servers/all.log").write_text("loading\n" * 1000)
    assert not is_packed(folder)
    pack(folder)
    assert is_packed(folder)
    assert not list(folder.rglob("*.log"))
    assert not list(folder.rglob("*.jsonl"))
    assert not list(folder.rglob("*.partial"))
    assert not (folder / "superseded").exists()
    assert all(list(cell.records()) for cell in ResultStore.open(folder).cells())
    assert build_analysis(folder, figures=False, html=False).summary_csv.read_bytes() == before
