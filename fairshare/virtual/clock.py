"""Virtual time: what happens next happens now."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any


class Clock:
    """Calls things in the order of their times, in seconds; equal times in the order of asking."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self._queue: list[tuple[float, int, Callable[[Any], None], Any]] = []
        self._asked = 0

    def at(self, time_s: float, do: Callable[[Any], None], what: Any = None) -> None:
        """Call ``do(what)`` at a time that has not passed yet."""
        self._asked += 1
        heappush(self._queue, (time_s, self._asked, do, what))

    def run(self, *, until: Callable[[], bool]) -> None:
        """Let time pass until a condition holds, or nothing is left to happen."""
        queue = self._queue
        while queue and not until():
            self.now_s, _, do, what = heappop(queue)
            do(what)
