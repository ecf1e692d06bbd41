"""How busy the simulated GPU is, read off its board."""

from __future__ import annotations

import math
import time
from pathlib import Path

from fairshare.virtual.board import Board


class BusyMeter:
    """Measures utilisation between two readings."""

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / "board"
        self._busy_s: dict[tuple[int, int], float] = {}
        self._read_s: float | None = None

    def utilisation(self) -> float | None:
        """The fraction of the time since the last reading in which an engine was in a step.

        The engines are taken as independent of each other. None at the first reading.

        Raises:
            OSError: the simulated GPU is gone.
        """
        with Board(self._path) as board:
            entries = board.entries()
        now_s = time.monotonic()
        # A step counts in full when it begins: take off what of it is still to come.
        done = {
            (e.pid, e.start_ticks): e.busy_s - (max(0.0, e.due_s - now_s) if e.busy else 0.0)
            for e in entries
        }
        utilisation = None
        if self._read_s is not None and now_s > self._read_s:
            elapsed_s = now_s - self._read_s
            idle = (
                1 - min(1.0, max(0.0, busy_s - self._busy_s.get(key, 0.0)) / elapsed_s)
                for key, busy_s in done.items()
            )
            utilisation = 1.0 - math.prod(idle)
        self._busy_s, self._read_s = done, now_s
        return utilisation
