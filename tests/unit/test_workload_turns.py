"""Interactions are planned call by call: synthetic ones, and those of a trace."""

from __future__ import annotations

from itertools import groupby, islice, pairwise
from pathlib import Path
from typing import Any

import pytest

from fairshare.spec.scenario import Scenario, Tenant
from fairshare.workload.contents import Adjustments
from fairshare.workload.prompts import Vocabulary
from fairshare.workload.requests import PlannedRequest, planned_requests
from fairshare.workload.turns import Turn

BASE: dict[str, Any] = {
    "cell_seed": 1,
    "horizon_s": 20.0,
    "window_start_s": 0.0,
    "window_s": 20.0,
    "load_scale": 1.0,
    "vocabulary": Vocabulary(500),
    "base_dir": Path(),
}


def _tenant(**changes: Any) -> Tenant:
    raw: dict[str, Any] = {
        "name": "a",
        "prompts": {"kind": "synthetic", "tokens": {"kind": "uniform", "min": 20, "max": 60}},
        "output": {"kind": "uniform", "min": 5, "max": 50},
    }
    return Tenant.model_validate(raw | changes)


def _plan(tenant: Tenant, n: int | None = None, **changes: Any) -> list[PlannedRequest]:
    return list(islice(planned_requests(tenant, **(BASE | changes)), n))


def _turns(plan: list[PlannedRequest]) -> list[Turn]:
    assert all(request.turn is not None for request in plan)
    return [request.turn for request in plan if request.turn is not None]


CONSTANT = {"kind": "constant", "rate_per_s": 2}


def test_every_arrival_is_an_interaction() -> None:
    """Its calls follow each other in the plan, numbered, at the interaction's own time."""
    interaction = {"app": "x", "calls": 3, "think_time_s": "2s"}
    plan = _plan(_tenant(arrival=CONSTANT, interaction=interaction))
    assert len(plan) == 40 * 3
    turns = _turns(plan)
    assert turns[:3] == [
        Turn("x", "a-i000000", 1, 3, 0.0),
        Turn("x", "a-i000000", 2, 3, 2.0),
        Turn("x", "a-i000000", 3, 3, 2.0),
    ]
    assert turns[3].interaction == "a-i000001"
    assert [request.intended_ns for request in plan[:3]] == [plan[0].intended_ns] * 3
    assert plan[3].intended_ns == (plan[0].intended_ns or 0) + 500_000_000


def test_the_number_of_calls_is_drawn_between_its_bounds() -> None:
    """All numbers from calls to max_calls occur, about equally often."""
    plan = _plan(_tenant(interaction={"calls": 2, "max_calls": 5}), 7000)
    sizes = [turn.calls for turn in _turns(plan) if turn.call == 1]
    shares = [sizes.count(size) / len(sizes) for size in (2, 3, 4, 5)]
    assert shares == pytest.approx([0.25] * 4, abs=0.04)
    assert len({request.id for request in plan}) == 7000


def test_interactions_do_not_change_what_single_requests_are() -> None:
    """The k-th request has the same prompt and output length with and without interactions."""
    single = _plan(_tenant(), 60)
    chained = _plan(_tenant(interaction={"calls": 3}), 60)
    assert [(r.prompt_ids, r.max_tokens) for r in single] == [
        (r.prompt_ids, r.max_tokens) for r in chained
    ]
    assert {request.turn for request in single} == {None}


def _conversations(plan: list[PlannedRequest]) -> list[list[PlannedRequest]]:
    """Whole conversations of a plan."""
    groups = [list(g) for _, g in groupby(plan, lambda r: r.turn and r.turn.interaction)]
    return groups[:-1]


def test_a_conversation_begins_with_all_that_was_said() -> None:
    """Each prompt is the one before, as many tokens as were asked for, and something new."""
    tenant = _tenant(interaction={"calls": 2, "max_calls": 4, "history": True})
    for calls in _conversations(_plan(tenant, 200)):
        assert 20 <= calls[0].prompt_tokens <= 60
        for before, after in pairwise(calls):
            assert before.prompt_ids is not None
            assert after.prompt_ids is not None
            assert after.prompt_ids[: before.prompt_tokens] == before.prompt_ids
            new = after.prompt_tokens - before.prompt_tokens - before.max_tokens
            assert 20 <= new <= 60


def test_conversations_share_nothing_with_each_other() -> None:
    """A prefix cache can serve a conversation from itself alone."""
    tenant = _tenant(interaction={"calls": 2, "history": True})
    first = [calls[0].prompt_ids for calls in _conversations(_plan(tenant, 200))]
    assert len({tuple(ids[:16]) for ids in first if ids}) == len(first) > 90


def test_a_conversation_that_outgrows_the_model_is_cut_and_counted() -> None:
    """Prompt and output always fit; nothing is silent."""
    tenant = _tenant(interaction={"calls": 8, "history": True})
    adjustments = Adjustments()
    plan = _plan(tenant, 80, max_total_tokens=200, adjustments=adjustments)
    assert max(request.prompt_tokens + request.max_tokens for request in plan) <= 200
    assert adjustments.clipped > 10
    for calls in _conversations(plan):
        for before, after in pairwise(calls):
            shared = min(before.prompt_tokens, after.prompt_tokens)
            assert (after.prompt_ids or [])[:shared] == (before.prompt_ids or [])[:shared]


FAIRSERVE = """PromptTokens,DecodeTokens,UserID,app,interaction_id,ArrivalTime
30,4,u1,copilot,7,0.0
10,1,u2,search,8,0.25
31,5,u1,copilot,7,1.5
9,2,u3,search,,2
32,6,u1,copilot,7,30
"""


def _shared(folder: Path, **trace: Any) -> dict[str, list[PlannedRequest]]:
    (folder / "f.csv").write_text(FAIRSERVE)
    scenario = Scenario.model_validate(
        {
            "name": "x",
            "trace": {"path": "f.csv", "assign": {"kind": "session"}, **trace},
            "tenants": [{"name": "user", "count": 2}],
        }
    )
    return {
        tenant.name: _plan(
            tenant, base_dir=folder, shared=scenario.trace, sharers=scenario.sharers()
        )
        for tenant in scenario.expanded()
    }


def test_a_shared_trace_gives_each_tenant_its_requests(tmp_path: Path) -> None:
    """Times and lengths are the trace's; users are dealt; ids count each tenant's own."""
    plans = _shared(tmp_path)
    told = {
        name: [(r.id, r.intended_ns, r.prompt_tokens, r.max_tokens) for r in plan]
        for name, plan in plans.items()
    }
    assert told["user-1"] == [
        ("user-1-000000", 0, 30, 4),
        ("user-1-000001", 1_500_000_000, 31, 5),
        ("user-1-000002", 2_000_000_000, 9, 2),
    ]
    assert told["user-2"] == [("user-2-000000", 250_000_000, 10, 1)]


def test_a_traces_interactions_keep_their_calls_apart_and_in_order(tmp_path: Path) -> None:
    """Calls are counted in what is played: the one past the horizon is none of them."""
    plans = _shared(tmp_path, think_time_s=0.5)
    assert [request.turn for request in plans["user-1"]] == [
        Turn("copilot", "u1/7", 1, 2, 0.0),
        Turn("copilot", "u1/7", 2, 2, 0.5),
        Turn("search"),
    ]
    assert [request.turn for request in plans["user-2"]] == [Turn("search", "u2/8", 1, 1, 0.0)]


def test_token_scale_shortens_all_of_a_trace(tmp_path: Path) -> None:
    """Prompts and outputs are multiplied, and at least one token long."""
    plans = _shared(tmp_path, token_scale=0.1)
    assert [(r.prompt_tokens, r.max_tokens) for r in plans["user-1"]] == [(3, 1), (3, 1), (1, 1)]


def test_a_tenant_without_requests_has_an_empty_plan(tmp_path: Path) -> None:
    """A trace need not have something for everyone."""
    assert _shared(tmp_path, duration_s=0.1)["user-2"] == []
