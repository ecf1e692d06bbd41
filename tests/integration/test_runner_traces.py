"""A trace that several tenants share, replayed on the simulated GPU as a user does it."""

from __future__ import annotations

import itertools

from tests.workplace import Workplace

TRACE = "PromptTokens,DecodeTokens,UserID,app,interaction_id,ArrivalTime\n" + "".join(
    f"{20 + k},4,u{k % 3},agent,{k % 6},{k / 20}\n" for k in range(24)
)
SCENARIO = """\
name: shared
timing: {warmup_s: 0.2, window_s: 1.5, drain_s: 5}
trace: {path: users.csv, assign: {kind: session}}
tenants: [{name: user, count: 3}]
"""


def test_tenants_share_a_trace(workplace: Workplace) -> None:
    """Each user is a tenant, alone and beside others; the calls of an interaction wait."""
    workplace.write("users.csv", TRACE)
    scenario = workplace.write("shared.yaml", SCENARIO)
    done = workplace.run(
        "matrix", scenario, "--modes", "exclusive,logical", "--output-dir", "out", "--no-report"
    )
    assert done.returncode == 0, done.stdout
    cells = workplace.cells("out")
    shared = cells["shared_logical_r1"]
    records = {record.id: record for record in shared.records()}
    assert len(records) == 24
    assert all(record.ok and record.app == "agent" for record in records.values())
    for tenant in ("user-1", "user-2", "user-3"):
        own = sorted(r.prompt_tokens or 0 for r in records.values() if r.tenant == tenant)
        assert own == [20 + k for k in range(24) if k % 3 == int(tenant[-1]) - 1]
        alone = cells[f"shared_exclusive_{tenant}_r1"].records()
        assert sorted(record.prompt_tokens or 0 for record in alone) == own
    for interaction in {record.interaction for record in records.values()}:
        calls = sorted(
            (r for r in records.values() if r.interaction == interaction),
            key=lambda r: r.call or 0,
        )
        assert [record.call for record in calls] == [1, 2, 3, 4]
        for before, after in itertools.pairwise(calls):
            assert after.intended_ns >= (before.end_ns or 0)
