"""The whole way from a result folder to summary, figures and page."""

from __future__ import annotations

import csv
import io
import json
import time
import xml.etree.ElementTree as ET
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from fairshare.analysis import build
from fairshare.analysis.pipeline import BuiltAnalysis
from fairshare.errors import ResultsError
from fairshare.records import CellKey, CellStatus, Mark, Mode
from fairshare.results import ResultStore, layout
from fairshare.ui.outcome import show_analysis
from tests.results_factory import TWO_TENANTS, FakeTenant, add_cell, make_results

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>{{ 7*7 }}$x_1$\x1b[31m\u202e"
ACTIVE = {"script", "iframe", "object", "embed", "link", "base", "form", "svg"}


class _Elements(HTMLParser):
    """Collects the elements of a page and everything that could act or load."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.active: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep the tag; note handlers, scripts and addresses that leave the page."""
        self.tags.append(tag)
        for name, value in attrs:
            leaves = name in ("src", "href") and not (value or "").startswith(("data:image/", "#"))
            if name.startswith("on") or leaves:
                self.active.append(f"{tag} {name}={value}")
        if tag in ACTIVE:
            self.active.append(tag)

    def handle_data(self, data: str) -> None:
        """Keep the text that a reader sees."""
        self.text += data


def _page(built: BuiltAnalysis) -> _Elements:
    assert built.report is not None
    page = _Elements()
    page.feed(built.report.read_text(encoding="utf-8"))
    return page


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five modes, two concurrencies, two repetitions; a GPU was sampled in all logical cells."""
    directory = tmp_path_factory.mktemp("results") / "out"
    store = make_results(directory, concurrency=(1, 4), window_s=6.0)
    for cell in store.cells():
        if cell.result.key.mode is Mode.LOGICAL:
            rows = ["t_s,gpu_utilisation,power_w", "0,0.5,", "1,,70", "2,0.75,71"]
            (cell.dir / layout.GPU).write_text("\n".join(rows) + "\n")
    return directory


@pytest.fixture(scope="module")
def built(folder: Path) -> BuiltAnalysis:
    """Everything built of it."""
    return build(folder, figures=True, html=True)


def test_every_figure_exists_in_all_formats(built: BuiltAnalysis, folder: Path) -> None:
    """Each figure is a PNG with contents and a well-formed SVG."""
    kinds = {path.name.split("_")[0] for path in built.figures}
    assert kinds == {
        "throughput", "tail-latency", "latency-ecdf", "fairness", "slowdown", "resources", "gpu",
        "service", "fairness-over-time", "response-time", "trade-off", "aggressors",
    }  # fmt: skip
    for path in built.figures:
        data = path.read_bytes()
        assert data.startswith(b"\x89PNG")
        assert len(data) > 10_000
        svg = ET.parse(path.with_suffix(".svg")).getroot()  # noqa: S314
        words = " ".join("".join(node.itertext()) for node in svg.iter())
        assert "measured on cpu" in words
    assert len(list((folder / "analysis" / "figures").iterdir())) == 2 * len(built.figures)


def test_rebuilding_gives_the_same_bytes(built: BuiltAnalysis, folder: Path) -> None:
    """Everything in analysis/ depends on the records alone."""
    paths = [path for path in (folder / "analysis").rglob("*") if path.is_file()]
    before = {path: path.read_bytes() for path in paths}
    build(folder, figures=True, html=True)
    changed = [path.name for path in paths if path.read_bytes() != before[path]]
    assert changed == []
    assert len(before) == 3 + 2 * len(built.figures)


def test_the_table_has_every_mode_and_tenant(built: BuiltAnalysis) -> None:
    """One line per setting, mode and tenant, and one for all; none for tenants in turn."""
    lines = [(line[1], line[2]) for line in built.table if line[0].endswith("concurrency 4")]
    shared = ["logical", "timeslice", "mps-cpu", "mig-cpu"]
    expected = [("exclusive", "chat"), ("exclusive", "batch")]
    expected += [(mode, tenant) for mode in shared for tenant in ("chat", "batch", "all")]
    assert lines == expected
    assert all(len(line) == len(built.columns) for line in built.table)
    assert built.failed == []


def test_csv_and_json_agree(built: BuiltAnalysis) -> None:
    """Both summaries hold the same figures, one line per cell and tenant and total."""
    lines = list(csv.DictReader(io.StringIO(built.summary_csv.read_text())))
    cells = {cell["cell"]: cell for cell in json.loads(built.summary_json.read_text())["cells"]}
    assert len(lines) == 2 * 2 * 2 + 4 * 2 * 2 * 3
    for line in lines:
        cell = cells[line["cell"]]
        found = {tenant["tenant"]: tenant for tenant in cell["tenants"]}
        metrics = cell["total"] if line["row"] == "total" else found[line["tenant"]]
        for name in ("output_tokens_per_s", "ttft_p99_s", "completed"):
            assert float(line[name]) == metrics[name]
        if line["row"] == "total":
            assert float(line["jain"]) == cell["fairness"]["jain"]


def test_repetitions_give_intervals_across_runs(built: BuiltAnalysis) -> None:
    """With two runs the interval is that of the runs, and the evidence is not called weak."""
    for row in built.rows:
        assert row.repetitions == 2
        assert Mark.WEAK_EVIDENCE not in row.marks
        assert row.estimates["output_tokens_per_s"].across_runs


def test_slowdown_is_against_the_same_tenant_alone(built: BuiltAnalysis) -> None:
    """Time slicing, made twice as slow, shows as about 2x for both tenants."""
    rows = [row for row in built.rows if row.label == "timeslice" and row.tenant]
    assert len(rows) == 4
    for row in rows:
        assert 1.8 < (row.value("slowdown_e2e_p99") or 0) < 2.6


def test_the_page_is_inert_and_complete(built: BuiltAnalysis) -> None:
    """No script, nothing loaded from elsewhere, every table captioned, every image described."""
    page = _page(built)
    assert page.active == []
    assert page.tags.count("table") == page.tags.count("caption")
    assert page.tags.count("img") == len(built.figures)
    assert page.tags.count("h1") == 1
    assert "24 of 24 cells measured" in page.text
    assert "OMP_NUM_THREADS=1" in page.text
    assert "Imagined CPU" in page.text


def test_hostile_names_are_text_everywhere(tmp_path: Path) -> None:
    """Names and reasons full of markup are shown as they are and never take effect."""
    tenants = [FakeTenant(HOSTILE, slo={"e2e_s": 1.0}), FakeTenant("=cmd|' /C calc'!A0")]
    store = make_results(
        tmp_path / "out", modes=[Mode.LOGICAL], concurrency=[2], repetitions=1, tenants=tenants,
        scenario=f"../{HOSTILE}", window_s=4.0,
    )  # fmt: skip
    key = CellKey("other", Mode.MPS, 2)
    add_cell(store, key, tenants, status=CellStatus.FAILED, reason=f"died: {HOSTILE}")
    store.save_matrix({"name": HOSTILE, "provenance": {HOSTILE: [HOSTILE, {"x": HOSTILE}]}})
    made = build(tmp_path / "out", figures=True, html=True)
    page = _page(made)
    assert page.active == []
    assert "{{ 7*7 }}" in page.text
    assert page.text.count("<script>alert(1)</script>") >= 5
    for path in made.figures:
        assert path.parent == tmp_path / "out" / "analysis" / "figures"
        svg = ET.parse(path.with_suffix(".svg"))  # noqa: S314
        assert not [node for node in svg.iter() if node.tag.endswith("script")]
    lines = list(csv.DictReader(io.StringIO(made.summary_csv.read_text())))
    assert "'=cmd|' /C calc'!A0" in {line["tenant"] for line in lines}


def test_notes_stand_beside_the_figures_everywhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a mode does not isolate is in the table, the page and both summaries."""
    store = make_results(tmp_path / "out", modes=[Mode.MPS], concurrency=[2], window_s=4.0)
    note = "bandwidth & L2 are not isolated"
    add_cell(store, CellKey("s", Mode.MIG, 2), TWO_TENANTS, notes=[note])
    made = build(tmp_path / "out", figures=False, html=True)
    show_analysis(made)
    printed = capsys.readouterr().out
    assert f"mig-cpu: {note}" in " ".join(printed.split())
    assert f"mps-cpu: {note}" not in printed
    assert made.report is not None
    assert "bandwidth &amp; L2 are not isolated" in made.report.read_text("utf-8")
    assert note in made.summary_csv.read_text("utf-8")
    comparison = json.loads(made.summary_json.read_text("utf-8"))["comparison"]
    assert {tuple(row["notes"]) for row in comparison if row["mode"] == "mig"} == {(note,)}


def test_an_empty_folder_gives_a_clear_page(tmp_path: Path) -> None:
    """Nothing measured yet is said so; no traceback, no empty axes."""
    ResultStore.create(tmp_path / "out", {"name": "none"})
    made = build(tmp_path / "out", figures=True, html=True)
    assert (made.table, made.figures, made.outcomes) == ([], (), ())
    assert "Nothing was measured" in _page(made).text
    assert made.summary_csv.read_text() == "cell\n"
    assert json.loads(made.summary_json.read_text())["cells"] == []


def test_a_folder_of_failures_gives_the_reasons(tmp_path: Path) -> None:
    """All cells failed, one was killed: each is listed with its reason, and no figure is made."""
    store = ResultStore.create(tmp_path / "out", {"name": "bad"})
    for mode, status in ((Mode.MPS, CellStatus.FAILED), (Mode.MIG, CellStatus.INFEASIBLE)):
        key = CellKey("s", mode, 1)
        add_cell(store, key, TWO_TENANTS, window_s=1, status=status, reason=f"no {mode.value}")
    store.begin_cell("killed-cell")
    made = build(tmp_path / "out", figures=True, html=True)
    text = _page(made).text
    assert sorted(outcome.status for outcome in made.failed) == [
        "failed", "infeasible", "interrupted",
    ]  # fmt: skip
    assert all(word in text for word in ("no mps", "no mig", "killed-cell", "0 of 3 cells"))
    assert made.figures == ()
    lines = list(csv.DictReader(io.StringIO(made.summary_csv.read_text())))
    assert {line["reason"] for line in lines} == {"no mps", "no mig"}


def test_one_failed_cell_does_not_spoil_the_others(tmp_path: Path) -> None:
    """What worked is shown with its figures beside what did not."""
    directory = tmp_path / "out"
    store = make_results(
        directory, modes=[Mode.LOGICAL], concurrency=[None], repetitions=1, window_s=4.0
    )
    key = CellKey("two-tenants", Mode.MIG, None)
    add_cell(store, key, TWO_TENANTS, window_s=1, status=CellStatus.FAILED, reason="server died")
    made = build(directory, figures=False, html=False)
    assert [line[1] for line in made.table] == ["logical"] * 3
    assert [outcome.reason for outcome in made.failed] == ["server died"]
    assert all(Mark.WEAK_EVIDENCE in row.marks for row in made.rows)


def test_a_damaged_record_is_an_error_with_its_line(tmp_path: Path) -> None:
    """Analysis does not guess: a damaged line of a complete cell is named."""
    store = make_results(
        tmp_path / "out", modes=[Mode.LOGICAL], concurrency=[1], repetitions=1, window_s=2.0
    )
    path = store.cells()[0].dir / layout.REQUESTS
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], b"{]\n", *lines[3:]]))
    with pytest.raises(ResultsError) as caught:
        build(tmp_path / "out", figures=False, html=False)
    assert str(caught.value.where) == f"{path}:3"


def test_a_damaged_telemetry_file_is_an_error_with_its_path(tmp_path: Path) -> None:
    """A host.csv that is no such table is named."""
    store = make_results(
        tmp_path / "out", modes=[Mode.LOGICAL], concurrency=[1], repetitions=1, window_s=2.0
    )
    path = store.cells()[0].dir / layout.HOST
    path.write_text("what,is\nthis,\n")
    assert build(tmp_path / "out", figures=False, html=False).report is None
    with pytest.raises(ResultsError) as caught:
        build(tmp_path / "out", figures=True, html=False)
    assert str(caught.value.where) == str(path)


def test_tenants_that_are_not_streamed_are_analysed(tmp_path: Path) -> None:
    """Without streaming there is no TTFT, and everything else is there."""
    tenants = [replace(tenant, stream=False) for tenant in TWO_TENANTS]
    make_results(
        tmp_path / "out", modes=[Mode.LOGICAL, Mode.MPS], concurrency=[2], repetitions=1,
        tenants=tenants, window_s=4.0,
    )  # fmt: skip
    made = build(tmp_path / "out", figures=True, html=True)
    row = next(row for row in made.rows if row.tenant == "chat")
    assert row.value("ttft_p50_s") is None
    assert (row.value("e2e_p50_s") or 0) > 0
    assert (row.value("output_tokens_per_s") or 0) > 0


def test_many_tenants_fit_the_figures(tmp_path: Path) -> None:
    """With twelve tenants the figures show the total, and the table every tenant."""
    tenants = [FakeTenant(f"t{number}", 16, 4) for number in range(12)]
    make_results(
        tmp_path / "out", modes=[Mode.LOGICAL], concurrency=[1], repetitions=1, tenants=tenants,
        window_s=2.0,
    )  # fmt: skip
    made = build(tmp_path / "out", figures=True, html=True)
    assert len(made.table) == 13
    assert made.figures


@pytest.mark.full
def test_a_hundred_thousand_records_take_seconds(tmp_path: Path) -> None:
    """Analysis of a large cell is not what a user waits for."""
    tenants = [FakeTenant("chat", 16, 8, rate_per_s=500.0), FakeTenant("more", 16, 8, 500.0)]
    store = make_results(
        tmp_path / "out", modes=[Mode.LOGICAL], concurrency=[1], repetitions=1, tenants=tenants,
        window_s=100.0,
    )  # fmt: skip
    assert sum(1 for _ in store.cells()[0].records()) > 95_000
    began = time.process_time()
    build(tmp_path / "out", figures=False, html=False)
    assert time.process_time() - began < 15


def test_build_stays_a_function_after_its_first_call(built: BuiltAnalysis, folder: Path) -> None:
    """No module of the package may take the name of its one public function."""
    import fairshare.analysis

    assert callable(fairshare.analysis.build)
    assert built.analysis.measured


def test_gpu_samples_are_drawn_and_gaps_stay_gaps(built: BuiltAnalysis) -> None:
    """Where a GPU was sampled its use is shown, empty values left out."""
    (path,) = (path for path in built.figures if path.name.startswith("gpu_"))
    assert "GPU utilisation (%)" in path.with_suffix(".svg").read_text()
