"""Reads the simulated GPU's gauges off its board."""

from __future__ import annotations

import math
import time
from pathlib import Path

from fairshare.devices.nvml import GpuSample
from fairshare.virtual.board import Board


class BoardSampler:
    """Utilisation and memory of the simulated GPU; it has no power, clocks or temperature.

    Utilisation is the fraction of the time since the last sample in which at least one engine was
    in a step, taking the engines as independent of each other.
    """

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / "board"
        self._board: Board | None = None
        self._busy_s: dict[tuple[int, int], float] = {}
        self._sampled_s: float | None = None

    def sample(self) -> GpuSample | None:
        """The gauges now; None if the simulated GPU is gone. The first has no utilisation."""
        if self._board is None:
            if not self._path.exists():
                return None
            self._board = Board(self._path)
        now_s = time.monotonic()
        entries = self._board.entries()
        # A step counts in full when it begins: take off what of it is still to come.
        done = {
            (e.pid, e.start_ticks): e.busy_s - (max(0.0, e.due_s - now_s) if e.busy else 0.0)
            for e in entries
        }
        utilisation = None
        if self._sampled_s is not None and now_s > self._sampled_s:
            elapsed_s = now_s - self._sampled_s
            idle = (
                1 - min(1.0, max(0.0, busy_s - self._busy_s.get(key, 0.0)) / elapsed_s)
                for key, busy_s in done.items()
            )
            utilisation = 1.0 - math.prod(idle)
        self._busy_s, self._sampled_s = done, now_s
        return GpuSample(
            gpu_utilisation=utilisation, memory_used_bytes=sum(e.memory_bytes for e in entries)
        )

    def close(self) -> None:
        """Let go of the board; a later sample opens it again."""
        if self._board is not None:
            self._board.close()
            self._board = None
        self._sampled_s = None
