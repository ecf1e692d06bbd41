"""Disk and memory while a sweep runs: it stops while its results still fit."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from fairshare.devices.reserves import Reserve, disk_reserve, memory_reserve
from fairshare.units import format_bytes

INTERVAL_S = 2.0
DISK_FLOOR_BYTES = 8 << 20  # what ends a sweep must still fit: its events, a summary, a page
MEMORY_FLOOR_BYTES = 1 << 30
_MEMORY_FRACTION = 0.03  # of a small machine, in place of the floor


@dataclass(slots=True)
class Shortage:
    """Looks whether disk and memory last; ``disk`` and ``memory`` say what does not, if anything.

    The disk is short when less than a floor is left beside room for one more cell, as large as the
    largest that this call has measured.
    """

    folder: Path
    read_disk: Callable[[Path], Reserve | None] = disk_reserve
    read_memory: Callable[[], Reserve | None] = memory_reserve
    disk: str | None = None
    memory: str | None = None
    _largest_bytes: int = field(default=0, init=False)

    def measured(self, cell: Path) -> None:
        """Learn how much room a cell takes."""
        with suppress(OSError):  # its folder may be gone, whoever removed it
            size = sum(path.stat().st_size for path in cell.rglob("*") if path.is_file())
            self._largest_bytes = max(self._largest_bytes, size)

    def look(self, *, in_a_cell: bool = False) -> str | None:
        """What there is too little of now, in words; None of nothing.

        ``in_a_cell``: what the cell needs is being used already.
        """
        self.disk = self._disk_short(0 if in_a_cell else self._largest_bytes)
        self.memory = self._memory_short()
        return self.disk or self.memory

    @asynccontextmanager
    async def watching(self, on_short: Callable[[], None]) -> AsyncIterator[None]:
        """Call ``on_short`` whenever there is too little while the block lasts."""

        async def repeat() -> None:
            while True:
                await asyncio.sleep(INTERVAL_S)
                if await asyncio.to_thread(self.look, in_a_cell=True) is not None:
                    on_short()

        task = asyncio.create_task(repeat(), name="watch disk and memory")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def _disk_short(self, wanted_bytes: int) -> str | None:
        found = self.read_disk(self.folder)
        needed = DISK_FLOOR_BYTES + wanted_bytes
        if found is None or found.available_bytes >= needed:
            return None
        return (
            f"{format_bytes(found.available_bytes)} are left on the disk of {self.folder}, and "
            f"{format_bytes(needed)} are wanted to end well"
        )

    def _memory_short(self) -> str | None:
        found = self.read_memory()
        if found is None:
            return None
        floor = min(MEMORY_FLOOR_BYTES, int(_MEMORY_FRACTION * found.total_bytes))
        if found.available_bytes >= floor:
            return None
        return (
            f"{format_bytes(found.available_bytes)} of {format_bytes(found.total_bytes)} of memory "
            "can still be had: the kernel would soon kill whom it likes"
        )
