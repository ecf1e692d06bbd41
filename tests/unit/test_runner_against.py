"""Predicted beside measured: every cell is there, with a figure or with the reason for none."""

from __future__ import annotations

from pathlib import Path

import pytest

from fairshare.records import CellKey, CellStatus, Mode, Provenance
from fairshare.runner.against import Compared, predict_against
from fairshare.virtual.physics import PUBLISHED
from tests.results_factory import TWO_TENANTS, add_cell, make_results


def test_cells_that_cannot_be_predicted_are_named_with_the_reason(tmp_path: Path) -> None:
    """Failed cells, cells of a CPU and cells that were never run are told, and nothing raised."""
    store = make_results(tmp_path / "run", modes=[Mode.MPS], concurrency=[1], repetitions=1)
    failed = CellKey("two-tenants", Mode.MIG, 1, 1)
    add_cell(store, failed, TWO_TENANTS, status=CellStatus.FAILED, reason="no server\nline 2")
    [planned] = [cell.result.id for cell in store.cells() if cell.result.status is CellStatus.OK]
    store.save_matrix({**store.matrix, "plan": [{"cells": [planned, "never-run"]}]})
    compared, missing = predict_against(
        store.dir, tmp_path / "out", gpu=None, model=None, constants=PUBLISHED
    )
    assert compared == []
    assert {(cell.cell, cell.reason) for cell in missing} == {
        ("two-tenants_mps_c1_r1", "measured on cpu: only GPUs are simulated"),
        (failed.slug, "failed: no server"),
        ("never-run", "not measured yet"),
    }
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("interval", "within"), [((0.9, 1.2), True), ((0.9, 1.05), False), (None, False)]
)
def test_a_prediction_within_the_interval_is_no_error_that_was_seen(
    interval: tuple[float, float] | None, within: bool
) -> None:
    """Where the measurement itself is no surer, a difference says nothing."""
    one = Compared("c", "t", "TTFT P50", 1.0, 1.1, Provenance.MEASURED, False, interval)
    assert one.within is within
    assert one.error == pytest.approx(0.1)
