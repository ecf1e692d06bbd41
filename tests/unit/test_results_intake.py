"""Cells and logs that come in from other machines."""

from __future__ import annotations

from pathlib import Path

import pytest

from fairshare.errors import ResultsError
from fairshare.records import CellKey, CellResult, CellStatus, Mode, Provenance
from fairshare.results.intake import Intake
from fairshare.results.provenance import with_machines
from fairshare.results.store import ResultStore


def cell_result(cell_id: str) -> CellResult:
    """What a cell came to."""
    key = CellKey("brief", Mode.LOGICAL, 1)
    return CellResult(cell_id, key, CellStatus.OK, "logical", Provenance.SIMULATED)


@pytest.fixture
def store(tmp_path: Path) -> ResultStore:
    """An empty result folder."""
    return ResultStore.create(tmp_path / "out", {"starts": []})


def send(intake: Intake, folder: str) -> None:
    """A cell in pieces, as a machine sends it."""
    intake.add(f"cells/{folder}/requests.jsonl", b"", first=True)
    whole = cell_result(folder).to_json()
    intake.add(f"cells/{folder}/cell.json", whole[:100], first=True)
    intake.add(f"cells/{folder}/cell.json", whole[100:], first=False)
    intake.add(f"cells/{folder}/servers/a.log", b"line\n", first=True)


def test_a_cell_counts_when_all_of_it_has_come(store: ResultStore) -> None:
    """Until it is finished it is one that was begun; then it is complete, and names its machine."""
    intake = Intake(store, "node-1")
    send(intake, "one")
    assert [cell.complete for cell in store.cells()] == [False]
    intake.finish("one", complete=True)
    (cell,) = store.cells()
    assert cell.complete
    assert cell.result.status is CellStatus.OK
    assert cell.result.machine == "node-1"
    assert (cell.dir / "servers" / "a.log").read_bytes() == b"line\n"


def test_what_a_lost_machine_left_of_a_cell_is_in_nobodys_way(store: ResultStore) -> None:
    """Another machine begins the cell anew: no byte of the first try is left in it."""
    lost = Intake(store, "node-1")
    lost.add("cells/one/requests.jsonl", b"half a li", first=True)
    lost.add("cells/one/gpu.csv", b"t\n", first=True)
    other = Intake(store, "node-2")
    other.begin("one")
    send(other, "one")
    other.finish("one", complete=True)
    (cell,) = store.cells()
    assert cell.result.machine == "node-2"
    assert sorted(path.name for path in cell.dir.iterdir()) == [
        "cell.json",
        "requests.jsonl",
        "servers",
    ]


def test_logs_of_the_same_deployment_do_not_mix(store: ResultStore) -> None:
    """Each machine, and each try on one, has a folder of its own."""
    for machine in ("a/0", "a/1", "a/0"):
        Intake(store, machine).add("servers/mps-1/chat.log", b"x", first=True)
    found = sorted(path.name for path in (store.dir / "servers").iterdir())
    assert found == ["mps-1-a-0", "mps-1-a-0-2", "mps-1-a-1"]


@pytest.mark.parametrize(
    "path", ["cells/../matrix.json", "matrix.json", "cells/one", "/etc/x/y", "servers/a/../../b"]
)
def test_nothing_is_written_outside_of_cells_and_logs(store: ResultStore, path: str) -> None:
    """A machine cannot name a file that is none of a cell or of a server."""
    with pytest.raises(ResultsError, match="none of a result"):
        Intake(store, "node-1").add(path, b"x", first=True)


def test_a_damaged_cell_is_told_with_its_file(store: ResultStore) -> None:
    """What is no cell.json does not become a complete cell."""
    intake = Intake(store, "node-1")
    intake.add("cells/one/cell.json", b"{}", first=True)
    with pytest.raises(ResultsError, match="damaged"):
        intake.finish("one", complete=True)
    assert not (store.cells_dir / "one").exists()


def test_machines_of_earlier_calls_stay_known() -> None:
    """A sweep that is gone on with elsewhere keeps where its first cells were measured."""
    first = {"machines": {"a": {"python": "3.11"}}}
    second = {"python": "3.12", "machines": {"b": {"python": "3.12"}}}
    assert with_machines(second, first)["machines"] == {
        "a": {"python": "3.11"},
        "b": {"python": "3.12"},
    }
    assert with_machines({"python": "3.12"}, first)["machines"] == first["machines"]
    assert "machines" not in with_machines({"python": "3.12"}, {"python": "3.11"})
