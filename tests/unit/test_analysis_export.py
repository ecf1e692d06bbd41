"""Results for other tools: what is written, and that it can be read back."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pandas as pd
import pytest

from fairshare.analysis import export as export_module
from fairshare.analysis.analyze import analyze
from fairshare.analysis.export import ExportFormat, export
from fairshare.analysis.model import TenantMetrics
from fairshare.errors import ResultsError
from fairshare.records import CellKey, CellStatus, ErrorKind, Mode
from fairshare.results import ResultStore
from fairshare.results.exchange import ForeignFormat, Said, import_results
from tests.results_factory import TWO_TENANTS, add_cell, make_results

KEY = CellKey("two-tenants", Mode.MPS, 4)
BROKEN = replace(TWO_TENANTS[1], error_share=0.2)

VLLM_FIELDS = {
    f"{stat}_{metric}_ms"
    for stat in ("mean", "median", "std", "p99")
    for metric in ("ttft", "tpot", "itl", "e2el")
} | {
    "date", "endpoint_type", "backend", "label", "model_id", "tokenizer_id", "num_prompts",
    "request_rate", "burstiness", "max_concurrency", "duration", "completed", "failed",
    "total_input_tokens", "total_output_tokens", "request_throughput", "request_goodput",
    "output_throughput", "total_token_throughput", "input_lens", "output_lens", "ttfts", "itls",
    "latencies", "start_times", "queue_times", "generated_texts", "errors",
    "max_output_tokens_per_s", "max_concurrent_requests", "rtfx",
}  # fmt: skip
"""What ``vllm bench serve --save-detailed`` writes (vllm/benchmarks/serve.py)."""


@pytest.fixture
def store(tmp_path: Path) -> ResultStore:
    """Two cells, an open-loop and a closed-loop tenant each, and one that failed."""
    made = make_results(
        tmp_path / "r", modes=[Mode.MPS], concurrency=[4], tenants=(TWO_TENANTS[0], BROKEN)
    )
    add_cell(made, replace(KEY, repetition=9), TWO_TENANTS, status=CellStatus.FAILED, reason="died")
    return made


def test_tables_of_csv_hold_every_request_and_the_summary(store: ResultStore) -> None:
    """As many lines as there are records, each with its cell; failed cells have theirs too."""
    requests, cells = map(pd.read_csv, export(store.dir, ExportFormat.CSV))
    stored = {cell.result.id: list(cell.records()) for cell in store.cells()}
    assert requests.groupby("cell").size().to_dict() == {k: len(v) for k, v in stored.items()}
    one = requests[requests["cell"] == min(stored)].iloc[0]
    record = stored[min(stored)][0]
    assert (one["id"], one["end_ns"], one["chunks"]) == (
        record.id, record.end_ns, len(record.chunk_ns),
    )  # fmt: skip
    assert set(requests["provenance"]) == {"measured on cpu"}
    assert set(cells["status"]) == {"ok", "failed"}


def test_parquet_holds_the_same_with_the_times_of_all_chunks(store: ResultStore) -> None:
    """Read back by pandas: equal to the records, lists and absent values included."""
    pytest.importorskip("pyarrow", reason="the extra fairshare[parquet] is not installed")
    requests, cells = map(pd.read_parquet, export(store.dir, ExportFormat.PARQUET))
    records = [record for cell in store.cells() for record in cell.records()]
    assert len(requests) == len(records)
    for name in ("id", "intended_ns", "output_tokens", "error"):
        found = requests[name].astype(object)
        assert found.where(found.notna(), None).tolist() == [getattr(r, name) for r in records]
    assert [list(chunks) for chunks in requests["chunk_ns"]] == [r.chunk_ns for r in records]
    assert requests["concurrency"].eq(4).all()
    assert {"tenant", "total", "cell"} == set(cells["row"])


def test_without_its_library_parquet_says_what_to_install(
    store: ResultStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message names the extra and the way without it."""
    whole: Callable[..., Any] = importlib.import_module

    def without(name: str, *more: Any) -> Any:
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return whole(name, *more)

    monkeypatch.setattr(export_module.importlib, "import_module", without)
    with pytest.raises(ResultsError, match="pyarrow") as raised:
        export(store.dir, ExportFormat.PARQUET)
    assert "fairshare[parquet]" in str(raised.value)
    assert "csv" in str(raised.value)


def figures(metrics: TenantMetrics) -> dict[str, Any]:
    """What a file of vLLM's benchmark can hold of a tenant's figures."""
    values = metrics.values()
    names = {"requests", "completed", "completion_rate", "errors"}
    kept = ("ttft_", "tpot_", "itl_", "e2e_")
    return {n: v for n, v in values.items() if n in names or n.startswith(kept)} | dict(
        metrics.errors
    )


def test_vllm_benchmark_files_are_read_back_to_equal_figures(
    store: ResultStore, tmp_path: Path
) -> None:
    """Counts, failures by kind and all latencies of each tenant, from schedule and sending."""
    written = export(store.dir, ExportFormat.VLLM_BENCH, tmp_path / "bench")
    assert len(written) == 4, "two measured cells of two tenants"
    import_results(written, ForeignFormat.VLLM_BENCH, tmp_path / "back", Said())
    back = {}
    for cell in analyze(ResultStore.open(tmp_path / "back")).measured:
        [tenant] = cell.tenants
        back[cell.result.key.scenario] = tenant
    for cell in analyze(store).measured:
        for number, tenant in enumerate(sorted(cell.tenants, key=lambda t: str(t.tenant))):
            again = back[f"{cell.result.id}.{number}-{tenant.tenant}"]
            assert again.tenant == tenant.tenant
            assert figures(again) == pytest.approx(figures(tenant), rel=1e-6)
            if tenant.tenant == "batch":
                assert again.errors == {
                    ErrorKind.DISCONNECT.value: again.requests - again.completed
                }


def test_their_summary_is_by_vllm_s_definitions(store: ResultStore, tmp_path: Path) -> None:
    """Successes over the duration, TPOT by (E2E - TTFT) / (n - 1), and the kind of figure."""
    [path, *_] = export(store.dir, ExportFormat.VLLM_BENCH, tmp_path / "bench")
    found = orjson.loads(path.read_bytes())
    assert found["completed"] + found["failed"] == found["num_prompts"]
    assert found["output_throughput"] == pytest.approx(
        found["total_output_tokens"] / found["duration"]
    )
    answered = [i for i, error in enumerate(found["errors"]) if not error]
    tpots = [
        (found["latencies"][i] - found["ttfts"][i]) / (found["output_lens"][i] - 1)
        for i in answered
    ]
    assert found["mean_tpot_ms"] == pytest.approx(1e3 * sum(tpots) / len(tpots))
    assert "measured on cpu" in found["label"]
    assert set(found) >= VLLM_FIELDS
    lists = [found[name] for name in ("ttfts", "latencies", "generated_texts", "start_times")]
    assert {len(each) for each in lists} == {found["num_prompts"]}
    assert 0 < found["max_concurrent_requests"] <= found["completed"]
    per_second = found["max_output_tokens_per_s"]
    assert found["output_throughput"] <= per_second <= found["total_output_tokens"]


def test_a_folder_that_cannot_be_written_is_one_message(store: ResultStore, tmp_path: Path) -> None:
    """A file in the place of the output folder is named."""
    (tmp_path / "taken").write_text("")
    with pytest.raises(ResultsError, match="taken"):
        export(store.dir, ExportFormat.CSV, tmp_path / "taken")
