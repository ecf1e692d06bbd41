"""In which order a sweep runs its cells."""

from __future__ import annotations

from pathlib import Path

import pytest

from fairshare.runner.plan import RunPlan, make_plan
from fairshare.runner.settings import Flags, settle
from fairshare.spec.matrix import Matrix
from tests.plans import ONE_TENANT


@pytest.fixture
def scenario(tmp_path: Path) -> str:
    """A scenario of one tenant."""
    path = tmp_path / "s.yaml"
    path.write_text(ONE_TENANT)
    return str(path)


def _plan(scenario: str, **fields: object) -> RunPlan:
    usual = {"modes": ["logical", "timeslice", "mps"], "concurrency": [1, 2, 4, 8], "num_runs": 4}
    matrix = Matrix.model_validate({"name": "m", "scenarios": [scenario], **usual, **fields})
    return make_plan(settle(matrix, Flags(device="virtual:h200")))


def test_grouped_starts_each_deployment_once(scenario: str) -> None:
    """All repetitions of a deployment are together, in alternating direction."""
    plan = _plan(scenario, order="grouped", concurrency=[1, 2], num_runs=3)
    assert [d.plan.mode.value for d in plan.deployments] == ["logical", "timeslice", "mps"]
    keys = [(cell.key.repetition, cell.key.concurrency) for cell in plan.deployments[0].cells]
    assert keys == [(1, 1), (1, 2), (2, 2), (2, 1), (3, 1), (3, 2)]


def test_random_is_shuffled_by_round(scenario: str) -> None:
    """Rounds follow each other, cells of a deployment stay together, and each order is another."""
    plan = _plan(scenario, order="random")
    rounds = [cell.key.repetition for cell in plan.cells]
    assert rounds == sorted(rounds)
    assert len(plan.deployments) == 3 * 4
    orders = {tuple(cell.key.concurrency for cell in d.cells) for d in plan.deployments}
    assert len(orders) > 3


def test_an_order_follows_from_its_seed(scenario: str) -> None:
    """A resumed sweep goes on in the same order; another seed is another."""

    def slugs(**fields: object) -> list[str]:
        return [cell.key.slug for cell in _plan(scenario, order="random", **fields).cells]

    assert slugs() == slugs()
    assert slugs(order_seed=1) != slugs()
    assert sorted(slugs(order_seed=1)) == sorted(slugs())


def test_an_order_does_not_define_cells(scenario: str) -> None:
    """What is measured is the same in whatever order."""
    ids = [
        {cell.id for cell in _plan(scenario, order=order).cells}
        for order in ("interleaved", "grouped", "random")
    ]
    assert ids[0] == ids[1] == ids[2]
