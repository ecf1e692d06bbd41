"""Cells for people: a section each on the page, or a page of their own on demand."""

from __future__ import annotations

from pathlib import Path

import pytest

from fairshare.analysis import build, report
from fairshare.analysis.analyze import analyze
from fairshare.analysis.cell_views import CellView, cell_view
from fairshare.analysis.pipeline import build_cell_page
from fairshare.errors import ResultsError
from fairshare.records import Mode
from fairshare.results import ResultStore
from tests.results_factory import make_results


@pytest.fixture
def store(tmp_path: Path) -> ResultStore:
    """Two cells of one mode."""
    return make_results(
        tmp_path / "out", modes=[Mode.LOGICAL], concurrency=[1, 2], repetitions=1, window_s=2.0
    )


def _view(store: ResultStore) -> CellView:
    return cell_view(store.cells()[0], analyze(store).cells[0], "here")


def test_a_view_has_command_log_and_figures(store: ResultStore) -> None:
    """The command is whole, of the log the last lines, and every tenant has its figures."""
    servers = store.cells()[0].dir / "servers"
    lines = "\n".join(f"line {number}" for number in range(5000))
    (servers / "s0.log").write_text(f"{lines}\nit died here\n")
    view = _view(store)
    assert "OMP_NUM_THREADS=1" in view.commands[0].text
    (log,) = view.logs
    assert log.place.endswith("servers/s0.log")
    assert log.text.endswith("it died here")
    assert len(log.text.splitlines()) == 15
    assert view.table is not None
    assert [row.tenant for row in view.table.rows] == ["chat", "batch", "all"]
    facts = dict(view.facts)
    assert (facts["mode"], facts["concurrency"]) == ("logical", "1")


def test_a_link_out_of_the_folder_is_not_followed(store: ResultStore, tmp_path: Path) -> None:
    """A result folder shows what is in it, never what a link in it points to."""
    secret = tmp_path / "secret"
    secret.write_text("the secret")
    (store.cells()[0].dir / "servers" / "s0.log").symlink_to(secret)
    (store.cells()[0].dir / "servers" / "a.cmd").symlink_to(secret)
    view = _view(store)
    assert "the secret" not in "".join(each.text for each in (*view.logs, *view.commands))


def test_many_cells_have_pages_on_demand(
    store: ResultStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond what one page holds, cells have no sections, and the page names the command."""
    few = build(store.dir, figures=False)
    assert few.report is not None
    assert few.report.read_text().count('<details class="cell">') == 2
    monkeypatch.setattr(report, "_MOST_VIEWS", 1)
    many = build(store.dir, figures=False)
    assert many.report is not None
    text = many.report.read_text()
    assert '<details class="cell">' not in text
    assert "--cell NAME" in text


def test_a_cell_that_is_not_there_is_told(store: ResultStore) -> None:
    """A wrong name is bad input, with where to find the right ones."""
    with pytest.raises(ResultsError) as error:
        build_cell_page(store.dir, "no-such-cell")
    assert "no-such-cell" in str(error.value)
