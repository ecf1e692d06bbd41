"""The disk fills or a folder is cut away under a run: nothing is left, whatever it could do."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.stage import Stage
from tests.chaos.tally import TALLY

ENDS_WITHIN_S = 90
MOMENTS = ["mps.ready", "server.ready", "partition.mig_mode", "cell.started"]


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """A file system of 64 MiB in a folder of the stage, with what the folder held."""
    kept = folder.with_name(f"{folder.name}.kept")
    if folder.exists():
        shutil.copytree(folder, kept)
    folder.mkdir(exist_ok=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64m,mode=700", "tmpfs", str(folder)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip("a small file system can be mounted by root only")
    try:
        if kept.exists():
            shutil.copytree(kept, folder, dirs_exist_ok=True)
            shutil.rmtree(kept)
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Leave not one byte; returns the file that takes the room."""
    path = folder / "full"
    with path.open("wb", buffering=0) as file:
        for size in (65536, 1):
            with contextlib.suppress(OSError):
                while True:
                    file.write(b"x" * size)
    return path


def on_a_full_disk(stage: Stage, place: str, moment: str, *, killed: bool) -> None:
    """Fill the disk below a place at a moment; afterwards nothing of the run may be left."""
    folder = stage.path / place
    # A journaled change then takes more than what is left of the page begun.
    stage.env["PATH"] += f"{os.pathsep}/nowhere" * 800
    with small_disk(folder):
        run = stage.begin(*stage.matrix())
        stage.wait_event(run, moment)
        full = fill(folder)
        stage.before["temporary files"] += ["full"] if place == "t" else []
        stage.before["temporary files"].sort()
        if killed:
            stage.kill(run, reaper=False)
        else:
            code = run.wait(timeout=ENDS_WITHIN_S)
            assert code in ENDS[place], stage.output
            assert "Traceback" not in stage.output, stage.output
        took_s = stage.wait_restored()
        assert full.exists()
    how = "disk full, run killed" if killed else "disk full, the run gives up"
    TALLY.add(how, f"{PLACES[place]}, at {moment}", took_s)


# Stopped early or a failed cell; the private folder may have all the room it needs already.
ENDS = {"out": (5,), "state": (0, 1, 5), "t": (0, 1, 5)}
PLACES = {"out": "results", "state": "journals", "t": "private folder"}


@pytest.mark.parametrize(
    ("place", "moment"),
    [("out", "cell.started"), ("state", "server.ready"), ("t", "mps.ready")],
)
def test_the_disk_fills(stage: Stage, place: str, moment: str) -> None:
    """A run that can write no more says so, and still puts everything back."""
    on_a_full_disk(stage, place, moment, killed=False)
    if place != "t":
        assert "no space left" in stage.output


@pytest.mark.full
@pytest.mark.parametrize("killed", [False, True])
@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("place", PLACES)
def test_the_disk_fills_at_any_time(stage: Stage, place: str, moment: str, killed: bool) -> None:
    """Wherever and whenever the disk fills, and if the run is killed then: nothing is left."""
    on_a_full_disk(stage, place, moment, killed=killed)


def test_a_run_is_killed_on_a_full_disk(stage: Stage) -> None:
    """The reaper needs no room to put everything back."""
    on_a_full_disk(stage, "state", "partition.mig_mode", killed=True)


def _private(stage: Stage) -> Path:
    (opened,) = [each for each in stage.events() if each["event"] == "run.opened"]
    return Path(opened["private_dir"])


CUT = {
    "log folder of the servers": lambda stage: stage.path / "out" / "servers",
    "log folder of the MPS daemon": lambda stage: _private(stage) / "MPS-log",
    "pipe folder of the MPS daemon": lambda stage: _private(stage) / "MPS-pipe",
    "private folder": _private,
    "results": lambda stage: stage.path / "out",
    "journals": lambda stage: stage.path / "state" / "runs",
    "state folder": lambda stage: stage.path / "state",
}


def cut_away(stage: Stage, what: str, *, killed: bool) -> None:
    """Remove a folder under a run that goes on or is killed; nothing of the run may be left."""
    run = stage.begin(*stage.matrix("mps" if "MPS" in what else "mig"))
    stage.wait_event(run, "cell.started")
    shutil.rmtree(CUT[what](stage))
    if killed:
        stage.kill(run, reaper=False)
    else:
        run.wait(timeout=ENDS_WITHIN_S)
        assert "Traceback" not in stage.output, stage.output
    how = "folder cut away, run killed" if killed else "folder cut away, the run goes on"
    TALLY.add(how, what, stage.wait_restored())


@pytest.mark.parametrize("what", CUT)
def test_a_folder_is_cut_away_and_the_run_is_killed(stage: Stage, what: str) -> None:
    """Whatever was removed before the run was killed, nothing of it is left."""
    cut_away(stage, what, killed=True)


@pytest.mark.parametrize(
    "what",
    [
        "log folder of the MPS daemon",
        "state folder",
        *(
            pytest.param(what, marks=pytest.mark.full)
            for what in CUT
            if what not in ("log folder of the MPS daemon", "state folder")
        ),
    ],
)
def test_a_folder_is_cut_away_under_a_run(stage: Stage, what: str) -> None:
    """A run under which something was removed ends, and puts everything back."""
    cut_away(stage, what, killed=False)
