"""A mode that this machine cannot have is a gap with a reason, and the others are measured."""

from __future__ import annotations

from dataclasses import replace

import orjson

from tests.workplace import Workplace

SWEEP = (
    "matrix", "brief.yaml", "--modes", "logical,mps", "--output-dir", "out", "--no-report",
    "--skip-unready-modes",
)  # fmt: skip


def test_a_daemon_that_does_not_start_leaves_a_marked_gap(workplace: Workplace) -> None:
    """Its cells are infeasible with the reason; on a machine that has it, --resume fills them."""
    without = replace(workplace, env={**workplace.env, "FAIRSHARE_VIRTUAL_FAIL": "mps_no_start"})
    done = without.run(*SWEEP)
    assert done.returncode == 0, done.stdout
    cells = workplace.cells("out")
    gap = cells["brief_mps_c1_r1"].result
    assert (gap.status.value, cells["brief_logical_c1_r1"].result.status.value) == (
        "infeasible",
        "ok",
    )
    assert gap.reason is not None
    assert "the MPS daemon ended at once" in gap.reason
    matrix = orjson.loads((workplace.path / "out/matrix.json").read_bytes())
    assert matrix["infeasible"] == {gap.id: gap.reason}
    resumed = workplace.run(*SWEEP, "--resume")
    assert resumed.returncode == 0, resumed.stdout
    assert {cell.result.status.value for cell in workplace.cells("out").values()} == {"ok"}
    assert len(workplace.cells("out")) == 2
