"""A run leaves nothing behind, whether it ends or is killed."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from processes_children import (
    DAEMON,
    PLAIN,
    SHARED_MEMORY,
    STUBBORN,
    Owner,
    Ready,
    assert_gone,
    python,
    reaper_of,
)

from fairshare.errors import FairshareError
from fairshare.events import EventLog
from fairshare.processes.clean import find_dead_runs, undo
from fairshare.processes.identity import identify
from fairshare.processes.journal import read_state, runs_dir
from fairshare.processes.labelled import labelled
from fairshare.processes.linux import set_child_subreaper
from fairshare.processes.scope import run_scope
from fairshare.processes.segments import SHM
from fairshare.processes.spawn import ManagedProcess

pytestmark = pytest.mark.usefixtures("own_state_dir")


def _note(path: Path, word: str) -> list[list[str]]:
    """Undo commands that leave a word in a file each time they run."""
    return [["sh", "-c", 'echo "$0" >> "$1"', word, str(path)]]


def _journals() -> list[Path]:
    return list(runs_dir().iterdir())


async def test_a_run_is_private_and_journaled_while_it_lasts(tmp_path: Path) -> None:
    """Inside, folders are 0700 and short and the journal names the owner; after, all is gone."""
    async with run_scope(EventLog()) as scope:
        assert stat.S_IMODE(scope.private_dir.stat().st_mode) == 0o700
        slot = scope.slot_dir("interactive chat/0 " + "x" * 100)
        assert slot == scope.slot_dir("interactive chat/0 " + "x" * 100)
        assert slot != scope.slot_dir("batch")
        assert stat.S_IMODE(slot.stat().st_mode) == 0o700
        assert len(str(slot)) < 60
        state = read_state(scope.journal.path)
        assert state is not None
        assert state.header.owner == identify(os.getpid())
        assert scope.child_env()["FAIRSHARE_RUN"] == scope.run_id
        reaper = reaper_of(os.getpid())
        assert os.getsid(reaper.pid) == reaper.pid
    assert not scope.private_dir.exists()
    assert _journals() == []
    assert not reaper.alive()


async def test_no_two_slots_share_a_folder() -> None:
    """Whatever tenants are called: a folder is removed with its slot, and must be nobody else's."""
    async with run_scope(EventLog()) as scope:
        (scope.private_dir / "gpu").mkdir()
        names = ("a name with blanks", "s0", "gpu", "another, as long as it is odd", "s1", "s2")
        folders = [scope.slot_dir(name) for name in names]
        assert len(set(folders)) == len(names)
        assert scope.private_dir / "gpu" not in folders
        folders[1].rmdir()
        assert scope.slot_dir("one more with blanks") != scope.slot_dir("s0")


async def test_the_end_of_a_run_ends_what_nobody_stopped(ready: Ready, tmp_path: Path) -> None:
    """A forgotten process and its daemon end with the run, open changes are undone, all aloud."""
    told: list[dict[str, Any]] = []
    events = EventLog()
    events.listen(lambda event: told.append(dict(event)))
    async with run_scope(events) as scope:
        scope.journal.intend("first", _note(tmp_path / "undone", "first"))
        scope.journal.done(scope.journal.intend("second", _note(tmp_path / "undone", "second")))
        scope.journal.intend("third", _note(tmp_path / "undone", "third"))
        process = await ManagedProcess.spawn(
            "a", python(DAEMON), env=ready.env(), log_path=tmp_path / "a.log", scope=scope
        )
        daemon = await ready.child()
    assert not daemon.alive()
    assert process.returncode is not None
    assert (tmp_path / "undone").read_text().split() == ["third", "first"]
    leftovers = {e["pid"] for e in told if e["event"] == "process.leftover" and e["ended"]}
    assert {daemon.pid, process.pid} <= leftovers
    assert [e["step"] for e in told if e["event"] == "run.undone"] == ["third", "first"]
    assert told[-1] == {**told[-1], "event": "run.closed", "complete": True}


async def test_a_run_that_fails_or_is_cancelled_is_cleaned_up_too(
    ready: Ready, tmp_path: Path
) -> None:
    """An exception and a cancellation inside the run pass through, after the clean-up."""
    entered = asyncio.Event()

    async def run() -> None:
        async with run_scope(EventLog()) as scope:
            await ManagedProcess.spawn(
                "a", python(STUBBORN), env=ready.env(), log_path=tmp_path / "a.log", scope=scope
            )
            entered.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(run())
    child = await ready.child()
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not child.alive()
    with pytest.raises(FairshareError, match="inside"):
        async with run_scope(EventLog()):
            raise FairshareError("inside")
    assert _journals() == []


async def test_a_cancellation_does_not_cut_the_clean_up_short(tmp_path: Path) -> None:
    """Cancelled at its very end, a run still undoes, reports and leaves no journal."""
    told: list[str] = []
    events = EventLog()
    events.listen(lambda event: told.append(event["event"]))
    begun, go_on = tmp_path / "begun", tmp_path / "go-on"
    os.mkfifo(begun)
    os.mkfifo(go_on)

    async def run() -> None:
        async with run_scope(events) as scope:
            command = 'echo > "$0"; read word < "$1"; echo done > "$2"'
            files = [str(path) for path in (begun, go_on, tmp_path / "undone")]
            scope.journal.intend("a change", [["sh", "-c", command, *files]])

    task = asyncio.create_task(run())
    await asyncio.to_thread(begun.read_text)
    task.cancel()
    await asyncio.sleep(0)
    await asyncio.to_thread(go_on.write_text, "now\n")
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (tmp_path / "undone").exists()
    assert told[-2:] == ["run.removed", "run.closed"]
    assert _journals() == []
    assert not set_child_subreaper(False), "orphans would still be handed to this process"


async def test_a_change_that_cannot_be_undone_is_said_and_kept(tmp_path: Path) -> None:
    """A failing undo command is told with its output, and stays in the journal for later."""
    told: list[dict[str, Any]] = []
    events = EventLog()
    events.listen(lambda event: told.append(dict(event)))
    async with run_scope(events) as scope:
        undo = [*_note(tmp_path / "undone", "once"), ["sh", "-c", "echo no driver; exit 3"]]
        scope.journal.intend("change", undo)
    problems = [e["problem"] for e in told if e["event"] == "run.not_undone"]
    assert len(problems) == 1
    assert "exit code 3: no driver" in problems[0]
    state = read_state(scope.journal.path)
    assert state is not None
    assert [(s.name, s.commands_undone) for s in state.pending.values()] == [("change", 1)]


@pytest.mark.parametrize("code", [PLAIN, STUBBORN, DAEMON], ids=["plain", "stubborn", "daemon"])
def test_a_killed_run_is_cleaned_up_by_its_reaper(code: str, ready: Ready, tmp_path: Path) -> None:
    """After SIGKILL of the run its processes, changes, folder and journal go within seconds."""
    undone = tmp_path / "undone"
    steps = [[word, _note(undone, word)] for word in ("first", "second")]
    with subprocess.Popen(["sleep", "100"], start_new_session=True) as foreign:
        owner = Owner(tmp_path, ready, {"steps": steps, "children": [code, code]})
        children = [identify(int(ready.line()[0])) for _ in range(2)]
        assert all(children)
        owner.kill()
        assert_gone(owner.reaper)
        assert [child for child in children if child and child.alive()] == []
        assert foreign.poll() is None
        foreign.kill()
    assert undone.read_text().split() == ["second", "first"]
    assert not owner.private_dir.exists()
    assert labelled(owner.run_id) == []
    assert _journals() == []


def test_a_reaper_cleans_up_although_the_state_folder_is_gone(ready: Ready, tmp_path: Path) -> None:
    """Who removes the journals under a run that is then killed leaves no process and no change."""
    undone = tmp_path / "undone"
    wish = {"steps": [["only", _note(undone, "only")]], "children": [STUBBORN]}
    owner = Owner(tmp_path, ready, wish)
    child = identify(int(ready.line()[0]))
    assert child is not None
    shutil.rmtree(tmp_path / "state")
    owner.kill()
    assert_gone(owner.reaper)
    assert not child.alive()
    assert undone.read_text().split() == ["only"]
    assert not owner.private_dir.exists()


def test_a_run_ends_well_although_the_state_folder_is_gone(ready: Ready, tmp_path: Path) -> None:
    """The end of the run undoes from memory what the lost journal said."""
    undone = tmp_path / "undone"
    wish = {"steps": [["only", _note(undone, "only")]], "children": [STUBBORN]}
    owner = Owner(tmp_path, ready, wish)
    child = identify(int(ready.line()[0]))
    assert child is not None
    shutil.rmtree(tmp_path / "state")
    owner.process.communicate(timeout=60)
    assert owner.process.returncode == 0
    assert_gone(owner.reaper)
    assert not child.alive()
    assert undone.read_text().split() == ["only"]


def test_the_reaper_removes_shared_memory_that_nobody_else_would(
    ready: Ready, tmp_path: Path
) -> None:
    """A segment whose resource tracker is gone is removed; a foreign one of that kind is not."""
    foreign = SHM / f"psm_foreign_{os.getpid()}"
    foreign.touch()
    owner = Owner(tmp_path, ready, {"children": [SHARED_MEMORY]})
    _, name, tracker = ready.line()
    tracker_identity = identify(int(tracker))
    assert tracker_identity is not None
    tracker_identity.signal(signal.SIGKILL)
    assert_gone(tracker_identity)
    owner.kill()
    assert_gone(owner.reaper)
    try:
        assert not (SHM / name).exists()
        assert foreign.exists()
    finally:
        foreign.unlink()


def test_a_process_goes_with_its_run_even_without_a_reaper(ready: Ready, tmp_path: Path) -> None:
    """The kernel itself tells a child that its run was killed."""
    owner = Owner(tmp_path, ready, {"children": [PLAIN]})
    child = identify(int(ready.line()[0]))
    assert child is not None
    owner.reaper.signal(signal.SIGKILL)
    assert_gone(owner.reaper)
    owner.kill()
    assert_gone(child)
    for run in find_dead_runs():
        undo(run, dry_run=False)
    assert not owner.private_dir.exists()


def test_the_reaper_does_not_mind_signals_meant_for_the_terminal(
    ready: Ready, tmp_path: Path
) -> None:
    """Ctrl-C, a closing terminal and a polite end do not keep the reaper from its work."""
    owner = Owner(tmp_path, ready, {"children": [STUBBORN]})
    child = identify(int(ready.line()[0]))
    assert child is not None
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGQUIT):
        assert owner.reaper.signal(number)
    owner.kill()
    assert_gone(owner.reaper)
    assert not child.alive()


def test_a_run_that_ended_by_itself_leaves_its_reaper_nothing_to_do(
    ready: Ready, tmp_path: Path
) -> None:
    """The reaper of a clean run ends with it, having run no undo command a second time."""
    undone = tmp_path / "undone"
    owner = Owner(tmp_path, ready, {"steps": [["only", _note(undone, "only")]]})
    owner.process.communicate(timeout=60)
    assert owner.process.returncode == 0
    assert_gone(owner.reaper)
    assert undone.read_text().split() == ["only"]
    assert find_dead_runs() == []


def test_the_reaper_is_small_and_needs_the_standard_library_alone() -> None:
    """The reaper starts without any installed package, and without asyncio."""
    code = (
        "import sys; before = set(sys.modules); import fairshare.processes.reaper;"
        "print(sorted({name.partition('.')[0] for name in set(sys.modules) - before}"
        " - set(sys.stdlib_module_names)), 'asyncio' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],
        env={"PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "['fairshare'] False"
