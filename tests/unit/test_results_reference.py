"""Results that are kept with the code stay readable."""

from __future__ import annotations

from pathlib import Path

import pytest

from fairshare.records import CellStatus
from fairshare.results import ResultStore

REFERENCE = Path(__file__).resolve().parents[2] / "results/reference"


@pytest.mark.parametrize("folder", sorted(REFERENCE.iterdir()), ids=lambda folder: folder.name)
def test_a_reference_is_complete_and_readable(folder: Path) -> None:
    """Every cell is ok and its records, though packed, can be read."""
    cells = ResultStore.open(folder).cells()
    assert {cell.result.status for cell in cells} == {CellStatus.OK}
    assert all(any(record.ok for record in cell.records()) for cell in cells)
