"""Result folders computed by hand are reproduced to all digits."""

from __future__ import annotations

import json
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from fairshare.analysis.analyze import analyze
from fairshare.analysis.model import CellAnalysis
from fairshare.records import Mode
from fairshare.results import ResultStore

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
FOLDER = GOLDEN / "tiny-result"
CHAINS = GOLDEN / "interactions"


@pytest.fixture(scope="module")
def cells() -> dict[Mode, CellAnalysis]:
    """The two analysed cells."""
    found = analyze(ResultStore.open(FOLDER)).cells
    return {cell.result.key.mode: cell for cell in found}


@pytest.fixture(scope="module")
def chains() -> CellAnalysis:
    """The analysed cell with interactions."""
    (found,) = analyze(ResultStore.open(CHAINS)).cells
    return found


def _assert_expected(folder: Path, part: str, computed: Mapping[str, Any]) -> None:
    expected = json.loads((folder / "expected.json").read_text())[part]
    assert len(expected) >= 6
    for name, value in expected.items():
        if value is None:
            assert computed[name] is None, name
        else:
            assert computed[name] == pytest.approx(float(Fraction(value)), rel=1e-13), name


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
    _assert_expected(FOLDER, part, computed[part])


@pytest.mark.parametrize("part", ["agent", "chat", "total", "agent: copilot", "agent: mail"])
def test_hand_computed_interactions_are_reproduced(chains: CellAnalysis, part: str) -> None:
    """Whole, failed and cut interactions, their times and their waste are as worked out by hand."""
    computed: dict[str, Any] = {}
    for metrics in chains.rows():
        name = metrics.tenant or "total"
        computed[name] = metrics.values()
        for app, found in metrics.interactions.apps.items() if metrics.interactions else ():
            computed[f"{name}: {app}"] = found.values()
    assert {*computed} - {"agent", "chat", "total", "agent: copilot", "agent: mail"} == {
        "plain", "total: copilot", "total: mail",
    }  # fmt: skip
    _assert_expected(CHAINS, part, computed[part])


def test_tenants_of_single_requests_have_no_figures_of_interactions(
    cells: dict[Mode, CellAnalysis], chains: CellAnalysis
) -> None:
    """Nor do folders written before there were interactions, which stay readable."""
    old = cells[Mode.LOGICAL]
    for metrics in (*old.rows(), chains.tenants[2]):
        assert metrics.interactions is None
        assert "interactions" not in metrics.values()


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
