"""Figures and tables of policies: over time, beside their price, and what schedulers counted."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from fairshare.analysis.pipeline import BuiltAnalysis, build_analysis
from fairshare.analysis.style import distinct, looks
from fairshare.records import CellKey, Mode, Scheduling
from fairshare.results import ResultStore, layout
from tests.results_factory import TWO_TENANTS, add_cell, make_results

S = 1_000_000_000
TENANTS = (TWO_TENANTS[0], replace(TWO_TENANTS[1], error_share=0.2))


def _log(folder: Path) -> None:
    """Two tenants' counters, a second apart, in a gateway whose window is full."""
    lines = [
        {"event": "state", "time_ns": (7000 + i) * S, "queued": 3, "running": 4, "window": 4,
         "counters": {"chat": 90.0 * i, "batch": 100.0 * i}}
        for i in range(20)
    ]  # fmt: skip
    (folder / layout.SCHEDULING).write_text("".join(json.dumps(line) + "\n" for line in lines))


def _policies(store: ResultStore) -> None:
    for policy in ("fcfs", "vtc", "rpm:limit=3"):
        for repetition in (1, 2):
            key = CellKey(
                "two-tenants", Mode.LOGICAL, 4, repetition, policy, scheduling=Scheduling.GATEWAY
            )
            _log(add_cell(store, key, TENANTS, seed=repetition))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> BuiltAnalysis:
    """Three policies in a gateway, two repetitions each, beside MPS."""
    folder = tmp_path_factory.mktemp("policies") / "out"
    store = make_results(folder, modes=(Mode.MPS,), concurrency=(4,))
    _policies(store)
    return build_analysis(folder, figures=True, html=True)


def test_what_is_drawn_of_policies(built: BuiltAnalysis) -> None:
    """Service, fairness and response times over time, waste and counters."""
    kinds = {path.name.split("_")[0] for path in built.figures}
    assert {"service", "fairness-over-time", "response-time", "waste", "counters"} <= kinds
    assert all(path.stat().st_size > 5000 for path in built.figures)


def test_policies_stand_side_by_side(built: BuiltAnalysis) -> None:
    """One row per mode and policy, with intervals over the repetitions, on page and screen."""
    (table,) = built.policies
    assert [row.mode for row in table.rows] == [
        "logical + fcfs (gateway)", "logical + rpm:limit=3 (gateway)", "logical + vtc (gateway)",
        "mps-cpu",
    ]  # fmt: skip
    titles = [column.title for column in table.columns]
    for title in ("tok/s", "completion", "worst P99", "Jain", "max diff", "throttled", "wasted"):
        assert str(table.rows[0].figures[titles.index(title)]) not in ("", "–"), title
    assert table.rows[0].figures[titles.index("max diff")].interval
    assert str(table.rows[0].figures[titles.index("2U")]) == "3,072"  # 2 (512 + 2 x 4 x 128)
    assert str(table.rows[3].figures[titles.index("2U")]) == "–"
    assert built.report is not None
    assert "Policies side by side" in built.report.read_text()


def test_without_policies_there_is_no_such_table(tmp_path: Path) -> None:
    """Modes alone are compared in the table that they have always had."""
    make_results(tmp_path / "out", modes=(Mode.LOGICAL, Mode.MPS), concurrency=(4,), repetitions=1)
    assert build_analysis(tmp_path / "out", figures=False, html=False).policies == ()


def test_policies_of_one_mode_look_different() -> None:
    """They have colours of their own where there is one mode, and shades of it beside others."""
    alone = looks([("a", Mode.LOGICAL), ("b", Mode.LOGICAL)])
    assert alone["a"].colour != alone["b"].colour
    mixed = looks([("a", Mode.LOGICAL), ("b", Mode.LOGICAL), ("mps", Mode.MPS)])
    assert len({look.colour for look in mixed.values()}) == 3
    assert mixed["mps"] == looks([("mps", Mode.MPS)])["mps"]


@pytest.mark.parametrize(
    ("labels", "ticks", "shared"),
    [
        (
            ["logical + fcfs (gateway)", "logical + vtc (gateway)"],
            ["fcfs", "vtc"],
            "logical, gateway",
        ),
        (
            ["logical + vtc (engine)", "logical + vtc (gateway)"],
            ["vtc\n(engine)", "vtc\n(gateway)"],
            "logical",
        ),
        (["logical + vtc (gateway)", "mps"], ["logical\nvtc\n(gateway)", "mps"], ""),
        (["logical + vtc (gateway)"], ["logical\nvtc\n(gateway)"], ""),
        (["mps", "mig"], ["mps", "mig"], ""),
    ],
)
def test_ticks_say_what_tells_modes_apart(labels: list[str], ticks: list[str], shared: str) -> None:
    """What all have in common is told once, below the axis."""
    assert distinct(labels) == (ticks, shared)
