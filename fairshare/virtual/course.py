"""How long several iterations take that are alike but for the growing context.

Demand grows by the same amount from one iteration to the next, so the duration of an iteration is a
smooth, nearly straight function of its number. The parabola through the first, middle and last one
stands for all of them: against summing each, the error is below 1e-4 over a thousand iterations,
mostly far below.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fairshare.virtual.physics import Batch, Constants, Costs, Demand, overlapped_s


@dataclass(frozen=True, slots=True)
class Lane:
    """A model's costs on its own share of a partition, nobody beside it."""

    costs: Costs
    constants: Constants
    sm_share: float = 1.0
    bandwidth_share: float = 1.0

    def course(self, batch: Batch, steps: int) -> Course:
        """The next ``steps`` iterations, of which ``batch`` is the first."""
        demand = self.costs.demand(batch)
        compute, memory = demand.attention_compute_s, demand.attention_memory_s
        more_compute = self.costs.pair_s * batch.decoding
        more_memory = self.costs.kv_s * batch.decoding
        k = self.constants.overlap_exponent
        c, m = 1 / self.sm_share, 1 / self.bandwidth_share
        rest = demand.latency_s + overlapped_s(demand.compute_s * c, demand.memory_s * m, k)

        def duration(index: float) -> float:
            computing, moving = compute + index * more_compute, memory + index * more_memory
            return max(rest + overlapped_s(computing * c, moving * m, k), demand.host_s)

        half = (steps - 1) / 2
        middle = Demand(
            demand.compute_s,
            demand.memory_s,
            demand.latency_s,
            demand.host_s,
            compute + half * more_compute,
            memory + half * more_memory,
        )
        at_half = duration(half)
        if steps == 1:
            return Course(1, at_half, 0.0, 0.0, middle, at_half)
        first, last = duration(0.0), duration(steps - 1.0)
        bend = (first + last - 2 * at_half) / (2 * half * half)
        slope = (last - first) / (steps - 1) - bend * (steps - 1)
        return Course(steps, first, slope, bend, middle, at_half)


@dataclass(slots=True)
class Course:
    """``steps`` iterations; number ``x`` (from 0) takes ``first + slope x + bend x^2`` seconds.

    ``middle`` is what the middle one of them demands of the partition, and how long it takes.
    """

    steps: int
    first_s: float
    slope: float
    bend: float
    middle: Demand
    middle_s: float

    def after(self, steps: int) -> float:
        """Seconds until ``steps`` of them are done."""
        n = steps
        return n * (self.first_s + (n - 1) * (self.slope / 2 + self.bend * (2 * n - 1) / 6))

    def boundary(self, elapsed_s: float) -> int:
        """How many iterations are done at the first end of one not before ``elapsed_s``."""
        steps = min(self.steps, max(1, math.ceil(elapsed_s / self.first_s)))
        while steps > 1 and self.after(steps - 1) >= elapsed_s:
            steps -= 1
        while steps < self.steps and self.after(steps) < elapsed_s:
            steps += 1
        return steps

    def ends(self, steps: int) -> NDArray[np.float64]:
        """The seconds after which each of the first ``steps`` ends."""
        n = np.arange(1, steps + 1, dtype=np.float64)
        sums: NDArray[np.float64] = n * (
            self.first_s + (n - 1) * (self.slope / 2 + self.bend * (2 * n - 1) / 6)
        )
        return sums
