"""Figures that others published are reproduced from their own result files, digit for digit."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from fairshare.analysis.analyze import analyze
from fairshare.analysis.model import CellAnalysis, Fairness
from fairshare.analysis.pipeline import build_analysis
from fairshare.results import ResultStore
from fairshare.results.exchange import ForeignFormat, Said, import_results

SHARED = Path(__file__).parents[3] / "shared" / "data"
TABLE = SHARED / "published" / "vtc_table.csv"


def imported(
    folder: Path, files: Sequence[Path], said: Said | None = None
) -> dict[str, CellAnalysis]:
    """The analysed cells of result files of the VTC artifact, by policy."""
    import_results(files, ForeignFormat.VTC_ARTIFACT, folder, said or Said())
    return {cell.result.key.policy: cell for cell in analyze(ResultStore.open(folder)).cells}


def theirs(folder: Path, name: str, policies: Sequence[str], said: Said | None = None) -> (
    dict[str, CellAnalysis]
):  # fmt: skip
    """The same of a suite of theirs."""
    if not (SHARED / "vtc").is_dir():
        pytest.skip("the results of the VTC artifact are not here (../shared/data/vtc)")
    files = [SHARED / "vtc" / f"{policy}_all_results_{name}.jsonl" for policy in policies]
    return imported(folder / "out", files, said)


def fairness_of(cell: CellAnalysis) -> Fairness:
    """It is there."""
    assert cell.fairness is not None
    return cell.fairness


def test_the_table_of_service_differences(tmp_path: Path) -> None:
    """Largest, mean and variance of D(t), throughput and completed requests of `real`."""
    cells = theirs(tmp_path, "real", ("FCFS", "LCF", "VTC"))
    with TABLE.open() as text:
        rows = list(csv.DictReader(text))
    assert [row["scheduler"] for row in rows] == ["FCFS", "LCF", "VTC"]
    for row in rows:
        cell = cells[row["scheduler"].lower()]
        found, total = fairness_of(cell), cell.total
        assert total is not None
        assert total.work is not None
        assert (f"{found.d_max:.2f}", f"{found.d_mean:.2f}", f"{found.d_variance:.2f}") == (
            row["max_difference"], row["mean_difference"], row["variance"],
        )  # fmt: skip
        assert f"{total.work.run_tokens_per_s:.0f}" == row["throughput_tok_s"]
        assert (total.completed, total.requests) == (int(row["completed"]), 1500)


def test_windowed_jain_tells_schedulers_apart(tmp_path: Path) -> None:
    """Over the whole run both have 0.9; while both tenants wait, VTC serves them alike."""
    cells = theirs(tmp_path, "overload", ("FCFS", "VTC"))
    fcfs, vtc = fairness_of(cells["fcfs"]), fairness_of(cells["vtc"])
    assert (f"{fcfs.jain_even:.4f}", f"{vtc.jain_even:.4f}") == ("0.8998", "1.0000")
    assert (f"{fcfs.d_max:.2f}", f"{fcfs.d_mean:.2f}", f"{fcfs.d_variance:.2f}") == (
        "447.37", "439.00", "30.62",
    )  # fmt: skip
    assert (f"{vtc.d_max:.2f}", f"{vtc.d_mean:.2f}", f"{vtc.d_variance:.0f}") == (
        "192.88", "103.77", "6981",
    )  # fmt: skip
    assert fcfs.jain is not None
    assert vtc.jain is not None
    assert fcfs.jain + 0.05 < vtc.jain


def test_the_same_in_their_own_window(tmp_path: Path) -> None:
    """From 60 to 330 s, the window that the published indices were taken over."""
    cells = theirs(tmp_path, "overload", ("FCFS", "VTC"), Said(window_s=(60.0, 330.0)))
    found = [f"{fairness_of(cells[policy]).jain_even:.4f}" for policy in ("fcfs", "vtc")]
    assert found == ["0.8998", "1.0000"]


def test_weights_are_kept(tmp_path: Path) -> None:
    """Weighted VTC gives tenants of weight 1 to 4 shares of 1 : 2 : 3 : 4."""
    said = Said(weights=(1, 2, 3, 4), window_s=(60.0, 330.0))
    cell = theirs(tmp_path, "overload-weighted", ("WVTC",), said)["wvtc"]
    service = [row.work.service_even for row in cell.tenants if row.work is not None]
    assert [f"{own / service[0]:.3f}" for own in service] == ["1.000", "2.000", "3.000", "4.000"]
    assert f"{fairness_of(cell).jain_even:.4f}" == "1.0000"


def small_run(path: Path) -> Path:
    """Two tenants asked at 0: one served evenly all 20 s, one in the second half. One refused."""
    rows = [("a", 0.0, 20.0), ("b", 10.0, 20.0), ("b", -1.0, -1.0)]
    responses = [
        {"adapter_dir": tenant, "prompt_len": 20, "output_len": 40, "req_time": 0.0,
         "first_token_latency": first, "request_latency": whole}
        for tenant, first, whole in rows
    ]  # fmt: skip
    result = {"total_time": 25.0, "responses": responses}
    path.write_text(json.dumps({"config": {}, "result": result}) + "\n")
    return path


def test_a_run_worked_out_by_hand(tmp_path: Path) -> None:
    """D(t) of a run of 25 s: windows of 2.5 s around 1.25 + 1.1875 i seconds.

    Of a, 5/s come until 20 s; of b, 10/s from 10 s on. Nobody asks for anything by the first
    window, so each adds what it lacks to the better served one, but not more than it got.
    """
    cell = imported(tmp_path / "out", [small_run(tmp_path / "small.jsonl")])["unknown"]
    expected = []
    for i in range(1, 20):
        low, high = 1.1875 * i, 1.1875 * i + 2.5
        a = 5 * max(0.0, min(high, 20) - low) / 2.5
        b = 10 * max(0.0, min(high, 20) - max(low, 10)) / 2.5
        expected.append(min(abs(a - b), a, b))
    found, total = fairness_of(cell), cell.total
    assert found.d_max == pytest.approx(max(expected))
    assert found.d_mean == pytest.approx(sum(expected) / 19)
    assert total is not None
    assert total.work is not None
    assert total.work.run_tokens_per_s == pytest.approx(2 * 60 / 25)
    assert (total.requests, total.completed, total.work.throttled) == (3, 2, 1)
    assert [row.work.service_even for row in cell.tenants if row.work] == [
        pytest.approx(100), pytest.approx(100),
    ]  # fmt: skip


def test_fairness_is_shown_beside_its_price(tmp_path: Path) -> None:
    """The table of policies has throughput, completion, tail, refusals and waste in each row."""
    folder = tmp_path / "out"
    path = small_run(tmp_path / "small.jsonl")
    import_results([path, path], ForeignFormat.VTC_ARTIFACT, folder, Said(policies=["x", "y"]))
    built = build_analysis(folder, figures=False, html=False)
    (table,) = built.policies
    assert [row.mode for row in table.rows] == [
        "logical-imported + x (engine)", "logical-imported + y (engine)",
    ]  # fmt: skip
    shown = dict(
        zip(
            (column.title for column in table.columns), map(str, table.rows[0].figures), strict=True
        )
    )
    assert shown["run tok/s"] == "4.80"
    assert shown["completion"] == "66.7 %"
    assert shown["throttled"] == "1"
    assert shown["wasted"] == "0 %"
    assert {"worst P99", "max diff", "D max", "D mean", "D var"} <= shown.keys()
    assert {row.provenance for row in table.rows} == {"imported"}
    assert all("measured by others" in row.marks for row in table.rows)
