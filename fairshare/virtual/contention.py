"""Who computes on one partition in virtual time, and how fast each of them gets on.

Members run courses (iterations that are alike). How fast a course goes depends on who else runs,
by the rules of :mod:`fairshare.virtual.rules`, and changes whenever one of them begins another.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fairshare.virtual.clients import Client, step_times
from fairshare.virtual.clock import Clock
from fairshare.virtual.course import Course
from fairshare.virtual.physics import Constants
from fairshare.virtual.rules import Neighbour, Rule, SharingKind

Floats = NDArray[np.float64]


class Partition(Protocol):
    """Where members run courses; each is told when its course ends."""

    def join(self, on_end: Callable[[], None], rule: Rule, sm_share: float) -> int:
        """A new member, by number."""
        ...

    def start(self, member: int, course: Course) -> None:
        """Run a course from now on."""
        ...

    def cut(self, member: int) -> None:
        """End the member's course with the iteration that is under way."""
        ...

    def idle(self, member: int) -> None:
        """The member has nothing to compute."""
        ...

    def times(self, member: int, ends: Floats) -> Floats:
        """When the iterations of a course that has just ended did end."""
        ...


class Alone:
    """Nobody else: one engine on a device or a MIG instance of its own."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._course: Course | None = None
        self._start_s = 0.0
        self._version = 0

    def join(self, on_end: Callable[[], None], rule: Rule, sm_share: float) -> int:
        """The only member."""
        self._on_end = on_end
        return 0

    def start(self, member: int, course: Course) -> None:
        """Run a course from now on."""
        self._course = course
        self._start_s = self._clock.now_s
        self._schedule(course)

    def cut(self, member: int) -> None:
        """End the course with the iteration that is under way."""
        course = self._course
        if course is None or course.steps == 1:
            return
        steps = course.boundary(self._clock.now_s - self._start_s)
        if steps < course.steps:
            course.steps = steps
            self._schedule(course)

    def idle(self, member: int) -> None:
        """Nothing to compute."""
        self._course = None

    def times(self, member: int, ends: Floats) -> Floats:
        """When the iterations of the course that has just ended did end."""
        return self._start_s + ends

    def _schedule(self, course: Course) -> None:
        self._version += 1
        self._clock.at(self._start_s + course.after(course.steps), self._end, self._version)

    def _end(self, version: int) -> None:
        if version == self._version:
            self._on_end()


class TimeSlices:
    """The driver's time slices between engines that are never held up by their hosts.

    All that run get on at the same speed, so that one common clock of progress is enough: it is
    advanced when their number changes, and each course has a fixed end on it.
    """

    def __init__(self, clock: Clock, tax: float) -> None:
        self._clock = clock
        self._tax = tax
        self._on_end: list[Callable[[], None]] = []
        self._courses: list[Course | None] = []
        self._starts: list[float] = []  # on the common clock
        self._versions: list[int] = []
        self._ends: list[tuple[float, int, int]] = []  # on the common clock; member, its version
        self._running = 0
        self._bends_s, self._bends = [0.0], [0.0]  # times, and the common clock's then
        self._asked = 0

    def join(self, on_end: Callable[[], None], rule: Rule, sm_share: float) -> int:
        """A new member."""
        self._on_end.append(on_end)
        self._courses.append(None)
        self._starts.append(0.0)
        self._versions.append(0)
        return len(self._on_end) - 1

    def start(self, member: int, course: Course) -> None:
        """Run a course from now on."""
        if self._courses[member] is None:
            self._count(1)
        self._courses[member] = course
        self._starts[member] = self._progress()
        self._push(member, course)

    def cut(self, member: int) -> None:
        """End the member's course with the iteration that is under way."""
        course = self._courses[member]
        if course is None or course.steps == 1:
            return
        steps = course.boundary(self._progress() - self._starts[member])
        if steps < course.steps:
            course.steps = steps
            self._push(member, course)

    def idle(self, member: int) -> None:
        """The member has nothing to compute."""
        if self._courses[member] is not None:
            self._courses[member] = None
            self._count(-1)
            self._schedule()

    def times(self, member: int, ends: Floats) -> Floats:
        """When the iterations of a course that has just ended did end."""
        start = self._starts[member]
        first = bisect_right(self._bends, start) - 1
        bends = [*self._bends[first:], self._progress()]
        times = [*self._bends_s[first:], self._clock.now_s]
        found: Floats = np.interp(start + ends, bends, times)
        return found

    def _pace(self) -> float:
        """Seconds for one second of progress."""
        return self._running * self._tax if self._running > 1 else 1.0

    def _progress(self) -> float:
        return self._bends[-1] + (self._clock.now_s - self._bends_s[-1]) / self._pace()

    def _count(self, change: int) -> None:
        progress = self._progress()
        self._bends.append(progress)
        self._bends_s.append(self._clock.now_s)
        self._running += change

    def _push(self, member: int, course: Course) -> None:
        self._versions[member] += 1
        end = self._starts[member] + course.after(course.steps)
        heappush(self._ends, (end, member, self._versions[member]))
        self._schedule()

    def _schedule(self) -> None:
        ends = self._ends
        while ends and self._versions[ends[0][1]] != ends[0][2]:
            heappop(ends)
        if ends:
            self._asked += 1
            left = max(0.0, ends[0][0] - self._progress())
            self._clock.at(self._clock.now_s + left * self._pace(), self._end, self._asked)

    def _end(self, asked: int) -> None:
        if asked == self._asked:
            member = heappop(self._ends)[1]
            self._versions[member] += 1
            self._on_end[member]()


@dataclass(slots=True)
class _Member:
    on_end: Callable[[], None]
    rule: Rule
    sm_share: float
    course: Course | None = None
    ends: float = 0.0  # seconds of the course until it ends, as it would go alone
    done: float = 0.0  # how many of these have passed
    pace: float = 1.0  # seconds for one of those
    client: Client | None = None  # as which it is seen, on so much of its share
    scale: float = 1.0
    bends: list[float] = field(default_factory=list)
    bends_s: list[float] = field(default_factory=list)


class Contended:
    """Engines that each get on at a speed of their own, by any rule: held up by their hosts.

    The speed follows from what the middle iterations of all courses demand, and is found anew when
    one of them begins another course.
    """

    def __init__(self, clock: Clock, kind: SharingKind) -> None:
        self._clock = clock
        self._kind = kind
        self._members: list[_Member] = []
        self._synced_s = 0.0
        self._asked = 0

    def join(self, on_end: Callable[[], None], rule: Rule, sm_share: float) -> int:
        """A new member."""
        self._members.append(_Member(on_end, rule, sm_share))
        return len(self._members) - 1

    def start(self, member: int, course: Course) -> None:
        """Run a course from now on."""
        self._sync()
        one = self._members[member]
        one.course, one.ends, one.done = course, course.after(course.steps), 0.0
        one.bends, one.bends_s = [], []
        self._repace()

    def cut(self, member: int) -> None:
        """End the member's course with the iteration that is under way."""
        one = self._members[member]
        course = one.course
        if course is None or course.steps == 1:
            return
        self._sync()
        steps = course.boundary(one.done)
        if steps < course.steps:
            course.steps, one.ends = steps, course.after(steps)
            self._schedule()

    def idle(self, member: int) -> None:
        """The member has nothing to compute."""
        if self._members[member].course is not None:
            self._sync()
            self._members[member].course = None
            self._repace()

    def times(self, member: int, ends: Floats) -> Floats:
        """When the iterations of a course that has just ended did end."""
        one = self._members[member]
        found: Floats = np.interp(
            ends, [*one.bends, float(ends[-1])], [*one.bends_s, self._clock.now_s]
        )
        return found

    def _sync(self) -> None:
        passed = self._clock.now_s - self._synced_s
        if passed > 0:
            for one in self._members:
                if one.course is not None:
                    one.done += passed / one.pace
        self._synced_s = self._clock.now_s

    def _repace(self) -> None:
        busy = [one for one in self._members if one.course is not None]
        seen = [self._seen(one) for one in busy]
        for i, one in enumerate(busy):
            assert one.course is not None  # noqa: S101  (see above)
            others = seen[:i] + seen[i + 1 :]
            one.pace = one.rule.step_s(one.course.middle, others) / one.course.middle_s
            seen[i] = self._seen(one)
            one.bends.append(one.done)
            one.bends_s.append(self._clock.now_s)
        self._schedule()

    def _seen(self, other: _Member) -> Neighbour:
        assert other.course is not None  # noqa: S101  (only those that run are seen)
        step_s = other.course.middle_s * other.pace
        return Neighbour(self._kind, other.course.middle, step_s, other.sm_share)

    def _schedule(self) -> None:
        soonest, first = math.inf, 0
        for number, one in enumerate(self._members):
            if one.course is not None:
                left_s = (one.ends - one.done) * one.pace
                if left_s < soonest:
                    soonest, first = left_s, number
        if soonest < math.inf:
            self._asked += 1
            self._clock.at(self._clock.now_s + max(0.0, soonest), self._end, (self._asked, first))

    def _end(self, asked: tuple[int, int]) -> None:
        if asked[0] == self._asked:
            self._sync()
            self._members[asked[1]].on_end()


class MpsClients(Contended):
    """Clients of one MPS daemon: :class:`Contended`, with the speeds of all found at once.

    Speeds depend on each other. They are found anew often enough to settle from one time to the
    next; ``sweeps`` is how often at once.
    """

    def __init__(self, clock: Clock, constants: Constants, sweeps: int = 1) -> None:
        super().__init__(clock, SharingKind.MPS)
        self._constants = constants
        self._sweeps = sweeps

    def start(self, member: int, course: Course) -> None:
        """Run a course from now on."""
        self._members[member].client = None
        super().start(member, course)

    def _repace(self) -> None:
        busy = [one for one in self._members if one.course is not None]
        asked = sum(one.sm_share for one in busy)
        crowded = len(busy) > 1 and asked > 1 + 1e-9
        scale = 1 / asked if crowded else 1.0
        clients = [self._client(one, scale) for one in busy]
        tax = self._constants.oversubscription if crowded else 1.0
        for _ in range(self._sweeps):
            steps = step_times(clients, tax)
        for one, step_s in zip(busy, steps, strict=True):
            assert one.course is not None  # noqa: S101  (see above)
            one.pace = step_s / one.course.middle_s
            one.bends.append(one.done)
            one.bends_s.append(self._clock.now_s)
        self._schedule()

    def _client(self, one: _Member, scale: float) -> Client:
        assert one.course is not None  # noqa: S101  (only those that run are asked)
        if one.client is None or one.scale != scale:
            one.scale = scale
            one.client = Client.of(one.course.middle, one.sm_share * scale, self._constants)
        return one.client
