"""A sweep with a time budget, as a user runs it in several calls."""

from __future__ import annotations

import orjson

from tests.workplace import Workplace

SWEEP = (
    "matrix", "brief.yaml", "--modes", "logical,mps,mig", "--output-dir", "out", "--no-report",
)  # fmt: skip


def test_what_does_not_fit_is_left_and_resumed(workplace: Workplace) -> None:
    """Exit code 5 with the cells left and the command; --resume then runs exactly those."""
    text = (workplace.path / "brief.yaml").read_text()
    workplace.write("brief.yaml", text.replace("window_s: 1", "window_s: 4"))
    # The first cell and its server take about 8 s by the estimate, each of the others 9 s.
    done = workplace.run(*SWEEP, "--max-hours", str(13 / 3600))
    assert done.returncode == 5, done.stdout
    assert "no time left for 2 cells" in done.stdout
    assert f"--max-hours {13 / 3600} --resume" in done.stdout
    assert workplace.leftovers() == []
    first = workplace.cells("out")
    assert [cell.result.status.value for cell in first.values()] == ["ok"]
    events = (workplace.path / "out/events.jsonl").read_bytes().splitlines()
    (spent,) = [e for e in map(orjson.loads, events) if e["event"] == "budget.spent"]
    assert len(spent["left"]) == 2
    assert all(cell in done.stdout for cell in spent["left"])
    rest = workplace.run(*SWEEP, "--max-hours", "1", "--resume")
    assert rest.returncode == 0, rest.stdout
    cells = workplace.cells("out")
    assert {cell.result.id for cell in cells.values()} == {
        *spent["left"], *(cell.result.id for cell in first.values()),
    }  # fmt: skip
    assert {cell.result.status.value for cell in cells.values()} == {"ok"}
    for slug, cell in first.items():
        assert cells[slug].result.started_at == cell.result.started_at


def test_a_budget_too_small_for_any_cell_says_so(workplace: Workplace) -> None:
    """Nothing is started, and what the first cell would take is told: resuming alone is no help."""
    done = workplace.run(*SWEEP, "--max-hours", "0.0001")
    assert done.returncode == 5, done.stdout
    assert "not one fitted: the first takes about" in done.stdout
    assert "server" not in done.stdout.partition("not one fitted")[0].replace("servers", "")
    assert workplace.run(*SWEEP, "--max-hours", "0").returncode == 2
    planned = workplace.run(*SWEEP[:4], "--max-hours", "0.0001", "--dry-run")
    assert "left for later, in 360 ms: 3 cells" in planned.stdout
