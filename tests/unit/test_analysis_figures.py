"""Figures: all that are due, the same bytes from the same records, a word for those left out."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fairshare.analysis.arrays import columns
from fairshare.analysis.pipeline import BuiltAnalysis
from fairshare.analysis.rounds import rounds
from fairshare.records import ErrorKind, Phase, RequestRecord

ROOT = Path(__file__).resolve().parents[2]
BUILD = """
import pathlib, sys
from fairshare.analysis import gallery, pipeline
if sys.argv[2] == "some":
    gallery._parts = lambda found: [(each, (gallery.Family.SPEED,)) for each in found]
pipeline.build_analysis(pathlib.Path(sys.argv[1]), figures=True, html=False, pdf=True)
"""


def test_every_figure_of_the_subject_is_there(drawn: BuiltAnalysis) -> None:
    """Throughput and P99 against concurrency, ECDF, fairness, GPU, rounds: each in three forms."""
    kinds = {figure.name.partition("_")[0] for figure in drawn.drawn}
    assert kinds >= {
        "throughput", "tail-latency", "latency-ecdf", "fairness", "slowdown", "gpu", "resources",
        "rounds",
    }  # fmt: skip
    for figure in drawn.drawn:
        assert figure.png.read_bytes().startswith(b"\x89PNG")
        assert b"<svg" in figure.svg.read_bytes()[:2000]
        assert figure.pdf.read_bytes().startswith(b"%PDF")


def test_captions_say_how_much_stands_behind_a_figure(drawn: BuiltAnalysis) -> None:
    """The count of runs and answers, and what error bars are; none where there are no bars."""
    captions = {figure.name.partition("_")[0]: figure.caption for figure in drawn.drawn}
    assert "n: 1 run per cell" in captions["throughput"]
    assert "Error bars: 95 % intervals within the one run" in captions["throughput"]
    assert "answers per tenant" in captions["rounds"]
    assert "Error bars" not in captions["latency-ecdf"]


def test_what_is_left_out_has_a_reason(drawn: BuiltAnalysis) -> None:
    """A figure without data is told of, with what would bring it."""
    (counters,) = [line for line in drawn.left_out if "counters" in line]
    assert "no policy wrote down what it counts" in counters
    assert not [line for line in drawn.left_out if "as bars" in line or "rounds" in line]


@pytest.mark.parametrize("which", ["some", pytest.param("all", marks=pytest.mark.full)])
def test_equal_records_give_equal_bytes(drawn: BuiltAnalysis, tmp_path: Path, which: str) -> None:
    """Whatever the hash seed, the time and the place: no date, no random id, no order of a set."""
    copy = tmp_path / "elsewhere"
    shutil.copytree(drawn.summary_csv.parents[1], copy)
    env = {**os.environ, "PYTHONHASHSEED": "1", "TZ": "Asia/Tokyo", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", BUILD, str(copy), which]
    subprocess.run(command, env=env, check=True, timeout=110)
    again = {path.name: path.read_bytes() for path in (copy / "analysis/figures").iterdir()}
    before = {path.name: path.read_bytes() for path in drawn.drawn[0].png.parent.iterdir()}
    assert again == {name: before[name] for name in again}
    assert len(again) >= 9 if which == "some" else again.keys() == before.keys()


def test_rounds_are_of_answered_requests_of_the_window() -> None:
    """Means by tenant and round; of an open loop from the schedule; NaN where nothing came."""

    def record(tenant: str, number: int | None, ms: int, *, failed: bool = False) -> RequestRecord:
        phase = Phase.WARMUP if number is None else Phase.MEASURE
        return RequestRecord(
            id="r", tenant=tenant, server="s", phase=phase,
            intended_ns=0, sent_ns=10_000_000, first_token_ns=ms * 1_000_000,
            chunk_ns=[ms * 1_000_000], chunk_tokens=[5], end_ns=ms * 1_000_000, output_tokens=5,
            round=number, error=ErrorKind.TIMEOUT if failed else None,
        )  # fmt: skip

    records = [
        record("open", 0, 110), record("open", 0, 210), record("open", 1, 50, failed=True),
        record("closed", 1, 110), record("closed", None, 999),
    ]  # fmt: skip
    found = rounds(columns(records), np.array([True, False]))
    assert found is not None
    assert found.tenants == ("open", "closed")
    np.testing.assert_allclose(found.e2e_mean_s, [[0.16, np.nan], [np.nan, 0.1]])
    np.testing.assert_allclose(found.output_tokens, [[10, 0], [0, 5]])
    assert rounds(columns([record("closed", None, 1)]), np.array([False])) is None
