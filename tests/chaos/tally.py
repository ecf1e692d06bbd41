"""What the chaos tests have killed, and how long it took until nothing was left."""

from __future__ import annotations

from collections import Counter
from threading import Lock
from typing import NamedTuple

_MOST_PLACES = 12


class Kill(NamedTuple):
    """One thing done to a run: where it was, what was done, and how long the clean-up took."""

    kind: str
    where: str
    clean_s: float


class Tally:
    """All kills of a test session."""

    def __init__(self) -> None:
        self.kills: list[Kill] = []
        self._lock = Lock()

    def add(self, kind: str, where: str, clean_s: float) -> None:
        """Count one."""
        with self._lock:
            self.kills.append(Kill(kind, where, clean_s))

    def lines(self) -> list[str]:
        """For each kind how often, how long and where, and the slowest; none where none was."""
        if not self.kills:
            return []
        told = []
        for kind in dict.fromkeys(kill.kind for kill in self.kills):
            told += _of_kind(kind, [kill for kill in self.kills if kill.kind == kind])
        slowest = max(self.kills, key=lambda kill: kill.clean_s)
        told.append(
            f"{len(self.kills):4} in all; the slowest took {slowest.clean_s:.2f} s: "
            f"{slowest.kind}, {slowest.where}"
        )
        return told


def _of_kind(kind: str, kills: list[Kill]) -> list[str]:
    times = sorted(kill.clean_s for kill in kills)
    told = [
        f"{len(times):4} x {kind}: nothing left after {times[len(times) // 2]:.2f} s "
        f"(median), {times[-1]:.2f} s (slowest)"
    ]
    places = Counter(kill.where for kill in kills)
    if 1 < len(places) <= _MOST_PLACES:
        told.append("       " + "; ".join(f"{n} {where}" for where, n in sorted(places.items())))
    return told


TALLY = Tally()
