"""A part of a run is killed or hangs: in the end nothing is left."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from functools import partial
from pathlib import Path

import psutil
import pytest

from tests.chaos.crowd import many, restored
from tests.chaos.stage import Stage, kill_reaper
from tests.chaos.tally import TALLY

pytestmark = pytest.mark.timeout(600)
ENDS_WITHIN_S = 240


def ended(stage: Stage, run: subprocess.Popen[bytes], kind: str) -> int:
    """Wait for the run's own end, after which nothing may be left; its exit code."""
    code = run.wait(timeout=ENDS_WITHIN_S)
    TALLY.add(kind, "the run cleaned up itself", stage.wait_restored())
    return code


def the_mps_daemon_is_killed(stage: Stage) -> None:
    """Without its daemon the cell fails and says why; the next mode is measured."""
    run = stage.begin(*stage.matrix())
    stage.wait_event(run, "cell.started")
    os.kill(stage.pids("mps-control")[0], signal.SIGKILL)
    assert ended(stage, run, "MPS daemon killed") == 1
    status = {cell.result.key.mode.value: cell.result for cell in stage.cells("out").values()}
    assert status["mps"].status.value == "failed"
    assert "MPS daemon" in (status["mps"].reason or "")
    assert status["mig"].status.value == "ok"


def a_server_is_killed(mode: str, stage: Stage) -> None:
    """The cell of a killed server fails, and the run ends as it should."""
    run = stage.begin(*stage.matrix(mode))
    stage.wait_event(run, "cell.started")
    os.kill(stage.pids("chat")[0], signal.SIGKILL)
    assert ended(stage, run, "server killed") == 1
    (cell,) = stage.cells("out").values()
    assert "SIGKILL" in (cell.result.reason or "")


def the_reaper_alone_is_killed(stage: Stage) -> None:
    """A run goes on without its reaper, and a clean-up by somebody else leaves it alone."""
    run = stage.begin(*stage.matrix())
    stage.wait_event(run, "server.ready")
    assert kill_reaper(run.pid)
    assert "nothing to clean" in stage.clean().stdout
    assert ended(stage, run, "reaper killed") == 0


def _wait_at_work(cleaner: psutil.Process) -> None:
    """Return when the first command of its own shows that a reaper or clean-up is at work."""
    deadline_s = time.monotonic() + ENDS_WITHIN_S
    while not cleaner.children():
        assert cleaner.is_running() and time.monotonic() < deadline_s, "it never began"
        time.sleep(0.005)  # the table of processes is all that shows it


def the_reaper_is_killed_at_its_work(stage: Stage) -> None:
    """What a reaper did not finish is finished by ``fairshare clean``."""
    run = stage.begin(*stage.matrix("mig"))
    stage.wait_event(run, "cell.started")
    (reaper,) = filter(stage.is_reaper, psutil.Process(run.pid).children())
    stage.kill(run, reaper=False)
    _wait_at_work(reaper)
    stage.watched += reaper.children(recursive=True)
    reaper.kill()
    restored(stage, "run killed", "its reaper at its work", reaper=True)


def a_cleaner_is_killed_at_its_work(stage: Stage) -> None:
    """What a killed ``fairshare clean`` did not finish is finished by the next one."""
    run = stage.begin(*stage.matrix("mig"))
    stage.wait_event(run, "cell.started")
    stage.kill(run, reaper=True)
    cleaning = stage.begin("clean")
    cleaner = psutil.Process(cleaning.pid)
    _wait_at_work(cleaner)
    stage.watched += cleaner.children(recursive=True)
    cleaner.kill()
    cleaning.wait()
    restored(stage, "run killed", "the first clean-up too", reaper=True)


def something_hangs_when_the_run_is_killed(name: str, reaper: bool, stage: Stage) -> None:
    """A server or daemon that is stopped hears no request to end; it ends all the same."""
    run = stage.begin(*stage.matrix("mps"))
    stage.wait_event(run, "cell.started")
    os.kill(stage.pids(name)[0], signal.SIGSTOP)
    stage.kill(run, reaper=reaper)
    restored(stage, "run killed when a part hung", name, reaper=reaper)


def the_next_start_finishes_what_a_dead_run_left(stage: Stage) -> None:
    """A start needs no ``fairshare clean`` before it."""
    run = stage.begin(*stage.matrix("mig"))
    stage.wait_event(run, "cell.started")
    stage.kill(run, reaper=True)
    assert stage.differences()
    again = stage.begin(*stage.matrix("mig"), "--resume")
    assert again.wait(timeout=ENDS_WITHIN_S) == 0
    assert stage.differences() == []


PARTS = {
    "MPS daemon": the_mps_daemon_is_killed,
    "server under MPS": partial(a_server_is_killed, "mps"),
    "reaper alone": the_reaper_alone_is_killed,
    "reaper at its work": the_reaper_is_killed_at_its_work,
    "cleaner at its work": a_cleaner_is_killed_at_its_work,
    "server hangs": partial(something_hangs_when_the_run_is_killed, "chat", False),
    "daemon hangs": partial(something_hangs_when_the_run_is_killed, "mps-control", True),
    "next start": the_next_start_finishes_what_a_dead_run_left,
}
MORE = {
    "server in time slices": partial(a_server_is_killed, "timeslice"),
    "server under MIG": partial(a_server_is_killed, "mig"),
    "server hangs, no reaper": partial(something_hangs_when_the_run_is_killed, "chat", True),
    "daemon hangs, reaper": partial(something_hangs_when_the_run_is_killed, "mps-control", False),
}


def test_parts_are_killed_or_hang(cache_dir: Path) -> None:
    """Whichever part of a run is killed or hangs, it is told, and in the end nothing is left."""
    many(cache_dir, PARTS)


@pytest.mark.full
def test_more_parts_are_killed_or_hang(cache_dir: Path) -> None:
    """The same in the other modes, and with and without a reaper."""
    many(cache_dir, MORE)
