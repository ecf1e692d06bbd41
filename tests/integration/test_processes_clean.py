"""What is left when even the reaper was killed is found and cleaned up later, exactly once."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
from pathlib import Path

import pytest
from processes_children import (
    DAEMON,
    SHARED_MEMORY,
    STUBBORN,
    UNLABELLED_CHILD,
    Owner,
    Ready,
    assert_gone,
    python,
)

from fairshare.errors import PreflightError
from fairshare.processes.clean import (
    DeadRun,
    dead_runs_of_others,
    find_dead_runs,
    undo,
)
from fairshare.processes.identity import ProcessIdentity, boot_id, identify
from fairshare.processes.journal import Journal, read_state, runs_dir
from fairshare.processes.journal_state import RunHeader
from fairshare.processes.labelled import OWNER_LABEL, RUN_LABEL, labelled, owner_label
from fairshare.processes.segments import SHM, Segment
from fairshare.processes.table import namespace_of

pytestmark = pytest.mark.usefixtures("own_state_dir")
ROOT = Path(__file__).resolve().parents[2]


def _note(path: Path, word: str) -> list[list[str]]:
    return [["sh", "-c", 'echo "$0" >> "$1"', word, str(path)]]


def _dead_owner() -> ProcessIdentity:
    return ProcessIdentity(os.getpid(), 1, boot_id())


def _dead_run(folder: Path, steps: dict[str, list[list[str]]], host: str | None = None) -> Journal:
    """A journal as a killed run leaves it; its lock is let go."""
    run_id = f"dead-{secrets.token_hex(3)}"
    host = os.uname().nodename if host is None else host
    header = RunHeader(
        run_id, _dead_owner(), host, folder, uid=os.getuid(), namespace=namespace_of() or ""
    )
    journal = Journal.create(header)
    for step, commands in steps.items():
        journal.intend(step, commands)
    journal.close()
    return journal


def _kill_with_reaper(owner: Owner) -> None:
    owner.reaper.signal(signal.SIGKILL)
    assert_gone(owner.reaper)
    owner.kill()


def test_a_run_whose_reaper_died_too_is_cleaned_up(ready: Ready, tmp_path: Path) -> None:
    """Daemons, open changes, folder, shared memory and journal of the dead run go; others stay."""
    undone = tmp_path / "undone"
    steps = [[word, _note(undone, word)] for word in ("first", "second")]
    owner = Owner(tmp_path, ready, {"steps": steps, "children": [DAEMON, SHARED_MEMORY]})
    words = [ready.line(), ready.line()]
    segment = next(line[1] for line in words if len(line) == 3)
    _kill_with_reaper(owner)
    alive = Owner(tmp_path, ready, {"children": [STUBBORN]})
    other = identify(int(ready.line()[0]))
    assert other is not None

    (run,) = find_dead_runs()
    assert run.run_id == owner.run_id
    assert {int(line[0]) for line in words} <= {identity.pid for identity in run.processes}
    planned = undo(run, dry_run=True)
    plans = [line.partition(": ")[0] for line in planned if "undo" in line]
    assert plans == ["would undo second", "would undo first"]
    assert f"would remove {SHM / segment}" not in planned  # its tracker will do so
    assert f"would remove {owner.private_dir}" in planned
    assert labelled(owner.run_id) != []
    assert not undone.exists()

    done = undo(run, dry_run=False)
    assert [line for line in done if line.startswith("undid")] == ["undid second", "undid first"]
    assert undone.read_text().split() == ["second", "first"]
    assert labelled(owner.run_id) == []
    assert not owner.private_dir.exists()
    assert not (SHM / segment).exists()
    assert find_dead_runs() == []
    assert undo(run, dry_run=False) == []
    assert undone.read_text().split() == ["second", "first"]

    assert other.alive()
    assert alive.private_dir.exists()
    alive.process.communicate(timeout=60)


def test_the_device_lets_go_of_processes_before_they_are_ended(
    ready: Ready, tmp_path: Path
) -> None:
    """Release commands run with their step's environment while the processes live, for a moment."""
    owner = Owner(tmp_path, ready, {"children": [STUBBORN]})
    child = int(ready.line()[0])
    _kill_with_reaper(owner)
    (run,) = find_dead_runs()
    assert run.journal is not None
    journal = Journal.lock(run.journal)
    assert journal is not None
    proof = tmp_path / "proof"
    look = ["sh", "-c", 'kill -0 "$CHILD" && echo lives > "$0"', str(proof)]
    env = {"CHILD": str(child)}
    journal.intend("daemon", [["test", "-e", str(proof)]], env, release=[look, ["sleep", "100"]])
    journal.close()
    told = undo(run, dry_run=False)
    assert proof.read_text() == "lives\n"
    assert "had the device let go of the processes of daemon" in told
    assert "undid daemon" in told
    assert labelled(owner.run_id) == []


def test_a_live_run_is_neither_found_nor_touched(ready: Ready, tmp_path: Path) -> None:
    """Asking to undo a run whose owner lives is refused, and nothing of it changes."""
    owner = Owner(tmp_path, ready, {"children": [STUBBORN]})
    child = identify(int(ready.line()[0]))
    live = identify(owner.process.pid)
    assert child is not None
    assert live is not None
    assert find_dead_runs() == []
    (journal,) = runs_dir().iterdir()
    for dry_run in (True, False):
        with pytest.raises(PreflightError, match="is alive"):
            undo(DeadRun(owner.run_id, live, os.getuid(), journal), dry_run)
    assert child.alive()
    assert owner.private_dir.exists()
    owner.process.communicate(timeout=60)


def test_a_journal_of_another_host_is_not_judged(tmp_path: Path) -> None:
    """With a shared home folder, a run of another machine only looks dead from here."""
    _dead_run(tmp_path / "fs-0", {}, host="elsewhere")
    assert find_dead_runs() == []
    assert len(list(runs_dir().iterdir())) == 1


def test_a_failed_undo_is_told_kept_and_tried_again(tmp_path: Path) -> None:
    """What failed is tried again next time; what succeeded is not done a second time."""
    undone, allow = tmp_path / "undone", tmp_path / "allow"
    steps = {"first": _note(undone, "first"), "second": [["test", "-e", str(allow)]]}
    steps["third"] = [*_note(undone, "third"), ["test", "-e", str(allow)]]
    _dead_run(tmp_path / "fs-0", steps)
    (run,) = find_dead_runs()
    told = undo(run, dry_run=False)
    assert [line.split(":")[1].strip() for line in told if "FAILED" in line] == ["third", "second"]
    assert undone.read_text().split() == ["third", "first"]
    allow.touch()
    (run,) = find_dead_runs()
    assert undo(run, dry_run=False) == ["undid third", "undid second"]
    assert undone.read_text().split() == ["third", "first"]
    assert find_dead_runs() == []


def test_a_folder_that_is_not_the_runs_own_is_left_alone(tmp_path: Path) -> None:
    """A journal cannot have a folder removed that does not carry its run's mark."""
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("x")
    journal = _dead_run(precious, {})
    (run,) = find_dead_runs()
    told = undo(run, dry_run=False)
    assert any("left alone" in line for line in told)
    assert (precious / "file").read_text() == "x"
    assert read_state(journal.path) is not None


def test_a_journal_in_use_is_not_cleaned_a_second_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While somebody holds a dead run's journal, cleaning waits for it and then gives up aloud."""
    monkeypatch.setattr("fairshare.processes.clean._LOCK_WAIT_S", 0.1)
    made = _dead_run(tmp_path / "fs-0", {"a": _note(tmp_path / "undone", "a")})
    holder = Journal.lock(made.path)
    assert holder is not None
    (run,) = find_dead_runs()
    with pytest.raises(PreflightError, match="cleaning up"):
        undo(run, dry_run=False)
    assert not (tmp_path / "undone").exists()
    holder.close()
    assert undo(run, dry_run=False) == ["undid a"]


def test_an_undoing_that_outlives_who_began_it_is_waited_for(ready: Ready, tmp_path: Path) -> None:
    """Nobody else cleans up, and no new run begins, beside a command that is still at work."""
    go_on = tmp_path / "go-on"
    os.mkfifo(go_on)
    at_work = 'echo $$ > "$READY"; read word < "$0"'
    journal = _dead_run(tmp_path / "fs-0", {"a change": [["sh", "-c", at_work, str(go_on)]]})
    code = (
        "from fairshare.processes.clean import find_dead_runs, undo\n"
        "undo(find_dead_runs()[0], dry_run=False)"
    )
    with subprocess.Popen(python(code), env=ready.env(), cwd=ROOT) as cleaner:
        undoing = identify(int(ready.line()[0]))
        assert undoing is not None
        cleaner.kill()
    assert Journal.lock(journal.path) is None
    go_on.write_text("now\n")
    assert_gone(undoing)
    again = Journal.lock(journal.path)
    assert again is not None
    again.close()


def test_orphans_without_a_journal_are_found_by_their_label(ready: Ready) -> None:
    """A labelled process of a dead owner is found and ended; a live or unknown owner's is not."""
    run_id = secrets.token_hex(6)
    mine = identify(os.getpid())
    assert mine is not None
    owners = {
        "dead": owner_label(_dead_owner()),
        "live": owner_label(mine),
        "unknown": "",
    }
    children = {}
    for name, owner in owners.items():
        env = {**ready.env(), RUN_LABEL: f"{run_id}-{name}", OWNER_LABEL: owner}
        children[name] = subprocess.Popen(python(STUBBORN), env=env)
        ready.line()
    (run,) = [run for run in find_dead_runs() if run.run_id.startswith(run_id)]
    assert run.run_id == f"{run_id}-dead"
    assert run.journal is None
    assert len(undo(run, dry_run=True)) == 1
    assert children["dead"].poll() is None
    (told,) = undo(run, dry_run=False)
    assert told.startswith(f"ended process {children['dead'].pid} ")
    assert children["dead"].wait() == -signal.SIGKILL
    for name in ("live", "unknown"):
        assert children[name].poll() is None
        children[name].kill()
        children[name].wait()


def test_a_damaged_journal_is_told_and_what_is_left_is_ended(ready: Ready, tmp_path: Path) -> None:
    """Of a run whose journal cannot be read the processes end, and the journal stays in sight."""
    owner = Owner(tmp_path, ready, {"children": [DAEMON]})
    daemon = identify(int(ready.line()[0]))
    assert daemon is not None
    (path,) = runs_dir().iterdir()
    intact = path.read_bytes()
    path.write_bytes(b"\x00" * len(intact))
    assert find_dead_runs() == []  # its lock is held, so it lives
    _kill_with_reaper(owner)
    (run,) = find_dead_runs()
    assert run.run_id == owner.run_id
    (would_end, *_, planned) = undo(run, dry_run=True)
    assert would_end.startswith(f"would end process {daemon.pid} ")
    assert daemon.alive()
    told = undo(run, dry_run=False)
    assert not daemon.alive()
    assert told[-1] == planned
    assert told[-1].startswith(f"FAILED: the journal {path} cannot be understood: its first line")
    assert path.exists()
    path.write_bytes(intact)
    (run,) = find_dead_runs()
    undo(run, dry_run=False)
    assert not owner.private_dir.exists()


def test_what_can_be_read_of_a_journal_is_undone(tmp_path: Path) -> None:
    """A damaged line is told as a failure after everything else has been undone."""
    undone = tmp_path / "undone"
    steps = {word: _note(undone, word) for word in ("first", "second", "third")}
    journal = _dead_run(tmp_path / "fs-0", steps)
    lines = journal.path.read_bytes().splitlines(keepends=True)
    lines[2] = b"?" + lines[2]
    journal.path.write_bytes(b"".join(lines))
    for expected in (["undid third", "undid first"], []):
        (run,) = find_dead_runs()
        *done, failed = undo(run, dry_run=False)
        assert done == expected
        assert failed.startswith(f"FAILED: line 3 of {journal.path} cannot be read")
    assert undone.read_text().split() == ["third", "first"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a process of another user")
def test_a_label_on_another_users_process_is_not_believed(tmp_path: Path) -> None:
    """Whoever copies our label gets nobody's process killed, not even by root; it is told of."""
    journal = _dead_run(tmp_path / "fs-0", {})
    state = read_state(journal.path)
    assert state is not None
    labels = {RUN_LABEL: state.header.run_id, OWNER_LABEL: owner_label(state.header.owner)}
    foreign = subprocess.Popen(
        ["sleep", "100"], env={**labels}, user=65534, group=65534, extra_groups=[]
    )
    (run,) = find_dead_runs()
    assert run.processes == ()
    undo(run, dry_run=False)
    assert foreign.poll() is None
    assert find_dead_runs() == []
    (other,) = [run for run in dead_runs_of_others() if run.run_id == state.header.run_id]
    assert (other.uid, [each.pid for each in other.processes]) == (65534, [foreign.pid])
    with pytest.raises(PreflightError, match="nobody's"):
        undo(other, dry_run=False)
    assert foreign.poll() is None
    foreign.kill()
    foreign.wait()


def test_a_pid_that_was_reused_is_left_alone(tmp_path: Path) -> None:
    """A recorded process whose pid somebody else has now is not that process any more."""
    with subprocess.Popen(["sleep", "100"], start_new_session=True) as foreign:
        journal = _dead_run(tmp_path / "fs-0", {})
        again = Journal.lock(journal.path)
        assert again is not None
        again.add_process(ProcessIdentity(foreign.pid, 1, boot_id()))
        again.close()
        (run,) = find_dead_runs()
        undo(run, dry_run=False)
        code = foreign.poll()
        foreign.kill()
    assert code is None


def test_a_child_is_ended_although_who_led_to_it_went_first(ready: Ready, tmp_path: Path) -> None:
    """Without a label of its own it was seen below its parent, which obeys SIGTERM; it does not."""
    journal = _dead_run(tmp_path / "fs-0", {})
    labels = {RUN_LABEL: journal.path.stem, OWNER_LABEL: owner_label(_dead_owner())}
    command = python(UNLABELLED_CHILD, STUBBORN)
    with subprocess.Popen(command, env=ready.env() | labels, start_new_session=True):
        child = identify(int(ready.line()[0]))
        assert child is not None
        (run,) = find_dead_runs()
        undo(run, dry_run=False)
        alive = child.signal(signal.SIGKILL)
    assert not alive


def test_after_a_reboot_shared_memory_is_somebody_elses(tmp_path: Path) -> None:
    """Names and inodes come again with each boot, so a file that bears both is not ours."""
    path = SHM / f"psm_{secrets.token_hex(4)}"
    path.touch()
    try:
        owner = ProcessIdentity(os.getpid(), 1, "another boot")
        header = RunHeader(
            f"dead-{secrets.token_hex(3)}", owner, os.uname().nodename, tmp_path / "fs-0",
            uid=os.getuid(), namespace=namespace_of() or "",
        )  # fmt: skip
        journal = Journal.create(header)
        journal.add_segments([Segment(path.name, path.stat().st_ino)])
        journal.close()
        (run,) = find_dead_runs()
        undo(run, dry_run=False)
        assert path.exists()
        assert not journal.path.exists()
    finally:
        path.unlink()


def test_a_copied_label_of_a_live_run_does_not_end_it(ready: Ready, tmp_path: Path) -> None:
    """A process that claims a live run's name and a dead owner does not have the run ended."""
    owner = Owner(tmp_path, ready, {"children": [STUBBORN]})
    child = identify(int(ready.line()[0]))
    assert child is not None
    env = {RUN_LABEL: owner.run_id, OWNER_LABEL: owner_label(_dead_owner())}
    with subprocess.Popen(["sleep", "100"], env=env) as copy:
        found = find_dead_runs()
        copy.kill()
    assert owner.run_id not in [run.run_id for run in found]
    assert child.alive()
    owner.process.communicate(timeout=60)


def test_a_run_with_a_journal_elsewhere_is_left_to_that_folder(
    ready: Ready, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its journal may know what must happen before its processes end, so it is only told of."""
    owner = Owner(tmp_path, ready, {"children": [STUBBORN]})
    child = identify(int(ready.line()[0]))
    assert child is not None
    _kill_with_reaper(owner)
    here = os.environ["FAIRSHARE_STATE_DIR"]
    monkeypatch.setenv("FAIRSHARE_STATE_DIR", str(tmp_path / "another"))
    assert owner.run_id not in [run.run_id for run in find_dead_runs()]
    (told,) = [run for run in dead_runs_of_others() if run.run_id == owner.run_id]
    assert told.remedy == f"FAIRSHARE_STATE_DIR={here} fairshare clean"
    with pytest.raises(PreflightError):
        undo(told, dry_run=False)
    assert child.alive()
    monkeypatch.setenv("FAIRSHARE_STATE_DIR", here)
    (run,) = [run for run in find_dead_runs() if run.run_id == owner.run_id]
    undo(run, dry_run=False)
    assert not child.alive()
