"""Who shows events, and that nobody has to wait for a terminal."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from rich.console import Console

from fairshare.events import EventLog
from fairshare.ui import live
from fairshare.ui.live import PlainView, TerminalView, live_view
from fairshare.ui.under_way import course_of

SWEEP = (
    {"t": 1.0, "event": "sweep.started", "cells": 2},
    {"t": 2.0, "event": "cell.started", "cell": "a"},
)
DONE = {"t": 3.0, "event": "cell.finished", "cell": "a", "status": "ok"}


class Clock:
    """A clock that stands still until it is set."""

    now_s = 0.0

    def __call__(self) -> float:
        """What it shows."""
        return self.now_s


def test_without_a_terminal_a_line_a_minute_says_how_it_goes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One plain line each minute and no more; the line of the cell is whole again at its end."""
    clock = Clock()
    view = PlainView(clock)
    for event in SWEEP:
        view.take(event)
    clock.now_s = 59.0
    view.tick()
    assert view.patience_s == 1.0
    clock.now_s = 61.0
    view.tick()
    view.tick()
    view.take(DONE)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "  [1/2] a"
    assert "0 of 2 cells done; a begins, for" in lines[1]
    assert lines[2:] == ["  [1/2] a  ok"]


def test_on_a_terminal_lines_stay_and_the_table_goes(capsys: pytest.CaptureFixture[str]) -> None:
    """What is over has its line; the table with the cell under way is drawn at the bottom."""
    console = Console(force_terminal=True, width=100, color_system=None)
    view = TerminalView(console)
    for event in SWEEP:
        view.take(event)
    drawn = capsys.readouterr().out
    assert "[1/2] 0 of 2 cells done; a begins" in drawn
    view.take(DONE)
    view.close()
    assert "  [1/2] a  ok\n" in capsys.readouterr().out.replace("\r", "")


def test_a_terminal_that_does_not_take_anything_stops_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ctrl-S, or a line that hangs: whoever emits events goes on, and all is shown afterwards."""
    goes_on, shown = threading.Event(), []

    class Stuck(PlainView):
        def take(self, event: live.Event) -> None:
            assert goes_on.wait(30)
            shown.append(event["event"])

    monkeypatch.setattr(live, "PlainView", Stuck)
    with live_view() as listener:
        for event in SWEEP:
            listener(event)
        assert shown == []
        goes_on.set()
    assert shown == ["sweep.started", "cell.started"]


def test_a_run_under_way_is_found_by_the_log_that_it_holds_open(tmp_path: Path) -> None:
    """Another process sees where a run measures and how far it is, without being told."""
    folder = tmp_path / ("long" * 40)
    assert course_of(os.getpid()) is None
    with EventLog(folder / "events.jsonl") as log:
        assert course_of(os.getpid()) is None  # no sweep has begun
        log.emit("sweep.started", cells=2)
        log.emit("cell.started", cell="a")
        found = course_of(os.getpid())
    assert found is not None
    assert found[0] == folder
    assert (found[1].cells, found[1].cell) == (2, "a")
    assert course_of(2**22 + 1) is None
