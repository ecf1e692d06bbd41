"""Warnings that end in the flag that helps: too short a warm-up, runs that disagree."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fairshare.analysis.aggregate import rows
from fairshare.analysis.analyze import analyze
from fairshare.analysis.arrays import Requests, columns
from fairshare.analysis.steadiness import disagreement, sentences, unsteady
from fairshare.analysis.summary import summary_csv
from fairshare.records import CellKey, Mode, Phase, RequestRecord
from fairshare.results import ResultStore
from tests.results_factory import MS, TWO_TENANTS, S, add_cell, make_results

WINDOW = (5.0, 25.0)


def run(random: np.random.Generator, *, slow_until_s: float = 0.0, count: int = 500) -> Requests:
    """Requests over 25 s that wait 100 ms, three times as long before ``slow_until_s``."""
    records = []
    for number, sent_s in enumerate(np.sort(random.uniform(0, 25, count))):
        wait = 0.1 * random.gamma(20, 1 / 20) * (3 if sent_s < slow_until_s else 1)
        first, sent = int((sent_s + wait) * S), int(sent_s * S)
        record = RequestRecord(str(number), "chat", "s", Phase.MEASURE, sent, sent)
        record.first_token_ns, record.end_ns = first, first + MS
        record.chunk_ns, record.chunk_tokens, record.output_tokens = [first], [8], 8
        records.append(record)
    return columns(records)


def test_a_warm_up_that_was_too_short_is_said_with_the_one_to_use() -> None:
    """Three seconds of the window were slow still; the sentence names tenant, size and flag."""
    found = unsteady(run(np.random.default_rng(1), slow_until_s=8.5), WINDOW)
    assert found is not None
    assert (found.figure, found.tenant) == ("TTFT", "chat")
    assert 1.0 < found.change < 2.5
    assert str(found).endswith("use --warmup 9s")
    assert unsteady(run(np.random.default_rng(1), slow_until_s=4.0), WINDOW) is None


def test_steady_runs_are_hardly_ever_called_unsteady() -> None:
    """Of 100 windows of Poisson arrivals not more than 1."""
    random = np.random.default_rng(2)
    assert sum(unsteady(run(random), WINDOW) is not None for _ in range(100)) <= 1


def test_a_ramp_does_not_hide_itself() -> None:
    """Throughput that grows through the first fifth is told, though it varies much there."""
    random = np.random.default_rng(3)
    ramp = run(random, count=4000)
    kept = (ramp.sent_s > 9) | (random.uniform(5, 9, len(ramp)) < ramp.sent_s)
    found = unsteady(ramp.select(kept & (ramp.sent_s > 5)), WINDOW)
    assert found is not None
    assert found.change < 0


def test_of_several_runs_one_sentence_is_made() -> None:
    """It is the clearest one, and says in how many of them it was so."""
    found = unsteady(run(np.random.default_rng(1), slow_until_s=8.5), WINDOW)
    assert sentences([None, None]) == []
    [said] = sentences([None, found, replace(found, change=0.5)] if found else [])
    assert str(found) in said
    assert said.endswith("(so in 2 of 3 runs)")


@pytest.mark.parametrize(
    ("values", "runs"),
    # half of t's interval is 4.303 s / sqrt(3) of 3 runs; 0.2 / sqrt(n) x t(n - 1) <= 0.1 at n = 18
    [([0.8, 1.0, 1.2], "use --num-runs 18,"), ([0.99, 1.0, 1.01], None), ([1.0], None)],
)
def test_runs_that_disagree_name_how_many_would_do(values: list[float], runs: str | None) -> None:
    """Enough for a tenth to each side; nothing is said of runs that agree, nor of a single one."""
    said = disagreement({("a", "output_tokens_per_s"): values, ("a", "jain"): [0.1, 0.9]})
    assert (said is None) if runs is None else (said is not None and runs in said)


def test_the_warnings_stand_beside_the_figures(tmp_path: Path) -> None:
    """In the notes of a mode's row of all tenants, and of each cell in the summary."""
    store = make_results(tmp_path / "r", modes=[], concurrency=[])
    tenants = (replace(TWO_TENANTS[0], rate_per_s=1.0), TWO_TENANTS[1])
    for repetition in (1, 2):
        key = CellKey("two-tenants", Mode.MPS, 4 * repetition**3, repetition)
        add_cell(store, key, tenants, seed=repetition)
    folder = ResultStore.open(store.dir)
    for cell in folder.cells():  # the same concurrency on paper
        cell.result.key = replace(cell.result.key, concurrency=4)
        (cell.dir / "cell.json").write_bytes(cell.result.to_json())
    analysis = analyze(folder)
    total = next(row for row in rows(analysis) if row.tenant is None)
    tenant = next(row for row in rows(analysis) if row.tenant == "batch")
    assert any(note.startswith("unstable: ") for note in total.notes)
    assert not any(note.startswith("unstable: ") for note in tenant.notes)
    slow = replace(analysis.cells[0], unsteady=unsteady(
        run(np.random.default_rng(1), slow_until_s=8.5), WINDOW))  # fmt: skip
    text = summary_csv(replace(analysis, cells=(slow,))).decode()
    assert "--warmup 9s" in text
