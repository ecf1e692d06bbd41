"""Which cells a time budget leaves for later."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from fairshare.runner.budget import Budget, left_for_later
from fairshare.runner.plan import Deployment, RunPlan, make_plan
from fairshare.runner.settings import Flags, settle
from fairshare.spec.launcher import Engine
from fairshare.spec.matrix import Matrix
from tests.plans import ONE_TENANT


@dataclass
class Clock:
    """A clock that stands still until it is set."""

    now_s: float = 100.0

    def __call__(self) -> float:
        """What it shows."""
        return self.now_s


def _serve(budget: Budget, clock: Clock, deployment: Deployment, *, start_s: float) -> None:
    budget.deploys(deployment)
    clock.now_s += start_s


@pytest.mark.parametrize(("budget_s", "left"), [(70, 0), (69.9, 1), (17.4, 7), (17.5, 6), (9, 8)])
def test_what_is_last_in_the_plan_is_left_first(plan: RunPlan, budget_s: float, left: int) -> None:
    """By the estimate alone; the cells that fit are the first ones, and no others."""
    told = left_for_later(plan, budget_s, Engine.VIRTUAL)
    assert [cell.id for cell in told] == [cell.id for cell in plan.cells][len(plan.cells) - left :]


def test_the_last_repetition_is_left_first(tmp_path: Path) -> None:
    """With all repetitions of a deployment together, too, what is measured most often is left."""
    (tmp_path / "s.yaml").write_text(ONE_TENANT)
    fields = {"modes": ["logical", "mps"], "num_runs": 3, "order": "grouped"}
    scenarios = [str(tmp_path / "s.yaml")]
    matrix = Matrix.model_validate({"name": "m", "scenarios": scenarios, **fields})
    grouped = make_plan(settle(matrix, Flags(device="virtual:h200")))
    told = left_for_later(grouped, 40, Engine.VIRTUAL)  # 2 * 1.5 + 4 * 8 = 35 s
    assert [cell.key.slug for cell in told] == ["s_logical_c1_r3", "s_mps_c1_r3"]


def test_cells_that_took_longer_make_later_ones_not_fit(plan: RunPlan) -> None:
    """An estimate is corrected by what the cells before it have really taken."""
    clock, deployment = Clock(), plan.deployments[0]
    budget = Budget(30, Engine.VIRTUAL, clock=clock)
    _serve(budget, clock, deployment, start_s=1.5)
    first, second = deployment.cells
    assert budget.needed_s(deployment, second) == 8
    budget.begins()
    clock.now_s += 16
    budget.ended(first)
    assert budget.needed_s(deployment, second) == 16
    assert budget.kept([(deployment, second)]) == set()
    budget = Budget(30, Engine.VIRTUAL, clock=Clock())
    assert budget.kept([(deployment, second)]) == {second.id}


def test_servers_that_take_long_are_expected_to_take_long_again(plan: RunPlan) -> None:
    """In this call, and as an earlier call of the same sweep has noted."""
    clock, (one, other, *_) = Clock(), plan.deployments
    budget = Budget(100, Engine.VIRTUAL, clock=clock)
    _serve(budget, clock, one, start_s=30)
    assert budget.needed_s(one, one.cells[0]) == 8  # they are there already
    budget.deployed(one)
    assert budget.needed_s(other, other.cells[0]) == 8 + 30
    assert budget.kept([(other, other.cells[0])])
    resumed = Budget(37, Engine.VIRTUAL, started=[30, 30], clock=clock)
    assert resumed.needed_s(one, one.cells[0]) == 8 + 30
    assert not resumed.kept([(one, one.cells[0])])


def test_time_in_cells_is_not_taken_for_the_servers(plan: RunPlan) -> None:
    """What is still to come around the cells is what was expected, less what was spent on it."""
    clock, deployment = Clock(), plan.deployments[0]
    budget = Budget(100, Engine.VIRTUAL, clock=clock)
    _serve(budget, clock, deployment, start_s=0.5)
    budget.begins()
    clock.now_s += 8
    budget.ended(deployment.cells[0])
    assert budget.needed_s(deployment, deployment.cells[1]) == 8 + 1
