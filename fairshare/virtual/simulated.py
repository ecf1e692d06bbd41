"""One server in virtual time: an engine whose courses take as long as its partition lets them."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from fairshare.scheduling.policy import Refusal
from fairshare.units import NS_PER_S
from fairshare.virtual.clock import Clock
from fairshare.virtual.contention import Partition
from fairshare.virtual.course import Course, Lane
from fairshare.virtual.engine import Engine, Sequence
from fairshare.virtual.rules import Rule

# A policy may hold back all that wait until their time has come: it is asked again so often.
LOOK_AGAIN_S = 0.01


@dataclass(slots=True, eq=False)
class Flight:
    """A request under way in virtual time, and what has become of it.

    ``prefills`` are the moments at which a prompt was complete (once, and again after each
    preemption), the decode steps that the server had counted then, and the tokens given before.
    ``passing`` is its time in the front end over the mean.
    """

    sequence: Sequence
    on_end: Callable[[Flight], None]
    passing: float = 1.0
    sent_s: float = 0.0
    end_s: float | None = None
    refusal: Refusal | None = None
    prefills: list[tuple[float, int, int]] = field(default_factory=list)

    @property
    def first_token_s(self) -> float | None:
        """When its first token came."""
        return self.prefills[0][0] if self.prefills else None


class SimulatedServer:
    """Takes flights and ends them. Arrivals are looked at between iterations, as in vLLM."""

    def __init__(
        self,
        clock: Clock,
        partition: Partition,
        engine: Engine,
        lane: Lane,
        rule: Rule,
        *,
        front_end_s: float,
        keep_token_times: bool = True,
    ) -> None:
        self.engine = engine
        self._clock = clock
        self._partition = partition
        self._lane = lane
        self._front_end_s = front_end_s
        self._member = partition.join(self._course_ended, rule, lane.sm_share)
        self._course: Course | None = None
        self._arrived: list[Flight] = []
        self._gone: list[Flight] = []
        self._flights: dict[Sequence, Flight] = {}
        self._decode_ns: array[int] | None = array("q") if keep_token_times else None
        self._waking = False

    def submit(self, flight: Flight) -> None:
        """Send a request now; it reaches the engine when the front end has done its part."""
        flight.sent_s = self._clock.now_s
        passes_s = self._front_end_s * flight.passing
        self._clock.at(flight.sent_s + passes_s, self._arrive, flight)

    def cancel(self, flight: Flight) -> None:
        """The client has gone; when the engine learns it, after its iteration, the flight ends.

        Tokens that came later than ``end_s`` are counted in :meth:`token_times_ns` nevertheless.
        """
        flight.end_s = self._clock.now_s
        self._gone.append(flight)
        self._interrupt()

    def token_times_ns(self, flight: Flight) -> list[int]:
        """When each of the request's tokens came, once it has ended."""
        assert self._decode_ns is not None  # noqa: S101  (asked for)
        times: list[int] = []
        if not flight.prefills:
            return times
        given = [before for _, _, before in flight.prefills[1:]] + [flight.sequence.generated]
        for (time_s, step, _), until in zip(flight.prefills, given, strict=True):
            times.append(round(time_s * NS_PER_S))
            times += self._decode_ns[step : step + until - len(times)]
        return times

    def _arrive(self, flight: Flight) -> None:
        if flight.end_s is not None:
            return
        self._arrived.append(flight)
        self._interrupt()

    def _interrupt(self) -> None:
        if self._course is None:
            self._next()
        else:
            self._partition.cut(self._member)

    def _course_ended(self) -> None:
        course, self._course = self._course, None
        assert course is not None  # noqa: S101  (the partition runs one of ours)
        now_s = self._clock.now_s
        engine = self.engine
        if self._decode_ns is not None and engine.decoding_count:
            times = self._partition.times(self._member, course.ends(course.steps))
            self._decode_ns.extend((times * NS_PER_S).round().astype(np.int64).tolist())
        ended = engine.end(course.steps, now_s)
        for sequence in ended.prefilled:
            flight = self._flights[sequence]
            flight.prefills.append((now_s, engine.steps, sequence.generated - 1))
        for sequence in ended.finished:
            flight = self._flights.pop(sequence)
            if flight.end_s is None:  # else its client has just gone
                self._end(flight)
        self._next()

    def _next(self) -> None:
        """Let in who has arrived, and begin the next course."""
        now_s = self._clock.now_s
        engine = self.engine
        if self._gone:
            self._forget(now_s)
        for flight in self._arrived:
            flight.refusal = engine.add(flight.sequence, now_s)
            if flight.refusal is None:
                self._flights[flight.sequence] = flight
            else:
                self._end(flight)
        self._arrived.clear()
        work = engine.begin(now_s)
        if engine.dropped:
            self._throw_out()
        if work is not None:
            self._course = self._lane.course(work.batch, work.steps)
            self._partition.start(self._member, self._course)
            return
        self._partition.idle(self._member)
        if engine.has_work and not self._waking:
            self._waking = True
            self._clock.at(now_s + LOOK_AGAIN_S, self._look_again)

    def _look_again(self, _: None) -> None:
        self._waking = False
        if self._course is None:
            self._next()

    def _forget(self, now_s: float) -> None:
        gone, self._gone = self._gone, []
        self._arrived = [flight for flight in self._arrived if flight.end_s is None]
        for flight in gone:
            if self._flights.pop(flight.sequence, None) is not None:
                self.engine.remove(flight.sequence, now_s)
            flight.on_end(flight)

    def _throw_out(self) -> None:
        dropped, self.engine.dropped = self.engine.dropped, []
        for sequence, refusal in dropped:
            flight = self._flights.pop(sequence)
            flight.refusal = refusal
            self._end(flight)

    def _end(self, flight: Flight) -> None:
        flight.end_s = self._clock.now_s
        flight.on_end(flight)
