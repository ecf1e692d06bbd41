"""Runs a simulated engine in real time: a step's tokens appear when the step would have ended.

Deadlines are absolute: a step starts where the one before it ended, whenever this process got
round to it, so lateness does not add up. How late the simulation runs is measured all the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from fairshare.virtual.board import Board, Entry
from fairshare.virtual.engine import Engine, Sequence, Step
from fairshare.virtual.physics import Demand
from fairshare.virtual.rules import Neighbour, Partition, Rule

_GIVE_UP_S = 1.0  # a process that was suspended does not make up for lost time in a burst


@dataclass(slots=True)
class Dilation:
    """How late the simulation is in real time, seconds: now, at worst, and given up on."""

    now_s: float = 0.0
    worst_s: float = 0.0
    lost_s: float = 0.0


@dataclass(slots=True)
class RealTimeEngine:
    """An engine, the share it runs on, and the board where it meets its neighbours."""

    engine: Engine
    rule: Rule
    partition: Partition
    entry: Entry
    board: Board | None
    deliver: Callable[[Step], None]
    dilation: Dilation = field(default_factory=Dilation)
    _wake: asyncio.Event = field(default_factory=asyncio.Event)

    def add(self, sequence: Sequence) -> None:
        """Queue a request now."""
        self.engine.add(sequence)
        self._wake.set()

    async def run(self) -> None:
        """Step for ever."""
        now = asyncio.get_running_loop().time
        start_s = now()
        while True:
            if not self.engine.has_work:
                self._publish_idle()
                self._wake.clear()
                await self._wake.wait()
                start_s = now()
            step = self.engine.step(self._duration)
            due_s = start_s + step.duration_s
            self._publish(step, due_s)
            await asyncio.sleep(max(0.0, due_s - now()))
            self.deliver(step)
            start_s = self._next_start(due_s, now())

    def _duration(self, demand: Demand) -> float:
        return self.rule.step_s(self.partition.scaled(demand), self._neighbours())

    def _neighbours(self) -> list[Neighbour]:
        return self.board.neighbours(self.entry.partition) if self.board is not None else []

    def _next_start(self, due_s: float, now_s: float) -> float:
        late_s = max(0.0, now_s - due_s)
        self.dilation.now_s = late_s
        self.dilation.worst_s = max(self.dilation.worst_s, late_s)
        if late_s < _GIVE_UP_S:
            return due_s
        self.dilation.lost_s += late_s
        return now_s

    def _publish(self, step: Step, due_s: float) -> None:
        entry = self.entry
        entry.busy = True
        entry.demand = self.partition.scaled(step.demand)
        entry.step_s = step.duration_s
        entry.due_s = due_s
        entry.busy_s += step.duration_s
        if self.board is not None:
            self.board.publish(entry)

    def _publish_idle(self) -> None:
        self.entry.busy = False
        if self.board is not None:
            self.board.publish(self.entry)
