"""Logs of servers are kept in parts, and none of them grows without end."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fairshare.runner import log_parts
from fairshare.runner.log_parts import begin_anew, copy_part


def test_each_part_begins_where_the_last_one_ended(tmp_path: Path) -> None:
    """What a server writes between two cells is in exactly one part."""
    log, part = tmp_path / "s.log", tmp_path / "part"
    log.write_bytes(b"one\n")
    end = copy_part(log, 0, part)
    assert part.read_bytes() == b"one\n"
    with log.open("ab") as file:
        file.write(b"two\n")
    assert copy_part(log, end, part) == 8
    assert part.read_bytes() == b"two\n"


def test_a_part_keeps_both_ends_and_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a flood the first lines and the last ones tell why; the middle is counted."""
    monkeypatch.setattr(log_parts, "MOST_PART_BYTES", 20)
    log, part = tmp_path / "s.log", tmp_path / "part"
    log.write_bytes(b"A" * 10 + b"." * 980 + b"Z" * 10)
    assert copy_part(log, 0, part) == 1000
    first, note, last = part.read_bytes().splitlines()
    assert (first, last) == (b"A" * 10, b"Z" * 10)
    assert b"left out 980 bytes" in note


def test_a_log_that_begins_anew_loses_nothing_that_comes_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that holds the file open goes on in it, and the next part has just the new lines."""
    monkeypatch.setattr(log_parts, "MOST_LOG_BYTES", 100)
    monkeypatch.setattr(log_parts, "_KEPT_BYTES", 10)
    log, part = tmp_path / "s.log", tmp_path / "part"
    server = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        os.write(server, b"x" * 100)
        assert begin_anew(log, copy_part(log, 0, part)) == 100, "not too long yet"
        os.write(server, b"y" * 50)
        begun = begin_anew(log, copy_part(log, 100, part))
        assert log.read_bytes() == b"y" * 10
        os.write(server, b"later\n")
        copy_part(log, begun, part)
        assert part.read_bytes() == b"later\n"
    finally:
        os.close(server)
