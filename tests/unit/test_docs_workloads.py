"""What docs/workloads.md shows is what can be written."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import TypeAdapter

from fairshare.spec.scenario import Scenario, Tenant
from fairshare.spec.trace import Assign, TraceFormat
from fairshare.spec.workload import Arrival

TEXT = (Path(__file__).parents[2] / "docs" / "workloads.md").read_text("utf-8")
BLOCKS: list[Any] = [
    block
    for text in re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
    for block in (
        [yaml.safe_load(line) for line in text.splitlines()]
        if text.count("\narrival:")
        else [yaml.safe_load(text.replace("  ...\n", ""))]
    )
]
LENGTHS: dict[str, Any] = {
    "prompts": {"kind": "synthetic", "tokens": {"kind": "fixed", "tokens": 8}},
    "output": {"kind": "fixed", "tokens": 8},
}


@pytest.mark.parametrize("block", [block for block in BLOCKS if "arrival" in block], ids=str)
def test_every_arrival_shown_is_valid(block: dict[str, Any]) -> None:
    """Each one-line example, and each longer one."""
    arrival: Any = TypeAdapter(Arrival).validate_python(block["arrival"])
    assert f"`{arrival.kind}`" in TEXT or f"kind: {arrival.kind}" in TEXT


def test_every_scenario_and_tenant_shown_is_valid() -> None:
    """As they stand, but for lengths that an example leaves out."""
    tenants = [tenant for block in BLOCKS if isinstance(block, list) for tenant in block]
    assert [Tenant.model_validate(LENGTHS | tenant).name for tenant in tenants] == ["agent", "chat"]
    scenarios = [block for block in BLOCKS if "trace" in block]
    assert len(scenarios) == 3
    for block in scenarios:
        Scenario.model_validate({"name": "x", "tenants": [{"name": "a"}]} | block)


def test_every_assignment_and_format_is_documented() -> None:
    """The table shows each kind in a form that is valid."""
    shown = [yaml.safe_load(text) for text in re.findall(r"^\| `(\{kind: .*?\})` ", TEXT, re.M)]
    kinds = {TypeAdapter(Assign).validate_python(each).kind for each in shown}
    assert kinds == {"column", "file", "hash-root", "session", "zipf"}
    assert all(f"| `{known}` |" in TEXT for known in TraceFormat)
