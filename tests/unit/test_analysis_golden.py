"""A result folder computed by hand is reproduced to all digits."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from fairshare.analysis.analyze import analyze
from fairshare.analysis.model import CellAnalysis
from fairshare.records import Mode
from fairshare.results import ResultStore

FOLDER = Path(__file__).resolve().parents[1] / "golden" / "tiny-result"


@pytest.fixture(scope="module")
def cells() -> dict[Mode, CellAnalysis]:
    """The two analysed cells."""
    found = analyze(ResultStore.open(FOLDER)).cells
    return {cell.result.key.mode: cell for cell in found}


@pytest.mark.parametrize("part", ["a", "b", "total", "fairness", "slowdown"])
def test_the_hand_computed_cell_is_reproduced(cells: dict[Mode, CellAnalysis], part: str) -> None:
    """Every value that the README beside the records works out is what analysis says."""
    cell = cells[Mode.LOGICAL]
    assert cell.fairness is not None
    computed: dict[str, Any] = {
        **{metrics.tenant or "total": metrics.values() for metrics in cell.rows()},
        "fairness": cell.fairness.values(),
        "slowdown": cell.slowdown["a"],
    }
    expected = json.loads((FOLDER / "expected.json").read_text())[part]
    assert len(expected) >= 6
    for name, value in expected.items():
        if value is None:
            assert computed[part][name] is None, name
        else:
            exact = float(Fraction(value))
            assert computed[part][name] == pytest.approx(exact, rel=1e-13), name


def test_errors_are_counted_by_kind(cells: dict[Mode, CellAnalysis]) -> None:
    """The one failure is listed under its kind."""
    assert cells[Mode.LOGICAL].tenants[0].errors == {"stalled": 1}
    assert cells[Mode.LOGICAL].tenants[1].errors == {}


def test_a_tenant_alone_has_neither_total_nor_fairness(cells: dict[Mode, CellAnalysis]) -> None:
    """Tenants in turn share nothing: no total, no Jain's index, no slowdown of the baseline."""
    alone = cells[Mode.EXCLUSIVE]
    assert (alone.total, alone.fairness, alone.slowdown) == (None, None, {})
    assert [metrics.tenant for metrics in alone.tenants] == ["a"]
    assert set(cells[Mode.LOGICAL].slowdown) == {"a"}
