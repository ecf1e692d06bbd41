"""Which split is best: computed from cells whose figures are given."""

from __future__ import annotations

import csv
import io

import pytest

from fairshare.analysis.model import Analysis, CellAnalysis, Latency, TenantMetrics
from fairshare.analysis.split_answers import Goal, SplitAnswer, split_answers
from fairshare.analysis.split_tables import split_csv, split_json, split_tables
from fairshare.records import CellKey, CellResult, CellStatus, Mode, Provenance

_NONE = Latency(0, None, None, None, None)


def _row(tenant: str | None, goodput: float | None, tokens: float) -> TenantMetrics:
    return TenantMetrics(
        tenant=tenant,
        requests=10,
        completed=10,
        completion_rate=1.0,
        errors={},
        output_tokens_per_s=tokens,
        total_tokens_per_s=tokens,
        requests_per_s=1.0,
        latency={},
        slo_attainment=None,
        slo_attainment_send=None,
        slo_attainment_schedule=None,
        goodput_per_s=goodput,
        cached_share=None,
        tokens_per_chunk=None,
        empty_chunks=None,
        token_mismatches=0,
        intervals={},
    )


def _cell(
    shares: str | None, run: int, chat: float | None, batch: float | None, tokens: float
) -> CellAnalysis:
    key = CellKey("s", Mode.MPS, 4, repetition=run, shares=shares)
    result = CellResult(f"{shares}-{run}", key, CellStatus.OK, "mps", Provenance.SIMULATED)
    return CellAnalysis(
        result,
        (),
        window_s=10.0,
        tenants=(_row("chat", chat, 1), _row("batch", batch, 1)),
        total=_row(None, None, tokens),
    )


def _answers(*cells: CellAnalysis) -> list[SplitAnswer]:
    return split_answers(Analysis("a", {}, cells, ()))


def _three_runs() -> list[CellAnalysis]:
    cells = []
    for run in (1, 2, 3):
        more = 0.1 * run
        cells += [
            _cell("30:70", run, 2.0 + more, 4.0, 900 + run),
            _cell("50:50", run, 8.0 + more, 3.6, 1000 + 10 * run),
            _cell("70:30", run, 10.0 + more, 1.0, 1000 + 11 * run),
        ]
    return cells


def test_the_worst_tenant_is_judged_by_what_it_could_have_had() -> None:
    """A tenant of few requests is not the worst for that: each is held against its own best."""
    (answer,) = _answers(*_three_runs())
    worst, total = answer.best
    assert (worst.goal, worst.split.shares) == (Goal.WORST, "50:50")
    # chat 8.2 of 10.2 at best, batch 3.6 of 4.0: the smaller one, per repetition
    assert worst.split.value(Goal.WORST) == pytest.approx(8.2 / 10.2)
    assert worst.says == "beyond doubt"
    assert (total.goal, total.split.shares) == (Goal.TOTAL, "70:30")
    assert total.rivals[0].ahead == pytest.approx(2.0)
    assert total.says == "not told apart: 50:50"


def test_one_run_decides_nothing() -> None:
    """Without a repetition there is no interval, and the answer says how to get one."""
    (answer,) = _answers(_cell("30:70", 1, 1, 1, 10), _cell("70:30", 1, 2, 2, 20))
    assert {best.says for best in answer.best} == {"one run each: not decided without --num-runs 3"}


def test_splits_are_compared_over_the_same_repetitions() -> None:
    """A sweep that is not over yet has splits with more repetitions than others."""
    (answer,) = _answers(
        _cell("30:70", 1, 1, 1, 10), _cell("30:70", 2, 1, 1, 1000), _cell("70:30", 1, 1, 1, 20)
    )
    assert answer.best[-1].split.shares == "70:30"


def test_without_an_slo_there_is_no_goodput_to_judge_by() -> None:
    """Throughput alone is judged; cells that no sweep over shares measured are left out."""
    (answer,) = _answers(_cell("30:70", 1, None, None, 10), _cell("70:30", 1, None, None, 20))
    assert [best.goal for best in answer.best] == [Goal.TOTAL]
    assert _answers(_cell(None, 1, 1, 1, 10)) == []


def test_files_and_table_say_the_same() -> None:
    """The table names the best split of each goal, as shares.csv and shares.json do."""
    answers = _answers(*_three_runs())
    (table,) = split_tables(answers)
    assert [str(row.figures[1]) for row in table.rows] == ["50:50", "70:30"]
    lines = {
        line["shares"]: line for line in csv.DictReader(io.StringIO(split_csv(answers).decode()))
    }
    assert lines["50:50"]["best_for"] == Goal.WORST.value
    assert float(lines["30:70"]["goodput_per_s:batch"]) == 4.0
    assert b'"beyond_doubt": true' in split_json(answers)
