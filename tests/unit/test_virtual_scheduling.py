"""The simulated engine is told a policy, labels and priorities as vLLM is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fairshare.scheduling.fcfs import Fcfs
from fairshare.scheduling.told import told
from fairshare.virtual.engine import Engine, Limits
from fairshare.virtual.scheduling import (
    DECISIONS_VARIABLE,
    POLICY_VARIABLE,
    Priority,
    policy_of,
    sequence_of,
)

LIMITS = Limits(max_num_seqs=1, max_num_batched_tokens=64, kv_blocks=64)


def test_the_environment_asks_for_a_policy_before_the_options_do(tmp_path: Path) -> None:
    """A policy of ours where the environment names one, else vLLM's own of that name."""
    assert isinstance(policy_of("fcfs", {}), Fcfs)
    assert isinstance(policy_of("priority", {}), Priority)
    assert policy_of("priority", {POLICY_VARIABLE: told("vtc")}).name == "vtc"
    with pytest.raises(ValueError, match="no policy 'fairest'"):
        policy_of("fcfs", {POLICY_VARIABLE: '{"policy": "fairest"}'})


def test_smaller_priorities_go_first_and_equal_ones_in_order() -> None:
    """As vLLM's own priority policy; a request without one has priority 0."""
    engine = Engine(LIMITS, Priority())
    for name, body in {"late": {"priority": 5}, "first": {"priority": -1}, "own": {}}.items():
        engine.add(sequence_of(name, 4, 1, body, 0.0), 0.0)
    assert _served(engine) == ["first", "own", "late"]


def test_labels_say_whose_a_request_is_and_decisions_are_kept(tmp_path: Path) -> None:
    """What the client wrote into the body reaches the policy, which writes down what it decides."""
    path = tmp_path / "decisions.jsonl"
    environ = {POLICY_VARIABLE: told("round-robin"), DECISIONS_VARIABLE: str(path)}
    engine = Engine(LIMITS, policy_of("fcfs", environ))
    for name, tenant in (("h1", "heavy"), ("h2", "heavy"), ("l1", "light")):
        body = {"vllm_xargs": {"tenant": tenant}}
        engine.add(sequence_of(name, 4, 1, body, 0.0), 0.0)
    assert _served(engine) == ["h1", "l1", "h2"]
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines[0]["event"] == "started"
    told_of = [(line["event"], line["tenant"]) for line in lines if "tenant" in line]
    assert told_of[:3] == [("arrived", "heavy"), ("arrived", "heavy"), ("arrived", "light")]
    assert [tenant for event, tenant in told_of if event == "admitted"] == [
        "heavy", "light", "heavy",
    ]  # fmt: skip
    assert [event for event, _ in told_of].count("finished") == 3


def _served(engine: Engine) -> list[str]:
    """Run to the end; the requests in the order in which they finished."""
    served, now_s = [], 0.0
    while engine.has_work:
        assert engine.begin(now_s) is not None
        now_s += 1.0
        served += [sequence.id for sequence in engine.end(1, now_s).finished]
    return served
