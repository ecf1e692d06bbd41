"""The event log survives whatever ends its writer."""

from __future__ import annotations

from pathlib import Path

import pytest

from fairshare import events
from fairshare.events import EventLog, read_events


def names(path: Path) -> list[str]:
    """The events of a log."""
    with path.open("rb") as file:
        return [event["event"] for event in read_events(file)]


def test_each_event_is_in_the_file_at_once(tmp_path: Path) -> None:
    """Nothing is held back: a killed run's log holds all that it told."""
    path = tmp_path / "events.jsonl"
    log = EventLog(path)
    log.emit("one", text="ü\n", path=tmp_path)
    log.emit("two")
    assert names(path) == ["one", "two"]
    log.close()


def test_half_a_line_is_passed_over_and_then_removed(tmp_path: Path) -> None:
    """A run killed in the middle of a write loses that event, and spoils none of the next run."""
    path = tmp_path / "events.jsonl"
    path.write_bytes(b'{"event":"one"}\n{"event":"tw')
    assert names(path) == ["one"]
    with EventLog(path) as log:
        log.emit("three")
    assert names(path) == ["one", "three"]
    assert path.read_bytes().startswith(b'{"event":"one"}\n{"t":')


def test_a_log_that_is_half_a_line_alone_begins_anew(tmp_path: Path) -> None:
    """Also where the half line is longer than what is looked at in one go."""
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"x" * 200_000)
    with EventLog(path) as log:
        log.emit("one")
    assert names(path) == ["one"]


def test_what_a_full_disk_cuts_off_is_made_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel may take a part of a line; the events after it are whole lines again."""
    path = tmp_path / "events.jsonl"
    write = events.os.write
    with EventLog(path) as log:
        log.emit("one")
        monkeypatch.setattr(events.os, "write", lambda fd, data: write(fd, data[:9]))
        log.emit("two")
        monkeypatch.setattr(events.os, "write", write)
        log.emit("three")
    assert names(path) == ["one", "three"]


def test_lines_that_are_no_events_are_passed_over(tmp_path: Path) -> None:
    """Garbage in the middle hides nothing that comes after it."""
    path = tmp_path / "events.jsonl"
    path.write_bytes(b'{"event":"one"}\n\xff\n[1]\n{"event":7}\n\n{"event":"two"}\n')
    assert names(path) == ["one", "two"]
