"""--price and --cell of the commands that rebuild a folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from fairshare.cli.results import analyze_command, report_command
from fairshare.records import Mode
from tests.results_factory import make_results


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two modes, one load, one run."""
    modes = [Mode.LOGICAL, Mode.MPS]
    directory = tmp_path_factory.mktemp("r") / "out"
    return make_results(directory, modes=modes, concurrency=[2], repetitions=1, window_s=2.0).dir


def test_a_price_adds_the_cost_to_the_verdict(folder: Path) -> None:
    """Without a price there is no line of cost; with one there is, in its currency."""
    bare = CliRunner().invoke(analyze_command, [str(folder)])
    priced = CliRunner().invoke(analyze_command, [str(folder), "--price", "2.5"])
    assert (bare.exit_code, priced.exit_code) == (0, 0)
    assert "what to run for which goal" in bare.output
    assert "│ Cost" not in bare.output
    assert "│ Cost" in priced.output


@pytest.mark.parametrize("price", ["0", "-1", "cheap", "nan"])
def test_a_price_is_a_positive_number(folder: Path, price: str) -> None:
    """Anything else is bad input."""
    assert CliRunner().invoke(analyze_command, [str(folder), "--price", price]).exit_code == 2


def test_a_cell_has_a_page_on_demand(folder: Path) -> None:
    """The command names the page that it wrote, which holds figures of that cell alone."""
    name = next((folder / "cells").iterdir()).name
    done = CliRunner().invoke(report_command, [str(folder), "--cell", name])
    assert done.exit_code == 0
    page = folder / "analysis" / "cells" / name / "cell.html"
    assert str(page) in done.output.replace("\n", "")
    assert page.read_text().count("<img ") > 3
