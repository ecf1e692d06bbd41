"""What is wrong with a workload is told in a person's words, at its place in the file."""

from __future__ import annotations

from pathlib import Path

import pytest

from fairshare.errors import SpecError
from fairshare.spec.loading import load
from fairshare.spec.scenario import Scenario
from fairshare.spec.workload import ClosedLoop, SharedTraceArrivals, TraceArrivals

HEAD = "name: x\ntenants:\n"
LENGTHS = """    prompts: {kind: synthetic, tokens: {kind: fixed, tokens: 8}}
    output: {kind: fixed, tokens: 8}
"""


def _load(folder: Path, text: str) -> Scenario:
    (folder / "s.yaml").write_text(text)
    return load(folder / "s.yaml", Scenario)


def _arrival(text: str) -> str:
    return f"{HEAD}  - name: a\n    arrival: {text}\n{LENGTHS}"


def _trace(text: str, tenants: str = "[{name: gold}, {name: silver}]") -> str:
    return f"name: x\ntrace: {{path: t.csv, {text}}}\ntenants: {tenants}\n"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (_arrival("{kind: on-off, rate_per_s: 2, on_s: 60s}"), r"4:14: .*off_s' is missing"),
        (_arrival("{kind: onoff, rate_per_s: 2}"), r"4:14: .*not 'onoff'\n.*did you mean on-off"),
        (_arrival("{kind: step, rates_per_s: [0, 0]}"), r"4:14: .*nothing would be sent"),
        (_arrival("{kind: step, rates_per_s: 3}"), r"4:40: .*rates_per_s' is 3: .*valid list"),
        (
            _arrival("{kind: ramp, from_per_s: 1, to_per_s: 3, spacing: uniform}"),
            r"4:64: .*'poisson', 'gamma' or 'constant'",
        ),
        (
            _arrival("{kind: ramp, from_per_s: 1, to_per_s: 3, burstiness: 0.3}"),
            r"4:14: .*burstiness needs spacing: gamma",
        ),
        (
            _arrival("{kind: phases, phases: [{arrival: {kind: poisson, rate_per_s: 1}}, {}]}"),
            r"4:38: .*phases.0: only the last phase may do without for_s",
        ),
        (_arrival("{kind: phases, phases: [{for_s: 3}]}"), r"4:37: .*no phase has an arrival"),
        (
            _arrival("{kind: phases, phases: [{for_s: 3, arrival: {kind: closed}}]}"),
            r"4:58: .*not 'closed'\n.*known kinds: constant, gamma",
        ),
        (
            _arrival("{kind: phases, phases: [{for_s: 3, arrivals: {kind: poisson}}]}"),
            r"4:49: unknown key .*\n.*did you mean arrival\?",
        ),
        (_arrival("{kind: trace, path: t.csv}"), r"3:5: .*a trace brings its own"),
        (_arrival("{kind: shared-trace}").replace(LENGTHS, ""), r"4:14: .*has no trace to share"),
        (_trace("format: burst, assign: {kind: session}"), r"2:30: .*'azure', 'burstgpt'"),
        (_trace("format: csv, assign: {kind: session}"), r"2:8: .*csv and columns go together"),
        (_trace("time_scale: 1"), r"2:8: 'trace.assign' is missing"),
        (_trace("assign: {kind: sessions}"), r"2:30: .*not 'sessions'\n.*did you mean session\?"),
        (_trace("assign: session"), r"2:30: .*is 'session': it must be a mapping"),
        (
            _trace("asign: {kind: session}"),
            r"2:22: unknown key 'trace.asign'\n.*\n.*did you mean assi",
        ),
        (
            _trace("assign: {kind: column, column: m, tenants: {1: gold, '2': slver}}"),
            r"2:66: a key must be text",
        ),
        (
            _trace("assign: {kind: column, column: m, tenants: {'1': gold, '2': slver}}"),
            r"2:82: trace.assign.tenants.2: .*'slver' \(did you mean silver\?\)",
        ),
        (
            _trace("assign: {kind: column, column: m, tenants: {'1': gold}}"),
            r"2:65: trace.assign.tenants: nothing of the trace is for 'silver'",
        ),
        (
            _trace("assign: {kind: file, column: m, path: m.csv, others: bronze}"),
            r"2:75: trace.assign.others: .*'bronze' \(they are gold, silver\)",
        ),
        (
            _trace("assign: {kind: column, column: m, dealt: true, others: gold}"),
            r"2:30: trace.assign: dealt values have no names",
        ),
        (
            _trace("assign: {kind: session}", "[{name: a, arrival: {kind: shared-tracee}}]"),
            r"3:30: .*not 'shared-tracee'",
        ),
        ("name: x\ntrace: t.csv\ntenants: [{name: a}]\n", r"2:8: 'trace' is 't.csv': it must be"),
        (
            _trace("assign: {kind: session}", "[{name: a}, {name: a}]"),
            r"3:29: tenants.1.name: two tenants are named 'a'",
        ),
        (
            f"{HEAD}  - name: a\n    interaction: {{calls: 4, max_calls: 2}}\n{LENGTHS}",
            r"4:18: .*max_calls \(2\) is less than calls \(4\)",
        ),
        (
            f"{HEAD}  - name: a\n    interaction: {{calls: 4, think_time: 2s}}\n{LENGTHS}",
            r"4:29: unknown key .*\n.*did you mean think_time_s\?",
        ),
        (
            f"{HEAD}  - name: a\n    interaction: {{calls: 2, history: true}}\n"
            "    prompts: {kind: jsonl, path: p}\n    output: {kind: fixed, tokens: 3}\n",
            r"4:38: tenants.0.interaction.history: .*synthetic prompts",
        ),
    ],
)
def test_mistakes_are_told_at_their_place(tmp_path: Path, text: str, complaint: str) -> None:
    """File, line and column, what is wrong, and what was probably meant."""
    with pytest.raises(SpecError) as caught:
        _load(tmp_path, text)
    assert caught.match(r"s\.yaml:" + complaint)


def test_a_trace_is_the_scenarios_or_a_tenants_own(tmp_path: Path) -> None:
    """Tenants that say nothing share the scenario's trace; others have a workload of their own."""
    tenants = f"""
  - {{name: user, count: 3, slo: {{ttft_s: 1s}}}}
  - {{name: own, arrival: {{kind: trace, path: u.csv}}}}
  - name: chat
{LENGTHS}"""
    scenario = _load(tmp_path, _trace("assign: {kind: session}", tenants))
    kinds = [type(tenant.arrival) for tenant in scenario.expanded()]
    assert kinds == [SharedTraceArrivals] * 3 + [TraceArrivals, ClosedLoop]
    assert scenario.sharers() == ["user-1", "user-2", "user-3"]


def test_a_scenario_survives_being_written_out(tmp_path: Path) -> None:
    """What a result folder keeps of a scenario makes the same scenario again."""
    scenario = _load(tmp_path, _trace("assign: {kind: zipf, exponent: 1.2, seed: 4}"))
    assert Scenario.model_validate(scenario.model_dump(mode="json")) == scenario
    assert scenario.model_dump(mode="json")["trace"]["assign"]["seed"] == 4


def test_azure_trace_is_still_a_kind(tmp_path: Path) -> None:
    """Scenarios, and result folders, from before there were other formats stay valid."""
    text = _arrival("{kind: azure-trace, path: t.csv}").replace(LENGTHS, "")
    assert isinstance(_load(tmp_path, text).tenants[0].arrival, TraceArrivals)
