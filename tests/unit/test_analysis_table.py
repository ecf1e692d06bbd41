"""Figures as people read them, and what is called best."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fairshare.analysis.aggregate import Estimate, Row, Setting, _with_best
from fairshare.analysis.stats import Interval
from fairshare.analysis.table import (
    format_number,
    format_percent,
    format_seconds,
    tables,
)
from fairshare.records import Mode, Provenance


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0 µs"),
        (0.0000123, "12.3 µs"),
        (0.0501, "50.1 ms"),
        (0.9994, "999 ms"),
        (0.99951, "1.00 s"),
        (5.614, "5.61 s"),
        (1234.5, "1,234 s"),
        (-0.002, "-2.00 ms"),
    ],
)
def test_seconds_have_three_digits_and_a_unit(value: float, text: str) -> None:
    """The unit follows the size, and rounding never shows 1000 ms."""
    assert format_seconds(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(1.0, "100 %"), (0.99999, "99.9 %"), (0.9871, "98.7 %"), (0.0, "0 %"), (0.5, "50.0 %")],
)
def test_all_is_said_only_of_all(value: float, text: str) -> None:
    """One miss in a hundred thousand is not 100 %."""
    assert format_percent(value) == text


def test_numbers_keep_three_digits() -> None:
    """Large numbers get separators, small ones decimals."""
    assert [format_number(v) for v in (0, 0.123, 9.999, 56.78, 1234567)] == [
        "0", "0.12", "10.0", "56.8", "1,234,567",
    ]  # fmt: skip


def _row(
    mode: Mode, value: float, low: float, high: float, metric: str, *, tenant: str | None = None
) -> Row:
    estimate = Estimate(value, Interval(low, high), across_runs=True)
    return Row(
        setting=Setting("s", 1.0, 4),
        mode=mode,
        label=mode.value,
        policy="fcfs",
        provenance=Provenance.SIMULATED,
        tenant=tenant,
        repetitions=3,
        marks=(),
        notes=(),
        estimates={metric: estimate},
        errors={},
        few_for_p99=False,
    )


@pytest.mark.parametrize(
    ("metric", "mps", "best"),
    [
        ("output_tokens_per_s", (110, 106, 114), {Mode.MPS}),
        ("output_tokens_per_s", (110, 104, 116), set()),
        ("e2e_p99_s", (90, 86, 94), {Mode.MPS}),
        ("e2e_p99_s", (90, 84, 96), set()),
        ("e2e_p99_s", (110, 106, 114), {Mode.LOGICAL}),
    ],
)
def test_best_is_what_no_interval_doubts(
    metric: str, mps: tuple[float, float, float], best: set[Mode]
) -> None:
    """A mode is best only if its interval is clear of every rival's; the baseline is none."""
    rows = _with_best(
        [
            _row(Mode.LOGICAL, 100, 95, 105, metric, tenant="a"),
            _row(Mode.MPS, *mps, metric, tenant="a"),
            _row(Mode.EXCLUSIVE, 1, 1, 1, metric, tenant="a"),
        ]
    )
    assert {row.mode for row in rows if metric in row.best} == best
    (table,) = tables(rows)
    starred = {row.mode for row in table.rows if any(figure.best for figure in row.figures)}
    assert starred == {mode.value for mode in best}


def test_pooled_latencies_have_no_best() -> None:
    """A mode that starves the slow tenant answers faster on the whole, and wins nothing by it."""
    pooled = [
        _row(Mode.LOGICAL, 2, 1.9, 2.1, "tpot_p50_s"),
        _row(Mode.MPS, 1, 0.9, 1.1, "tpot_p50_s"),
    ]
    assert not any(row.best for row in _with_best(pooled))
    own = [replace(row, tenant="a") for row in pooled]
    assert [row.mode for row in _with_best(own) if row.best] == [Mode.MPS]


def test_one_mode_alone_wins_nothing() -> None:
    """Without a rival nothing is best."""
    (row,) = _with_best([_row(Mode.MPS, 1, 1, 1, "jain")])
    assert row.best == frozenset()


@pytest.mark.parametrize(("repetitions", "best"), [(1, set()), (3, {"logical"})])
def test_a_p99_of_few_requests_of_one_run_wins_nothing(repetitions: int, best: set[str]) -> None:
    """The largest of a few values is no evidence, unless runs repeat it."""
    rows = [
        replace(row, few_for_p99=True, repetitions=repetitions)
        for row in (
            _row(Mode.LOGICAL, 1, 0.9, 1.1, "ttft_p99_s", tenant="a"),
            _row(Mode.MPS, 2, 1.9, 2.1, "ttft_p99_s", tenant="a"),
        )
    ]
    assert {row.label for row in _with_best(rows) if row.best} == best
