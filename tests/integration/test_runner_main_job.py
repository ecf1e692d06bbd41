"""The main job on the simulated GPU, as a user runs it."""

from __future__ import annotations

import csv
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import orjson
import pytest

from tests.workplace import Workplace, workplace_in

pytestmark = pytest.mark.timeout(300)  # the first test waits for the run that many look at
MODES = ("exclusive", "logical", "timeslice", "mps", "mig")


@dataclass
class MainJob:
    """A matrix that was run once for the tests that only read: where, and what it said."""

    place: Workplace
    done: subprocess.CompletedProcess[str]

    @property
    def out(self) -> Path:
        """Its result folder."""
        return self.place.path / "out"


@pytest.fixture(scope="module")
def main_job(tmp_path_factory: pytest.TempPathFactory, cache_dir: Path) -> Iterator[MainJob]:
    """All modes at two concurrencies, with figures and page."""
    with workplace_in(tmp_path_factory.mktemp("main-job"), cache_dir) as place:
        done = place.run(
            "matrix", "brief.yaml", "--modes", ",".join(MODES), "--concurrency", "1,2",
            "--output-dir", "out", timeout_s=250,
        )  # fmt: skip
        yield MainJob(place, done)


def test_a_matrix_ends_with_a_comparison_and_a_page(main_job: MainJob) -> None:
    """Every mode is run once per concurrency, its servers started once, everything is labelled."""
    done, out = main_job.done, main_job.out
    assert done.returncode == 0, done.stdout
    assert "simulated" in done.stdout
    assert "report:" in done.stdout
    cells = main_job.place.cells("out")
    # Exclusive has a cell for each of two tenants.
    assert len(cells) == 2 * (len(MODES) + 1)
    assert {cell.result.status.value for cell in cells.values()} == {"ok"}
    assert {cell.result.provenance.value for cell in cells.values()} == {"simulated"}
    assert all(share["verified"] for cell in cells.values() for share in cell.result.shares)
    matrix = orjson.loads((out / "matrix.json").read_bytes())
    started = [(start["deployment"].split("-")[0], start["slot"]) for start in matrix["starts"]]
    assert sorted(started) == sorted(
        [("exclusive", "all"), ("logical", "all")]
        + [(mode, slot) for mode in ("timeslice", "mps", "mig") for slot in ("chat", "feed")]
    )
    rows = list(csv.DictReader((out / "analysis/summary.csv").open()))
    assert {row["provenance"] for row in rows} == {"simulated"}
    page = (out / "analysis/report.html").read_text()
    assert "simulated" in page
    assert len(list((out / "analysis/figures").glob("*.png"))) >= 4


def test_modes_get_the_same_requests(main_job: MainJob) -> None:
    """Request k of a tenant has the same lengths in every mode, and others in another cell."""
    lengths = {
        slug: {r.id: (r.prompt_tokens, r.output_tokens) for r in cell.records() if r.ok}
        for slug, cell in main_job.place.cells("out").items()
    }
    one, other = lengths["brief_logical_c2_r1"], lengths["brief_mps_c2_r1"]
    common = one.keys() & other.keys()
    assert len(common) > 10
    assert all(one[request] == other[request] for request in common)
    elsewhere = lengths["brief_logical_c1_r1"]
    chat = [r for r in one.keys() & elsewhere.keys() if r.startswith("chat")]
    assert any(one[request] != elsewhere[request] for request in chat)


def test_open_loop_times_are_paired_too(main_job: MainJob) -> None:
    """An open-loop tenant's schedule is the same in every mode."""
    schedules = [
        sorted((r.id, r.intended_ns) for r in cell.records() if r.tenant == "feed")
        for slug, cell in main_job.place.cells("out").items()
        if slug in ("brief_logical_c1_r1", "brief_mig_c1_r1")
    ]
    assert schedules[0] == schedules[1]
    assert schedules[0]


def test_analysis_can_be_rebuilt_from_the_records(main_job: MainJob) -> None:
    """analyze, plot and report make the same summary again when analysis/ is gone."""
    summary = main_job.out / "analysis/summary.json"
    first = summary.read_bytes()
    shutil.rmtree(summary.parent)
    for command in ("analyze", "plot", "report"):
        assert main_job.place.run(command, "out").returncode == 0
    assert summary.read_bytes() == first
    assert (summary.parent / "report.html").stat().st_size > 10_000


def test_the_api_key_is_nowhere_in_the_results(main_job: MainJob) -> None:
    """Commands and logs of the servers are kept without the secret that they were given."""
    commands = list(main_job.out.rglob("*.cmd"))
    assert commands
    for path in commands:
        assert "VLLM_API_KEY=***" in path.read_text()
    shown = b"".join(p.read_bytes() for p in main_job.out.rglob("*") if p.is_file())
    assert b"Bearer " not in shown


def test_logical_with_two_models_is_infeasible(workplace: Workplace) -> None:
    """One server cannot hold two models: the cell is listed with the reason, the others run."""
    text = (workplace.path / "brief.yaml").read_text()
    text = text.replace("  - name: chat\n", "  - name: chat\n    model: qwen3-0.6b\n")
    scenario = workplace.write("models.yaml", text)
    done = workplace.run(
        "matrix", scenario, "--modes", "logical,mps", "--output-dir", "out", "--no-report"
    )
    assert done.returncode == 0, done.stdout
    assert "1 cells ok, 1 infeasible" in done.stdout
    cell = workplace.cells("out")["brief_logical_c1_r1"].result
    assert cell.status.value == "infeasible"
    assert "model" in (cell.reason or "")


def test_a_plan_changes_nothing(workplace: Workplace) -> None:
    """Plan prints cells, commands, environments and the time, and leaves no file."""
    before = sorted(workplace.path.rglob("*"))
    done = workplace.run("plan", "brief.yaml", "--modes", "mps,mig", "--concurrency", "1,4")
    assert done.returncode == 0, done.stdout
    for expected in (
        "brief_mps_c1_r1",
        "brief_mig_c4_r1",
        "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE=50",
        "nvidia-cuda-mps-control",
        "VLLM_API_KEY=***",
        "4 cells, 4 server starts",
    ):
        assert expected in done.stdout
    assert workplace.run("matrix", "brief.yaml", "--modes", "mps,mig", "--concurrency", "1,4",
                         "--dry-run").stdout == done.stdout  # fmt: skip
    assert sorted(workplace.path.rglob("*")) == before


def test_a_cell_can_be_run_again(main_job: MainJob, workplace: Workplace) -> None:
    """--rerun repeats a cell from the folder's own definition, even after the file has changed."""
    original = main_job.place.cells("out")["brief_mps_c2_r1"].result
    workplace.write("brief.yaml", "name: something-else\n")
    again = ("--rerun", original.id, "--results", str(main_job.out), "--output-dir", "b")
    done = workplace.run("run", *again)
    assert done.returncode == 0, done.stdout
    repeated = workplace.cells("b")["brief_mps_c2_r1"].result
    assert repeated.id == original.id
    assert repeated.fingerprint == original.fingerprint


def test_repetitions_alternate_and_resume_skips_what_is_done(workplace: Workplace) -> None:
    """Rounds run in alternating direction; --resume runs just the cells that are missing."""
    command = (
        "matrix", "brief.yaml", "--modes", "logical,mps", "--num-runs", "2",
        "--output-dir", "out", "--no-report",
    )  # fmt: skip
    workplace.run(*command)
    matrix = orjson.loads((workplace.path / "out/matrix.json").read_bytes())
    order = [cell.rsplit("-", 1)[0] for entry in matrix["plan"] for cell in entry["cells"]]
    assert order == [
        "brief_logical_c1_r1", "brief_mps_c1_r1", "brief_mps_c1_r2", "brief_logical_c1_r2",
    ]  # fmt: skip
    cells = workplace.cells("out")
    gone = cells["brief_mps_c1_r2"].dir
    for path in sorted(gone.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    gone.rmdir()
    kept = {slug: cell.result.started_at for slug, cell in cells.items() if cell.dir != gone}
    done = workplace.run(*command, "--resume")
    assert done.returncode == 0, done.stdout
    after = workplace.cells("out")
    assert after.keys() == cells.keys()
    assert {slug: after[slug].result.started_at for slug in kept} == kept
