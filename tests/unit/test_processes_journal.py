"""The journal of a run."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from fairshare.errors import FairshareError
from fairshare.processes.identity import ProcessIdentity
from fairshare.processes.journal import Journal, RunHeader, read_state, runs_dir
from fairshare.processes.segments import Segment


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep journals out of the user's state folder."""
    monkeypatch.setenv("FAIRSHARE_STATE_DIR", str(tmp_path / "state"))


def _header(run_id: str = "r1") -> RunHeader:
    owner = ProcessIdentity(pid=4, start_ticks=5, boot_id="b")
    before = frozenset({Segment("theirs", 9)})
    return RunHeader(run_id, owner, "host", Path("/nowhere/fs-0"), before)


def test_what_is_written_is_read_back() -> None:
    """Header, open steps, processes and segments come back as they were recorded."""
    journal = Journal.create(_header())
    journal.intend("a", [["undo", "a"]], {"X": "1"})
    journal.done(journal.intend("b", [["undo", "b"]]))
    third = journal.intend("c", [["undo", "c"], ["undo", "c2"]])
    journal.undone(third, 1)
    journal.add_process(ProcessIdentity(7, 8, "b"))
    journal.add_segments({Segment("psm_1", 11)})
    state = journal.state()
    journal.close()
    assert state is not None
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
    """An empty, broken or future file has no state, and no error comes of it."""
    path = runs_dir() / "x.jsonl"
    path.write_bytes(content)
    assert read_state(path) is None


def test_a_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    """A symbolic link cannot have us read or lock another file."""
    journal = Journal.create(_header())
    journal.close()
    link = runs_dir() / "link.jsonl"
    link.symlink_to(journal.path)
    assert read_state(link) is None
    assert Journal.lock(link) is None


def test_a_journal_that_never_got_its_name_is_forgotten() -> None:
    """What a run killed at its very start left is removed by a later run; a fresh one is not."""
    old, fresh = (runs_dir() / f".{name}.jsonl.new" for name in ("old", "fresh"))
    old.touch()
    fresh.touch()
    os.utime(old, (0, 0))
    Journal.create(_header()).close()
    assert not old.exists()
    assert fresh.exists()


def test_an_unwritable_state_folder_is_an_error_for_people(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A journal that cannot be written stops the run with a message that names the way out."""
    journal = Journal.create(_header())
    journal.close()
    (runs_dir() / ".r1.jsonl.new").touch()
    with pytest.raises(FairshareError, match="cannot write the journal") as caught:
        Journal.create(_header())
    assert "FAIRSHARE_STATE_DIR" in str(caught.value.hint)
