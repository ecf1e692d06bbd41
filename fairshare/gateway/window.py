"""How many requests are at the server at once.

Too many, and the engine's own first-come-first-served queue decides who is next; too few, and its
batch is not full. The adaptive window keeps one or two waiting in the engine.
"""

from __future__ import annotations

import statistics
from typing import Protocol

from fairshare.wire.exposition import ServerMetrics

FEWEST_WAITING = 1
MOST_WAITING = 2
FULL_KV_CACHE = 0.95  # above it another request would only be preempted
LARGEST = 4096
START = 8
_FORGET = 1.02  # the shortest time to a first token counts a little more each period


class Window(Protocol):
    """Says how many requests may be at the server."""

    size: int

    def observe(self, metrics: ServerMetrics | None, outstanding: int) -> None:
        """A second has passed: what the server says of itself, if it does, and how many it has."""
        ...

    def answered(self, ttft_s: float) -> None:
        """A stream has got its first token so long after it went to the server."""
        ...


class FixedWindow:
    """Always the same number."""

    def __init__(self, size: int) -> None:
        self.size = size

    def observe(self, metrics: ServerMetrics | None, outstanding: int) -> None:
        """Nothing changes."""

    def answered(self, ttft_s: float) -> None:
        """Nothing changes."""


class AdaptiveWindow:
    """Follows the engine's own queue.

    With metrics: what waits there beyond two is taken off at once; while less than one waits, all
    of the window is used and the KV cache has room, it grows by an eighth a second.

    Without: the queue is estimated as TCP Vegas does, ``size * (1 - shortest / median)`` over the
    times to the first token, and the window moves by one a second.
    """

    def __init__(self, size: int = START) -> None:
        self.size = size
        self._ttft_s: list[float] = []
        self._shortest_s = 0.0

    def observe(self, metrics: ServerMetrics | None, outstanding: int) -> None:
        """Move the window."""
        if metrics is not None and metrics.waiting is not None:
            self._follow(metrics.waiting, metrics.kv_usage or 0.0, outstanding)
        elif self._ttft_s:
            self._guess(outstanding)
        self._ttft_s.clear()

    def answered(self, ttft_s: float) -> None:
        """Remember it until the next look."""
        self._ttft_s.append(ttft_s)

    def _follow(self, waiting: float, kv_usage: float, outstanding: int) -> None:
        if waiting > MOST_WAITING:
            self._set(min(self.size, outstanding) - round(waiting - MOST_WAITING))
        elif waiting < FEWEST_WAITING and outstanding >= self.size and kv_usage < FULL_KV_CACHE:
            self._set(self.size + max(1, self.size // 8))

    def _guess(self, outstanding: int) -> None:
        median_s = statistics.median(self._ttft_s)
        shortest_s = min(self._ttft_s)
        before_s = self._shortest_s * _FORGET or shortest_s
        self._shortest_s = min(before_s, shortest_s)
        queued = self.size * (1 - self._shortest_s / median_s) if median_s > 0 else 0.0
        if queued > MOST_WAITING:
            self._set(self.size - 1)
        elif queued < FEWEST_WAITING and outstanding >= self.size:
            self._set(self.size + 1)

    def _set(self, size: int) -> None:
        self.size = max(1, min(size, LARGEST))
