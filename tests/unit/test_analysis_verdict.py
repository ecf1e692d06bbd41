"""Which mode for which goal: who wins, by how much, and what keeps the verdict from being one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from fairshare.analysis.goals import goals
from fairshare.analysis.model import Analysis, CellAnalysis, Fairness, Latency, TenantMetrics
from fairshare.analysis.stats import Interval
from fairshare.analysis.verdict import Answer, State, Verdict, answers
from fairshare.records import CellKey, CellResult, CellStatus, Mark, Mode, Provenance

NOTHING = Latency(0, None, None, None, None)
LATENCIES = ("ttft", "tpot", "itl", "e2e", "ttft_send", "ttft_schedule", "e2e_send", "e2e_schedule")


def _metrics(tenant: str | None, rate: float, tail_s: float, **more: Any) -> TenantMetrics:
    shown = dict.fromkeys(LATENCIES, NOTHING) | {
        "ttft": Latency(400, tail_s, tail_s, tail_s, tail_s)
    }
    made = TenantMetrics(
        tenant=tenant, requests=100, completed=100, completion_rate=1.0, errors={},
        output_tokens_per_s=rate, total_tokens_per_s=rate, requests_per_s=1.0, latency=shown,
        slo_attainment=None, slo_attainment_send=None, slo_attainment_schedule=None,
        goodput_per_s=None, cached_share=None, tokens_per_chunk=None, empty_chunks=None,
        token_mismatches=0, intervals={},
    )  # fmt: skip
    return replace(made, **more)


def _cell(
    mode: Mode,
    rate: float,
    *,
    repetition: int = 1,
    tail_s: float = 0.1,
    spread: float | None = None,
    provenance: Provenance = Provenance.MEASURED,
    marks: Sequence[Mark] = (),
    concurrency: int = 4,
    label: str | None = None,
    **more: Any,
) -> CellAnalysis:
    key = CellKey("s", mode, concurrency, repetition)
    result = CellResult(
        key.slug, key, CellStatus.OK, label or mode.value, provenance,
        tenants=[{"name": "chat", "slo": {"ttft_s": 1.0}}, {"name": "batch"}],
    )  # fmt: skip
    intervals = {}
    if spread is not None:
        intervals["output_tokens_per_s"] = Interval(rate - spread, rate + spread)
    return CellAnalysis(
        result, tuple(marks), 10.0,
        tenants=(_metrics("chat", rate / 2, tail_s), _metrics("batch", rate / 2, 9.0)),
        total=_metrics(None, rate, tail_s, intervals=intervals), **more,
    )  # fmt: skip


def _answer(cells: Sequence[CellAnalysis], price: float | None = None) -> Answer:
    (found,) = answers(Analysis("n", {}, tuple(cells), ()), price)
    return found


def _line(cells: Sequence[CellAnalysis], title: str, price: float | None = None) -> Verdict:
    (found,) = [line for line in _answer(cells, price).lines if line.goal.title == title]
    return found


def _runs(mode: Mode, rates: Sequence[float], **more: Any) -> list[CellAnalysis]:
    return [_cell(mode, rate, repetition=n, **more) for n, rate in enumerate(rates, start=1)]


def test_a_clear_winner_has_a_margin_paired_by_repetition() -> None:
    """The lead is the mean of the differences of equal repetitions, with their own interval."""
    cells = _runs(Mode.MPS, (110, 120, 130)) + _runs(Mode.LOGICAL, (50, 60, 70))
    line = _line(cells, "Throughput")
    assert (line.answer, line.state, line.value) == ("mps", State.CLEAR, "120")
    assert line.lead == "60.0 (100.0 %) more than logical"
    assert line.lead_interval == "60.0 to 60.0"
    assert line.badges == ()


def test_overlapping_intervals_are_too_close_to_call() -> None:
    """A better mean is no verdict while intervals overlap; all that overlap are named."""
    cells = [
        *_runs(Mode.MPS, (100, 140)), *_runs(Mode.LOGICAL, (99, 139)), *_runs(Mode.MIG, (1, 1.1)),
    ]  # fmt: skip
    line = _line(cells, "Throughput")
    assert line.state is State.CLOSE
    assert line.answer == "too close to call: mps, logical, mig"
    assert "--num-runs" in line.advice


def test_one_run_without_an_interval_is_not_called() -> None:
    """Where there is nothing to tell from, no mode is said to be clear of the others."""
    line = _line([_cell(Mode.MPS, 200), _cell(Mode.LOGICAL, 100)], "Throughput")
    assert (line.state, line.answer) == (State.UNSURE, "perhaps mps")
    assert "--num-runs 3" in line.advice


def test_one_run_with_intervals_can_be_clear_and_stays_weak() -> None:
    """Intervals of single runs tell modes apart, under the badge of weak evidence."""
    weak = (Mark.WEAK_EVIDENCE,)
    cells = [_cell(Mode.MPS, 200, spread=5, marks=weak), _cell(Mode.LOGICAL, 100, spread=5)]
    line = _line(cells, "Throughput")
    assert line.state is State.CLEAR
    assert line.badges == ("weak evidence",)


def test_who_refuses_requests_has_no_tail_to_win_with() -> None:
    """A short P99 of the half that was answered is not ranked; the throughput is."""
    quick = _cell(Mode.MPS, 200, tail_s=0.01)
    half = tuple(replace(row, completion_rate=0.5) for row in quick.tenants)
    cells = [replace(quick, tenants=half), _cell(Mode.LOGICAL, 100)]
    assert _line(cells, "Interactive tail latency").answer == "logical"
    assert _line(cells, "Throughput").answer == "perhaps mps"
    assert _line(cells[:1], "Interactive tail latency").state is State.MISSING
    assert "no such figure of mps: fewer than 99" in _line(cells, "Interactive tail latency").advice


def test_figures_of_different_origin_are_never_ranked_together() -> None:
    """What was emulated has a line of its own and beats nothing that was measured."""
    cells = [
        *_runs(Mode.LOGICAL, (100, 100.1)), *_runs(Mode.MPS, (110, 110.1)),
        *_runs(Mode.MIG, (500, 500.1), provenance=Provenance.EMULATED, label="mig-emulated"),
    ]  # fmt: skip
    lines = [line for line in _answer(cells).lines if line.goal.title == "Throughput"]
    assert [(line.answer, line.state) for line in lines] == [
        ("mps", State.CLEAR), ("mig-emulated", State.ALONE),
    ]  # fmt: skip
    assert lines[1].badges == ("emulated",)


def test_an_emulated_mode_on_a_simulated_device_has_both_badges() -> None:
    """Two reservations are two badges."""
    how = {"provenance": Provenance.SIMULATED}
    cells = [
        *_runs(Mode.MIG, (5, 5.1), label="mig-emulated", **how),
        *_runs(Mode.MPS, (1, 2), **how),
    ]
    assert set(_line(cells, "Throughput").badges) == {"simulated", "emulated"}


def test_impossible_figures_win_nothing() -> None:
    """A mode beyond the device's limits is left out, and said to be."""
    cells = [
        *_runs(Mode.LOGICAL, (100, 100.1)), *_runs(Mode.MIG, (90, 90.1)),
        *_runs(Mode.MPS, (900, 900.1), marks=(Mark.IMPOSSIBLE,)),
    ]  # fmt: skip
    assert _line(cells, "Throughput").answer == "logical"
    assert _answer(cells).left_out == ("mps",)
    alone = _line(_runs(Mode.MPS, (900, 900.1), marks=(Mark.IMPOSSIBLE,)), "Throughput")
    assert alone.state is State.MISSING
    assert "no device can do" in alone.advice


def test_the_baseline_does_not_compete() -> None:
    """Exclusive is what the others are held against."""
    line = _line([*_runs(Mode.EXCLUSIVE, (500, 500.1)), *_runs(Mode.MPS, (10, 11))], "Throughput")
    assert (line.answer, line.state) == ("mps", State.ALONE)


def test_the_interactive_tail_is_that_of_tenants_with_a_limit_on_it() -> None:
    """The batch tenant's nine seconds do not count; the chat tenant's tail does, less is better."""
    cells = [_cell(Mode.MPS, 1, tail_s=0.2), _cell(Mode.LOGICAL, 1, tail_s=0.3)]
    line = _line(cells, "Interactive tail latency")
    assert (line.answer, line.value) == ("perhaps mps", "200 ms")
    assert line.lead == "100 ms (33.3 %) less than logical"
    assert _answer(cells).interactive == ("chat",)


def test_cost_follows_from_price_and_throughput() -> None:
    """3.60 an hour at 1,000 tokens per second are 1.00 per million, and cheaper is better."""
    cells = [_cell(Mode.MPS, 1000, spread=100), _cell(Mode.LOGICAL, 500, spread=100)]
    line = _line(cells, "Cost", price=3.6)
    assert (line.answer, line.value) == ("mps", "1.00")
    assert line.interval == "0.91 to 1.11"
    assert all(goal.title != "Cost" for goal in goals())


def test_cost_is_as_sure_as_the_throughput_that_it_follows_from() -> None:
    """The same doubt, turned over: no mode is clear in one and too close in the other."""
    cells = _runs(Mode.LOGICAL, (1290.6, 1283.0, 1262.8)) + _runs(
        Mode.MPS, (1027.6, 1109.7, 1135.7)
    )
    cost, rate = (_line(cells, title, price=2.5) for title in ("Cost", "Throughput"))
    assert (cost.answer, cost.state) == (rate.answer, rate.state) == ("logical", State.CLEAR)
    assert (cost.value, cost.lead) == ("0.54", "0.09 (14.7 %) less than mps")
    assert cost.lead_interval == "0.01 to 0.21"


def test_isolation_needs_a_baseline_and_is_the_worst_interactive_tenants() -> None:
    """Without exclusive cells the flag is named; who floods the device does not decide."""
    bare = _line([_cell(Mode.MPS, 1), _cell(Mode.LOGICAL, 1)], "Isolation")
    assert bare.state is State.MISSING
    assert "exclusive" in bare.advice
    slow = {"chat": {"e2e_p99_s": 4.0}, "batch": {"e2e_p99_s": 1.0}}
    even = {"chat": {"e2e_p99_s": 2.0}, "batch": {"e2e_p99_s": 9.0}}
    line = _line(
        [_cell(Mode.MPS, 1, slowdown=slow), _cell(Mode.MIG, 1, slowdown=even)], "Isolation"
    )
    assert (line.answer, line.value) == ("perhaps mig", "0.500")


def test_all_alike_is_no_contest() -> None:
    """Equal figures are said to be equal."""
    fair = Fairness(1.0, 5, 1.0, 1.0, 1.0, 1.0, None, None, None, None, None, 0.0, None, None)
    line = _line([_cell(Mode.MPS, 1, fairness=fair), _cell(Mode.MIG, 1, fairness=fair)], "Fairness")
    assert (line.state, line.answer, line.value) == (State.ALIKE, "any: all alike", "1.000")


def test_other_loads_are_told_beside_the_highest() -> None:
    """The table is of the highest load, and says where another mode wins."""
    low = {"concurrency": 1}
    cells = [
        *_runs(Mode.MPS, (20, 20.1)), *_runs(Mode.LOGICAL, (10, 10.1)),
        *_runs(Mode.MPS, (5, 5.01), **low), *_runs(Mode.LOGICAL, (9, 9.01), **low),
    ]  # fmt: skip
    line = _line(cells, "Throughput")
    assert line.setting.concurrency == 4
    assert line.elsewhere == "concurrency 1: logical"


def test_a_load_at_which_nothing_is_clear_says_so() -> None:
    """Doubt at another load is not dropped on the way into the last column."""
    cells = [
        *_runs(Mode.MPS, (20, 20.1)), *_runs(Mode.LOGICAL, (10, 10.1)),
        *_runs(Mode.MPS, (5, 9), concurrency=1), *_runs(Mode.LOGICAL, (6, 7), concurrency=1),
        _cell(Mode.MPS, 5, concurrency=2), _cell(Mode.LOGICAL, 6, concurrency=2),
    ]  # fmt: skip
    line = _line(cells, "Throughput")
    assert line.elsewhere == "concurrency 1: too close to call; concurrency 2: perhaps logical"


@pytest.mark.parametrize("count", [0, 1])
def test_too_little_gives_no_traceback(count: int) -> None:
    """No cells give no answer, and one cell a line without a rival."""
    found = answers(Analysis("n", {}, tuple(_runs(Mode.MPS, (1,) * count)), ()))
    assert [line.state for answer in found for line in answer.lines[:1]] == [State.ALONE] * count
