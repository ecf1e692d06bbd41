"""What the chaos tests have killed, and how long it took until nothing was left."""

from __future__ import annotations

from dataclasses import dataclass
from threading import Lock


@dataclass(frozen=True, slots=True)
class Kill:
    """One thing done to a run: where it was, what was done, and how long the clean-up took."""

    kind: str
    where: str
    clean_s: float


class Tally:
    """All kills of a test session."""

    def __init__(self) -> None:
        self._kills: list[Kill] = []
        self._lock = Lock()

    def add(self, kind: str, where: str, clean_s: float) -> None:
        """Count one."""
        with self._lock:
            self._kills.append(Kill(kind, where, clean_s))

    def lines(self) -> list[str]:
        """A line for each kind and one for the slowest; none where nothing was killed."""
        if not self._kills:
            return []
        told = []
        for kind in dict.fromkeys(kill.kind for kill in self._kills):
            times = sorted(kill.clean_s for kill in self._kills if kill.kind == kind)
            told.append(
                f"{len(times):4} x {kind}: nothing left after {times[len(times) // 2]:.2f} s "
                f"(median), {times[-1]:.2f} s (slowest)"
            )
        slowest = max(self._kills, key=lambda kill: kill.clean_s)
        told.append(
            f"{len(self._kills):4} in all; the slowest took {slowest.clean_s:.2f} s: "
            f"{slowest.kind}, {slowest.where}"
        )
        return told


TALLY = Tally()
