"""The journal of a run."""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
from pathlib import Path

import pytest

from fairshare import assets
from fairshare.errors import ExitCode, FairshareError, StoppedEarlyError
from fairshare.processes.clean import remove_stillborn
from fairshare.processes.identity import ProcessIdentity, identify
from fairshare.processes.journal import Journal, load_state, read_state, runs_dir, stillborn
from fairshare.processes.journal_state import JournalError, RunHeader
from fairshare.processes.segments import Segment


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep journals out of the user's state folder."""
    monkeypatch.setenv("FAIRSHARE_STATE_DIR", str(tmp_path / "state"))


def _header(run_id: str = "r1") -> RunHeader:
    owner = ProcessIdentity(pid=4, start_ticks=5, boot_id="b")
    before = frozenset({Segment("theirs", 9)})
    return RunHeader(
        run_id, owner, "host", Path("/nowhere/fs-0"), before, Path("/x.lock"), 7, "pid:[1]"
    )


def test_what_is_written_is_read_back() -> None:
    """Header, open steps, processes and segments come back as they were recorded."""
    journal = Journal.create(_header())
    journal.intend("a", [["undo", "a"]], {"X": "1"})
    journal.done(journal.intend("b", [["undo", "b"]]))
    third = journal.intend("c", [["undo", "c"], ["undo", "c2"]])
    journal.undone(third, 1)
    journal.add_process(ProcessIdentity(7, 8, "b"))
    journal.add_segments({Segment("psm_1", 11)})
    remembered = journal.state()
    journal.close()
    state = read_state(journal.path)
    assert state is not None
    assert state == remembered
    assert state.header == _header()
    assert {step.name: step.commands_undone for step in state.pending.values()} == {"a": 0, "c": 1}
    assert state.pending[1].undo == [["undo", "a"]]
    assert state.pending[1].env == {"X": "1"}
    assert state.processes == [ProcessIdentity(7, 8, "b")]
    assert state.segments == {Segment("psm_1", 11)}


def test_only_the_user_can_read_it() -> None:
    """The journal is 0600 in a folder that is 0700: undo environments may hold secrets."""
    journal = Journal.create(_header())
    assert stat.S_IMODE(journal.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(journal.path.parent.stat().st_mode) == 0o700
    assert list(journal.path.parent.iterdir()) == [journal.path]
    journal.close()


def test_an_intent_is_synced_before_the_call_returns(monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole line is in the file when it is synced, before the change can be made."""
    journal = Journal.create(_header())
    synced: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda _fd: synced.append(journal.path.read_text()))
    journal.intend("change", [["undo"]])
    journal.close()
    assert len(synced) == 1
    assert json.loads(synced[0].splitlines()[-1])["step"] == "change"
    assert synced[0].endswith("\n")


def test_a_torn_last_line_never_took_effect() -> None:
    """A line cut short by a crash is ignored and all before it is kept."""
    journal = Journal.create(_header())
    journal.intend("kept", [["undo"]])
    journal.close()
    with journal.path.open("ab") as file:
        file.write(b'{"kind": "done", "n": 1')
    state = read_state(journal.path)
    assert state is not None
    assert [step.name for step in state.pending.values()] == ["kept"]


def test_its_lock_lasts_as_long_as_it_is_open() -> None:
    """Nobody else can take a journal that is held; once it is closed one can, and only one."""
    journal = Journal.create(_header())
    assert Journal.lock(journal.path) is None
    journal.close()
    second = Journal.lock(journal.path)
    assert second is not None
    assert Journal.lock(journal.path) is None
    second.remove()
    second.close()
    assert Journal.lock(journal.path) is None


@pytest.mark.parametrize(
    "content",
    [b"", b"garbage\n", b'{"kind": "run", "format_version": 999}\n', b"[]\n", b'{"kind":'],
)
def test_what_is_not_a_journal_of_ours_is_not_guessed_at(content: bytes) -> None:
    """An empty, broken or future file has no state, and it is said why."""
    path = runs_dir() / "x.jsonl"
    path.write_bytes(content)
    assert read_state(path) is None
    with pytest.raises(JournalError, match=r"empty|damaged|another version"):
        load_state(path)


def test_a_damaged_line_costs_no_more_than_itself() -> None:
    """What can be read around a damaged line is used, and the line is named."""
    journal = Journal.create(_header())
    journal.intend("a", [["undo", "a"]])
    journal.intend("b", [["undo", "b"]])
    journal.undone(2, 0)
    journal.close()
    lines = journal.path.read_bytes().splitlines(keepends=True)
    lines[2] = b"\x00" * (len(lines[2]) - 1) + b"\n"
    journal.path.write_bytes(b"".join(lines))
    state = read_state(journal.path)
    assert state is not None
    assert [step.name for step in state.pending.values()] == ["a"]
    assert state.damaged == [3]


def _full(_descriptor: int, _data: bytes) -> int:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_on_a_full_disk_nothing_may_be_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    """An intent that cannot be written stops the run; what is done is not forgotten for it."""
    journal = Journal.create(_header())
    first = journal.intend("first", [["undo"]])
    monkeypatch.setattr(os, "write", _full)
    with pytest.raises(StoppedEarlyError, match="no space left") as caught:
        journal.intend("second", [["undo"]])
    assert caught.value.exit_code is ExitCode.STOPPED_EARLY
    assert [step.name for step in journal.state().pending.values()] == ["first"]
    journal.done(first)
    assert journal.state().pending == {}
    journal.close()


def test_half_a_line_on_a_full_disk_spoils_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """The piece that still fitted is taken back before anything else is written."""
    journal = Journal.create(_header())
    write = os.write

    def nearly_full(descriptor: int, data: bytes) -> int:
        monkeypatch.setattr(os, "write", _full)
        return write(descriptor, data[:5])

    monkeypatch.setattr(os, "write", nearly_full)
    with pytest.raises(StoppedEarlyError):
        journal.intend("lost", [["undo"]])
    monkeypatch.setattr(os, "write", write)
    journal.intend("kept", [["undo"]])
    journal.close()
    state = read_state(journal.path)
    assert state is not None
    assert ([step.name for step in state.pending.values()], state.damaged) == (["kept"], [])


def test_a_journal_that_vanished_is_remembered() -> None:
    """Who removes the state folder under a run takes neither its memory nor its composure."""
    journal = Journal.create(_header())
    journal.intend("a", [["undo"]])
    shutil.rmtree(assets.state_dir())
    journal.intend("b", [["undo"]])
    assert [step.name for step in journal.state().pending.values()] == ["a", "b"]
    journal.remove()
    journal.close()


def test_a_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    """A symbolic link cannot have us read or lock another file."""
    journal = Journal.create(_header())
    journal.close()
    link = runs_dir() / "link.jsonl"
    link.symlink_to(journal.path)
    assert read_state(link) is None
    assert Journal.lock(link) is None


def test_a_journal_that_never_got_its_name_is_found_once_its_run_is_dead() -> None:
    """What a run killed at its very start left is found; that of one about to start is not."""
    alive = identify(os.getpid())
    assert alive is not None
    ours = runs_dir() / f".ours.{alive.pid}.{alive.start_ticks}.new"
    dead = runs_dir() / f".dead.{alive.pid}.{alive.start_ticks + 1}.new"
    ours.touch()
    dead.touch()
    assert stillborn() == [dead]
    assert remove_stillborn(dry_run=True) == [f"would remove {dead}"]
    assert remove_stillborn(dry_run=False) == [f"removed {dead}"]
    assert not dead.exists()
    assert ours.exists()


def test_an_unwritable_state_folder_is_an_error_for_people(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A journal that cannot be written stops the run with a message that names the way out."""
    journal = Journal.create(_header())
    journal.close()
    (runs_dir() / ".r1.4.5.new").touch()
    with pytest.raises(FairshareError, match="cannot write the journal") as caught:
        Journal.create(_header())
    assert "FAIRSHARE_STATE_DIR" in str(caught.value.hint)
