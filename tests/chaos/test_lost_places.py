"""The disk fills or a folder is cut away under a run: nothing is left, whatever it could do."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.chaos.crowd import Act, many
from tests.chaos.stage import Stage
from tests.chaos.tally import TALLY

pytestmark = pytest.mark.timeout(1200)
ENDS_WITHIN_S = 240
MOMENTS = ["mps.ready", "server.ready", "partition.mig_mode", "cell.started"]


@pytest.fixture
def may_mount(tmp_path: Path) -> None:
    """Skips where no file system can be mounted, so that no disk can be filled."""
    with contextlib.suppress(AssertionError), small_disk(tmp_path / "disk"):
        return
    pytest.skip("a small file system can be mounted by root only")


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
    assert mounted.returncode == 0, mounted.stderr
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


def on_a_full_disk(stage: Stage, place: str, moment: str, killed: bool) -> None:
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
            assert code in ENDS[place], f"exit code {code}"
            assert "Traceback" not in stage.output
            assert place != "out" or "no space left" in stage.output
        took_s = stage.wait_restored()
        assert full.exists()
    how = "disk full, run killed" if killed else "disk full, the run gives up"
    TALLY.add(how, f"{PLACES[place]}, at {moment}", took_s)


# Stopped early or a failed cell; the private folder may have all the room it needs already.
ENDS = {"out": (5,), "state": (0, 1, 5), "t": (0, 1, 5)}
PLACES = {"out": "results", "state": "journals", "t": "private folder"}


def on_disk(place: str, moment: str, *, killed: bool) -> tuple[str, Act]:
    """The act of `on_a_full_disk`, with its name."""
    name = f"{PLACES[place]} full at {moment}, killed: {killed}"
    return name, partial(on_a_full_disk, place=place, moment=moment, killed=killed)


def test_the_disk_fills(cache_dir: Path, may_mount: None) -> None:
    """A run that can write no more says so and puts everything back; so does its reaper."""
    many(
        cache_dir,
        [
            on_disk("out", "cell.started", killed=False),
            on_disk("out", "mps.ready", killed=False),
            on_disk("state", "server.ready", killed=False),
            on_disk("t", "mps.ready", killed=False),
            on_disk("state", "partition.mig_mode", killed=True),
        ],
    )


@pytest.mark.full
def test_the_disk_fills_at_any_time(cache_dir: Path, may_mount: None) -> None:
    """Wherever and whenever the disk fills, and if the run is killed then: nothing is left."""
    cases = [(p, m, killed) for p in PLACES for m in MOMENTS for killed in (False, True)]
    many(cache_dir, [on_disk(place, moment, killed=killed) for place, moment, killed in cases])


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


def cut_away(stage: Stage, what: str, killed: bool) -> None:
    """Remove a folder under a run that goes on or is killed; nothing of the run may be left."""
    run = stage.begin(*stage.matrix("mps" if "MPS" in what else "mig"))
    stage.wait_event(run, "cell.started")
    shutil.rmtree(CUT[what](stage))
    if killed:
        stage.kill(run, reaper=False)
    else:
        run.wait(timeout=ENDS_WITHIN_S)
        assert "Traceback" not in stage.output
    how = "folder cut away, run killed" if killed else "folder cut away, the run goes on"
    TALLY.add(how, what, stage.wait_restored())


def cut(what: str, *, killed: bool) -> tuple[str, Act]:
    """The act of `cut_away`, with its name."""
    return f"{what} cut away, killed: {killed}", partial(cut_away, what=what, killed=killed)


OFTEN = [
    ("log folder of the MPS daemon", False),
    ("state folder", False),
    ("pipe folder of the MPS daemon", True),
    ("private folder", True),
    ("journals", True),
]


def test_a_folder_is_cut_away(cache_dir: Path) -> None:
    """A folder is removed under a run that goes on or is killed: nothing of the run is left."""
    many(cache_dir, [cut(what, killed=killed) for what, killed in OFTEN])


@pytest.mark.full
def test_any_folder_is_cut_away(cache_dir: Path) -> None:
    """The same for each folder, whether the run goes on or is killed."""
    cases = [(what, killed) for what in CUT for killed in (False, True)]
    more = [case for case in cases if case not in OFTEN]
    many(cache_dir, [cut(what, killed=killed) for what, killed in more])
