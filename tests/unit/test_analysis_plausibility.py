"""Measured cells held against their device: what is possible stays, what was planted is found."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from fairshare.analysis import build
from fairshare.analysis.analyze import analyze
from fairshare.analysis.model import CellAnalysis
from fairshare.analysis.violations import Assumed
from fairshare.records import CellKey, Mark, Mode
from fairshare.results import ResultStore, layout
from fairshare.ui.outcome import show_analysis
from tests.results_factory import TWO_TENANTS, add_cell

MS = 1_000_000
Record = dict[str, Any]


def _config(**changes: Any) -> dict[str, Any]:
    """One server of Qwen3-0.6B on an H200 for both tenants: what the factory's figures allow."""
    slot = {"name": "s0", "model": "qwen3-0.6b", "tenants": ["chat", "batch"]}
    return {
        "device": {"kind": "cuda", "name": "NVIDIA H200"},
        "launcher": {"args": {"max_num_seqs": 256}},
        "plan": {"label": "logical", "slots": [slot]},
    } | changes


def _cell(
    folder: Path,
    edit: Callable[[list[Record]], None] | None = None,
    config: dict[str, Any] | None = None,
    told: dict[str, Any] | None = None,
    assumed: Assumed = Assumed(),  # noqa: B008 (frozen)
) -> CellAnalysis:
    """The only cell of a new folder, with records, configuration and ``cell.json`` changed."""
    store = ResultStore.create(folder / "out", {"name": "planted"})
    path = add_cell(store, CellKey("s", Mode.LOGICAL, 4), TWO_TENANTS, window_s=4.0)
    (path / layout.CONFIG).write_text(yaml.safe_dump(config or _config()))
    records = [json.loads(line) for line in (path / layout.REQUESTS).read_text().splitlines()]
    if edit is not None:
        edit(records)
        lines = "".join(json.dumps(record) + "\n" for record in records)
        (path / layout.REQUESTS).write_text(lines)
    if told is not None:
        cell = json.loads((path / layout.CELL).read_text()) | told
        (path / layout.CELL).write_text(json.dumps(cell))
    return analyze(ResultStore.open(folder / "out"), assumed).cells[0]


def _checks(cell: CellAnalysis) -> set[str]:
    return {violation.check for violation in cell.plausibility.violations}


def _answered(records: list[Record], tenant: str = "chat") -> list[Record]:
    return [r for r in records if r["tenant"] == tenant and r["error"] is None]


def test_what_is_possible_is_left_alone(tmp_path: Path) -> None:
    """A cell within all limits was held against them and carries no mark."""
    cell = _cell(tmp_path)
    assert cell.plausibility.violations == ()
    assert cell.plausibility.unchecked is None
    assert Mark.IMPOSSIBLE not in cell.marks


def _early_token(records: list[Record]) -> None:
    record = _answered(records)[3]
    record["first_token_ns"] = record["chunk_ns"][0] = record["sent_ns"] + 20_000


def _whole_answer(records: list[Record]) -> None:
    record = _answered(records, "batch")[3]
    times = [record["sent_ns"] + 2 * MS + n * 1000 for n in range(len(record["chunk_ns"]))]
    record["chunk_ns"], record["first_token_ns"] = times, times[0]
    record["end_ns"] = times[-1] + 1000


def _quick_tokens(records: list[Record]) -> None:
    for record in _answered(records):
        first = record["first_token_ns"]
        record["chunk_ns"] = [first + n * 50_000 for n in range(len(record["chunk_ns"]))]


def _many_tokens(records: list[Record]) -> None:
    for record in records:
        record["chunk_tokens"] = [60 * n for n in record["chunk_tokens"]]
        if record["output_tokens"]:
            record["output_tokens"] *= 60


def _long_prompts(records: list[Record]) -> None:
    for record in records:
        record["prompt_tokens"] = 4_000_000


def _answers_first(records: list[Record]) -> None:
    record = _answered(records)[3]
    record["end_ns"] = record["sent_ns"] - 500 * MS


def _out_of_order(records: list[Record]) -> None:
    record = _answered(records)[3]
    record["chunk_ns"][5], record["chunk_ns"][20] = record["chunk_ns"][20], record["chunk_ns"][5]


def _no_time_at_all(records: list[Record]) -> None:
    record = _answered(records)[3]
    record["first_token_ns"] = record["chunk_ns"][0] = record["sent_ns"] + 1000


def _cached(records: list[Record]) -> None:
    _answered(records)[3]["cached_tokens"] = 10_000


@pytest.mark.parametrize(
    ("edit", "check"),
    [
        (_early_token, "first token"),
        (_whole_answer, "whole request"),
        (_quick_tokens, "time per token"),
        (_many_tokens, "memory bandwidth"),
        (_long_prompts, "compute"),
        (_answers_first, "order of time"),
        (_out_of_order, "order of time"),
        (_no_time_at_all, "round trip"),
        (_cached, "cached tokens"),
    ],
)
def test_a_planted_record_is_found(
    tmp_path: Path, edit: Callable[[list[Record]], None], check: str
) -> None:
    """Each kind of impossible record is told by the limit that it breaks, and marks the cell."""
    cell = _cell(tmp_path, edit)
    assert check in _checks(cell)
    assert Mark.IMPOSSIBLE in cell.marks


def test_weights_must_fit_the_memory(tmp_path: Path) -> None:
    """Two servers with the weights of an 8B model each cannot be on one L4."""
    slots = [{"name": name, "model": "llama-3-8b", "tenants": [name]} for name in ("chat", "batch")]
    config = _config(device={"kind": "cuda", "name": "NVIDIA L4"}, plan={"slots": slots})
    cell = _cell(tmp_path, config=config)
    texts = [str(v) for v in cell.plausibility.violations if v.check == "memory"]
    assert any("33.12 GB of 24.15 GB" in text for text in texts)


def test_a_cache_must_fit_beside_the_weights(tmp_path: Path) -> None:
    """An engine that tells of more cache than the device has memory for is not believed."""
    shares = [{"slot": "s0", "engine": {"kv_cache_tokens": 5_000_000}}]
    assert "memory" in _checks(_cell(tmp_path, told={"shares": shares}))


def test_servers_hold_no_more_than_there_is(tmp_path: Path) -> None:
    """What the driver saw of all servers together is held against the device's memory."""
    shares = [{"slot": name, "used_bytes": 90_000_000_000} for name in ("s0", "s1")]
    assert _checks(_cell(tmp_path / "a", told={"shares": shares})) == {"memory"}
    assert _checks(_cell(tmp_path / "b", told={"shares": shares[:1]})) == set()


def test_a_mig_instance_has_its_own_bandwidth(tmp_path: Path) -> None:
    """What a whole GPU can do, one of its seventh parts cannot."""
    # 1.19 GB x 100 steps/s are 0.12 TB/s; a 1g slice of an A100-40 moves 0.19 TB/s, 0.4 ms a token
    slot = {"name": "s0", "model": "qwen3-8b", "tenants": ["chat", "batch"]}
    config = _config(device={"name": "NVIDIA A100-SXM4-40GB"}, plan={"slots": [slot]})
    share = {"slot": "s0", "planned": {"mig_profile": "1g.5gb"}}
    whole = _cell(tmp_path / "a", config=config, told={"shares": [share], "label": "mig-emulated"})
    part = _cell(tmp_path / "b", config=config, told={"shares": [share], "label": "mig"})
    assert "time per token" not in _checks(whole)
    assert {"time per token", "whole request"} <= _checks(part)


def test_a_closed_loop_has_no_more_in_flight_than_it_was_let(tmp_path: Path) -> None:
    """More requests at once than the client was told to keep are a contradiction."""
    client = {"concurrency": {"batch": {"requested": 3}}}
    cell = _cell(tmp_path, told={"client": client})
    assert [v.tenant for v in cell.plausibility.violations] == ["batch"]
    assert _checks(cell) == {"concurrency"}


def test_the_gpus_counters_have_limits(tmp_path: Path) -> None:
    """More memory in use than there is, or more than all of the time, is flagged."""
    store = ResultStore.create(tmp_path / "out", {})
    path = add_cell(store, CellKey("s", Mode.LOGICAL, 4), TWO_TENANTS, window_s=2.0)
    (path / layout.CONFIG).write_text(yaml.safe_dump(_config()))
    (path / layout.GPU).write_text("t_s,gpu_utilisation,memory_used_bytes\n0,1.7,\n1,,9e11\n")
    assert _checks(analyze(store).cells[0]) == {"memory", "utilisation"}


@pytest.mark.parametrize(
    ("config", "why"),
    [
        (_config(device={"name": "AMD EPYC"}), "the limits of 'AMD EPYC' are not known"),
        (_config(device={}), "the device is not told"),
        (
            _config(plan={"slots": [{"name": "s0", "model": "tiny"}]}),
            "the size of the model 'tiny' is not known",
        ),
        (_config(launcher={"args": {"cpu_offload_gb": 4}}), "outside of the GPU"),
    ],
)
def test_what_is_not_known_is_said(tmp_path: Path, config: dict[str, Any], why: str) -> None:
    """A cell that cannot be held against a device says why, and is not called possible."""
    found = _cell(tmp_path, config=config).plausibility
    assert found.violations == ()
    assert why in (found.unchecked or "")


@pytest.mark.parametrize("nonsense", [None, 7, "text", ["a", 1], {"a": [None]}])
def test_nonsense_in_a_cells_files_is_no_traceback(tmp_path: Path, nonsense: Any) -> None:
    """Whatever stands where the configuration is looked for, the cell is analysed."""
    names = ("device", "launcher", "plan")
    for number, name in enumerate(names):
        config = _config(**{name: nonsense})
        told = {"shares": [{"slot": "s0", "planned": nonsense, "engine": nonsense}, {}]}
        told["client"] = {"concurrency": nonsense, "loop_lag_ms": nonsense, "reasons": nonsense}
        cell = _cell(tmp_path / str(number), config=config, told=told)
        assert cell.tenants
        built = build(tmp_path / str(number) / "out", figures=False)
        assert built.report is not None


def test_a_device_and_a_model_can_be_assumed(tmp_path: Path) -> None:
    """What the folder does not say can be named, and is held against that."""
    config = _config(device={}, plan={})
    cell = _cell(tmp_path, config=config, assumed=Assumed("l4", "llama-3-70b"))
    assert {"first token", "memory"} <= _checks(cell)


_CPU = _config(
    device={"kind": "cpu", "name": "AMD EPYC"},
    plan={
        "slots": [
            {"name": "s0", "model": "qwen3-0.6b", "tenants": ["chat", "batch"], "cpu_set": [0, 1]}
        ]
    },
)


def test_cpus_are_held_against_what_no_cpu_can_do(tmp_path: Path) -> None:
    """Two cores have a ceiling whatever their make, and their bandwidth is not made up."""
    assert _checks(_cell(tmp_path / "a", config=_CPU)) == set()
    planted = _cell(tmp_path / "b", _long_prompts, config=_CPU)
    assert {"first token", "compute"} <= _checks(planted)
    assert "13 is the peak" in " ".join(map(str, planted.plausibility.violations))
    unchecked = planted.plausibility.unchecked
    assert unchecked == "of CPUs, the memory bandwidth is not told"


def test_the_bandwidth_of_a_cpu_can_be_named(tmp_path: Path) -> None:
    """With it, decoding is held against the weights that every step reads."""
    cell = _cell(tmp_path, config=_CPU, assumed=Assumed(bandwidth_gb_s=20.0))
    assert {"time per token", "memory bandwidth"} <= _checks(cell)
    assert cell.plausibility.unchecked is None


def test_summary_terminal_and_page_show_the_arithmetic(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever reads any of the three meets the impossible figure and why it is one."""
    _cell(tmp_path, _quick_tokens)
    built = build(tmp_path / "out", figures=False, html=True)
    show_analysis(built)
    assert built.report is not None
    printed, page = capsys.readouterr().out, built.report.read_text()
    summary = json.loads(built.summary_json.read_text())["cells"][0]
    assert "impossible" in summary["marks"]
    assert summary["plausibility"]["violations"][0]["check"] == "time per token"
    for text in (printed, page, built.summary_csv.read_text(), summary["impossible"][0]):
        assert "time per token: median 50.0 µs, 250 µs at least" in text
