"""Drift over the rounds of a sweep: found where it is, and not made up."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from fairshare.analysis.drift import Drift, drifts
from fairshare.analysis.model import CellAnalysis
from fairshare.records import CellKey, Mode

KEY = CellKey("s", Mode.MPS, 4)


def _cell(key: CellKey, tokens_per_s: float, ttft_s: float | None) -> CellAnalysis:
    """A measured cell with just the figures that drift is told by."""
    values = {"output_tokens_per_s": tokens_per_s, "ttft_p50_s": ttft_s, "e2e_p50_s": None}
    row = SimpleNamespace(values=lambda: values)
    told: Any = SimpleNamespace(result=SimpleNamespace(key=key), tenants=(row,), rows=lambda: [row])
    return cast(CellAnalysis, told)


def _sweep(per_round: float, noise: float, rounds: int = 5, seed: int = 5) -> list[CellAnalysis]:
    """Eight cells of very different speed, all of which drift alike."""
    source = np.random.default_rng(seed)
    return [
        _cell(
            replace(KEY, concurrency=2**cell, repetition=number),
            100 * 2**cell * (1 + per_round) ** number * (1 + noise * source.standard_normal()),
            0.1,
        )
        for cell in range(8)
        for number in range(1, rounds + 1)
    ]


def _by_metric(cells: list[CellAnalysis]) -> dict[str, Drift]:
    return {drift.metric: drift for drift in drifts(cells)}


def test_a_trend_is_found_with_its_size() -> None:
    """Cells that lose 3 % a round are told of, however different the cells are."""
    found = _by_metric(_sweep(-0.03, noise=0.005))["output_tokens_per_s"]
    assert found.told
    assert found.per_round == pytest.approx(-0.03, abs=0.005)
    assert found.in_all == pytest.approx(0.97**4 - 1, abs=0.02)
    assert (found.rounds, found.cells) == (5, 8)
    assert "output tokens per second fell by " in str(found)
    assert found.by_round[0] > found.by_round[-1]


def test_noise_is_no_trend() -> None:
    """Of a hundred sweeps without drift about five are taken for a trend, not many more."""
    sweeps = (_by_metric(_sweep(0.0, 0.05, seed=seed)) for seed in range(100))
    told = sum(found["output_tokens_per_s"].told for found in sweeps)
    assert told <= 10


def test_a_small_trend_is_not_worth_telling() -> None:
    """A change below two per cent in all is no warning, however clear it is."""
    found = _by_metric(_sweep(0.002, noise=0.0))["output_tokens_per_s"]
    assert found.interval.low > 0
    assert not found.told


def test_two_rounds_show_no_trend() -> None:
    """A line through two points says nothing; nor does a figure that no cell has."""
    assert drifts(_sweep(0.1, 0.0, rounds=2)) == []
    assert "e2e_p50_s" not in _by_metric(_sweep(0.1, 0.0))


def test_a_cell_that_failed_once_is_left_out() -> None:
    """Only cells that every round has are compared: a missing one would look like a shift."""
    cells = _sweep(0.0, noise=0.001)
    found = _by_metric(cells[1:])["output_tokens_per_s"]
    assert (found.cells, found.told) == (7, False)
