"""What is printed at the end fits the terminal and says how it went."""

from __future__ import annotations

from pathlib import Path

import pytest

from fairshare.analysis.pipeline import build_analysis
from fairshare.errors import ExitCode
from fairshare.records import CellKey, CellResult, CellStatus, Mode, Provenance
from fairshare.runner.outcome import Outcome
from fairshare.ui.outcome import show_analysis, show_outcome
from fairshare.ui.progress import Progress
from tests.results_factory import FakeTenant, make_results


def _result(status: CellStatus) -> CellResult:
    key = CellKey("s", Mode.MPS, 1)
    return CellResult("s_mps_c1_r1-0", key, status, "mps", Provenance.SIMULATED)


@pytest.mark.parametrize(
    ("statuses", "code"),
    [
        ([CellStatus.OK], ExitCode.OK),
        ([], ExitCode.OK),
        ([CellStatus.OK, CellStatus.INFEASIBLE], ExitCode.OK),
        ([CellStatus.INFEASIBLE], ExitCode.SOME_CELLS_FAILED),
        ([CellStatus.OK, CellStatus.FAILED], ExitCode.SOME_CELLS_FAILED),
    ],
)
def test_the_exit_code_says_how_it_went(statuses: list[CellStatus], code: ExitCode) -> None:
    """Cells that cannot exist are no failure, unless nothing else was asked for."""
    outcome = Outcome(results=[_result(status) for status in statuses])
    assert show_outcome(outcome, Path("out"), "again") is code


def test_a_stopped_run_prints_how_to_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    """The command to resume is printed, and the exit code is that of an interruption."""
    outcome = Outcome(results=[_result(CellStatus.INTERRUPTED)], stopped=True)
    assert show_outcome(outcome, Path("out"), "fairshare again") is ExitCode.INTERRUPTED
    shown = capsys.readouterr().out
    assert "1 interrupted" in shown
    assert "fairshare again" in shown


def test_progress_counts_cells_and_shortens_reasons(capsys: pytest.CaptureFixture[str]) -> None:
    """One line per cell; a long reason is cut, since the last screen has it whole."""
    progress = Progress()
    progress({"event": "sweep.started", "cells": 2})
    for status, reason in (("ok", None), ("failed", "x" * 500 + "\nlog line")):
        progress({"event": "cell.started", "cell": f"cell-{status}"})
        progress({"event": "cell.finished", "cell": "c", "status": status, "reason": reason})
    shown = capsys.readouterr().out
    assert "[1/2] cell-ok  ok" in shown
    assert "[2/2] cell-failed" in shown
    assert "log line" not in shown
    assert max(len(line) for line in shown.splitlines()) < 220


def test_a_crowd_of_tenants_is_shown_together(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of more tenants than anybody reads the total is printed; the summary has each."""
    crowd = [FakeTenant(f"user-{number}", 8, 2, rate_per_s=0.5) for number in range(45)]
    make_results(
        tmp_path / "out", modes=(Mode.LOGICAL,), concurrency=(None,), repetitions=1, tenants=crowd
    )
    built = build_analysis(tmp_path / "out", figures=False, html=False)
    show_analysis(built)
    shown = capsys.readouterr().out
    assert "all tenants together (each is in the summary)" in shown
    assert "user-7" not in shown
    assert "user-7" in built.summary_csv.read_text()
