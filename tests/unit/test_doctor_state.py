"""What our own folders say."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fairshare.doctor.state import StateFacts, check, gather
from fairshare.processes.identity import ProcessIdentity, boot_id
from fairshare.processes.journal import Journal
from fairshare.processes.journal_state import RunHeader
from fairshare.processes.locks import let_go, take
from fairshare.sharing.lease import lock_path
from tests.doctor_cases import intent, told


@pytest.fixture(name="folder")
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FAIRSHARE_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("FAIRSHARE_LOCK_DIR", str(tmp_path / "locks"))
    monkeypatch.setattr("fairshare.doctor.state.labels", dict)  # other runs of this machine
    return tmp_path


def _journal_of(pid: int, ticks: int, folder: Path) -> None:
    owner = ProcessIdentity(pid, ticks, boot_id())
    header = RunHeader("20260101-0000-abc", owner, os.uname().nodename, folder / "private")
    os.close(Journal.create(header)._descriptor)


def test_looking_makes_nothing(folder: Path) -> None:
    """Neither the state folder nor the one of locks is made."""
    assert told(check(gather(intent()), intent())) == {
        "device lock": "ok",
        "state folder": "ok",
        "killed runs": "ok",
    }
    assert list(folder.iterdir()) == []


def test_a_killed_run_and_a_damaged_journal_are_told(folder: Path) -> None:
    """What waits for fairshare clean is named, and so is what it cannot do."""
    _journal_of(1, 1, folder)  # process 1 never started at tick 1
    (folder / "state" / "runs" / "broken.jsonl").write_text("{")
    facts = gather(intent())
    assert facts.dead == ("20260101-0000-abc",)
    assert [path.name for path in facts.unreadable] == ["broken.jsonl"]
    found = told(check(facts, intent()))
    assert (found["killed runs"], found["journals"]) == ("warn", "warn")


def test_a_state_folder_that_others_may_write_is_refused(folder: Path) -> None:
    """What lies in it is run, so it must be nobody else's."""
    (folder / "state").mkdir()
    (folder / "state").chmod(0o777)
    (line,) = [f for f in check(gather(intent()), intent()) if f.name == "state folder"]
    assert line.level == "fail"
    assert "chmod go-w" in (line.fix or "")


def test_a_state_folder_below_a_file_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It could not be made."""
    (folder / "file").write_text("")
    monkeypatch.setenv("FAIRSHARE_STATE_DIR", str(folder / "file" / "state"))
    assert told(check(gather(intent()), intent()))["state folder"] == "fail"


def test_a_full_disk_of_the_state_folder_is_refused() -> None:
    """Changes that cannot be journaled are not made."""
    facts = StateFacts(Path("/x"), free_bytes=10)
    assert told(check(facts, intent()))["state folder"] == "fail"


def test_our_own_lock_is_no_other_run(folder: Path) -> None:
    """A run that holds the device may examine it."""
    wanted = intent()
    assert wanted.device is not None
    (folder / "locks").mkdir()
    path = lock_path(wanted.device, wanted.driver)
    descriptor = take(path, "a test")
    assert descriptor is not None
    assert gather(wanted).holder is None
    let_go(path, descriptor)
