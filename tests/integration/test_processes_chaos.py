"""A run killed at each of its steps: whatever the moment, nothing is left after a clean-up."""

from __future__ import annotations

import random
import signal
import subprocess
import threading
from pathlib import Path

import pytest
from processes_children import DAEMON, Ready, assert_gone, python

from fairshare.processes.clean import DeadRun, find_dead_runs, undo
from fairshare.processes.identity import ProcessIdentity, identify
from fairshare.processes.journal import runs_dir
from fairshare.processes.labelled import labelled
from fairshare.processes.table import command_line, snapshot

# A run that makes two folders as its changes, and is killed before or after its n-th journal line.
RUN = """
import asyncio, os, signal, sys
from pathlib import Path
from fairshare.events import EventLog
from fairshare.processes import journal
from fairshare.processes.scope import run_scope
from fairshare.processes.spawn import ManagedProcess

folder, when, number, child = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4]
lines, write = 0, journal.Journal._write
executed, traced = 0, ("processes/scope.py", "processes/spawn.py", "processes/journal.py")

def trace(frame, event, _):
    global executed
    # Not inside comprehensions: their number of lines depends on what else runs on the machine.
    if not frame.f_code.co_filename.endswith(traced) or frame.f_code.co_name.startswith("<"):
        return None
    executed += event == "line"
    if when == "executing" and executed == number:
        os.kill(os.getpid(), signal.SIGKILL)
    return trace

def write_or_die(self, **line):
    global lines
    lines += 1
    if lines == 1:
        print(line["run_id"], line["private_dir"], flush=True)
    if when == "before" and lines == number:
        os.kill(os.getpid(), signal.SIGKILL)
    write(self, **line)
    if when == "after" and lines == number:
        os.kill(os.getpid(), signal.SIGKILL)

journal.Journal._write = write_or_die

async def main():
    async with run_scope(EventLog()) as scope:
        for name in ("one", "two"):
            step = scope.journal.intend(name, [["rm", "-rf", str(folder / name)]])
            (folder / name).mkdir()
            process = await ManagedProcess.spawn(
                name, [sys.executable, "-c", child], env=dict(os.environ),
                log_path=folder / "log", scope=scope,
            )
            (scope.slot_dir(name) / "socket").touch()
            if name == "one":
                await process.stop(0)
                (folder / name).rmdir()
                scope.journal.done(step)
        process.tree()
    print(lines, executed, flush=True)

sys.settrace(trace)
asyncio.run(main())
"""
# Counted below: header, (intend, process) twice, done, and the two that the end of the run writes.
LINES = 9


@pytest.fixture(autouse=True)
def own_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep journals and private folders of the killed runs in the test's own folder."""
    monkeypatch.setenv("FAIRSHARE_STATE_DIR", str(tmp_path / "state"))


def _start(folder: Path, ready: Ready, when: str, number: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        python(RUN, str(folder), when, str(number), DAEMON),
        env=ready.env(),
        stdout=subprocess.PIPE,
        text=True,
    )


def _reapers() -> list[ProcessIdentity]:
    folder = str(runs_dir())
    found = [identify(row.pid) for row in snapshot().values() if folder in command_line(row.pid)]
    return [identity for identity in found if identity is not None]


def _dead() -> list[DeadRun]:
    """Dead runs of this test: others of this machine have their journals elsewhere."""
    return [run for run in find_dead_runs() if run.journal is not None]


def _clean() -> None:
    for run in _dead():
        undo(run, dry_run=False)


def _assert_nothing_left(folder: Path, told: str) -> None:
    """Fail if anything remains of the run that told its id and private folder."""
    assert [path for path in runs_dir().iterdir() if path.suffix == ".jsonl"] == []
    assert not (folder / "one").exists()
    assert not (folder / "two").exists()
    if told:
        run_id, private_dir = told.splitlines()[0].split()
        assert labelled(run_id) == []
        assert not Path(private_dir).exists()


def _survey(folder: Path) -> tuple[str, int, int]:
    """Run without a kill: what it told, its journal lines and its executed lines."""
    ready = Ready(folder)
    output, _ = _start(folder, ready, "never", 0).communicate(timeout=60)
    told, counts = output.splitlines()
    lines, executed = counts.split()
    return told, int(lines), int(executed)


def _kill_and_clean(folder: Path, ready: Ready, when: str, number: int) -> None:
    with _start(folder, ready, when, number) as run:
        output, _ = run.communicate(timeout=60)
        # The number of executed lines depends a little on timing, so the last may never come.
        assert run.returncode == -signal.SIGKILL or when == "executing"
        assert_gone(*_reapers())
    left = _dead()
    # Only a run that died before it had a reaper, and so before its first change, leaves its
    # journal to the next start.
    assert not left or not (folder / "log").exists()
    _clean()
    _assert_nothing_left(folder, output)


def test_the_number_of_steps_is_what_the_other_tests_go_through(tmp_path: Path) -> None:
    """A run that nobody kills writes as many journal lines as there are moments to kill it at."""
    told, lines, _ = _survey(tmp_path)
    assert lines == LINES
    _assert_nothing_left(tmp_path, told)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("number", range(1, LINES + 1))
def test_killed_at_a_step(number: int, when: str, tmp_path: Path) -> None:
    """Killed right before or after any line of its journal, a run is cleaned up by its reaper."""
    _kill_and_clean(tmp_path, Ready(tmp_path), when, number)


def test_killed_anywhere(tmp_path: Path) -> None:
    """Killed at any line of the code that starts and ends processes, nothing is left either."""
    survey = tmp_path / "survey"
    survey.mkdir()
    _, _, executed = _survey(survey)
    for number in random.Random(2).sample(range(1, executed + 1), 10):
        folder = tmp_path / str(number)
        folder.mkdir()
        _kill_and_clean(folder, Ready(folder), "executing", number)


def test_a_reaper_and_a_clean_up_at_once_do_everything_once(tmp_path: Path) -> None:
    """However many clean up after a dead run at the same time, each change is undone once."""
    undone = tmp_path / "undone"
    code = RUN.replace('["rm", "-rf", str(folder / name)]', '["sh", "-c", UNDO, name, sys.argv[5]]')
    code = 'UNDO = "echo $0 >> $1"\n' + code
    argv = python(code, str(tmp_path), "after", "6", DAEMON, str(undone))
    ready = Ready(tmp_path)
    with subprocess.Popen(argv, env=ready.env(), stdout=subprocess.DEVNULL) as run:
        run.wait(timeout=60)
        cleaners = [threading.Thread(target=_clean) for _ in range(3)]
        for cleaner in cleaners:
            cleaner.start()
        for cleaner in cleaners:
            cleaner.join()
        assert_gone(*_reapers())
    assert undone.read_text().split() == ["two"]
    assert _dead() == []
