"""A time budget: whether what comes next still fits.

That is told by the plan's estimate, corrected by how wrong it has been so far.
Nothing is cut off in its middle, so each cell is judged before it begins. Order is the plan's: the
first cell that does not fit ends the run, and all after it are left for later.
"""

from __future__ import annotations

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

    def needed_s(self, deployment: Deployment, cell: PlannedCell) -> float:
        """Seconds until the cell is over and, were it the last, its servers are gone."""
        around_s = self._starts.corrected(starts_s([deployment], self.engine))
        if deployment is self._deployment:
            around_s -= self.clock() - self._deployed_s - self._in_cells_s
        return self._cells.corrected(took_s(cell, self.foreseen)) + max(0.0, around_s)

    def left_s(self) -> float:
        """Seconds that are left of it."""
        return self.budget_s - (self.clock() - self._began_s)

    def fits(self, deployment: Deployment, cell: PlannedCell) -> bool:
        """Whether the cell, begun now, is over within the budget."""
        return self.needed_s(deployment, cell) <= self.left_s()

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
    now_s = 0.0
    budget = Budget(budget_s, engine, foreseen or {}, clock=lambda: now_s)
    cells = plan.cells
    done = 0
    for deployment in plan.deployments:
        budget.deploys(deployment)
        for cell in deployment.cells:
            if not budget.fits(deployment, cell):
                return cells[done:]
            budget.begins()
            now_s += took_s(cell, foreseen)
            budget.ended(cell)
            done += 1
        now_s += starts_s([deployment], engine)
        budget.deployed(deployment)
    return []
