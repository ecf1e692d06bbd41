"""Every trace format is read as what it says, and its mistakes are told with their place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from fairshare.errors import SpecError
from fairshare.records import Phase, RequestRecord
from fairshare.spec.trace import Trace
from fairshare.workload.traces import Part, check_trace, read_trace

SHARED = Path(__file__).parents[3] / "shared" / "data"

BURSTGPT = """Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total,Log Type
4,,2.0,ChatGPT,300,20,320,API log
44.5,s1,1.0,GPT-4,10,0,10,Conversation log
117,s1,9.1,GPT-4,900,200,1100,Conversation log
"""
FAIRSERVE = """PromptTokens,DecodeTokens,UserID,TIMESTAMP,app,calls,made,interaction_id,ArrivalTime
300,40,u1,2024-01-01 00:00:00,copilot,2,1,7,0.0
100,10,u2,2024-01-01 00:00:01,search,1,1,7,0.25
310,50,u1,2024-01-01 00:00:02,copilot,2,2,7,1.5
"""
MOONCAKE = b"""{"timestamp": 1000, "input_length": 900, "output_length": 50, "hash_ids": [6, 7]}
{"timestamp": 4053, "input_length": 800, "output_length": 20, "hash_ids": [6, 2]}
"""


def _read(folder: Path, text: str | bytes, name: str = "trace", **changes: Any) -> Part:
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    trace = Trace.model_validate({"path": name, **changes})
    part = read_trace(trace, folder)
    check_trace(trace, folder)
    return part


def _lengths(part: Part) -> list[tuple[float, int, int]]:
    return [(due.time_s, due.row.prompt_tokens, due.row.output_tokens) for due in part.due]


def test_burstgpt_is_read_with_its_sessions_and_failures_are_counted(tmp_path: Path) -> None:
    """Times count from the first row; a response of 0 tokens is a failure, which is left out."""
    part = _read(tmp_path, BURSTGPT)
    assert _lengths(part) == [(0, 300, 20), (113, 900, 200)]
    assert [due.row.session for due in part.due] == [None, "s1"]
    assert part.left_out == 1


def test_burstgpt_without_sessions_is_read_too(tmp_path: Path) -> None:
    """The first releases lack two columns."""
    header = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
    assert _lengths(_read(tmp_path, header + "5,GPT-4,4,3,7,API log\n")) == [(0, 4, 3)]


def test_fairserve_is_read_with_users_apps_and_interactions(tmp_path: Path) -> None:
    """ArrivalTime goes before TIMESTAMP; interactions of two users with one number stay apart."""
    part = _read(tmp_path, FAIRSERVE)
    assert _lengths(part) == [(0, 300, 40), (0.25, 100, 10), (1.5, 310, 50)]
    assert [due.row.session for due in part.due] == ["u1", "u2", "u1"]
    assert [due.row.app for due in part.due] == ["copilot", "search", "copilot"]
    assert [due.row.interaction for due in part.due] == ["u1/7", "u2/7", "u1/7"]


def test_fairserve_without_arrival_times_has_timestamps(tmp_path: Path) -> None:
    """Files of the same kind without ArrivalTime are played by TIMESTAMP."""
    text = "PromptTokens,DecodeTokens,TIMESTAMP\n3,4,2024-01-01 10:00:00\n5,6,2024-01-01 10:00:02\n"
    assert _lengths(_read(tmp_path, text)) == [(0, 3, 4), (2, 5, 6)]


def test_mooncake_is_read_with_its_blocks(tmp_path: Path) -> None:
    """Time stamps are milliseconds; hash_ids are kept."""
    part = _read(tmp_path, MOONCAKE)
    assert _lengths(part) == [(0, 900, 50), (3.053, 800, 20)]
    assert [due.row.hash_ids for due in part.due] == [(6, 7), (6, 2)]


def test_our_own_records_can_be_replayed(tmp_path: Path) -> None:
    """Sorted by intended time; failures are left out and counted, drained ones passed by."""
    records = [
        _record("b", 2_000_000_000, prompt_tokens=7, output_tokens=8, interaction="i", app="x"),
        _record("a", 1_000_000_000, prompt_tokens=5, output_tokens=6),
        _record("c", 2_500_000_000),
        _record("d", 3_000_000_000, phase=Phase.DRAIN),
    ]
    part = _read(tmp_path, b"\n".join(record.to_json() for record in records))
    assert _lengths(part) == [(0, 5, 6), (1, 7, 8)]
    assert (part.due[1].row.interaction, part.due[1].row.app) == ("i", "x")
    assert part.left_out == 1


def _record(name: str, intended_ns: int, **fields: Any) -> RequestRecord:
    return RequestRecord(
        **{"id": name, "tenant": "t", "server": "s", "phase": Phase.MEASURE}
        | {"intended_ns": intended_ns}
        | fields
    )


def test_results_of_the_vtc_artifact_can_be_replayed(tmp_path: Path) -> None:
    """Responses are requests in order of req_time; adapter_dir is the client."""
    keys = ("adapter_dir", "prompt_len", "output_len", "req_time")
    rows = [("b", 4, 5, 1.5), ("a", 2, 3, 0.5)]
    responses = [dict(zip(keys, row, strict=True)) for row in rows]
    part = _read(tmp_path, orjson.dumps({"config": {}, "result": {"responses": responses}}))
    assert _lengths(part) == [(0, 2, 3), (1, 4, 5)]
    assert [due.row.session for due in part.due] == ["a", "b"]


def test_any_csv_can_be_read_with_its_columns_named(tmp_path: Path) -> None:
    """Names, order and quotes are the file's own."""
    columns = {"time": "t", "prompt_tokens": "in", "output_tokens": "out", "session": "who"}
    text = 'who,"t",out,in\n"Doe, J.",10,2,3\nx,10.5,4.0,5\n'
    part = _read(tmp_path, text, format="csv", columns=columns)
    assert _lengths(part) == [(0, 3, 2), (0.5, 5, 4)]
    assert [due.row.session for due in part.due] == ["Doe, J.", "x"]


def test_a_part_of_a_trace_is_played(tmp_path: Path) -> None:
    """From start_s on, for duration_s of the trace's own time, whatever the speed."""
    header = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
    text = header + "".join(f"{time},{time},1\n" for time in range(100, 200))
    trace: dict[str, Any] = {"start_s": 10, "duration_s": "20s"}
    part = _read(tmp_path, text, **trace)
    assert _lengths(part) == [(float(k), 110 + k, 1) for k in range(20)]
    assert part.ended
    spec = Trace.model_validate({"path": "trace", **trace})
    fast = read_trace(spec, tmp_path, speed=4.0, horizon_s=2.0)
    assert _lengths(fast) == [(k / 4, 110 + k, 1) for k in range(8)]
    assert not fast.ended


def test_a_file_that_changes_is_read_again(tmp_path: Path) -> None:
    """What was read before is kept for other tenants, not for another file."""
    header = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
    assert len(_read(tmp_path, header + "1,2,3\n").due) == 1
    assert len(_read(tmp_path, header + "1,2,3\n2,2,3\n").due) == 2


@pytest.mark.parametrize(
    ("text", "changes", "complaint"),
    [
        ("a,b,c\n1,2,3\n", {}, r"trace:1:1: .*no known format"),
        ('{"prompt": "x"}\n', {}, r"trace:1:1: .*no known format"),
        ("{", {}, r"trace:1:1: .*no known format"),
        (BURSTGPT, {"format": "azure"}, r"trace:1:1: .*no column TIMESTAMP"),
        (BURSTGPT.replace("117", "44"), {}, r"trace:4:1: the time lies before"),
        (BURSTGPT.replace("117", "nan"), {}, r"trace:4:1: 'nan' is not a time"),
        (BURSTGPT.replace("900", "-1"), {}, r"trace:4:\d+: '-1' is not a number of tokens"),
        (BURSTGPT, {"start_s": 200}, r"trace: the trace holds no requests from 200 s on"),
        (MOONCAKE.replace(b"4053", b'"x"'), {}, r"trace:2: timestamp is 'x', not a time"),
        (MOONCAKE.replace(b"800", b"1.5"), {}, r"trace:2: input_length is 1.5, not a number of"),
        (MOONCAKE.replace(b"[6, 2]", b"[6, -2]"), {}, r"trace:2: hash_ids is not a list"),
        (MOONCAKE + b"{\n", {}, r"trace:3:\d+: not valid JSON"),
        (MOONCAKE + b"[]\n", {}, r"trace:3: the line is not a JSON object"),
        ('{"result": {}}', {}, r"trace:1: the line has no list result.responses"),
        ('{"result": {"responses": [3]}}', {}, r"trace:1: a response is not an object"),
        (
            "t,i,o\n1,2,3\n",
            {"format": "csv", "columns": {"time": "t", "prompt_tokens": "i", "output_tokens": "x"}},
            r"trace:1:1: the trace has no column x",
        ),
        (
            't,"i",o\n"1","-2",3\n',
            {"format": "csv", "columns": {"time": "t", "prompt_tokens": "i", "output_tokens": "o"}},
            r"trace:2: '-2' is not a number of tokens",
        ),
    ],
)
def test_mistakes_are_told_with_their_place(
    tmp_path: Path, text: str | bytes, changes: dict[str, Any], complaint: str
) -> None:
    """Each ends in one message with file and line, and never in a traceback."""
    with pytest.raises(SpecError, match=complaint):
        _read(tmp_path, text, **changes)


def test_published_results_of_vtc_are_read_whole() -> None:
    """The real workload of the artifact: 1,500 requests of 27 clients in ten minutes."""
    if not (SHARED / "vtc").is_dir():
        pytest.skip("the results of the VTC artifact are not here (../shared/data/vtc)")
    part = read_trace(Trace(path="VTC_all_results_real.jsonl"), SHARED / "vtc")
    assert len(part.due) == 1500
    assert len({due.row.session for due in part.due}) == 27
    assert part.due[-1].time_s == 600
