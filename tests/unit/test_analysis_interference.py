"""Who slows whom: the matrix of victims and modes, and the index of isolation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from fairshare.analysis.aggregate import rows
from fairshare.analysis.analyze import analyze
from fairshare.analysis.interference import InterferenceMatrix, interference
from fairshare.analysis.model import CellAnalysis, Latency
from fairshare.analysis.slowdown import isolation_index, isolation_interval, with_slowdowns
from fairshare.analysis.stats import Interval
from fairshare.analysis.subjects import subjects
from fairshare.analysis.trade_plots import _victims
from fairshare.records import CellKey, CellResult, CellStatus, Mode, Provenance
from tests.results_factory import FakeTenant, add_cell, make_results
from tests.unit.test_analysis_verdict import _metrics

THREE = (FakeTenant("a", 32, 16), FakeTenant("b", 32, 16), FakeTenant("c", 32, 16))


def _cell(ratios: Mapping[str, float]) -> CellAnalysis:
    result = CellResult("c", CellKey("s", Mode.MPS, 1), CellStatus.OK, "mps", Provenance.MEASURED)
    tenants = tuple(_metrics(name, 1.0, 0.1) for name in "ab")
    slowed = {name: {"e2e_p99_s": ratio} for name, ratio in ratios.items()}
    return CellAnalysis(result, (), 1.0, tenants=tenants, slowdown=slowed)


@pytest.mark.parametrize(
    ("ratios", "index"),
    [
        ({"a": 2.0, "b": 1.0}, 0.5),
        ({"a": 0.8, "b": 0.9}, 1.0),
        ({"a": 2.0}, None),
        ({}, None),
    ],
)
def test_the_isolation_index_is_that_of_the_worst_hit(
    ratios: Mapping[str, float], index: float | None
) -> None:
    """One over the worst slowdown, 1 at most, and absent unless every tenant was measured alone."""
    assert isolation_index(_cell(ratios)) == index


def test_a_slowdown_of_one_run_has_an_interval_where_both_tails_have_one() -> None:
    """Two independent 10 % make 14 % of the ratio; the index ends where the worst hit may be."""
    both = ((Mode.EXCLUSIVE, 2.0, "a"), (Mode.EXCLUSIVE, 2.0, "b"), (Mode.MPS, 4.0, None))
    found = with_slowdowns([_measured(mode, tail_s, alone) for mode, tail_s, alone in both])[-1]
    interval = found.slowdown_intervals["a"]["e2e_p99_s"]
    assert found.slowdown["a"]["e2e_p99_s"] == pytest.approx(2.0)
    assert (interval.low, interval.high) == pytest.approx((2 / 1.1443, 2 * 1.1443), rel=1e-3)
    index = isolation_interval(found)
    assert index is not None
    assert (index.low, index.high) == pytest.approx((1 / interval.high, 1 / interval.low))
    assert isolation_interval(replace(found, slowdown_intervals={})) is None


def test_figures_of_different_origin_make_no_slowdown() -> None:
    """What was simulated alone says nothing of what was measured; emulated is of one device."""
    alone = [_measured(Mode.EXCLUSIVE, 2.0, name) for name in "ab"]
    shared = _measured(Mode.MIG, 4.0, None)
    for origin, paired in ((Provenance.EMULATED, True), (Provenance.SIMULATED, False)):
        other = replace(shared, result=replace(shared.result, provenance=origin))
        assert bool(with_slowdowns([*alone, other])[-1].slowdown) is paired


def _measured(mode: Mode, tail_s: float, alone: str | None) -> CellAnalysis:
    """A cell whose tails are known to a tenth."""
    key = CellKey("s", mode, 1, tenant=alone)
    result = CellResult(key.slug, key, CellStatus.OK, mode.value, Provenance.MEASURED)
    tail = Latency(400, tail_s, tail_s, tail_s, tail_s)
    known = {"e2e_p99_s": Interval(tail_s / 1.1, tail_s * 1.1)}
    rows = [_metrics(name, 1.0, 0.1, intervals=known) for name in alone or "ab"]
    tenants = tuple(replace(row, latency={**row.latency, "e2e": tail}) for row in rows)
    return CellAnalysis(result, (), 1.0, tenants=tenants)


@pytest.fixture(scope="module")
def matrices(tmp_path_factory: pytest.TempPathFactory) -> list[InterferenceMatrix]:
    """Two tenants under all modes, at one load, twice."""
    store = make_results(tmp_path_factory.mktemp("r") / "out", concurrency=(4,), window_s=6.0)
    return interference(rows(analyze(store)))


def test_the_matrix_names_victim_aggressor_and_mode(matrices: list[InterferenceMatrix]) -> None:
    """Each tenant is a victim of the other, under each shared mode, with its figure."""
    (matrix,) = matrices
    assert [column.mode for column in matrix.modes] == [
        "logical",
        "timeslice",
        "mps-cpu",
        "mig-cpu",
    ]
    assert [(v.tenant, v.aggressors) for v in matrix.victims] == [
        ("chat", "batch"),
        ("batch", "chat"),
    ]
    for victim in matrix.victims:
        timeslice = victim.suffered[1]
        assert timeslice is not None
        assert timeslice.tail.text.endswith("x")
        assert timeslice.tail.interval
        assert timeslice.severity == 2  # twice as slow, as the factory makes it
    assert all(column.isolation.text not in ("", "–") for column in matrix.modes)


def test_of_several_others_all_are_named_together(tmp_path: Path) -> None:
    """With three tenants a victim suffers from both others; nobody is singled out."""
    store = make_results(
        tmp_path / "out", modes=[Mode.EXCLUSIVE, Mode.MPS], concurrency=[2], repetitions=1,
        tenants=THREE, window_s=3.0,
    )  # fmt: skip
    (matrix,) = interference(rows(analyze(store)))
    assert [victim.aggressors for victim in matrix.victims] == ["b, c", "a, c", "a, b"]


def test_a_tenant_of_several_scenarios_is_shown_alone_in_pairs_and_among_all(
    tmp_path: Path,
) -> None:
    """One matrix holds what a tenant suffers from nobody, from one other, and from all."""
    store = make_results(
        tmp_path / "out", modes=[Mode.EXCLUSIVE, Mode.MPS], concurrency=[2], repetitions=1,
        tenants=THREE, window_s=2.0,
    )  # fmt: skip
    for scenario, tenants in (("solo", THREE[:1]), ("pair", THREE[:2])):
        for tenant in tenants:
            add_cell(store, CellKey(scenario, Mode.EXCLUSIVE, 2, tenant=tenant.name), [tenant])
        add_cell(store, CellKey(scenario, Mode.MPS, 2), tenants)
    add_cell(store, CellKey("open", Mode.EXCLUSIVE, None, tenant="a"), THREE[:1])
    add_cell(store, CellKey("open", Mode.MPS, None), THREE[:1])  # its load is the same everywhere
    matrix = interference(rows(analyze(store)))[-1]
    lines = [victim.aggressors for victim in matrix.victims if victim.tenant == "a"]
    assert lines == ["nobody (open)", "b (pair)", "nobody (solo)", "b, c (two-tenants)"]
    assert all(victim.suffered[0] is not None for victim in matrix.victims)
    assert not matrix.indexed


def test_without_a_baseline_there_is_no_matrix(tmp_path: Path) -> None:
    """Nothing is called slow that was never measured alone."""
    store = make_results(
        tmp_path / "out", modes=[Mode.MPS], concurrency=[2], repetitions=1, window_s=3.0
    )
    assert interference(rows(analyze(store))) == []


@pytest.mark.parametrize(("loads", "drawn"), [((2,), False), ((1, 4), True)])
def test_victims_are_drawn_against_several_rates_only(
    tmp_path: Path, loads: tuple[int, ...], drawn: bool
) -> None:
    """A tail against the others' rate needs more than one rate."""
    store = make_results(
        tmp_path / "out", modes=[Mode.MPS], concurrency=loads, repetitions=1, window_s=3.0
    )
    analysis = analyze(store)
    (subject,) = subjects(analysis, rows(analysis), {})
    found = _victims(subject)
    assert list(found) == (["chat"] if drawn else [])  # of batch its own rate changed, not others'
    for lines in found.values():
        rates = [rate for rate, _ in lines["mps-cpu"]]
        assert rates == sorted(rates)
        assert len(rates) == len(loads)
