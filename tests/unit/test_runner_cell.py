"""What is said of a cell beside its figures."""

from __future__ import annotations

from fairshare.records import CellKey, CellResult, CellStatus, Mark, Mode, Provenance
from fairshare.runner.cell import _note_client


def result(*marks: Mark) -> CellResult:
    """A cell with these marks, whose client gave three reasons."""
    return CellResult(
        "id",
        CellKey("s", Mode.LOGICAL, 1),
        CellStatus.OK,
        "logical",
        Provenance.SIMULATED,
        marks=list(marks),
        client={"reasons": ["late (--load-processes)", "slow (--transport stream)", "busy (x)"]},
    )


def test_a_client_in_the_way_is_told_beside_the_figures_with_what_helps() -> None:
    """The table and the page say why the figures may be the client's, and which flag helps."""
    limited = result(Mark.CLIENT_LIMITED)
    _note_client(limited)
    assert limited.notes == ["client-limited: late (--load-processes); and 2 more in cell.json"]


def test_a_client_that_kept_up_is_not_mentioned() -> None:
    """No mark, no note."""
    good = result()
    _note_client(good)
    assert good.notes == []
