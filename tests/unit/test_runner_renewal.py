"""What of a result folder counts when a sweep is gone on with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fairshare.errors import ResultsError
from fairshare.records import CellStatus
from fairshare.results.store import ResultStore
from fairshare.runner.cell import blank_result
from fairshare.runner.changes import changes, told
from fairshare.runner.plan import PlannedCell, RunPlan, make_plan, plain
from fairshare.runner.renewal import Choice, Renewal, renew, renewal
from fairshare.runner.selection import Selection
from fairshare.runner.settings import Flags, Settings, settle
from fairshare.spec.matrix import Matrix

SCENARIO = """\
name: s
tenants:
  - name: a
    prompts: {kind: jsonl, path: prompts.jsonl}
    output: {kind: fixed, tokens: 8}
"""


class Sweep:
    """A sweep of four cells whose results a test writes, and that a test defines anew."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "prompts.jsonl").write_text('{"prompt": "Hello"}\n')
        (folder / "s.yaml").write_text(SCENARIO)
        self.settings, self.plan = self.planned()
        request = {"matrix": {"modes": ["logical", "mps"]}}
        self.store = ResultStore.create(folder / "out", {"request": request})

    def planned(self, **fields: object) -> tuple[Settings, RunPlan]:
        """The plan as these fields of the matrix would make it."""
        usual = {"modes": ["logical", "mps"], "num_runs": 2, **fields}
        matrix = Matrix.model_validate(
            {"name": "m", "scenarios": [str(self.folder / "s.yaml")], **usual}
        )
        settings = settle(matrix, Flags(device="virtual:h200"))
        return settings, make_plan(settings)

    def measure(self, cell: PlannedCell, status: CellStatus = CellStatus.OK) -> None:
        """File a cell as measured."""
        writer = self.store.begin_cell(cell.id)
        writer.write_config(plain(cell.definition))
        writer.finish(blank_result(cell, self.settings, None, status))

    def renewal(self, plan: RunPlan | None = None, choice: Choice | None = None) -> Renewal:
        """What would be done with the folder."""
        request = {"matrix": {"modes": ["logical"]}}
        return renewal(self.store, plan or self.plan, choice or Choice(), request)


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    """A sweep of which nothing is measured yet."""
    return Sweep(tmp_path)


def test_exactly_the_complete_cells_are_kept(sweep: Sweep) -> None:
    """Measured and failed cells count; one that was begun, and one that is missing, do not."""
    one, two, three, _ = sweep.plan.cells
    sweep.measure(one)
    sweep.measure(two, CellStatus.FAILED)
    sweep.store.begin_cell(three.id)
    found = sweep.renewal()
    assert found.kept == {one.id, two.id}
    assert found.kept_failed == [two.id]
    assert found.aside == []


def test_failed_cells_are_run_again_when_asked(sweep: Sweep) -> None:
    """What failed is put aside, not lost, and then lacks; the rest is kept."""
    one, two, *_ = sweep.plan.cells
    sweep.measure(one)
    sweep.measure(two, CellStatus.FAILED)
    found = sweep.renewal(choice=Choice(retry_failed=True))
    assert (found.kept, found.kept_failed) == ({one.id}, [])
    renew(sweep.store, found)
    assert sweep.renewal().kept == {one.id}
    assert [path.name for path in (sweep.store.dir / "superseded").iterdir()] == [two.id]


def test_force_is_about_the_cells_that_are_selected(sweep: Sweep) -> None:
    """A forced cell is put aside under a name of its own each time; others are kept."""
    one, two, *_ = sweep.plan.cells
    choice = Choice(Selection((one.id,)), force=True)
    for _ in range(2):
        sweep.measure(one)
        if not (sweep.store.cells_dir / two.id).exists():
            sweep.measure(two)
        found = sweep.renewal(choice=choice)
        assert found.kept == {two.id}
        renew(sweep.store, found)
    aside = sorted(path.name for path in (sweep.store.dir / "superseded").iterdir())
    assert aside == [one.id, f"{one.id}-2"]


def test_a_change_is_told_field_by_field(sweep: Sweep) -> None:
    """A measured cell that is defined otherwise now is never skipped, nor quietly measured anew."""
    for cell in sweep.plan.cells:
        sweep.measure(cell)
    other = sweep.planned(window_s=7)[1]
    with pytest.raises(ResultsError) as caught:
        sweep.renewal(other)
    assert "4 measured cells whose definition has changed" in caught.value.message
    assert caught.value.evidence == ("scenario.timing.window_s: 20.0 -> 7.0   (4 cells)",)
    assert "--force" in (caught.value.hint or "")
    forced = sweep.renewal(other, Choice(force=True))
    assert len(forced.aside) == 4
    assert not forced.kept


def test_prompts_in_a_file_are_part_of_the_definition(sweep: Sweep) -> None:
    """The same path with other contents is another cell."""
    sweep.measure(sweep.plan.cells[0])
    (sweep.folder / "prompts.jsonl").write_text('{"prompt": "Good evening"}\n')
    with pytest.raises(ResultsError) as caught:
        sweep.renewal(sweep.planned()[1])
    assert "files.prompts.jsonl: " in caught.value.evidence[0]


def test_every_part_of_a_fingerprint_counts(sweep: Sweep) -> None:
    """Another engine version or model makes another cell, although its place is the same."""
    sweep.measure(sweep.plan.cells[0])
    newer = make_plan(replace(sweep.settings, engine_version="99"))
    with pytest.raises(ResultsError, match="definition has changed") as caught:
        sweep.renewal(newer)
    assert "engine_version" in caught.value.evidence[0]
    with pytest.raises(ResultsError, match="definition has changed") as caught:
        sweep.renewal(sweep.planned(model="qwen3-0.6b")[1])
    assert any(line.startswith("models.") for line in caught.value.evidence)


def test_what_failed_and_changed_makes_room(sweep: Sweep) -> None:
    """A failed cell of an older definition, and one that was only begun, do not stay beside it."""
    one, two, *_ = sweep.plan.cells
    sweep.measure(one, CellStatus.FAILED)
    sweep.store.begin_cell(two.id)
    found = sweep.renewal(sweep.planned(window_s=7)[1])
    assert sorted(path.name for path in found.aside) == sorted([one.id, f"{two.id}.partial"])


def test_cells_of_another_sweep_are_refused(sweep: Sweep) -> None:
    """A folder is not mixed from two sweeps; what the two ask for is told."""
    for cell in sweep.plan.cells:
        sweep.measure(cell)
    with pytest.raises(ResultsError, match="2 measured cells that this command") as caught:
        sweep.renewal(sweep.planned(modes=["logical"])[1])
    assert caught.value.evidence == ("matrix.modes: ['logical', 'mps'] -> ['logical']",)


def test_more_repetitions_can_be_added(sweep: Sweep) -> None:
    """What is measured counts in a longer sweep of the same cells."""
    for cell in sweep.plan.cells:
        sweep.measure(cell)
    longer = sweep.planned(num_runs=3)[1]
    assert len(longer.without(sweep.renewal(longer).kept).cells) == 2


def test_changes_name_tenants_and_count_cells() -> None:
    """A field is told once for all cells, tenants by name, long values in short."""
    old = {"tenants": [{"name": "a", "n": 1}], "all_tenants": [{"name": "a", "n": 1}]}
    new = {
        "tenants": [{"name": "a", "n": 2}],
        "all_tenants": [{"name": "a", "n": 2}],
        "x": "y" * 99,
    }
    (tenant, added) = changes(old, new)
    assert tenant == ("tenants.a.n", "1", "2")
    assert added[:2] == ("x", "absent")
    assert len(added[2]) == 60
    assert told([[tenant], [tenant]]) == ["tenants.a.n: 1 -> 2   (2 cells)"]


def test_damaged_cells_are_put_aside_and_measured_anew(sweep: Sweep) -> None:
    """A cell that lacks a file, or the end of one, is not complete, whatever its name says."""
    for cell in sweep.plan.cells:
        sweep.measure(cell)
    folders = {cell.id: sweep.store.cells_dir / cell.id for cell in sweep.plan.cells}
    one, two, three, four = folders.values()
    (one / "cell.json").write_text("{")
    (two / "requests.jsonl").unlink()
    (three / "requests.jsonl").write_text('{"id": "a')
    (four / "config.resolved.yaml").unlink()
    found = sweep.renewal()
    assert found.kept == set()
    assert {folder.name for folder in found.aside} == folders.keys() == found.damaged.keys()
    assert found.damaged[two.name] == "requests.jsonl: damaged: the file is missing"
    renew(sweep.store, found)
    assert sweep.store.cells() == []
    (one.parent / "empty-by-hand").mkdir()
    assert list(sweep.renewal().damaged) == ["empty-by-hand"]
