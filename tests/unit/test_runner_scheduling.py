"""Policies in a plan: which cells there are, which servers they share, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fairshare.errors import SpecError
from fairshare.gateway.event_log import EventLog
from fairshare.records import CellKey, Mode, Scheduling
from fairshare.runner.plan import RunPlan, make_plan
from fairshare.runner.scheduling import policy_failure
from fairshare.runner.settings import Flags, Settings, settle
from fairshare.serving.plugins import SCHEDULER_VARIABLE
from fairshare.spec.matrix import Matrix
from fairshare.vllm_plugins.decisions import Decisions

SCENARIO = """\
name: s
timing: {warmup_s: 1, window_s: 5, drain_s: 5}
tenants:
  - name: a
    weight: 2
    prompts: {kind: synthetic, tokens: {kind: fixed, tokens: 8}}
    output: {kind: fixed, tokens: 8}
  - name: b
    slo: {ttft_s: 1}
    prompts: {kind: synthetic, tokens: {kind: fixed, tokens: 8}}
    output: {kind: fixed, tokens: 8}
"""


def settled(tmp_path: Path, **fields: Any) -> Settings:
    """A matrix over one scenario on the simulated GPU, checked."""
    path = tmp_path / "s.yaml"
    path.write_text(fields.pop("text", SCENARIO))
    args = fields.pop("engine_args", {"max_num_seqs": 8})
    values = {"name": "m", "scenarios": [str(path)], "modes": ["logical"], **fields}
    return settle(Matrix.model_validate(values), Flags(device="virtual:a100-40", engine_args=args))


def plan(tmp_path: Path, **fields: Any) -> RunPlan:
    """The plan of such a matrix."""
    return make_plan(settled(tmp_path, **fields))


def labels(found: RunPlan) -> list[str]:
    """Mode, policy and place of each cell."""
    return [f"{c.key.mode} {c.key.policy} {c.key.scheduling or '-'}" for c in found.cells]


def test_without_a_policy_nothing_changes(tmp_path: Path) -> None:
    """First come, first served alone is the engine's own order, and needs no gateway."""
    (cell,) = plan(tmp_path).cells
    assert (cell.key.scheduling, cell.key.slug) == (None, "s_logical_c1_r1")
    assert "scheduling" not in cell.definition
    assert cell.contents_seed == cell.seed


def test_the_baseline_goes_the_way_of_what_it_is_compared_with(tmp_path: Path) -> None:
    """Through the gateway if the others do; inside the engine it is the engine's own order."""
    assert labels(plan(tmp_path, policies=["fcfs", "rpm"])) == [
        "logical fcfs gateway", "logical rpm gateway",
    ]  # fmt: skip
    both = plan(tmp_path, policies=["fcfs", "rpm"], scheduling=["gateway", "engine"])
    assert labels(both) == [
        "logical fcfs gateway", "logical fcfs -", "logical rpm gateway", "logical rpm engine",
    ]  # fmt: skip
    assert labels(plan(tmp_path, policies=["slora"], scheduling=["engine"])) == ["logical fcfs -"]


def test_only_mode_logical_has_policies(tmp_path: Path) -> None:
    """The other modes are run once, however many policies there are."""
    found = labels(plan(tmp_path, modes=["logical", "mps"], policies=["fcfs", "rpm"]))
    assert found == ["logical fcfs gateway", "logical rpm gateway", "mps fcfs -"]


def test_gateways_share_servers_and_schedulers_in_the_engine_do_not(tmp_path: Path) -> None:
    """A server is started again only where it must be another one."""
    found = plan(
        tmp_path,
        policies=["fcfs", "rpm", {"kind": "rpm", "limit": 7}],
        scheduling=["gateway", "engine", "priority"],
    )
    assert [len(deployment.cells) for deployment in found.deployments] == [4, 3, 1, 1]
    inside = found.deployments[3]
    told = json.loads(inside.plan.slots[0].env[SCHEDULER_VARIABLE])
    assert (told["policy"], told["options"]) == ("rpm", {"limit": 7})
    assert told["tenants"]["a"]["weight"] == 2
    assert told["tenants"]["b"]["slo_ttft_s"] == 1
    by_rank = found.deployments[1]
    assert {cell.key.scheduling for cell in by_rank.cells} == {Scheduling.PRIORITY}
    assert by_rank.launcher.args["scheduling_policy"] == "priority"


def test_policies_are_paired_and_share_no_prompt(tmp_path: Path) -> None:
    """Times and lengths are the same, words are not: servers and their prefix caches are shared."""
    cells = plan(tmp_path, policies=["fcfs", "rpm"]).cells
    assert len({cell.seed for cell in cells}) == 1
    assert len({cell.contents_seed for cell in cells}) == len(cells) == 2


def test_what_a_policy_is_told_makes_another_cell(tmp_path: Path) -> None:
    """Options, place and window are part of what defines a cell."""
    changes: list[dict[str, Any]] = [
        {},
        {"policies": [{"kind": "rpm", "limit": 7}]},
        {"scheduling": ["engine"]},
        {"gateway_window": 3},
        {"text": SCENARIO.replace("weight: 2", "weight: 3")},
    ]
    found = [plan(tmp_path, **{"policies": ["rpm"], **change}).cells[0] for change in changes]
    assert len({cell.fingerprint for cell in found}) == len(changes)
    assert len({cell.key for cell in found}) == 3
    again = CellKey.from_mapping(json.loads(json.dumps({**_fields(found[1].key)})))
    assert again == found[1].key


def test_the_window_follows_the_engine(tmp_path: Path) -> None:
    """Somewhat more than run at once, twice with ranks; by the metrics where that is not known."""
    settings = settled(tmp_path, policies=["rpm"], scheduling=["gateway", "priority"])
    assert [settings.window_of(each) for each in settings.schedulers] == [10, 16]
    unknown = settled(tmp_path, policies=["rpm"], engine_args={"max_num_seqs": None})
    assert unknown.window_of(unknown.schedulers[0]) is None
    said = settled(tmp_path, policies=["rpm"], gateway_window=3)
    assert said.window_of(said.schedulers[0]) == 3


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"modes": ["mps"], "policies": ["rpm"]}, "policies are for mode logical"),
        ({"policies": ["rpm"], "transport": "in-process"}, "a gateway speaks HTTP"),
        (
            {"policies": ["rpm"], "text": SCENARIO.replace("weight: 2", "priority: 2")},
            "a priority",
        ),
    ],
)
def test_a_policy_that_nothing_would_heed_is_refused(
    tmp_path: Path, fields: dict[str, Any], said: str
) -> None:
    """Before anything starts, with what to change."""
    with pytest.raises(SpecError, match=said) as caught:
        settled(tmp_path, **fields)
    assert caught.value.hint


def _fields(key: CellKey) -> dict[str, Any]:
    assert key.mode is Mode.LOGICAL
    return {name: getattr(key, name) for name in CellKey.__slots__}


def test_what_a_failed_policy_did_not_decide_is_not_taken_for_its_work(tmp_path: Path) -> None:
    """A log in which the policy gave up says why; one in which it did not says nothing."""
    ours, inside = tmp_path / "gateway.jsonl", tmp_path / "engine.jsonl"
    log = EventLog(ours)
    log.write("started", 1.0, policy="vtc")
    log.flush()
    decisions = Decisions(str(inside), dict)
    decisions.started(policy="vtc")
    decisions.flush(idle=True)
    assert policy_failure(ours, inside, tmp_path / "none") is None
    error = "Traceback (most recent call last):\nZeroDivisionError: by nothing"
    decisions.failed(error)
    decisions.close()
    assert policy_failure(ours, inside) == policy_failure(inside)
    log.write("policy_failed", 2.0, error=error)
    log.flush()
    log.close()
    failure = policy_failure(ours)
    assert failure is not None
    assert failure.endswith("ZeroDivisionError: by nothing")
