"""Runs a simulated engine in real time: a step's tokens appear when the step would have ended.

Deadlines are absolute: a step starts where the one before it ended, or where the request came that
it begins with, whenever this process got round to it, so lateness does not add up. How late the
simulation runs is measured all the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from fairshare.scheduling.policy import Refusal
from fairshare.virtual.board import Board, Entry
from fairshare.virtual.engine import Ended, Engine, Sequence
from fairshare.virtual.physics import Costs, Demand
from fairshare.virtual.rules import Neighbour, Partition, Rule

_LOOK_AGAIN_S = 0.01  # a policy may hold requests back until their time has come
# The event loop's timers count whole milliseconds and end up to one late: what is aimed half of one
# early comes in time on average.
_TIMER_S = 0.0005
_GIVE_UP_S = 1.0  # a process that was suspended does not make up for lost time in a burst


@dataclass(slots=True)
class Dilation:
    """How late the simulation is in real time, seconds: now, at worst, and given up on.

    ``ttft_s`` and ``e2e_s`` are real seconds from receipt to first token and to the end, of all
    requests that got so far, beside what they would have been on a host without delays.
    """

    now_s: float = 0.0
    worst_s: float = 0.0
    lost_s: float = 0.0
    ttft_s: float = 0.0
    ttft_simulated_s: float = 0.0
    e2e_s: float = 0.0
    e2e_simulated_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Step:
    """One iteration that has ended, or should have at ``due_s``: who got a token, who must go."""

    emitted: list[Sequence]
    dropped: list[tuple[Sequence, Refusal]]
    due_s: float


@dataclass(slots=True)
class RealTimeEngine:
    """An engine, the share it runs on, and the board where it meets its neighbours."""

    engine: Engine
    costs: Costs
    rule: Rule
    partition: Partition
    entry: Entry
    board: Board | None
    deliver: Callable[[Step], None]
    dilation: Dilation = field(default_factory=Dilation)
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _woken_s: float = 0.0
    _arrived: list[tuple[Sequence, asyncio.Future[Refusal | None]]] = field(default_factory=list)
    _halted: bool = False

    async def add(self, sequence: Sequence, at_s: float) -> Refusal | None:
        """Queue a request that came at ``at_s``, unless the policy refuses it.

        It is let in between two iterations, as in vLLM and in virtual time.
        """
        answer: asyncio.Future[Refusal | None] = asyncio.get_running_loop().create_future()
        self._arrived.append((sequence, answer))
        if not self._wake.is_set():
            self._woken_s = at_s
            self._wake.set()
        return await answer

    def remove(self, sequence: Sequence, *, answered: bool) -> None:
        """Forget a request that has its answer, or whose client has gone."""
        self.engine.remove(sequence, _now_s(), answered=answered)

    def halt(self) -> None:
        """End no step any more, and let nobody in."""
        self._halted = True
        for _, answer in self._arrived:
            if not answer.done():
                answer.set_result(None)

    async def run(self) -> None:
        """Step for ever."""
        start_s = _now_s()
        while True:
            self._let_in()
            work = self.engine.begin(_now_s())
            if work is None:
                self._deliver([], start_s)
                self._publish_idle()
                start_s = max(start_s, await self._something_new())
                continue
            demand = self.partition.scaled(self.costs.demand(work.batch))
            due_s = start_s + self.rule.step_s(demand, self._neighbours())
            self._publish(demand, due_s - start_s, due_s)
            await until(due_s)
            decoding = self.engine.decoding()
            ended: Ended = self.engine.end(1, _now_s())
            self._deliver(decoding + ended.prefilled, due_s)
            if self._halted:
                await asyncio.Event().wait()
            start_s = self._next_start(due_s, _now_s())

    def _let_in(self) -> None:
        arrived, self._arrived = self._arrived, []
        for sequence, answer in arrived:
            if not answer.cancelled():  # its client is still there
                answer.set_result(self.engine.add(sequence, _now_s()))

    async def _something_new(self) -> float:
        """When a request came, or when a policy may think anew of those that wait."""
        self._wake.clear()
        try:
            async with asyncio.timeout(_LOOK_AGAIN_S if self.engine.has_work else None):
                await self._wake.wait()
        except TimeoutError:
            return _now_s()
        return self._woken_s

    def _deliver(self, emitted: list[Sequence], due_s: float) -> None:
        dropped, self.engine.dropped = self.engine.dropped, []
        if emitted or dropped:
            self.deliver(Step(emitted, dropped, due_s))

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

    def _publish(self, demand: Demand, step_s: float, due_s: float) -> None:
        entry = self.entry
        entry.busy = True
        entry.demand = demand
        entry.step_s = step_s
        entry.due_s = due_s
        entry.busy_s += step_s
        if self.board is not None:
            self.board.publish(entry)

    def _publish_idle(self) -> None:
        self.entry.busy = False
        if self.board is not None:
            self.board.publish(self.entry)


async def until(time_s: float) -> None:
    """Wait until a moment of the event loop's clock, half a millisecond more or less."""
    await asyncio.sleep(max(0.0, time_s - _TIMER_S - _now_s()))


def _now_s() -> float:
    return asyncio.get_running_loop().time()
