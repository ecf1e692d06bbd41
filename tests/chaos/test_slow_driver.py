"""A driver tool is still at work when its run is killed: what it does afterwards is undone too."""

from __future__ import annotations

import time
from pathlib import Path

import psutil
import pytest

from fairshare.virtual.failing import FAIL_FILE
from tests.chaos.crowd import Act, many, restored
from tests.chaos.stage import Stage

pytestmark = pytest.mark.timeout(900)
PATIENCE_S = 240
ONE_SLICE = 19  # the id of 1g.5gb
PROGRAM = "fairshare.virtual.nvidia_smi"


def _wait_for_tool(pid: int, word: str) -> None:
    """Return when a process has an nvidia-smi at work that was called with a word."""
    deadline_s = time.monotonic() + PATIENCE_S
    while True:
        for child in psutil.Process(pid).children(recursive=True):
            try:
                arguments = child.cmdline()
            except psutil.NoSuchProcess:
                continue
            if PROGRAM in arguments and word in arguments:
                return
        assert time.monotonic() < deadline_s, f"nvidia-smi {word} was never called"
        time.sleep(0.005)  # the table of processes is all that shows it


def killed_at_work(word: str, reaper: bool) -> tuple[str, Act]:
    """What kills a run while nvidia-smi works for seconds, before it has changed anything."""

    def act(stage: Stage) -> None:
        (stage.gpu / FAIL_FILE).write_text(f"smi_slow={word}:1\n")
        stage.before["gpu files"] = stage.traces()["gpu files"]
        layout = ("--mig-layout", "3g.20gb,2g.10gb", "--model", "qwen3-0.6b")
        # Else the tool ends at its first word to a run that is dead, and changes nothing.
        run = stage.begin(*stage.matrix("mig", *layout), PYTHONUNBUFFERED="")
        _wait_for_tool(run.pid, word)
        stage.kill(run, reaper=reaper)
        restored(stage, "killed while a slow driver tool was at work", word, reaper=reaper)

    return f"nvidia-smi {word} at work, reaper killed: {reaper}", act


def test_a_change_of_mode_under_way_is_undone(cache_dir: Path) -> None:
    """MIG mode that is turned on only after the run has died does not stay on."""
    many(cache_dir, [killed_at_work("-mig", False)])


def test_an_instance_under_way_is_undone(cache_dir: Path) -> None:
    """An instance that is made only after the run has died does not stay, beside foreign ones."""
    many(cache_dir, [killed_at_work("-cgi", False)], instances=(ONE_SLICE,))


@pytest.mark.full
@pytest.mark.parametrize("instances", [(), (ONE_SLICE,)])
def test_any_change_under_way_is_undone(cache_dir: Path, instances: tuple[int, ...]) -> None:
    """The same for each change, with and without the reaper, on a GPU of one's own or not."""
    words = ["-cgi", "-dci", "-dgi"] if instances else ["-mig", "-cgi", "-dci", "-dgi"]
    cases = [(word, reaper) for word in words for reaper in (True, False)]
    many(cache_dir, [killed_at_work(*case) for case in cases], instances=instances)
