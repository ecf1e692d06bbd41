"""A part of a run is killed or hangs: in the end nothing is left."""

from __future__ import annotations

import os
import signal
import subprocess
import time

import psutil
import pytest

from tests.chaos.stage import Stage, kill_reaper
from tests.chaos.tally import TALLY

ENDS_WITHIN_S = 60


def ended(stage: Stage, run: subprocess.Popen[bytes], kind: str) -> int:
    """Wait for the run's own end, after which nothing may be left; its exit code."""
    code = run.wait(timeout=ENDS_WITHIN_S)
    TALLY.add(kind, "the run cleaned up itself", stage.wait_restored())
    return code


def cleaned(stage: Stage, kind: str) -> None:
    """Run ``fairshare clean``, after which nothing may be left."""
    started_s = time.monotonic()
    done = stage.clean()
    assert done.returncode == 0, done.stdout
    stage.wait_restored()
    TALLY.add(kind, "fairshare clean", time.monotonic() - started_s)


def test_the_mps_daemon_is_killed(stage: Stage) -> None:
    """Without its daemon the cell fails and says why; the next mode is measured."""
    run = stage.begin(*stage.matrix())
    stage.wait_event(run, "cell.started")
    os.kill(stage.pids("mps-control")[0], signal.SIGKILL)
    assert ended(stage, run, "MPS daemon killed") == 1, stage.output
    status = {cell.result.key.mode.value: cell.result for cell in stage.cells("out").values()}
    assert status["mps"].status.value == "failed"
    assert "MPS daemon" in (status["mps"].reason or "")
    assert status["mig"].status.value == "ok"


@pytest.mark.parametrize("mode", ["timeslice", "mps", "mig"])
def test_a_server_is_killed(stage: Stage, mode: str) -> None:
    """The cell of a killed server fails, and the run ends as it should."""
    run = stage.begin(*stage.matrix(mode))
    stage.wait_event(run, "cell.started")
    os.kill(stage.pids("chat")[0], signal.SIGKILL)
    assert ended(stage, run, "server killed") == 1, stage.output
    (cell,) = stage.cells("out").values()
    assert "SIGKILL" in (cell.result.reason or "")


def test_the_reaper_alone_is_killed(stage: Stage) -> None:
    """A run goes on without its reaper, and a clean-up by somebody else leaves it alone."""
    run = stage.begin(*stage.matrix())
    stage.wait_event(run, "server.ready")
    assert kill_reaper(run.pid)
    assert "nothing to clean" in stage.clean().stdout
    assert ended(stage, run, "reaper killed") == 0, stage.output


def test_the_reaper_is_killed_at_its_work(stage: Stage) -> None:
    """What a reaper did not finish is finished by ``fairshare clean``."""
    run = stage.begin(*stage.matrix("mig"))
    stage.wait_event(run, "cell.started")
    (reaper,) = [
        child
        for child in psutil.Process(run.pid).children()
        if "fairshare.processes.reaper" in child.cmdline()
    ]
    stage.kill(run, reaper=False)
    while not reaper.children() and reaper.is_running():
        time.sleep(0.005)  # the first command of its own shows that it is at work
    reaper.kill()
    cleaned(stage, "run killed, then the reaper at its work")


def test_a_cleaner_is_killed_at_its_work(stage: Stage) -> None:
    """What a killed ``fairshare clean`` did not finish is finished by the next one."""
    run = stage.begin(*stage.matrix("mig"))
    stage.wait_event(run, "cell.started")
    stage.kill(run, reaper=True)
    cleaner = psutil.Process(stage.begin("clean").pid)
    while not cleaner.children() and cleaner.is_running():
        time.sleep(0.005)  # as above
    stage.watched += cleaner.children(recursive=True)
    cleaner.kill()
    cleaner.wait()
    cleaned(stage, "run and reaper killed, then the clean-up")


@pytest.mark.parametrize("reaper", [False, True])
@pytest.mark.parametrize("name", ["chat", "mps-control"])
def test_something_hangs_when_the_run_is_killed(stage: Stage, name: str, reaper: bool) -> None:
    """A server or daemon that is stopped hears no request to end; it ends all the same."""
    run = stage.begin(*stage.matrix("mps"))
    stage.wait_event(run, "cell.started")
    os.kill(stage.pids(name)[0], signal.SIGSTOP)
    stage.kill(run, reaper=reaper)
    if reaper:
        cleaned(stage, f"{name} stopped, run and reaper killed")
    else:
        TALLY.add(f"{name} stopped, run killed", "reaper", stage.wait_restored())


def test_the_next_start_finishes_what_a_dead_run_left(stage: Stage) -> None:
    """A start needs no ``fairshare clean`` before it."""
    run = stage.begin(*stage.matrix("mig"))
    stage.wait_event(run, "cell.started")
    stage.kill(run, reaper=True)
    assert stage.differences()
    again = stage.begin(*stage.matrix("mig"), "--resume")
    assert again.wait(timeout=ENDS_WITHIN_S) == 0, stage.output
    assert stage.differences() == []
    TALLY.add("run and reaper killed", "the next start", 0.0)
