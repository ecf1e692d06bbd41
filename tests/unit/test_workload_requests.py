"""A tenant's requests are planned alike whenever, wherever and beside whomever they are planned."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import orjson
import pytest
from pydantic import ValidationError

from fairshare.errors import SpecError
from fairshare.spec.scenario import Tenant
from fairshare.workload.contents import Adjustments
from fairshare.workload.prompts import Vocabulary
from fairshare.workload.requests import PlannedRequest, check_sources, planned_requests

VOCABULARY = Vocabulary(500, frozenset({0}))


class _Words:
    """A tokenizer with one token a word, words being ``w0`` to ``w499``."""

    special_ids: frozenset[int] = frozenset()

    def encode(self, text: str) -> list[int]:
        return [hash(word) % 500 for word in text.split()]

    def decode(self, ids: Sequence[int]) -> str:
        letters = "abcdefghij"
        return " ".join("w" + "".join(letters[int(digit)] for digit in str(i)) for i in ids)


COUNTING = Vocabulary(500, frozenset(), _Words())


def _tenant(**changes: Any) -> Tenant:
    raw: dict[str, Any] = {
        "name": "a",
        "prompts": {"kind": "synthetic", "tokens": {"kind": "uniform", "min": 20, "max": 60}},
        "output": {"kind": "uniform", "min": 5, "max": 50},
    }
    raw.update(changes)
    return Tenant.model_validate({k: v for k, v in raw.items() if v is not None})


def _plan(tenant: Tenant, n: int | None = None, **changes: Any) -> list[PlannedRequest]:
    arguments: dict[str, Any] = {
        "cell_seed": 1,
        "horizon_s": 20.0,
        "window_start_s": 2.0,
        "window_s": 18.0,
        "load_scale": 1.0,
        "vocabulary": VOCABULARY,
        "base_dir": Path(),
    }
    return list(islice(planned_requests(tenant, **(arguments | changes)), n))


POISSON = {"kind": "poisson", "rate_per_s": 20}


def test_requests_are_numbered_and_exact() -> None:
    """Ids count up; every prompt has the length that is told, within what was asked."""
    planned = _plan(_tenant(), 300)
    assert [request.id for request in planned[:2]] == ["a-000000", "a-000001"]
    for request in planned:
        assert request.prompt_text is None
        assert request.prompt_ids is not None
        assert len(request.prompt_ids) == request.prompt_tokens
        assert 20 <= request.prompt_tokens <= 60
        assert 5 <= request.max_tokens <= 50
    assert len({tuple(request.prompt_ids[:16]) for request in planned if request.prompt_ids}) == 300


def test_a_closed_loop_has_no_times_and_no_end() -> None:
    """In closed loop the server's answers say when the next is sent."""
    planned = _plan(_tenant(), 1000)
    assert len(planned) == 1000
    assert {request.intended_ns for request in planned} == {None}


def test_an_open_loop_has_rising_times_and_ends_at_the_horizon() -> None:
    """Every request has its intended time; none lies at or past the horizon."""
    times = [request.intended_ns for request in _plan(_tenant(arrival=POISSON))]
    assert None not in times
    assert times == sorted(times, key=lambda t: t or 0)
    assert max(t or 0 for t in times) < 20 * 10**9
    assert len(times) == pytest.approx(400, rel=0.2)


def test_load_scale_multiplies_the_rate_and_leaves_the_contents() -> None:
    """A higher load sends the same requests sooner."""
    tenant = _tenant(arrival=POISSON)
    once, twice = _plan(tenant), _plan(tenant, load_scale=2.0)
    assert len(twice) == pytest.approx(2 * len(once), rel=0.1)
    assert [r.prompt_ids for r in twice[: len(once)]] == [r.prompt_ids for r in once]


def test_the_kth_request_does_not_depend_on_how_many_are_drawn() -> None:
    """A longer plan begins with the shorter one, across block borders too."""
    assert _plan(_tenant(), 700)[:300] == _plan(_tenant(), 300)


def test_seed_and_name_alone_make_the_difference() -> None:
    """Another seed or another tenant has other prompts; the rest of a tenant's spec does not."""
    base = [request.prompt_ids for request in _plan(_tenant(), 5)]
    assert [r.prompt_ids for r in _plan(_tenant(weight=3.0, arrival=POISSON), 5)] == base
    assert [r.prompt_ids for r in _plan(_tenant(), 5, cell_seed=2)] != base
    assert [r.prompt_ids for r in _plan(_tenant(name="b"), 5)] != base


_OTHER_PROCESS = """
import orjson, sys
from tests.unit import test_workload_requests as t
plan = t._plan(t._tenant(arrival=t.POISSON), 40)
sys.stdout.buffer.write(orjson.dumps(plan))
"""


def test_another_process_plans_the_same() -> None:
    """Nothing depends on hash seeds, memory addresses or the process."""
    root = Path(__file__).parents[2]
    answer = subprocess.run(
        [sys.executable, "-c", _OTHER_PROCESS],
        cwd=root,
        env={"PYTHONHASHSEED": "77", "PYTHONPATH": str(root)},
        capture_output=True,
        check=True,
    )
    assert orjson.loads(answer.stdout) == orjson.loads(
        orjson.dumps(_plan(_tenant(arrival=POISSON), 40))
    )


def test_prompts_as_text_have_the_lengths_of_prompts_as_ids() -> None:
    """The protocol decides the form of a prompt, not its length, time or output."""
    tenant = _tenant(arrival=POISSON)
    ids = _plan(tenant, 50)
    texts = _plan(tenant, 50, vocabulary=COUNTING, as_text=True)
    for by_id, by_text in zip(ids, texts, strict=True):
        assert by_text.prompt_ids is None
        assert by_text.prompt_text is not None
        assert COUNTING.count(by_text.prompt_text) == by_text.prompt_tokens == by_id.prompt_tokens
        assert (by_text.max_tokens, by_text.intended_ns) == (by_id.max_tokens, by_id.intended_ns)


@pytest.mark.parametrize(
    ("prompt", "output", "fitted"),
    [(40, 60, (40, 60)), (90, 20, (80, 20)), (20, 900, (20, 80)), (900, 900, (50, 50))],
)
def test_what_does_not_fit_is_shortened_and_counted(
    prompt: int, output: int, fitted: tuple[int, int]
) -> None:
    """The longer part gives way, the sum never exceeds the maximum, and nothing is silent."""
    tenant = _tenant(
        prompts={"kind": "synthetic", "tokens": {"kind": "fixed", "tokens": prompt}},
        output={"kind": "fixed", "tokens": output},
    )
    adjustments = Adjustments()
    planned = _plan(tenant, 10, max_total_tokens=100, adjustments=adjustments)
    assert {(r.prompt_tokens, r.max_tokens) for r in planned} == {fitted}
    assert {len(r.prompt_ids or ()) for r in planned} == {fitted[0]}
    assert adjustments.clipped == (0 if fitted == (prompt, output) else 10)


def test_no_room_at_all_is_the_callers_mistake() -> None:
    """A maximum in which no prompt and output fit is refused."""
    with pytest.raises(ValueError, match="no room"):
        _plan(_tenant(), 1, max_total_tokens=1)


def test_text_that_cannot_be_made_is_known_before_the_load_starts() -> None:
    """The complaint comes from planning, not from the first request sent."""
    with pytest.raises(SpecError, match="tokenizer"):
        planned_requests(
            _tenant(),
            cell_seed=1,
            horizon_s=1,
            window_start_s=0,
            window_s=1,
            load_scale=1,
            vocabulary=VOCABULARY,
            base_dir=Path(),
            as_text=True,
        )


def _jsonl(folder: Path, *lines: dict[str, Any]) -> dict[str, Any]:
    (folder / "p.jsonl").write_bytes(b"\n".join(orjson.dumps(line) for line in lines))
    return {"kind": "jsonl", "path": "p.jsonl"}


def test_a_file_is_sent_in_the_seeds_order_and_then_again(tmp_path: Path) -> None:
    """Each prompt comes once per pass; from the second pass on they are counted as repeated."""
    prompts = _jsonl(tmp_path, *({"prompt": f"say {i}", "max_tokens": 9} for i in range(30)))
    tenant = _tenant(prompts=prompts, output=None)
    adjustments = Adjustments()
    planned = _plan(tenant, 40, base_dir=tmp_path, vocabulary=COUNTING, adjustments=adjustments)
    texts = [request.prompt_text for request in planned]
    assert len(set(texts[:30])) == 30
    assert {request.prompt_tokens for request in planned} == {2}
    assert adjustments.repeated == 10
    other = _plan(tenant, 30, base_dir=tmp_path, vocabulary=COUNTING, cell_seed=2)
    assert [request.prompt_text for request in other] != texts[:30]


def test_a_files_own_output_length_wins_over_the_tenants(tmp_path: Path) -> None:
    """max_tokens of a line, else the tenant's output."""
    prompts = _jsonl(tmp_path, {"prompt": "a", "max_tokens": 3}, {"prompt": "b"})
    tenant = _tenant(prompts=prompts, output={"kind": "fixed", "tokens": 8})
    planned = _plan(tenant, 2, base_dir=tmp_path)
    assert {r.prompt_text: r.max_tokens for r in planned} == {"a": 3, "b": 8}
    assert {r.prompt_tokens for r in planned} == {0}  # nobody could count them


def test_a_line_without_output_length_is_named(tmp_path: Path) -> None:
    """Without max_tokens and output there is nothing to ask for; the line is told."""
    prompts = _jsonl(tmp_path, {"prompt": "a", "max_tokens": 3}, {"prompt": "b"})
    tenant = _tenant(prompts=prompts, output=None)
    with pytest.raises(SpecError, match=r"p\.jsonl:2: .*no max_tokens"):
        check_sources(tenant, tmp_path)
    with pytest.raises(SpecError, match=r"p\.jsonl:2: .*no max_tokens"):
        _plan(tenant, 1, base_dir=tmp_path)


def test_file_prompts_that_do_not_fit_are_left_out_and_counted(tmp_path: Path) -> None:
    """A prompt of a file is never cut; its output may be."""
    prompts = _jsonl(tmp_path, {"prompt": "w " * 50}, {"prompt": "w " * 15})
    tenant = _tenant(prompts=prompts, output={"kind": "fixed", "tokens": 8})
    adjustments = Adjustments()
    planned = _plan(
        tenant,
        4,
        base_dir=tmp_path,
        vocabulary=COUNTING,
        max_total_tokens=20,
        adjustments=adjustments,
    )
    assert {(r.prompt_tokens, r.max_tokens) for r in planned} == {(15, 5)}
    assert adjustments.skipped >= 3
    assert adjustments.clipped == 4


def test_a_file_of_which_nothing_fits_is_refused(tmp_path: Path) -> None:
    """It is said at once, rather than searched for ever."""
    tenant = _tenant(prompts=_jsonl(tmp_path, {"prompt": "w " * 50, "max_tokens": 8}))
    with pytest.raises(SpecError, match="none of the 1 prompts fits 20 tokens"):
        _plan(tenant, 1, base_dir=tmp_path, vocabulary=COUNTING, max_total_tokens=20)


def test_a_sharegpt_reply_gives_the_output_length(tmp_path: Path) -> None:
    """Without an output length the tokens of the reply are asked for, if they can be counted."""
    turns = [{"from": "human", "value": "why so"}, {"from": "gpt", "value": "because it is"}]
    (tmp_path / "s.json").write_bytes(orjson.dumps([{"id": "1", "conversations": turns}]))
    tenant = _tenant(prompts={"kind": "sharegpt", "path": "s.json"}, output=None)
    (request,) = _plan(tenant, 1, base_dir=tmp_path, vocabulary=COUNTING)
    assert (request.prompt_text, request.prompt_tokens, request.max_tokens) == ("why so", 2, 3)
    with pytest.raises(SpecError, match="how many tokens to ask for"):
        _plan(tenant, 1, base_dir=tmp_path)


def _talk(*values: str) -> dict[str, object]:
    """A ShareGPT conversation of alternating turns."""
    whose = ("human", "gpt") * len(values)
    turns = [{"from": who, "value": said} for who, said in zip(whose, values, strict=False)]
    return {"conversations": turns}


def _sharegpt(tmp_path: Path, *talks: dict[str, object], **fields: Any) -> Tenant:
    """A tenant that has whole conversations."""
    (tmp_path / "s.json").write_bytes(orjson.dumps(talks))
    prompts = {"kind": "sharegpt", "path": "s.json"}
    interaction = {"history": True, "think_time_s": 2, "app": "chat"}
    return _tenant(prompts=prompts, output=None, interaction=interaction, **fields)


def test_sharegpt_conversations_are_interactions(tmp_path: Path) -> None:
    """Each human turn is a call, after the answer to the one before, with all that was said."""
    tenant = _sharegpt(tmp_path, _talk("a b", "c", "d", "e f g"))
    planned = _plan(tenant, 4, base_dir=tmp_path, vocabulary=COUNTING)
    assert [request.prompt_text for request in planned] == ["a b", "a b\nc\nd"] * 2
    assert [request.max_tokens for request in planned] == [1, 3] * 2
    turns = [request.turn for request in planned]
    assert all(turn is not None and turn.app == "chat" and turn.calls == 2 for turn in turns)
    assert [(turn.call, turn.think_s) for turn in turns if turn] == [(1, 0), (2, 2)] * 2
    assert len({turn.interaction for turn in turns if turn}) == 2


def test_a_conversation_that_does_not_fit_any_more_is_cut(tmp_path: Path) -> None:
    """Its calls are those that fit, and what was left out is counted."""
    adjustments = Adjustments()
    tenant = _sharegpt(tmp_path, _talk("a", "b", "w " * 30, "d"), _talk("x", "y", "z", "q"))
    planned = _plan(
        tenant,
        3,
        base_dir=tmp_path,
        vocabulary=COUNTING,
        max_total_tokens=20,
        adjustments=adjustments,
    )
    found = {request.prompt_text: request.turn.calls for request in planned if request.turn}
    assert found == {"a": 1, "x": 2, "x\ny\nz": 2}
    assert adjustments.skipped >= 1


def test_conversations_without_end_come_with_the_arrivals(tmp_path: Path) -> None:
    """In open loop an arrival is a conversation; all its calls have the arrival's time."""
    arrival = {"kind": "constant", "rate_per_s": 1}
    tenant = _sharegpt(tmp_path, _talk("a", "b", "c", "d"), arrival=arrival)
    planned = _plan(tenant, 6, base_dir=tmp_path, vocabulary=COUNTING)
    times = [request.intended_ns for request in planned]
    assert times[0::2] == times[1::2]
    assert len(set(times)) == 3


@pytest.mark.parametrize(
    ("prompts", "interaction", "complaint"),
    [
        ("jsonl", {"history": True}, "history needs synthetic prompts or a ShareGPT file"),
        ("sharegpt", {"history": True, "calls": 2}, "how many calls each conversation has"),
        ("sharegpt", {"history": True, "max_calls": 3}, "how many calls each conversation has"),
    ],
)
def test_what_a_file_decides_is_not_asked_for(
    prompts: str, interaction: dict[str, Any], complaint: str
) -> None:
    """History needs a conversation, and a file's conversations have their own lengths."""
    with pytest.raises(ValidationError, match=complaint):
        _tenant(prompts={"kind": prompts, "path": "x"}, output=None, interaction=interaction)


TRACE = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:17:03.9799600,48,10
2023-11-16 18:17:04.0319600,31,8
2023-11-16 18:17:13.9799600,7,5
"""


def test_a_trace_gives_times_and_lengths(tmp_path: Path) -> None:
    """Times count from the first row, are divided by time scale and load scale, and end in time."""
    (tmp_path / "t.csv").write_text(TRACE)
    tenant = _tenant(
        arrival={"kind": "azure-trace", "path": "t.csv", "time_scale": 2},
        prompts=None,
        output=None,
    )
    adjustments = Adjustments()
    planned = _plan(tenant, base_dir=tmp_path, adjustments=adjustments)
    assert [(r.intended_ns, len(r.prompt_ids or ()), r.max_tokens) for r in planned] == [
        (0, 48, 10),
        (26_000_000, 31, 8),
        (5_000_000_000, 7, 5),
    ]
    assert adjustments.trace_ended
    adjustments = Adjustments()
    scaled = _plan(
        tenant, base_dir=tmp_path, load_scale=0.5, horizon_s=10.0, adjustments=adjustments
    )
    assert [r.intended_ns for r in scaled] == [0, 52_000_000]
    assert not adjustments.trace_ended
