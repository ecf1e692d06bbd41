"""The main job on real vLLM servers on the CPU: shares are real, records agree with the servers."""

from __future__ import annotations

from collections import defaultdict

import orjson
import pytest

from fairshare.errors import ExitCode
from fairshare.records import CellStatus, RequestRecord
from tests.workplace import ROOT, Workplace

pytestmark = [pytest.mark.vllm_cpu, pytest.mark.timeout(400)]

SCENARIO = """\
name: pair
timing: {warmup_s: 1, window_s: 4, drain_s: 20}
tenants:
  - name: chat
    api: chat
    prompts: {kind: synthetic, tokens: {kind: uniform, min: 8, max: 32}}
    output: {kind: uniform, min: 8, max: 16}
  - name: batch
    prompts: {kind: synthetic, tokens: {kind: fixed, tokens: 64}}
    output: {kind: fixed, tokens: 16}
"""


def test_a_matrix_on_real_servers(workplace: Workplace, vllm_python: str) -> None:
    """Servers start once per mode, run on their cores, and count the tokens that we recorded."""
    scenario = workplace.write("pair.yaml", SCENARIO)
    done = workplace.run(
        "matrix", scenario, "--device", "cpu", "--model", "tiny", "--modes", "logical,mig",
        "--concurrency", "1,2", "--python", vllm_python, "--output-dir", "out", timeout_s=360,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert "measured on cpu" in done.stdout
    assert "mig-cpu" in done.stdout
    matrix = orjson.loads((workplace.path / "out/matrix.json").read_bytes())
    assert len(matrix["starts"]) == 3
    cells = workplace.cells("out")
    assert {cell.result.status.value for cell in cells.values()} == {"ok"}
    shares = cells["pair_mig_c2_r1"].result.shares
    assert not set(shares[0]["cpus"]) & set(shares[1]["cpus"])
    for share in shares:
        assert share["verified"] is True
        engine = share["engine"]
        assert engine["cpus"] == share["planned"]["cpu_set"]
        assert engine["compute_threads"] == share["planned"]["threads"]
        assert engine["kv_cache_bytes"] == 128 * 1024**2  # half of the launcher's 256 MiB
    for slug in cells:
        records = workplace.records("out", slug)
        assert all(record.ok for record in records), slug
        _check_records(records)
        _check_against_servers(workplace, slug, records)
    one, other = (workplace.records("out", f"pair_{mode}_c2_r1") for mode in ("logical", "mig"))
    asked = [{r.id: (r.prompt_tokens, r.output_tokens) for r in rs} for rs in (one, other)]
    common = asked[0].keys() & asked[1].keys()
    assert len(common) > 4
    assert all(asked[0][key] == asked[1][key] for key in common)


def test_a_launcher_that_undoes_the_share_fails_the_cell(
    workplace: Workplace, vllm_python: str
) -> None:
    """A variable that overrides the KV cap is found out from inside, and nothing is measured."""
    scenario = workplace.write("pair.yaml", SCENARIO)
    text = (ROOT / "launchers/vllm-cpu.yaml").read_text("utf-8")
    launcher = workplace.write(
        "loose.yaml", text.replace("\nenv:\n", '\nenv:\n  VLLM_CPU_KVCACHE_SPACE: "1"\n')
    )
    done = workplace.run(
        "matrix", scenario, "--device", "cpu", "--model", "tiny", "--modes", "logical",
        "--launcher", launcher, "--python", vllm_python, "--output-dir", "out", timeout_s=200,
    )  # fmt: skip
    assert done.returncode == ExitCode.SOME_CELLS_FAILED, done.stdout
    (cell,) = workplace.cells("out").values()
    assert cell.result.status is CellStatus.FAILED
    assert "KV cache: planned 256 MiB, has 1 GiB" in (cell.result.reason or "")
    assert "VLLM_CPU_KVCACHE_SPACE" in (cell.result.reason or "")
    assert list(cell.records()) == []


def _check_records(records: list[RequestRecord]) -> None:
    for record in records:
        times = [record.intended_ns, record.sent_ns, record.headers_ns, record.first_token_ns]
        times += [*record.chunk_ns, record.end_ns]
        assert times == sorted(times)
        assert sum(record.chunk_tokens) == record.output_tokens
        assert record.cached_tokens == 0
        if record.tenant == "batch":
            assert (record.prompt_tokens, record.output_tokens) == (64, 16)


def _check_against_servers(workplace: Workplace, slug: str, records: list[RequestRecord]) -> None:
    """What each server says it generated during the cell is what its records hold."""
    recorded: dict[str, int] = defaultdict(int)
    for record in records:
        recorded[record.server] += record.output_tokens or 0
    path = workplace.cells("out")[slug].dir / "server_metrics.jsonl"
    samples = [orjson.loads(line) for line in path.read_text().splitlines()]
    for server, tokens in recorded.items():
        counts = [s["generation_tokens_total"] for s in samples if s["server"] == server]
        # The last sample is taken when all answers have ended, the first before any was asked for.
        assert counts[-1] - counts[0] == tokens, slug
