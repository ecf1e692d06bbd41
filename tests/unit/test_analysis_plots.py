"""What a figure says of itself."""

from __future__ import annotations

from fairshare.analysis.aggregate import Row, Setting
from fairshare.analysis.plots import marked_modes
from fairshare.records import Mark, Mode, Provenance


def row(mode: Mode, *marks: Mark) -> Row:
    """The total under one mode, with these marks."""
    return Row(
        setting=Setting("s", 1.0, 4),
        mode=mode,
        label=mode.value,
        policy="fcfs",
        provenance=Provenance.SIMULATED,
        tenant=None,
        repetitions=1,
        marks=marks,
        notes=(),
        estimates={},
        errors={},
        few_for_p99=False,
    )


def test_a_figure_says_which_modes_the_client_spoiled() -> None:
    """A reservation about one mode is not read as one about all; one about all is short."""
    rows = [
        row(Mode.LOGICAL, Mark.WEAK_EVIDENCE),
        row(Mode.MPS, Mark.WEAK_EVIDENCE, Mark.CLIENT_LIMITED),
    ]
    assert marked_modes(rows) == ("weak evidence", "client-limited (mps)")
