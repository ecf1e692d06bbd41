"""The failure knobs' own rules."""

from __future__ import annotations

from pathlib import Path

import pytest

from fairshare.virtual.failing import FAIL_ENV, STATE_ENV, fails, take, unknown_knobs


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the simulated GPU, with no knob switched on."""
    monkeypatch.setenv(STATE_ENV, str(tmp_path))
    monkeypatch.delenv(FAIL_ENV, raising=False)
    return tmp_path


def test_knobs_come_from_the_environment_and_the_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both at once; the file is seen by a program that runs already."""
    assert not fails("dci_in_use")
    monkeypatch.setenv(FAIL_ENV, "dgi_lies, server_dies_after=5")
    (folder / "fail").write_text("dci_in_use\nmps_no_start\n")
    assert [fails(name) for name in ("dci_in_use", "mps_no_start", "dgi_lies")] == [True] * 3
    assert not fails("dci_lies")
    assert take("server_dies_after") == "5"
    assert take("dgi_lies") == ""
    assert take("dci_lies") is None


def test_a_counted_knob_works_so_often(folder: Path) -> None:
    """Others in the file stay as they are."""
    (folder / "fail").write_text("dci_in_use:2, dgi_in_use")
    assert [fails("dci_in_use") for _ in range(3)] == [True, True, False]
    assert fails("dgi_in_use")
    assert (folder / "fail").read_text() == "dgi_in_use"


def test_a_knob_with_a_value_works_on_that_alone(folder: Path) -> None:
    """And is used up by nothing else."""
    (folder / "fail").write_text("mig_pending=disable:1")
    assert not fails("mig_pending", "enable")
    assert fails("mig_pending", "disable")
    assert not fails("mig_pending", "disable")


def test_a_value_is_taken_as_often_as_its_knob_works(folder: Path) -> None:
    """A server that is started again after its failure is sound."""
    (folder / "fail").write_text("server_dies_after=5:1")
    assert [take("server_dies_after") for _ in range(2)] == ["5", None]


def test_a_folder_can_be_named(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """For who is not pointed at the GPU by the environment."""
    other = tmp_path_factory.mktemp("other")
    (other / "fail").write_text("driver_missing, drivr_missing:3")
    assert not fails("driver_missing")
    assert fails("driver_missing", directory=other)
    assert unknown_knobs(other) == ["drivr_missing"]
    assert unknown_knobs(folder) == []
