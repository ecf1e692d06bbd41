"""Scenarios changed by a question keep what was not asked about."""

from __future__ import annotations

import pytest

from fairshare.errors import SpecError
from fairshare.runner.what_if import multiplied, split
from fairshare.spec.loading import load_scenario
from fairshare.spec.scenario import Scenario


def scenario(name: str = "two-tenants") -> Scenario:
    """A shipped one."""
    return load_scenario(name)[0]


def test_tenants_are_multiplied_and_their_shares_divided() -> None:
    """Twice the tenants have twice the names and, together, no more of the device."""
    before = split(scenario(), [3, 1])
    after = multiplied(before, 2)
    assert [t.name for t in after.expanded()] == ["chat-1", "chat-2", "batch-1", "batch-2"]
    assert [t.share for t in after.expanded()] == [0.375, 0.375, 0.125, 0.125]
    assert after.tenants[0].slo == before.tenants[0].slo
    assert after.timing == before.timing


def test_the_device_is_split_among_tenants_in_order() -> None:
    """Parts are proportions, one for each tenant that there is."""
    assert [t.share for t in split(scenario("short-and-long"), [1, 1, 2, 4]).expanded()] == [
        0.125,
        0.125,
        0.25,
        0.5,
    ]
    with pytest.raises(SpecError, match="has 2 tenants, and the device is split into 3"):
        split(scenario(), [1, 1, 1])


def test_a_shared_trace_is_not_multiplied() -> None:
    """A trace has one part for each tenant: more of them have nothing to send."""
    shared = Scenario.model_validate(
        {
            "name": "s",
            "trace": {"path": "trace.csv", "assign": {"kind": "session"}},
            "tenants": [{"name": "a"}, {"name": "b"}],
        }
    )
    with pytest.raises(SpecError, match="--load-scale"):
        multiplied(shared, 2)
