"""A time budget: whether what comes next still fits.

That is told by the plan's estimate, corrected by how wrong it has been so far.
Nothing is cut off in its middle, so each cell is judged before it begins, together with all that
wait: what does not fit is given up from the least informative cell on, and left for later.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from fairshare.records import CellKey
from fairshare.runner.estimate import start_s, starts_s, took_s
from fairshare.runner.foresight import Foreseen
from fairshare.runner.plan import Deployment, PlannedCell, RunPlan
from fairshare.spec.launcher import Engine


@dataclass(slots=True)
class Pace:
    """Seconds that things were expected to take, and that they took."""

    expected_s: float = 0.0
    took_s: float = 0.0

    def note(self, expected_s: float, took_s: float) -> None:
        """One more of them is over."""
        self.expected_s += expected_s
        self.took_s += took_s

    def corrected(self, expected_s: float) -> float:
        """An estimate, by how wrong earlier ones were."""
        return expected_s * (self.took_s / self.expected_s if self.expected_s else 1.0)


@dataclass(slots=True)
class Budget:
    """Seconds that one call may take, and the account of them; told of all that begins and ends.

    ``clock`` gives seconds; the account begins when the budget is made. ``started`` are how long
    servers took to start in earlier calls of the same sweep, seconds each.
    """

    budget_s: float
    engine: Engine
    foreseen: Mapping[CellKey, Foreseen] = field(default_factory=dict)
    started: Sequence[float] = ()
    clock: Callable[[], float] = time.monotonic
    _starts: Pace = field(default_factory=Pace, init=False)
    _cells: Pace = field(default_factory=Pace, init=False)
    _began_s: float = field(init=False)
    _deployment: Deployment | None = field(default=None, init=False)
    _deployed_s: float = field(default=0.0, init=False)
    _in_cells_s: float = field(default=0.0, init=False)
    _cell_s: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        self._began_s = self.clock()
        for each in self.started:
            self._starts.note(start_s(self.engine), each)

    @property
    def unlimited(self) -> bool:
        """Whether there is time for everything."""
        return math.isinf(self.budget_s)

    def left_s(self) -> float:
        """Seconds that are left of it."""
        return self.budget_s - (self.clock() - self._began_s)

    def needed_s(self, deployment: Deployment, cell: PlannedCell) -> float:
        """Seconds until the cell is over and, were it the last, its servers are gone."""
        return self._cells.corrected(took_s(cell, self.foreseen)) + self._around_s(deployment)

    def kept(self, ahead: Sequence[tuple[Deployment, PlannedCell]]) -> set[str]:
        """Ids of the cells for which there is still time; ``ahead`` are all that wait, in order.

        The least informative are given up first: those of the last repetition, since every cell
        has been measured more often before, and of these the last of the plan.
        """
        left_s = self.left_s()
        by_worth = sorted(ahead, key=lambda each: each[1].key.repetition)  # stable
        deployed: set[int] = set()
        kept: set[str] = set()
        for deployment, cell in by_worth:
            needed_s = self._cells.corrected(took_s(cell, self.foreseen))
            if id(deployment) not in deployed:
                needed_s += self._around_s(deployment)
                deployed.add(id(deployment))
            left_s -= needed_s
            if left_s < 0:
                break
            kept.add(cell.id)
        return kept

    def _around_s(self, deployment: Deployment) -> float:
        """Seconds that its servers still take to start and to stop."""
        around_s = self._starts.corrected(starts_s([deployment], self.engine))
        if deployment is self._deployment:
            around_s -= self.clock() - self._deployed_s - self._in_cells_s
        return max(0.0, around_s)

    def deploys(self, deployment: Deployment) -> None:
        """The device is being shared and the servers are started."""
        self._deployment, self._deployed_s, self._in_cells_s = deployment, self.clock(), 0.0

    def deployed(self, deployment: Deployment) -> None:
        """The servers are gone again."""
        around_s = self.clock() - self._deployed_s - self._in_cells_s
        self._starts.note(starts_s([deployment], self.engine), around_s)
        self._deployment = None

    def begins(self) -> None:
        """A cell begins."""
        self._cell_s = self.clock()

    def ended(self, cell: PlannedCell) -> None:
        """The cell that began is over."""
        spent_s = self.clock() - self._cell_s
        self._in_cells_s += spent_s
        self._cells.note(took_s(cell, self.foreseen), spent_s)


def left_for_later(
    plan: RunPlan,
    budget_s: float,
    engine: Engine,
    foreseen: Mapping[CellKey, Foreseen] | None = None,
) -> list[PlannedCell]:
    """The cells that by the estimate alone do not fit into a budget, as a plan shows them."""
    budget = Budget(budget_s, engine, foreseen or {}, clock=lambda: 0.0)
    kept = budget.kept([(each, cell) for each in plan.deployments for cell in each.cells])
    return [cell for cell in plan.cells if cell.id not in kept]
