"""The board: what engines of one GPU know of each other, also when one of them dies."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from fairshare.virtual.board import SLOTS, Board, own_entry
from fairshare.virtual.physics import Demand
from fairshare.virtual.processes import start_ticks
from fairshare.virtual.rules import SharingKind

MPS, TIMESLICE = SharingKind.MPS, SharingKind.TIMESLICE


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """An empty board."""
    Board.create(tmp_path / "board")
    return tmp_path / "board"


def dead_pid() -> int:
    """A process that has been and is no more."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


def test_what_is_published_is_what_others_read(path: Path) -> None:
    """Demand, step and share of a busy engine arrive at its neighbour unchanged."""
    with Board(path) as ours, Board(path) as theirs:
        entry = own_entry(0, MPS, 0.25, 123)
        ours.join(entry)
        theirs.join(own_entry(0, MPS, 0.5, 1))
        entry.busy, entry.demand, entry.step_s = True, Demand(0.1, 0.2, 0.3, 0.4), 0.9
        ours.publish(entry)
        (seen,) = theirs.neighbours(0)
        assert (seen.kind, seen.sm_share, seen.step_s) == (MPS, 0.25, 0.9)
        assert seen.demand == Demand(0.1, 0.2, 0.3, 0.4)
        assert entry in theirs.entries()


def test_idle_engines_and_other_partitions_are_no_neighbours(path: Path) -> None:
    """Only engines with work in the same partition count, and never oneself."""
    with Board(path) as ours, Board(path) as idle, Board(path) as elsewhere:
        for board, partition, busy in ((ours, 0, True), (idle, 0, False), (elsewhere, 7, True)):
            board.join(replace(own_entry(partition, TIMESLICE, 1.0, 1), busy=busy, due_s=1e18))
        assert ours.neighbours(0) == []
        assert len(idle.neighbours(0)) == 1
        assert len(idle.neighbours(7)) == 1


def test_dead_processes_are_ignored_and_their_slots_reused(path: Path) -> None:
    """A server that was killed leaves no load, no memory and no slot behind."""
    gone = dead_pid()
    boards = [Board(path) for _ in range(SLOTS)]
    for board in boards:
        dead = replace(own_entry(0, TIMESLICE, 1.0, 10), pid=gone, busy=True)
        assert board.join(dead)
    with Board(path) as ours:
        assert ours.join(own_entry(0, TIMESLICE, 1.0, 10), limit_bytes=10)
        assert ours.neighbours(0) == []
        assert ours.memory_used(0) == 10
    for board in boards:
        board.close()


def test_a_reused_pid_is_not_mistaken_for_the_dead_server(path: Path) -> None:
    """A process is told by its start time too."""
    with Board(path) as ours, Board(path) as other:
        entry = own_entry(0, TIMESLICE, 1.0, 10)
        other.join(replace(entry, start_ticks=entry.start_ticks - 1, busy=True))
        assert ours.entries() == []


def test_a_writer_that_died_in_the_middle_is_passed_over(path: Path) -> None:
    """A slot left odd by its writer is neither read as truth nor waited for."""
    with Board(path) as theirs, Board(path) as ours:
        theirs.join(replace(own_entry(0, TIMESLICE, 1.0, 10), busy=True))
        data = bytearray(path.read_bytes())
        data[0] |= 1
        path.write_bytes(data)
        assert ours.entries() == []


def test_memory_is_claimed_once(path: Path) -> None:
    """Of two servers that want the last bytes, one gets them; another partition has its own."""
    with Board(path) as first, Board(path) as second, Board(path) as elsewhere:
        assert first.join(own_entry(0, TIMESLICE, 1.0, 60), limit_bytes=100)
        assert not second.join(own_entry(0, TIMESLICE, 1.0, 60), limit_bytes=100)
        assert elsewhere.join(own_entry(1, TIMESLICE, 1.0, 60), limit_bytes=100)
        assert (first.memory_used(0), first.memory_used(1)) == (60, 60)


def test_a_full_board_is_an_error(path: Path) -> None:
    """More servers than slots are refused instead of overwriting each other."""
    boards = [Board(path) for _ in range(SLOTS + 1)]
    for board in boards[:-1]:
        board.join(own_entry(0, TIMESLICE, 1.0, 0))
    with pytest.raises(OSError, match="64 servers"):
        boards[-1].join(own_entry(0, TIMESLICE, 1.0, 0))
    for board in boards:
        board.close()


def test_leaving_frees_slot_and_memory(path: Path) -> None:
    """A server that ends well is gone from the board at once."""
    with Board(path) as watcher:
        with Board(path) as ours:
            ours.join(own_entry(0, TIMESLICE, 1.0, 60))
            assert watcher.memory_used(0) == 60
        assert watcher.entries() == []


def test_start_ticks_tells_the_living_from_the_dead() -> None:
    """We have a start time; a process that is gone has none."""
    assert start_ticks(os.getpid())
    assert start_ticks(dead_pid()) is None
