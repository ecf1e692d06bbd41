"""Priorities that nobody would heed are refused at the start."""

from __future__ import annotations

from typing import Any

import pytest

from fairshare.errors import SpecError
from fairshare.runner.settings import _refuse_unspoken
from fairshare.spec.launcher import Engine, Launcher
from fairshare.spec.lengths import FixedLength
from fairshare.spec.scenario import Api, Scenario, Tenant
from fairshare.spec.workload import SyntheticPrompts


def scenario(**fields: Any) -> Scenario:
    """One tenant, with a priority unless told otherwise."""
    length = FixedLength(tokens=8)
    given = {"priority": 1} | fields
    tenant = Tenant(name="a", prompts=SyntheticPrompts(tokens=length), output=length, **given)
    return Scenario(name="s", tenants=[tenant])


def launcher(engine: Engine = Engine.VLLM, **args: Any) -> Launcher:
    """A launcher of an engine with these arguments."""
    apis = [Api.COMPLETIONS, Api.CHAT, Api.TGI]
    return Launcher.model_construct(name="l", engine=engine, apis=apis, args=args)


def test_vllm_takes_priorities_where_it_schedules_by_them() -> None:
    """With the scheduling policy set, nothing stands against one; nor against none without."""
    _refuse_unspoken(launcher(scheduling_policy="priority"), [scenario()])
    _refuse_unspoken(launcher(), [scenario(priority=None)])
    _refuse_unspoken(launcher(Engine.EXTERNAL), [scenario()])


@pytest.mark.parametrize(
    ("refusing", "fields", "said"),
    [
        (launcher(), {}, "scheduling_policy=priority"),
        (launcher(), {"priority": 0}, "scheduling_policy=priority"),
        (launcher(Engine.VIRTUAL), {}, "take a vLLM launcher"),
        (launcher(Engine.EXTERNAL), {"api": Api.TGI}, "use api completions"),
    ],
)
def test_a_priority_that_is_not_heeded_is_refused(
    refusing: Launcher, fields: dict[str, Any], said: str
) -> None:
    """Before anything starts, with what to change."""
    with pytest.raises(SpecError, match="priority") as caught:
        _refuse_unspoken(refusing, [scenario(**fields)])
    assert said in (caught.value.hint or "")
