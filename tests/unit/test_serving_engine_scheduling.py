"""What a server is started with so that its own scheduler follows a policy."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fairshare.errors import SpecError
from fairshare.scheduling.policy import Tenants, Terms
from fairshare.serving import plugins
from fairshare.serving.engine_scheduling import engine_scheduling
from fairshare.serving.plugins import plugins_env
from fairshare.spec.launcher import Launcher


def launcher(engine: str = "vllm", **args: object) -> Launcher:
    """A launcher of that engine."""
    values = {"name": "x", "engine": engine, "command": ["run"], "args": args}
    return Launcher.model_validate(values)


def test_the_engine_is_told_the_class_the_policy_and_the_terms(tmp_path: Path) -> None:
    """Arguments name the scheduler; the environment says all that it is to follow."""
    tenants = Tenants({"gold": Terms(weight=2.0, slo_ttft_s=1.5)}, Terms(weight=0.5))
    made = engine_scheduling(launcher(), "fcfs", None, tenants)
    assert made.args == {"scheduler_cls": "fairshare_vllm_plugins.fair_scheduler.FairScheduler"}
    assert json.loads(made.env[plugins.SCHEDULER_VARIABLE]) == {
        "policy": "fcfs",
        "options": {},
        "tenants": {"gold": {"weight": 2.0, "slo_e2e_s": None, "slo_ttft_s": 1.5}},
        "default": {"weight": 0.5, "slo_e2e_s": None, "slo_ttft_s": None},
    }
    env = plugins_env(launcher(), made.env, tmp_path)
    assert Path(env[plugins.DECISIONS_VARIABLE]) == tmp_path / "decisions.jsonl"


def test_decisions_can_be_kept_where_the_caller_says(tmp_path: Path) -> None:
    """The server's folder is deleted with the server; a path of the caller's own is not in it."""
    kept = str(tmp_path / "kept.jsonl")
    made = engine_scheduling(launcher(), "fcfs", decisions=kept)
    assert plugins_env(launcher(), made.env, tmp_path / "run")[plugins.DECISIONS_VARIABLE] == kept


@pytest.mark.parametrize(
    ("engine", "args", "policy", "options", "said"),
    [
        ("sglang", {}, "fcfs", {}, "only vLLM's can"),
        ("vllm", {"--scheduler-cls": "mine.Own"}, "fcfs", {}, "a scheduler of its own"),
        ("vllm", {}, "fairest", {}, "fairest"),
        ("vllm", {}, "fcfs", {"quantum": 1}, "quantum"),
    ],
)
def test_what_cannot_be_is_refused_before_a_server_starts(
    engine: str, args: dict[str, object], policy: str, options: dict[str, object], said: str
) -> None:
    """Another engine, another scheduler, an unknown policy or option: an error for people."""
    with pytest.raises(SpecError, match=said):
        engine_scheduling(launcher(engine, **args), policy, options)
