"""SIGKILL of a run that has NVIDIA's own MPS control daemon: ours goes, another stays."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from fairshare.sharing.mps_control import CONTROL
from tests.chaos.crowd import Act, many, restored
from tests.chaos.stage import Stage, staged
from tests.nvidias_mps import nvidias_env

pytestmark = pytest.mark.timeout(900)
PROGRAM = "tests.chaos.life_of_a_daemon"
ENDS_WITHIN_S = 240


def _with_nvidias(stage: Stage, path: str) -> None:
    """Put NVIDIA's program first on PATH, and a daemon of somebody else's beside ours."""
    stage.env["PATH"] = path
    stage.invite_daemon("NVIDIA's daemon", Path(path.partition(":")[0]) / CONTROL)
    stage.before = stage.traces()


def _points(cache_dir: Path, path: str) -> list[str]:
    """What the life of NVIDIA's daemon in our hands passes; by itself it leaves nothing."""
    with staged(cache_dir) as stage:
        _with_nvidias(stage, path)
        run = stage.launch(stage.doomed("line", "never", "0", "without", PROGRAM))
        assert run.wait(timeout=ENDS_WITHIN_S) == 0, stage.output
        assert stage.differences() == []
        return stage.points()


def _die_at(path: str, point: tuple[str, int, str], when: str, reaper: bool) -> tuple[str, Act]:
    kind, number, what = point
    where = f"{when} {kind} {number} ({what})"

    def act(stage: Stage) -> None:
        _with_nvidias(stage, path)
        with_reaper = "with" if reaper else "without"
        run = stage.launch(stage.doomed(kind, when, str(number), with_reaper, PROGRAM))
        code = run.wait(timeout=ENDS_WITHIN_S)
        assert code == -signal.SIGKILL, "it was never reached"
        restored(stage, "killed with NVIDIA's own MPS daemon", where, reaper=reaper)

    return where, act


def _numbered(points: list[str]) -> list[tuple[str, int, str]]:
    seen = {"line": 0, "tool": 0}
    numbered = []
    for point in points:
        kind, _, what = point.partition(" ")
        seen[kind] += 1
        numbered.append((kind, seen[kind], what))
    return numbered


def test_nvidias_daemon_does_not_outlive_a_killed_run(cache_dir: Path) -> None:
    """Killed as it starts, serves and stops: NVIDIA's daemon and its folder go, another stays."""
    path = nvidias_env()["PATH"]
    points = _numbered(_points(cache_dir, path))
    lines = [point for point in points if point[0] == "line"]
    *_, in_use, quitting = [point for point in points if point[0] == "tool"]
    acts = [_die_at(path, point, "after", False) for point in (*lines[1:3], quitting)]
    acts += [_die_at(path, in_use, "after", reaper) for reaper in (False, True)]
    many(cache_dir, acts)


@pytest.mark.full
def test_nvidias_daemon_never_outlives_a_killed_run(cache_dir: Path) -> None:
    """The same before and after each journal line and each question, alone and with its reaper."""
    path = nvidias_env()["PATH"]
    acts = [
        _die_at(path, point, when, reaper)
        for point in _numbered(_points(cache_dir, path))
        for when in ("before", "after")
        for reaper in (False, True)
    ]
    many(cache_dir, acts)
