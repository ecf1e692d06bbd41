"""Disk and memory while a sweep runs."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from fairshare.devices.reserves import Reserve, disk_reserve, memory_reserve
from fairshare.runner import shortage
from fairshare.runner.shortage import DISK_FLOOR_BYTES, Shortage

PLENTY = Reserve(64 << 30, 64 << 30)


def _shortage(folder: Path, disk: Reserve | None, memory: Reserve | None) -> Shortage:
    return Shortage(folder, read_disk=lambda _: disk, read_memory=lambda: memory)


def test_room_for_one_more_cell_is_wanted(tmp_path: Path) -> None:
    """The next cell may be as large as the largest so far, and the sweep's end must still fit."""
    cell = tmp_path / "cell"
    cell.mkdir()
    (cell / "requests.jsonl").write_bytes(bytes(1 << 20))
    found = _shortage(tmp_path, Reserve(DISK_FLOOR_BYTES + 1000, 1 << 30), PLENTY)
    assert found.look() is None
    found.measured(cell)
    assert "8 MiB" in (found.look() or "") or "9 MiB" in (found.look() or "")
    assert found.look(in_a_cell=True) is None  # what it needs it has taken already


@pytest.mark.parametrize(
    ("available", "total", "short"),
    [(2 << 30, 64 << 30, False), (1 << 29, 64 << 30, True), (1 << 29, 4 << 30, False)],
)
def test_memory_is_short_before_the_kernel_kills(
    tmp_path: Path, available: int, total: int, short: bool
) -> None:
    """A GiB is the floor, and less on a small machine."""
    found = _shortage(tmp_path, PLENTY, Reserve(available, total))
    assert (found.look() is not None) is short
    assert (found.memory is not None) is short
    assert found.disk is None


def test_what_cannot_be_read_is_not_short(tmp_path: Path) -> None:
    """A system that does not tell stops nobody."""
    assert _shortage(tmp_path, None, None).look() is None


async def test_a_shortage_in_a_cell_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever watches is told while the block lasts."""
    monkeypatch.setattr(shortage, "INTERVAL_S", 0.001)
    found, told = _shortage(tmp_path, Reserve(0, 1 << 30), PLENTY), asyncio.Event()
    async with found.watching(told.set):
        await asyncio.wait_for(told.wait(), 10)
    assert found.disk is not None


def test_a_control_group_limits_memory(tmp_path: Path) -> None:
    """What can be had is the smaller of the machine's and the group's, which gives files back."""
    (tmp_path / "meminfo").write_text("MemTotal: 1000 kB\nMemAvailable: 900 kB\n")
    assert memory_reserve(tmp_path, tmp_path) == Reserve(900 << 10, 1000 << 10)
    (tmp_path / "memory.max").write_text("max\n")
    assert memory_reserve(tmp_path, tmp_path) == Reserve(900 << 10, 1000 << 10)
    (tmp_path / "memory.max").write_text("409600\n")
    (tmp_path / "memory.current").write_text("400000\n")
    (tmp_path / "memory.stat").write_text("anon 300000\ninactive_file 90000\n")
    assert memory_reserve(tmp_path, tmp_path) == Reserve(99_600, 409_600)
    assert memory_reserve(tmp_path / "none", tmp_path / "none") is None
    assert disk_reserve(tmp_path / "none") is None
    assert disk_reserve(tmp_path) is not None
