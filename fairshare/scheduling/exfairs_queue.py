"""ExFairS's queue: whoever comes with a better priority passes some of those before it, not all.

Source: ExFairS, AAAI-26 40(43):36271-36279, the queue of strategy PRIORITY in its artifact.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterator

from fairshare.scheduling.policy import Request


class _Place:
    """A place in the line, linked to its neighbours, so that any can be left at once."""

    __slots__ = ("after", "before", "priority", "request")

    def __init__(self, request: Request | None, priority: int) -> None:
        self.request = request
        self.priority = priority
        self.before = self.after = self

    def insert_before(self, other: _Place) -> None:
        """Put this place right before that one."""
        self.before, self.after = other.before, other
        self.before.after = other.before = self

    def leave(self) -> None:
        """Close the gap."""
        self.before.after, self.after.before = self.after, self.before


class OvertakingQueue:
    """A line with partial overtaking; a smaller priority is a better one.

    With L distinct priorities in the line and r of them better than the newcomer's, it moves
    ``multiplier`` * int(w (1 - r/L)) places to the front, w being those of worse priority; not more
    than ``max_positions``, nor than w.
    """

    def __init__(
        self, priority: Callable[[Request], int], multiplier: int, max_positions: int
    ) -> None:
        self._priority = priority
        self._multiplier = multiplier
        self._max_positions = max_positions
        self._ring = _Place(None, 0)  # before it is the tail, after it the front
        self._places: dict[Request, _Place] = {}
        self._levels: list[int] = []
        self._count: dict[int, int] = {}

    def append(self, request: Request) -> None:
        """It comes in at the tail, and passes whom its priority lets it pass."""
        neighbour = self._ring
        for _ in range(self._overtaken(self._priority(request))):
            neighbour = neighbour.before
        self._enter(request, neighbour)

    def prepend(self, request: Request) -> None:
        """It comes in at the front."""
        self._enter(request, self._ring.after)

    def remove(self, request: Request) -> bool:
        """It waits no longer; False if it did not wait."""
        place = self._places.pop(request, None)
        if place is None:
            return False
        place.leave()
        self._count[place.priority] -= 1
        if not self._count[place.priority]:
            del self._count[place.priority]
            del self._levels[bisect_left(self._levels, place.priority)]
        return True

    def first(self) -> Request | None:
        """The one that is next."""
        return self._ring.after.request

    def __contains__(self, request: Request) -> bool:
        return request in self._places

    def __iter__(self) -> Iterator[Request]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def _enter(self, request: Request, neighbour: _Place) -> None:
        priority = self._priority(request)
        place = self._places[request] = _Place(request, priority)
        place.insert_before(neighbour)
        if priority not in self._count:
            self._count[priority] = 0
            insort(self._levels, priority)
        self._count[priority] += 1

    def _overtaken(self, priority: int) -> int:
        """How many places a newcomer of this priority moves to the front."""
        most = min(self._max_positions, len(self))
        levels = self._levels
        distinct = len(levels) + (priority not in self._count)
        part = 1 - bisect_left(levels, priority) / distinct
        worse = moved = 0
        for level in reversed(range(bisect_right(levels, priority), len(levels))):
            worse += self._count[levels[level]]
            moved = min(self._multiplier * int(worse * part), worse)
            if moved >= most:  # those of the other levels change nothing any more
                return most
        return moved
