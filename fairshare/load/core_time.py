"""How long this process ran, and how long it wanted to and had no core."""

from __future__ import annotations

import time
from pathlib import Path

from fairshare.units import NS_PER_S

# The kernel's account of this thread: ns on a core, ns ready but without one, turns.
_SCHEDSTAT = Path("/proc/thread-self/schedstat")


class CoreTime:
    """Adds up what passes between :meth:`begin` and :meth:`end`, in seconds.

    ``waited_s`` is of the calling thread, which does all the work; it stays 0 where the kernel does
    not tell.
    """

    def __init__(self) -> None:
        self.used_s = 0.0
        self.waited_s = 0.0
        self._begun = (0.0, 0.0)

    def begin(self) -> None:
        """Count from here."""
        self._begun = _now()

    def end(self) -> None:
        """Count up to here."""
        used_s, waited_s = _now()
        self.used_s += used_s - self._begun[0]
        self.waited_s += waited_s - self._begun[1]


def _now() -> tuple[float, float]:
    try:
        waited_ns = int(_SCHEDSTAT.read_text().split()[1])
    except (OSError, ValueError, IndexError):
        waited_ns = 0
    return time.process_time(), waited_ns / NS_PER_S
