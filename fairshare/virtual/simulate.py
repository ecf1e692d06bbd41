"""The order of things in a cell of virtual time: warm-up, window (as the timing says), drain.

The rules are those of the real load generator (:mod:`fairshare.load.conductor`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fairshare.records import RequestRecord
from fairshare.spec.scenario import Timing
from fairshare.virtual.clock import Clock
from fairshare.virtual.traffic import Closed, Scheduled, Source, Traffic


@dataclass(frozen=True, slots=True)
class Simulated:
    """When the measured window began and ended, and when all was over; seconds from the start."""

    window_s: tuple[float, float]
    end_s: float


def simulate(
    clock: Clock, sources: Sequence[Source], timing: Timing, sink: Callable[[RequestRecord], None]
) -> Simulated:
    """Run one cell; ``sink`` gets each record when it is complete."""
    return _Conductor(clock, sources, timing, sink).run()


class _Conductor:
    def __init__(
        self,
        clock: Clock,
        sources: Sequence[Source],
        timing: Timing,
        sink: Callable[[RequestRecord], None],
    ) -> None:
        self._clock = clock
        self._timing = timing
        self._tenants = [source.tenant for source in sources]
        self._traffic = Traffic(clock, sink)
        self._senders = [
            Scheduled(source, self._traffic)
            if source.concurrency is None
            else Closed(source, self._traffic)
            for source in sources
        ]

    def run(self) -> Simulated:
        window_s = self._rounds(self._timing.rounds) if self._timing.rounds else self._window()
        self._until(self._clock.now_s + self._timing.drain_s, self._idle)
        end_s = self._clock.now_s
        self._traffic.cancel_all()
        self._clock.run(until=self._idle)
        return Simulated(window_s, end_s)

    def _window(self) -> tuple[float, float]:
        timing = self._timing
        start_s = self._traffic.window_start_s = timing.warmup_s
        limit_s = start_s + timing.window_s
        self._open(0.0, limit_s, 0.0)
        if timing.requests is None:
            self._until(limit_s)
        else:
            self._until(start_s)
            wanted = timing.requests
            self._until(limit_s, lambda: self._each_has_measured(wanted))
        return start_s, self._shut(limit_s)

    def _rounds(self, rounds: int) -> tuple[float, float]:
        timing = self._timing
        if timing.warmup_s:
            self._open(0.0, timing.warmup_s, 0.0)
            self._until(timing.warmup_s)
            self._shut(timing.warmup_s)
            self._until(self._clock.now_s + timing.drain_s, self._idle)
        start_s = self._traffic.window_start_s = self._clock.now_s
        limit_s = start_s + timing.window_s
        round_s = timing.round_s or 0.0
        for number in range(rounds):
            barrier_s = self._clock.now_s
            if barrier_s >= limit_s:
                break
            self._traffic.round = number
            end_s = min(barrier_s + round_s, limit_s)
            self._open(barrier_s, end_s, timing.warmup_s + number * round_s)
            self._until(end_s)
            self._shut(end_s)
            self._until(limit_s, self._idle)
        return start_s, self._shut(limit_s)

    def _open(self, start_s: float, end_s: float, plan_s: float) -> None:
        for sender in self._senders:
            sender.open(start_s, end_s, plan_s)

    def _shut(self, limit_s: float) -> float:
        end_s = min(limit_s, self._clock.now_s)
        for sender in self._senders:
            sender.shut(end_s)
        return end_s

    def _until(self, time_s: float, done: Callable[[], bool] | None = None) -> None:
        """Let time pass up to a moment, or until a condition holds."""
        clock = self._clock
        clock.at(max(time_s, clock.now_s), _nothing)
        if done is None:
            clock.run(until=lambda: clock.now_s >= time_s)
        else:
            clock.run(until=lambda: clock.now_s >= time_s or done())

    def _idle(self) -> bool:
        return not self._traffic.active

    def _each_has_measured(self, count: int) -> bool:
        return all(self._traffic.measured[tenant] >= count for tenant in self._tenants)


def _nothing(_: None) -> None:
    return
