"""What several test files look at, since it takes seconds to make."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import pytest

from fairshare.analysis.pipeline import BuiltAnalysis, build_analysis
from fairshare.records import CellKey, CellStatus, Mode
from fairshare.results import ResultStore, layout
from fairshare.results.reading import read_records
from fairshare.runner.plan import RunPlan, make_plan
from fairshare.runner.settings import Flags, settle
from fairshare.spec.matrix import Matrix
from tests.plans import ONE_TENANT
from tests.results_factory import FakeTenant, add_cell, make_results

HOSTILE = (
    FakeTenant(r"\input{x} & 50%", 16, 8, rate_per_s=12.0),
    FakeTenant("$_#^~ 中 <b> | `", 16, 8),
)
SCENARIO = "hostile_%$"
S = 1_000_000_000


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> BuiltAnalysis:
    """A folder with all its figures: two modes at two concurrencies, in rounds, hostile names.

    One cell has failed, for a hostile reason.
    """
    folder = tmp_path_factory.mktemp("drawn") / "out"
    store = make_results(
        folder, modes=(Mode.EXCLUSIVE, Mode.LOGICAL), concurrency=(1, 4), repetitions=1,
        tenants=HOSTILE, window_s=3.0, scenario=SCENARIO,
    )  # fmt: skip
    _in_rounds(store)
    key = CellKey(SCENARIO, Mode.MIG, 4, 1)
    reason = "no \\MIG_here & |"
    add_cell(store, key, HOSTILE, status=CellStatus.FAILED, reason=reason, window_s=1)
    return build_analysis(folder, figures=True, html=False, pdf=True)


def _in_rounds(store: ResultStore) -> None:
    """As if the window of each cell had consisted of rounds of a second, and a GPU been sampled."""
    for stored in store.cells():
        path = stored.dir / layout.REQUESTS
        kept = [
            replace(record, round=None if (at := record.intended_ns - 2 * S) < 0 else at // S)
            for record in read_records(path, complete=True)
        ]
        path.write_bytes(b"".join(record.to_json() + b"\n" for record in kept))
        with (stored.dir / layout.GPU).open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("t_s", "gpu_utilisation", "memory_used_bytes", "power_w"))
            writer.writerows((t, 0.5, 8 << 30, "") for t in range(6))


@pytest.fixture
def plan(tmp_path: Path) -> RunPlan:
    """Two rounds of two deployments of two cells each.

    By the estimate 70 s: a cell takes 1 + 5 + 2 s, a simulated server 1.5 s to start and stop.
    """
    path = tmp_path / "s.yaml"
    path.write_text(ONE_TENANT)
    fields = {"modes": ["logical", "mps"], "concurrency": [1, 4], "num_runs": 2}
    matrix = Matrix.model_validate({"name": "m", "scenarios": [str(path)], **fields})
    return make_plan(settle(matrix, Flags(device="virtual:h200")))
