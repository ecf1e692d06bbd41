"""What stands below predictions held against measurements."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fairshare.records import Provenance
from fairshare.results.exchange import ForeignFormat, Said, import_results
from fairshare.runner.against import Compared, predict_against
from fairshare.ui.compared import show_compared
from fairshare.virtual.physics import Constants


def _one(cell: str, provenance: Provenance, *, unvalidated: bool = False) -> Compared:
    return Compared(
        cell=cell, tenant="a", figure="TTFT P50", measured=0.1, predicted=0.11,
        provenance=provenance, unvalidated=unvalidated,
    )  # fmt: skip


def test_what_was_measured_and_what_is_unvalidated_is_said(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Errors carry where both sides come from; what is not validated is named by its cell."""
    show_compared(
        [_one("s_mps", Provenance.MEASURED), _one("s_mig", Provenance.MEASURED, unvalidated=True)],
        [],
    )
    shown = capsys.readouterr().out
    assert "held against: measured: s_mps, s_mig" in shown
    assert "predicted: simulated in virtual time; unvalidated: s_mig" in shown
    assert "simulated itself" not in shown


def test_a_prediction_held_against_a_simulation_proves_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """An error of 0 % against what was simulated in the same way is no evidence."""
    show_compared([_one("s_mps", Provenance.SIMULATED)], [])
    shown = capsys.readouterr().out
    assert "held against: simulated: s_mps" in shown
    assert "says nothing of how good a prediction is" in shown


def test_imported_cells_are_said_not_to_be_predicted(tmp_path: Path) -> None:
    """What another tool measured cannot be run again, and that is the reason given."""
    response = {
        "adapter_dir": "a", "prompt_len": 8, "output_len": 16, "request_latency": 2.0,
        "first_token_latency": 1.0, "req_time": 0.5,
    }  # fmt: skip
    file = tmp_path / "VTC_all_results_s.jsonl"
    file.write_text(json.dumps({"result": {"total_time": 9.0, "responses": [response]}}) + "\n")
    import_results([file], ForeignFormat.VTC_ARTIFACT, tmp_path / "in", Said())
    compared, [missing] = predict_against(
        tmp_path / "in", tmp_path / "out", gpu="virtual:a100-40", model=None, constants=Constants()
    )
    assert not compared
    assert missing.reason.startswith("imported: ")
