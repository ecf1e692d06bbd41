"""One trace feeds several tenants, and everybody can tell whose a request is, and why."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairshare.errors import SpecError
from fairshare.spec.trace import SharedTrace
from fairshare.workload.assignment import assigner
from fairshare.workload.trace_rows import TraceRow
from fairshare.workload.traces import Part, check_trace, read_parts

HEADER = "Timestamp,Session ID,Model,Request tokens,Response tokens\n"
ROWS = [
    ("s1", "ChatGPT"),
    ("s2", "GPT-4"),
    ("s1", "GPT-4"),
    ("", "ChatGPT"),
    ("s3", "ChatGPT"),
    ("s2", "ChatGPT"),
]
BURSTGPT = HEADER + "".join(f"{k},{s},{m},{k + 1},1\n" for k, (s, m) in enumerate(ROWS))


def _parts(
    folder: Path, assign: dict[str, Any], tenants: str = "ab", text: str = BURSTGPT, **more: Any
) -> dict[str, Part]:
    (folder / "t").write_text(text)
    trace = SharedTrace.model_validate({"path": "t", "assign": assign, **more})
    return read_parts(trace, folder, tuple(tenants))


def _who(parts: dict[str, Part]) -> str:
    """The tenants in the order of their requests."""
    found = [(due.time_s, tenant) for tenant, part in parts.items() for due in part.due]
    return "".join(tenant for _, tenant in sorted(found))


def test_sessions_are_dealt_in_turn_and_stay_whole(tmp_path: Path) -> None:
    """The first session is the first tenant's, and so on; one without a session is its own."""
    assert _who(_parts(tmp_path, {"kind": "session"})) == "abaabb"


def test_a_column_maps_values_to_tenants(tmp_path: Path) -> None:
    """Each value that is named has its tenant, the others theirs."""
    by_model = {"kind": "column", "column": "Model", "tenants": {"GPT-4": "b"}, "others": "a"}
    assert _who(_parts(tmp_path, by_model)) == "abbaaa"
    named = {"kind": "column", "column": "Model", "tenants": {"GPT-4": "a", "ChatGPT": "b"}}
    assert _who(_parts(tmp_path, named)) == "baabbb"


def test_values_of_a_column_can_be_tenants_names_or_be_dealt(tmp_path: Path) -> None:
    """Without a mapping a value is a name; dealt, the first to appear is the first tenant's."""
    text = BURSTGPT.replace("ChatGPT", "b").replace("GPT-4", "a")
    assert _who(_parts(tmp_path, {"kind": "column", "column": "Model"}, text=text)) == "baabbb"
    dealt = {"kind": "column", "column": "Model", "dealt": True}
    assert _who(_parts(tmp_path, dealt)) == "abbaaa"


def test_a_value_that_is_nobodys_is_told_with_its_line(tmp_path: Path) -> None:
    """Nothing is silently left out or given away."""
    with pytest.raises(SpecError, match=r"t:2: 'ChatGPT' in Model is no tenant's.*a, b") as caught:
        _parts(tmp_path, {"kind": "column", "column": "Model"})
    assert "dealt: true" in (caught.value.hint or "")
    with pytest.raises(SpecError, match=r"t:1:1: the trace has no column Modell"):
        _parts(tmp_path, {"kind": "column", "column": "Modell"})


def test_a_file_maps_values_to_tenants(tmp_path: Path) -> None:
    """A CSV of value and tenant; values that it does not name are an error, or the others'."""
    (tmp_path / "m.csv").write_text("value,tenant\ns1,b\ns2, a\n\n")
    by_file = {"kind": "file", "path": "m.csv", "column": "Session ID"}
    assert _who(_parts(tmp_path, by_file | {"others": "a"})) == "babaaa"
    (tmp_path / "m.csv").write_text("value,tenant\ns1,a\ns2, b\n,b\n")
    assert _who(_parts(tmp_path, by_file | {"others": "a"})) == "ababab"
    (tmp_path / "m.csv").write_text("value,tenant\ns1,b\ns2, a\n\n")
    with pytest.raises(SpecError, match=r"t:5: '' in Session ID is no tenant's"):
        _parts(tmp_path, by_file)


@pytest.mark.parametrize(
    ("mapping", "complaint"),
    [
        ("s1,a\n", r"m.csv:1: the first line is 's1,a', not 'value,tenant'"),
        ("value,tenant\ns1\n", r"m.csv:2: the line is not a value and a tenant"),
        ("value,tenant\ns1,x\n", r"m.csv:2: no tenant that shares the trace is named 'x'"),
        ("value,tenant\ns1,a\ns1,b\n", r"m.csv:3: 's1' is given to two tenants"),
    ],
)
def test_a_wrong_mapping_file_is_told_with_its_line(
    tmp_path: Path, mapping: str, complaint: str
) -> None:
    """Each mistake has its place in the file."""
    (tmp_path / "m.csv").write_text(mapping)
    with pytest.raises(SpecError, match=complaint):
        _parts(tmp_path, {"kind": "file", "path": "m.csv", "column": "Session ID"})
    (tmp_path / "m.csv").unlink()
    with pytest.raises(SpecError, match="the mapping file does not exist"):
        _parts(tmp_path, {"kind": "file", "path": "m.csv", "column": "Session ID"})


def _mooncake(*blocks: list[int]) -> str:
    return "\n".join(
        orjson.dumps(
            {"timestamp": k, "input_length": 9, "output_length": 1, "hash_ids": ids}
        ).decode()
        for k, ids in enumerate(blocks)
    )


def test_prompts_that_begin_alike_belong_together(tmp_path: Path) -> None:
    """By the first two blocks, since all may begin with the same one, or as many as are asked."""
    text = _mooncake([0, 1], [0, 2], [5], [0, 1, 3], [])
    assert _who(_parts(tmp_path, {"kind": "hash-root"}, tenants="abc", text=text)) == "abcaa"
    shallow = {"kind": "hash-root", "depth": 1}
    assert _who(_parts(tmp_path, shallow, text=text)) == "aabaa"


@pytest.mark.parametrize(
    ("assign", "tenants", "fine"),
    [
        ({"kind": "hash-root", "depth": 1}, "ab", False),
        ({"kind": "hash-root"}, "ab", True),
        ({"kind": "hash-root"}, "abcd", False),
        ({"kind": "zipf"}, "abcdefgh", True),
    ],
)
def test_a_tenant_for_whom_there_is_nothing_is_a_mistake(
    tmp_path: Path, assign: dict[str, Any], tenants: str, fine: bool
) -> None:
    """It is known before the load starts, unless chance decides."""
    (tmp_path / "t").write_text(_mooncake([0, 1], [0, 2], [0, 1, 3]))
    trace = SharedTrace.model_validate({"path": "t", "assign": assign})
    if fine:
        check_trace(trace, tmp_path, tuple(tenants))
        return
    with pytest.raises(SpecError, match=r"nothing of what is played of the trace is for [bc]"):
        check_trace(trace, tmp_path, tuple(tenants))


@pytest.mark.parametrize(
    ("kind", "text", "lacking"),
    [("session", _mooncake([1]), "sessions"), ("hash-root", BURSTGPT, "hash_ids")],
)
def test_what_a_format_lacks_cannot_assign(
    tmp_path: Path, kind: str, text: str, lacking: str
) -> None:
    """It is said which is lacking, instead of dealing requests one by one."""
    with pytest.raises(SpecError, match=f"has no {lacking} to assign requests by"):
        _parts(tmp_path, {"kind": kind}, text=text)


def test_sessions_need_their_column(tmp_path: Path) -> None:
    """An older BurstGPT file has none."""
    text = "Timestamp,Request tokens,Response tokens\n1,2,3\n"
    with pytest.raises(SpecError, match="no column Session ID"):
        _parts(tmp_path, {"kind": "session"}, text=text)


def _zipf_counts(exponent: float, seed: int, rows: int = 20_000) -> list[int]:
    assign = {"kind": "zipf", "exponent": exponent, "seed": seed}
    trace = SharedTrace.model_validate({"path": "t", "assign": assign})
    tenant_of = assigner(trace, "abcd", Path())
    who = [tenant_of(TraceRow(k, 1, 1, k)) for k in range(rows)]
    return [who.count(tenant) for tenant in "abcd"]


@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.0])
def test_zipf_gives_each_rank_its_part(exponent: float) -> None:
    """The k-th tenant gets 1 / k**exponent of what the first one gets, within 10 percent."""
    counts = _zipf_counts(exponent, seed=3)
    weights = [k**-exponent for k in range(1, 5)]
    for count, weight in zip(counts, weights, strict=True):
        assert count == pytest.approx(20_000 * weight / sum(weights), rel=0.1)


def test_zipf_is_the_same_for_a_seed_and_another_for_another() -> None:
    """The seed stands in the scenario, and is all that decides."""
    assert _zipf_counts(1, seed=3) == _zipf_counts(1, seed=3) != _zipf_counts(1, seed=4)


def test_zipf_leaves_sessions_and_interactions_whole(tmp_path: Path) -> None:
    """A session is drawn once."""
    text = HEADER + "".join(f"{k},s{k % 40},m,1,1\n" for k in range(400))
    parts = _parts(tmp_path, {"kind": "zipf"}, text=text)
    sessions = [{due.row.session for due in part.due} for part in parts.values()]
    assert all(sessions)
    assert not sessions[0] & sessions[1]


@given(
    st.lists(st.tuples(st.sampled_from(["", "s1", "s2", "s3", "s4"]), st.integers(0, 9))),
    st.sampled_from([{"kind": "session"}, {"kind": "zipf"}, {"kind": "hash-root"}]),
)
def test_every_request_is_exactly_one_tenants(
    rows: list[tuple[str, int]], assign: dict[str, Any]
) -> None:
    """Nothing is lost or doubled, and a longer trace begins as the shorter one."""
    trace = SharedTrace.model_validate({"path": "t", "assign": assign})

    def who(count: int) -> list[str]:
        tenant_of = assigner(trace, "abc", Path())
        return [
            tenant_of(TraceRow(k, 1, 1, k, session=session or None, hash_ids=(block,)))
            for k, (session, block) in enumerate(rows[:count])
        ]

    whole = who(len(rows))
    assert set(whole) <= set("abc")
    assert who(len(rows) // 2) == whole[: len(rows) // 2]
    if assign["kind"] == "session":
        by_session = {(session, tenant) for (session, _), tenant in zip(rows, whole, strict=True)}
        named = [session for session, _ in by_session if session]
        assert len(named) == len(set(named))


def test_parts_together_are_the_trace(tmp_path: Path) -> None:
    """Times and rows of all tenants' parts are those of the trace that one tenant would have."""
    parts = _parts(tmp_path, {"kind": "zipf"}, tenants="abcdefg")
    merged = sorted(chain.from_iterable(part.due for part in parts.values()), key=_time)
    whole = _parts(tmp_path, {"kind": "zipf"}, tenants="a")["a"]
    assert merged == list(whole.due)


def _time(due: Any) -> float:
    return float(due.time_s)
