"""Interactions as analysed are what a slow, obvious recomputation says, and are shown as such."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairshare.analysis import build
from fairshare.analysis.aggregate import rows
from fairshare.analysis.analyze import analyze
from fairshare.analysis.arrays import columns
from fairshare.analysis.interactions import interactions
from fairshare.analysis.stats import Interval, wilson
from fairshare.records import ErrorKind, Phase, RequestRecord
from fairshare.results import ResultStore

S = 1_000_000_000
GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "interactions"


@st.composite
def chains(draw: st.DrawFn) -> list[RequestRecord]:
    """All calls of one interaction (or a single request), as the load generator writes them."""
    tenant = draw(st.sampled_from("ab"))
    calls, sent = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    found: list[RequestRecord] = []
    intended = draw(st.integers(0, 9 * S))
    for call in range(1, min(calls, sent) + 1):
        end = intended + draw(st.integers(1, S))
        error = draw(st.sampled_from([None, None, None, *ErrorKind]))
        tokens = draw(st.lists(st.integers(1, 4), max_size=3))
        found.append(
            RequestRecord(
                id="q",
                tenant=tenant,
                server="s",
                phase=Phase.MEASURE if intended >= 2 * S else Phase.WARMUP,
                intended_ns=intended,
                sent_ns=draw(st.integers(intended, end)),
                chunk_ns=[end] * len(tokens),
                chunk_tokens=tokens,
                end_ns=end,
                prompt_tokens=draw(st.none() | st.integers(1, 50)),
                output_tokens=None if error else draw(st.integers(1, 9)),
                error=error,
                interaction="i",
                call=call,
                calls=calls,
            )
        )
        if error is not None:
            break
        intended = end + draw(st.integers(0, S))
    if draw(st.booleans()):
        return found
    return [replace(found[0], interaction=None, call=None, calls=None)]


def _naive(found: list[RequestRecord]) -> dict[str, float]:
    """The definitions of docs/metrics.md, one interaction at a time."""
    groups = defaultdict(list)
    for record in sorted(found, key=lambda record: record.call or 0):
        if record.interaction is not None:
            groups[record.tenant, record.interaction].append(record)
    values: dict[str, float] = defaultdict(float)
    for calls in groups.values():
        if calls[0].phase is not Phase.MEASURE:
            continue
        tokens = sum(
            (r.prompt_tokens or 0)
            + (sum(r.chunk_tokens) if r.output_tokens is None else r.output_tokens)
            for r in calls
        )
        values["interactions"] += 1
        values["interaction_tokens"] += tokens
        if calls[-1].ok and len(calls) == calls[0].calls:
            values["interactions_completed"] += 1
            e2e = ((calls[-1].end_ns or 0) - calls[0].intended_ns) / S
            wait = sum((r.end_ns or 0) - r.intended_ns for r in calls) / S
            values["e2e"] += e2e
            values["wait"] += wait
            values["think"] += e2e - wait
        elif calls[-1].error not in (None, ErrorKind.UNFINISHED):
            values["interactions_failed"] += 1
            values["interactions_broken"] += len(calls) > 1
            values["wasted_tokens"] += tokens
        else:
            values["interactions_cut"] += 1
            values["interactions_unfinished"] += not calls[-1].ok
            values["cut_tokens"] += tokens
    return values


@settings(max_examples=150, deadline=None)
@given(st.lists(chains(), max_size=8), st.randoms(use_true_random=False))
def test_interactions_equal_a_naive_recomputation(
    found: list[list[RequestRecord]], random: Any
) -> None:
    """Whatever the fates, and in whatever order the records were written."""
    records = [
        replace(record, interaction=record.interaction and f"i{number}")
        for number, calls in enumerate(found)
        for record in calls
    ]
    random.shuffle(records)
    computed, expected = interactions(columns(records)), _naive(records)
    if computed is None:
        assert all(record.interaction is None for record in records)
        return
    values = computed.values()
    for name in ("interactions", "interactions_completed", "interactions_failed"):
        assert values[name] == expected[name], name
    for name in ("interactions_broken", "interactions_cut", "interactions_unfinished"):
        assert values[name] == expected[name], name
    for name in ("interaction_tokens", "wasted_tokens", "cut_tokens"):
        assert values[name] == expected[name], name
    for name in ("e2e", "wait", "think"):
        if completed := expected["interactions_completed"]:
            mean = pytest.approx(expected[name] / completed, rel=1e-9, abs=1e-8)
            assert values[f"interaction_{name}_mean_s"] == mean, name
        else:
            assert values[f"interaction_{name}_mean_s"] is None


def _calls(count: int, *, sent: int, error: ErrorKind | None = None) -> list[RequestRecord]:
    found = [
        RequestRecord(
            id="q",
            tenant="a",
            server="s",
            phase=Phase.MEASURE,
            intended_ns=call * S,
            sent_ns=call * S,
            end_ns=call * S + S // 2,
            output_tokens=1,
            call=call,
            calls=count,
        )
        for call in range(1, sent + 1)
    ]
    found[-1].error = error
    return found


def _analysed(*interactions_: list[RequestRecord]) -> Any:
    numbered = enumerate(interactions_)
    records = [replace(call, interaction=str(n)) for n, calls in numbered for call in calls]
    return interactions(columns(records))


def test_the_completion_interval_holds_whatever_became_of_the_cut() -> None:
    """It reaches from where all that were cut would have failed to where none would."""
    whole, cut = _calls(2, sent=2), _calls(2, sent=1)
    failed = _calls(2, sent=2, error=ErrorKind.STALLED)
    found = _analysed(*[whole] * 6, *[failed] * 2, *[cut] * 2)
    interval, low, high = (
        found.intervals["interaction_completion_rate"], wilson(6, 10), wilson(8, 10),
    )  # fmt: skip
    assert low is not None
    assert high is not None
    assert (interval.low, interval.high) == (low.low, high.high)
    assert _analysed(cut).intervals == {}


def test_latencies_of_interactions_have_intervals_only_where_none_was_cut() -> None:
    """A slow interaction that was cut has a time that nobody knows."""
    whole = [_calls(2, sent=2)] * 10
    assert "interaction_e2e_p50_s" in _analysed(*whole).intervals
    assert "interaction_e2e_p50_s" not in _analysed(*whole, _calls(2, sent=1)).intervals
    unfinished = _calls(2, sent=2, error=ErrorKind.UNFINISHED)
    assert "interaction_e2e_p50_s" not in _analysed(*whole, unfinished).intervals


def test_applications_have_lines_of_their_own(tmp_path: Path) -> None:
    """In the CSV by tenant, in JSON inside it, and in the table among those of all tenants."""
    shutil.copytree(GOLDEN, tmp_path / "out")
    built = build(tmp_path / "out", figures=False, html=True)
    lines = list(csv.DictReader(io.StringIO(built.summary_csv.read_text())))
    apps = [(line["tenant"], line["app"]) for line in lines if line["row"] == "app"]
    assert apps == [("agent", "copilot"), ("agent", "mail"), ("", "copilot"), ("", "mail")]
    plain = next(line for line in lines if line["tenant"] == "plain")
    assert plain["interactions"] == ""
    (cell,) = json.loads(built.summary_json.read_text())["cells"]
    assert cell["tenants"][0]["apps"]["copilot"]["wasted_tokens"] == 26
    assert ["apps" in tenant for tenant in cell["tenants"]] == [True, False, False]
    (table,) = built.interactions
    shown = ["agent", "chat", "all: copilot", "all: mail", "all"]
    assert [row.tenant for row in table.rows] == shown
    assert [str(figure) for figure in table.rows[0].figures] == [
        "6", "2", "2", "1", "2", "50.0 %", "1.50 s", "2.48 s†", "250 ms", "1.83", "26", "37.1 %",
    ]  # fmt: skip
    assert built.report is not None
    assert ">Interactions</h2>" in built.report.read_text()


def test_without_interactions_nothing_is_said_of_them(tmp_path: Path) -> None:
    """No columns, no table and no section of the page."""
    shutil.copytree(GOLDEN.with_name("tiny-result"), tmp_path / "out")
    built = build(tmp_path / "out", figures=False, html=True)
    assert built.interactions == ()
    assert "interaction" not in built.summary_csv.read_text()
    assert built.report is not None
    assert "<h2>Interactions</h2>" not in built.report.read_text()


def test_repetitions_of_interactions_are_brought_together() -> None:
    """Means over runs, of applications too."""
    analysis = analyze(ResultStore.open(GOLDEN))
    (cell,) = analysis.cells
    agent = cell.tenants[0]
    assert agent.interactions is not None
    copilot = replace(agent.interactions.apps["copilot"], wasted_tokens=28)
    more = replace(agent.interactions, begun=8, apps={"copilot": copilot})
    again = replace(cell, tenants=(replace(agent, interactions=more), *cell.tenants[1:]))
    row = rows(replace(analysis, cells=(cell, again)))[0]
    assert row.estimates["interactions"].value == 7
    assert row.estimates["interactions"].across_runs
    estimate = row.estimates["interaction_completion_rate"]
    assert (estimate.value, estimate.interval) == (0.5, Interval(1 / 3, 2 / 3))
    assert row.estimates["interaction_e2e_p50_s"].interval is None  # some were cut
    assert row.apps["copilot"]["wasted_share"].interval is None
    assert row.apps["copilot"]["wasted_tokens"].value == 27
    assert not row.apps["mail"]["wasted_tokens"].across_runs
