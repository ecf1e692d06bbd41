"""Under load, a short rest between two looks at the sockets, so that each look finds more."""

from __future__ import annotations

import time

# To wake and look costs more than to read and parse a chunk. So a look waits until the one before
# is as long ago as it found chunks, in tenths of a millisecond: from 10,000 chunks/s on that adds
# up to the most that it may be, below it comes to nothing. Stamps are late by at most that, and by
# half of it on average.
REST_PER_CHUNK_S = 0.0001
MAX_REST_S = 0.0006


class Rest:
    """Keeps looks apart while they find much.

    It blocks the event loop, whose own timers cannot wait for less than a millisecond.
    """

    def __init__(self) -> None:
        self._until_s = 0.0

    def take(self) -> float:
        """Wait until the rest that the last look earned is over; return what time it is then."""
        now_s = time.monotonic()
        if now_s < self._until_s:
            time.sleep(self._until_s - now_s)
            now_s = time.monotonic()
        return now_s

    def earn(self, looked_s: float, chunks: int) -> None:
        """A look at ``looked_s`` found so many chunks."""
        self._until_s = looked_s + min(MAX_REST_S, REST_PER_CHUNK_S * chunks)
