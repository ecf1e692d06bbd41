"""Results of other tools become result folders that say where they come from."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from fairshare.cli.exchange import import_command
from fairshare.errors import ResultsError
from fairshare.records import ErrorKind, Mark, Provenance, RequestRecord
from fairshare.results import ResultStore, StoredCell
from fairshare.results.exchange import ForeignFormat, ImportedCell, Said, import_results

VTC, VLLM, FAIRSERVE = ForeignFormat
S = 1_000_000_000


def response(tenant: str, sent: float, first: float, whole: float, **more: Any) -> dict[str, Any]:
    """One response of the VTC artifact's file."""
    return {
        "adapter_dir": tenant, "prompt_len": 8, "output_len": 16, "request_latency": whole,
        "first_token_latency": first, "req_time": sent, **more,
    }  # fmt: skip


def vtc_line(*responses: dict[str, Any], total_s: float = 700.0) -> str:
    """A line of the VTC artifact's file."""
    result = {"total_time": total_s, "responses": list(responses)}
    return json.dumps({"config": {"duration": 600, "mode": "uniform"}, "result": result}) + "\n"


TWO = (response("a-10", 0.5, 1.0, 3.0), response("a-9", 1.0, -1, -1))
BENCH = {
    "model_id": "org/model", "duration": 9.0, "request_rate": 2.0, "input_lens": [5, 6, 7],
    "output_lens": [3, 1, 0], "ttfts": [0.5, 0.25, 0.0], "itls": [[0.1, 0.2], [], []],
    "errors": ["", "", "Traceback\nTimeoutError: too slow"], "start_times": [100.0, 102.0, 104.0],
}  # fmt: skip


def bring(folder: Path, text: str | bytes, form: ForeignFormat, **said: Any) -> list[ImportedCell]:
    """Import a file of this text."""
    path = folder / said.pop("name", "VTC_all_results_overload.jsonl")
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return import_results([path], form, folder / "out", Said(**said))


def only_cell(folder: Path) -> tuple[StoredCell, list[RequestRecord]]:
    """The one cell that was brought in, and its records by id."""
    (cell,) = ResultStore.open(folder / "out").cells()
    return cell, sorted(cell.records(), key=lambda record: int(record.id))


def test_results_of_the_vtc_artifact(tmp_path: Path) -> None:
    """Times, counts and the aborted request arrive; name and folder tell suite and scheduler."""
    (told,) = bring(tmp_path, vtc_line(*TWO), VTC)
    cell, (answered, aborted) = only_cell(tmp_path)
    key = cell.result.key
    assert (key.scenario, key.policy, key.scheduling) == ("overload", "vtc", "engine")
    assert cell.result.window_ns == (0, 600 * S)
    assert cell.result.end_ns == 700 * S
    assert (answered.intended_ns, answered.first_token_ns, answered.end_ns) == (
        S // 2, 3 * S // 2, 7 * S // 2,
    )  # fmt: skip
    assert (answered.prompt_tokens, answered.output_tokens) == (8, 16)
    assert (aborted.error, aborted.end_ns, aborted.prompt_tokens) == (ErrorKind.ABORTED, S, None)
    assert (told.requests, told.failures, told.tenants) == (2, 1, ("a-9", "a-10"))


def test_they_are_never_taken_for_ours(tmp_path: Path) -> None:
    """Provenance, mark, label and note say that others measured them, and which file it was."""
    bring(tmp_path, vtc_line(*TWO), VTC)
    result = only_cell(tmp_path)[0].result
    assert result.provenance is Provenance.IMPORTED
    assert result.marks == [Mark.FOREIGN]
    assert result.label == "logical-imported"
    assert result.notes == ["imported from VTC_all_results_overload.jsonl"]
    (source,) = ResultStore.open(tmp_path / "out").matrix["provenance"]["imported"]
    assert source["format"] == "vtc-artifact"
    assert len(source["sha256"]) == 64
    assert source["duration"] == 600


@pytest.mark.parametrize(
    ("name", "scenario", "policy"),
    [
        ("FCFS/all_results_on_off_less.jsonl", "on_off_less", "fcfs"),
        ("VTC_oracle/all_results_real.jsonl", "real", "vtc_oracle"),
        ("LShare/rpm20/all_results_real.jsonl", "real", "rpm20"),
        ("WVTC_all_results_overload-weighted.jsonl", "overload-weighted", "wvtc"),
        ("downloads/all_results_real.jsonl", "real", "unknown"),
        ("mine.jsonl", "mine", "unknown"),
    ],
)
def test_names_tell_suite_and_scheduler(
    tmp_path: Path, name: str, scenario: str, policy: str
) -> None:
    """The file itself does not say; where its name does not either, that is said."""
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    bring(tmp_path, vtc_line(*TWO), VTC, name=name)
    key = only_cell(tmp_path)[0].result.key
    assert (key.scenario, key.policy) == (scenario, policy)


def test_what_the_user_says_counts(tmp_path: Path) -> None:
    """Weights go by the numbers in the tenants' names; window, names and capacity are taken."""
    bring(
        tmp_path, vtc_line(*TWO), VTC, scenario="s", policies=["p"], weights=[3.0],
        window_s=(60.0, 330.0), kv_tokens=10_000,
    )  # fmt: skip
    result = only_cell(tmp_path)[0].result
    assert (result.key.scenario, result.key.policy) == ("s", "p")
    assert [(t["name"], t["weight"]) for t in result.tenants] == [("a-9", 3.0), ("a-10", 1.0)]
    assert result.window_ns == (60 * S, 330 * S)
    assert result.shares[0]["kv_cache_tokens"] == 10_000


def test_several_lines_are_repetitions(tmp_path: Path) -> None:
    """Two runs of the same suite and scheduler are two cells that are averaged over."""
    cells = bring(tmp_path, vtc_line(*TWO) + "\n" + vtc_line(*TWO, total_s=800), VTC)
    stored = ResultStore.open(tmp_path / "out").cells()
    assert len({cell.id for cell in cells}) == 2
    assert sorted(cell.result.key.repetition for cell in stored) == [1, 2]


def test_results_of_vllm_bench(tmp_path: Path) -> None:
    """Chunks are timed by the gaps, failures keep their reason, and the model is the tenant."""
    bring(tmp_path, json.dumps(BENCH), VLLM, name="bench.json")
    cell, (first, second, third) = only_cell(tmp_path)
    assert (cell.result.key.policy, cell.result.key.scheduling) == ("fcfs", None)
    assert cell.result.window_ns == (0, 9 * S)
    assert [t["name"] for t in cell.result.tenants] == ["org/model"]
    assert first.chunk_ns == [500_000_000, 600_000_000, 800_000_000]
    assert (first.end_ns, first.output_tokens, first.chunk_tokens) == (800_000_000, 3, [1, 1, 1])
    assert (second.sent_ns, second.first_token_ns, second.end_ns) == (
        2 * S, 2 * S + 250_000_000, 2 * S + 250_000_000,
    )  # fmt: skip
    assert (third.error, third.error_text) == (ErrorKind.TIMEOUT, "TimeoutError: too slow")


def test_without_start_times_that_is_said(tmp_path: Path) -> None:
    """Older versions do not tell when requests were sent: their totals hold, times do not."""
    content = {name: value for name, value in BENCH.items() if name != "start_times"}
    bring(tmp_path, json.dumps(content), VLLM, name="bench.json")
    cell, records = only_cell(tmp_path)
    assert {record.sent_ns for record in records} == {0}
    assert any("no start times" in note for note in cell.result.notes)


CALLS = [
    {"interaction_id": 7, "req_id": 1, "request_start_time": 1000.0, "request_end_time": 1003.0,
     "req_time": 0.0, "adapter_dir": "u1", "prompt_len": 20, "output_len": 5, "sys_len": 4,
     "app": 2, "input99app": 9, "sys99app": 1, "output99app": 3, "priorityfactor": 1,
     "app_limit": 100, "request_latency": 3.0, "first_token_latency": 1.0, "llmcalls": 2,
     "llmcalls_made": 1},
    {"interaction_id": 7, "req_id": 2, "request_start_time": 1004.5, "request_end_time": 1006.0,
     "req_time": 4.0, "adapter_dir": "u1", "prompt_len": 30, "output_len": 6, "sys_len": 4,
     "app": 2, "input99app": 9, "sys99app": 1, "output99app": 3, "priorityfactor": 1,
     "app_limit": 100, "request_latency": -1.0, "first_token_latency": -1.0, "llmcalls": 2,
     "llmcalls_made": 2},
]  # fmt: skip


def _as_json() -> str:
    timeless = [{n: v for n, v in c.items() if "_time" not in n or n == "req_time"} for c in CALLS]
    return json.dumps({"config": {}, "result": {"total_time": 6.0, "responses": timeless}})


def _as_csv() -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, CALLS[0])
    writer.writeheader()
    writer.writerows(CALLS)
    return text.getvalue()


def _as_lines() -> str:
    printed = [
        " ".join(f"{n} {v}{' s,' if 'latency' in n else ''}" for n, v in c.items()) for c in CALLS
    ]
    return "Namespace(server=...)\n" + "\n".join(printed) + "\nTotal time: 6.00 s\n"


def _as_values() -> str:
    return "".join(", ".join(str(v) for v in c.values()) + "\n" for c in CALLS)


@pytest.mark.parametrize("form", [_as_json, _as_csv, _as_lines, _as_values])
def test_results_of_fairserve(tmp_path: Path, form: Any) -> None:
    """Whatever way its calls are written down, interactions, apps and the abort arrive."""
    bring(tmp_path, form(), FAIRSERVE, name="trace.csv___fs_fair___50___2000___avg.jsonl")
    cell, (first, second) = only_cell(tmp_path)
    assert (cell.result.key.scenario, cell.result.key.policy) == ("trace", "fs_fair-50")
    assert (first.interaction, first.call, first.calls, first.app) == ("7", 1, 2, "2")
    assert (first.prompt_tokens, first.output_tokens, first.end_ns) == (20, 5, 3 * S)
    assert (second.call, second.error) == (2, ErrorKind.ABORTED)
    assert second.intended_ns == 4 * S
    timed = form is not _as_json
    assert second.sent_ns == (4 * S + S // 2 if timed else 4 * S)
    assert second.end_ns == (6 * S if timed else 4 * S)


PICKLE = b"\x80\x04\x95\x10\x00\x00\x00cos\nsystem\n"


@pytest.mark.parametrize(
    ("form", "text", "complaint"),
    [
        (VTC, "", r": the file is empty"),
        (VTC, '{"config": {}\n', r":1:\d+: not valid JSON"),
        (VTC, vtc_line(*TWO) + "[1]\n", r":2: not a JSON object"),
        (VTC, b"\xff\xfe\n", r":1:\d+: not valid JSON"),
        (VTC, PICKLE, r"a pickle, and loading one can run any code"),
        (VTC, '{"result": {"responses": 3}}', r":1: the line has no list result\.responses"),
        (VTC, '{"result": {"responses": []}}', r":1: result\.responses is empty"),
        (VTC, '{"result": {"responses": [4]}}', r":1: response 0 is not an object"),
        (VTC, vtc_line(response("", 0, 1, 2)), r"response 0: adapter_dir is '', not a text"),
        (VTC, vtc_line(response("a", -3, 1, 2)), r"response 0: req_time is -3, not"),
        (VTC, vtc_line(response("a", 0, 3, 2)), r"first_token_latency 3 is above request_latency"),
        (VTC, vtc_line(response("a", 0, -7, 2)), r"first_token_latency is -7, not a number of se"),
        (VTC, vtc_line(response("a", 0, 1, 2, prompt_len=1.5)), r"prompt_len is 1\.5, not a numb"),
        (VTC, vtc_line(response("a", 0, 1, 2, output_len=None)), r"output_len is missing, not a"),
        (VTC, vtc_line(response("a", 1e300, 1, 2)), r"req_time is 1e\+300, not a number of seco"),
        (VLLM, json.dumps({"duration": 3}), r":1: the file has no figures of single requests"),
        (VLLM, json.dumps({**BENCH, "ttfts": [1]}), r"are not lists of equal length"),
        (VLLM, json.dumps({**BENCH, "itls": [[-1], [], []]}), r"request 0: itls is -1, not a nu"),
        (VLLM, json.dumps({**BENCH, "errors": [3, "", ""]}), r"request 0: errors is 3, not a te"),
        (VLLM, json.dumps({**BENCH, "start_times": ["x", 1, 2]}), r"start_times is 'x', not"),
        (FAIRSERVE, "hello\nworld\n", r"there is no line of results"),
        (FAIRSERVE, "adapter_dir u1 prompt_len 3\n", r":1: req_time is missing"),
        (FAIRSERVE, _as_csv() + "1,2\n", r":4: 2 columns, and the header has 19"),
    ],
)
def test_broken_files_are_told_with_their_place(
    tmp_path: Path, form: ForeignFormat, text: str | bytes, complaint: str
) -> None:
    """Each ends in one message with file and line, and leaves no result folder behind."""
    with pytest.raises(ResultsError, match=complaint):
        bring(tmp_path, text, form, name="file")
    assert not (tmp_path / "out").exists()


def test_what_does_not_fit_the_files_is_refused(tmp_path: Path) -> None:
    """A policy or weight too many, a window past the run's end, a folder that holds results."""
    with pytest.raises(ResultsError, match="was given 2 times for 1 file"):
        bring(tmp_path, vtc_line(*TWO), VTC, policies=["a", "b"])
    with pytest.raises(ResultsError, match="ends at 950 s, and the run at 700 s"):
        bring(tmp_path, vtc_line(*TWO), VTC, window_s=(100.0, 950.0))
    with pytest.raises(ResultsError, match="3 weights for 2 tenants"):
        bring(tmp_path, vtc_line(*TWO), VTC, weights=[1.0, 2.0, 3.0])
    bring(tmp_path, vtc_line(*TWO), VTC)
    with pytest.raises(ResultsError, match="holds the results of an earlier run"):
        bring(tmp_path, vtc_line(*TWO), VTC)


def test_the_command_says_what_came_in(tmp_path: Path) -> None:
    """Requests, failures and tenants of each run, and the command that shows them."""
    path = tmp_path / "VTC_all_results_overload.jsonl"
    path.write_text(vtc_line(*TWO))
    words = ["--format", "vtc-artifact", str(path), "--output-dir", str(tmp_path / "out")]
    done = CliRunner().invoke(import_command, words)
    assert done.exit_code == 0
    assert "logical-imported + vtc (engine): 2 requests of 2 tenants, 1 of them failed" in (
        done.output
    )
    assert f"fairshare report {tmp_path / 'out'}" in done.output


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--window", "9-3"], "--window must end after it begins"),
        (["--window", "3"], "'3' is not like 60-330"),
        (["--weights", "1,x"], "'1,x' is not like 1,2,3,4"),
        (["--weights", "1,0"], "--weights must be above 0"),
        (["--kv-tokens", "0"], "0 is not in the range"),
    ],
)
def test_mistaken_options_are_refused(tmp_path: Path, words: list[str], complaint: str) -> None:
    """Each with a sentence, before anything is read."""
    done = CliRunner().invoke(import_command, ["--format", "vtc-artifact", "absent", *words])
    assert done.exit_code == 2
    assert complaint in done.output
