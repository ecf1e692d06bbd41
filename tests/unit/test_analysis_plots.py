"""What a figure says of itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from fairshare.analysis.aggregate import Row, Setting
from fairshare.analysis.drawing import draw_curves
from fairshare.analysis.model import Analysis, Drawn
from fairshare.analysis.plots import marked_modes
from fairshare.analysis.style import Look, legend, panels, save
from fairshare.analysis.subjects import subjects
from fairshare.analysis.timeline import CPU, draw_timeline
from fairshare.records import CellKey, CellResult, CellStatus, Mark, Mode, Provenance
from fairshare.results import StoredCell, layout


def row(mode: Mode, *marks: Mark) -> Row:
    """The total under one mode, with these marks."""
    return Row(
        setting=Setting("s", 1.0, 4),
        mode=mode,
        label=mode.value,
        policy="fcfs",
        provenance=Provenance.SIMULATED,
        tenant=None,
        repetitions=1,
        marks=marks,
        notes=(),
        estimates={},
        errors={},
        few_for_p99=False,
    )


def test_a_figure_says_which_modes_the_client_spoiled() -> None:
    """A reservation about one mode is not read as one about all; one about all is short."""
    rows = [
        row(Mode.LOGICAL, Mark.WEAK_EVIDENCE),
        row(Mode.MPS, Mark.WEAK_EVIDENCE, Mark.CLIENT_LIMITED),
    ]
    assert marked_modes(rows) == ("weak evidence", "client-limited (mps)")


def test_a_mode_of_two_origins_has_figures_for_each() -> None:
    """What was measured and what was simulated under one name never share a line or a bar."""
    rows = [row(Mode.LOGICAL), row(Mode.MPS)]
    measured = replace(rows[0], provenance=Provenance.MEASURED)
    emulated = replace(row(Mode.MIG), provenance=Provenance.EMULATED)
    (alike,) = subjects(Analysis("n", {}, (), ()), rows, {})
    assert alike.name == "s"
    found = subjects(Analysis("n", {}, (), ()), [*rows, measured, emulated], {})
    assert {each.name: [r.mode for r in each.rows] for each in found} == {
        "s (simulated)": [Mode.LOGICAL, Mode.MPS],
        "s (measured)": [Mode.LOGICAL, Mode.MIG],
    }


def test_the_cpu_use_of_many_servers_is_drawn_as_the_machines(tmp_path: Path) -> None:
    """Fifty lines say nothing: only that of the whole machine is left."""
    names = [*(f"s{number}" for number in range(50)), "(machine)"]
    samples = pd.DataFrame({"t_s": 1.0, "server": names, "cpu_percent": 5.0})
    samples.to_csv(tmp_path / layout.HOST, index=False)
    key = CellKey("s", Mode.MPS, 1)
    cell = CellResult("c", key, CellStatus.OK, "mps", Provenance.SIMULATED)
    figure = draw_timeline([("mps", StoredCell(tmp_path, cell))], CPU)
    assert figure is not None
    assert len(figure.axes[0].lines) == 1


def test_latencies_of_several_decades_have_a_readable_axis() -> None:
    """Ticks are plain numbers, few enough to stand side by side, and never markup."""
    seconds = [0.012, 0.05, 0.3, 0.5]
    frame = pd.DataFrame(
        {"mode": "mps", "cell": "one", "seconds": seconds, "share": [0.25, 0.5, 0.75, 1.0]}
    )
    figure = Figure(figsize=(3, 2))
    axes = figure.subplots()
    draw_curves(axes, frame, "victim", "TTFT (ms)", {"mps": Look((0.5, 0.5, 0.5), "o", "-")})
    figure.draw_without_rendering()
    low, high = axes.get_xlim()
    ticks = axes.get_xticklabels(which="both")
    shown = [each.get_text() for each in ticks if low <= each.get_position()[0] <= high]
    assert [text for text in shown if text] == ["10", "30", "100", "300"]


def test_a_long_title_ends_before_the_legend(tmp_path: Path) -> None:
    """Of a narrow figure of a scenario with a long name the title is cut, in the middle."""
    figure, [[axes]] = panels(1, 1)
    axes.plot([1, 2])
    styles = {"logical + vtc (gateway)": Look((0.5, 0.5, 0.5), "o", "-")}
    legend(figure, styles)
    title = "Tail latency (P99): " + "a-long-name-" * 6
    save(figure, Drawn("x", title, "", tmp_path / "x.png", tmp_path / "x.svg", None, (), ()))
    [beside], shown = figure.legends, figure.get_suptitle()
    assert shown.startswith("Tail latency")
    [drawn] = [text for text in figure.texts if text.get_text() == shown]
    assert drawn.get_window_extent().x1 < beside.get_window_extent().x0
