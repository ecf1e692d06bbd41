"""How busy the simulated GPU is."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from fairshare.virtual.board import Board, own_entry
from fairshare.virtual.processes import start_ticks
from fairshare.virtual.rules import SharingKind
from fairshare.virtual.telemetry import BusyMeter


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The monotonic clock, moved by hand."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_utilisation_is_the_time_in_steps(tmp_path: Path, clock: list[float]) -> None:
    """Half the time in steps is 0.5; two such engines together 0.75; the first reading is none."""
    Board.create(tmp_path / "board")
    meter = BusyMeter(tmp_path)
    with Board(tmp_path / "board") as one, Board(tmp_path / "board") as two:
        entries = [own_entry(0, SharingKind.TIMESLICE, 1.0, size) for size in (10, 20)]
        one.join(entries[0])
        assert meter.utilisation() is None
        entries[0].busy_s, clock[0] = 1.0, 102.0
        one.publish(entries[0])
        assert meter.utilisation() == pytest.approx(0.5)
        entries[1].pid = os.getppid()  # another live process
        entries[1].start_ticks = start_ticks(entries[1].pid) or 0
        two.join(entries[1])
        meter.utilisation()
        clock[0] = 104.0
        for board, entry in zip((one, two), entries, strict=True):
            entry.busy_s += 1.0
            board.publish(entry)
        assert meter.utilisation() == pytest.approx(0.75)


def test_a_step_counts_only_as_far_as_it_has_gone(tmp_path: Path, clock: list[float]) -> None:
    """The rest of a step under way is not counted yet."""
    Board.create(tmp_path / "board")
    meter = BusyMeter(tmp_path)
    with Board(tmp_path / "board") as board:
        entry = own_entry(0, SharingKind.TIMESLICE, 1.0, 1)
        board.join(entry)
        meter.utilisation()
        entry.busy, entry.busy_s, entry.due_s, clock[0] = True, 4.0, 104.0, 102.0
        board.publish(entry)
        assert meter.utilisation() == pytest.approx(1.0)
        entry.busy, clock[0] = False, 108.0
        board.publish(entry)
        assert meter.utilisation() == pytest.approx(2 / 6)
