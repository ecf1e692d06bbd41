"""Sweeps that look for an answer, as a user runs them on a simulated GPU."""

from __future__ import annotations

import csv

import orjson

from tests.workplace import Workplace

# Nobody can answer within a nanosecond, so the answer does not depend on how busy the machine is;
# two windows with fewer than twenty requests in all would decide nothing.
SCENARIO = """\
name: hopeless
timing: {warmup_s: 0, window_s: 1, drain_s: 5}
tenants:
  - name: chat
    prompts: {kind: synthetic, tokens: {kind: fixed, tokens: 16}}
    output: {kind: fixed, tokens: 2}
    slo: {ttft_s: 0.000000001}
"""
KNEE = (
    "matrix", "hopeless.yaml", "--modes", "logical", "--device", "virtual:h200", "--concurrency",
    "2", "--find-knee", "--num-runs", "2", "--output-dir", "out",
)  # fmt: skip


def test_a_search_measures_what_it_needs_and_says_what_it_found(workplace: Workplace) -> None:
    """Cells follow from cells on the same servers; the answer is printed, filed and on the page."""
    workplace.write("hopeless.yaml", SCENARIO)
    done = workplace.run(*KNEE)
    assert done.returncode == 0, done.stdout
    says = "missed even at 1 in flight, the lowest tried"
    assert says in done.stdout
    assert list(workplace.cells("out")) == [
        f"hopeless_logical_c{load}_r{run}" for load in (1, 2) for run in (1, 2)
    ]
    analysis = workplace.path / "out" / "analysis"
    (line,) = csv.DictReader((analysis / "knee.csv").read_text().splitlines())
    assert (line["mode"], line["answer"], line["windows"]) == ("logical", says, "4")
    (knee,) = orjson.loads((analysis / "knee.json").read_bytes())["knees"]
    assert [point["verdict"] for point in knee["points"]] == ["missed", "missed"]
    page = (analysis / "report.html").read_text()
    assert "The highest load that is served" in page
    assert says in page
    matrix = orjson.loads((workplace.path / "out" / "matrix.json").read_bytes())
    assert len(matrix["starts"]) == 1, "the servers are started once for all points"
    begun = {cell.result.id: cell.result.started_at for cell in workplace.cells("out").values()}
    again = workplace.run(*KNEE, "--resume", "--no-report")
    assert again.returncode == 0, again.stdout
    assert says in again.stdout
    resumed = {cell.result.id: cell.result.started_at for cell in workplace.cells("out").values()}
    assert resumed == begun, "nothing was left to be measured"


def test_a_sweep_over_shares_names_the_best_split(workplace: Workplace) -> None:
    """Every split is a row of its own, and the answer is printed and filed."""
    done = workplace.run(
        "matrix", "brief.yaml", "--modes", "mps", "--device", "virtual:h200", "--share-sweep",
        "--share-step", "25", "--only", "shares=*5:*5", "--window", "300ms", "--output-dir", "two",
        "--no-report",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert "how to split the device" in done.stdout
    assert "mps 25:75" in done.stdout
    lines = csv.DictReader((workplace.path / "two/analysis/shares.csv").read_text().splitlines())
    assert [line["shares"] for line in lines] == ["25:75", "75:25"]
