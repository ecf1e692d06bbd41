"""The matrix written out: cells, deployments, order, seeds."""

from __future__ import annotations

from pathlib import Path

import pytest

from fairshare.errors import SpecError
from fairshare.records import Mode
from fairshare.runner.estimate import estimate
from fairshare.runner.plan import RunPlan, at, make_plan
from fairshare.runner.settings import Flags, Settings, settle
from fairshare.spec.launcher import Engine
from fairshare.spec.matrix import Matrix

SCENARIO = """\
name: {name}
timing: {{warmup_s: 1, window_s: 5, drain_s: 5}}
tenants:
  - name: a
    prompts: {{kind: synthetic, tokens: {{kind: fixed, tokens: 8}}}}
    output: {{kind: fixed, tokens: 8}}
  - name: b
    arrival: {arrival}
    prompts: {{kind: synthetic, tokens: {{kind: fixed, tokens: 8}}}}
    output: {{kind: fixed, tokens: 8}}
"""
CLOSED = "{kind: closed}"
POISSON = "{kind: poisson, rate_per_s: 2}"


def _scenario(tmp_path: Path, name: str = "s", arrival: str = CLOSED, extra: str = "") -> str:
    path = tmp_path / f"{name}.yaml"
    path.write_text(SCENARIO.format(name=name, arrival=arrival) + extra)
    return str(path)


def _settle(scenarios: list[str], **fields: object) -> Settings:
    matrix = Matrix.model_validate({"name": "m", "scenarios": scenarios, **fields})
    return settle(matrix, Flags(device="virtual:h200"))


def _plan(scenarios: list[str], **fields: object) -> RunPlan:
    return make_plan(_settle(scenarios, **fields))


def test_the_product_is_complete(tmp_path: Path) -> None:
    """Every mode at every concurrency and repetition, exclusive once per tenant."""
    plan = _plan(
        [_scenario(tmp_path)], modes=["exclusive", "logical", "mps"], concurrency=[1, 4], num_runs=2
    )
    slugs = [cell.key.slug for cell in plan.cells]
    assert len(slugs) == len(set(slugs)) == 2 * 2 * (2 + 1 + 1)
    assert "s_exclusive_a_c4_r2" in slugs


def test_a_deployment_serves_all_its_concurrencies(tmp_path: Path) -> None:
    """Servers are started once per mode and round, not once per cell."""
    plan = _plan([_scenario(tmp_path)], modes=["exclusive", "logical", "mps"], concurrency=[1, 4])
    assert [len(d.cells) for d in plan.deployments] == [4, 2, 2]
    assert [len(d.plan.slots) for d in plan.deployments] == [1, 1, 2]


def test_scenarios_share_servers_that_are_equal(tmp_path: Path) -> None:
    """One server for all tenants serves the tenants of two scenarios without a restart."""
    plan = _plan([_scenario(tmp_path), _scenario(tmp_path, "t")], modes=["logical"])
    (deployment,) = plan.deployments
    assert {cell.key.scenario for cell in deployment.cells} == {"s", "t"}


def test_rounds_alternate_in_direction(tmp_path: Path) -> None:
    """The second repetition runs backwards, so that drift does not favour a mode."""
    plan = _plan([_scenario(tmp_path)], modes=["logical", "mps"], num_runs=3)
    assert [(c.key.mode, c.key.repetition) for c in plan.cells] == [
        (Mode.LOGICAL, 1), (Mode.MPS, 1), (Mode.MPS, 2), (Mode.LOGICAL, 2), (Mode.LOGICAL, 3),
        (Mode.MPS, 3),
    ]  # fmt: skip


def test_seeds_pair_modes_and_part_cells(tmp_path: Path) -> None:
    """Prompts are the same across modes and differ between concurrencies and repetitions."""
    plan = _plan(
        [_scenario(tmp_path)], modes=["exclusive", "logical", "mps"], concurrency=[1, 4], num_runs=2
    )
    seeds: dict[tuple[int | None, int], set[int]] = {}
    for cell in plan.cells:
        seeds.setdefault((cell.key.concurrency, cell.key.repetition), set()).add(cell.seed)
    assert all(len(found) == 1 for found in seeds.values())
    assert len({next(iter(found)) for found in seeds.values()}) == len(seeds) == 4


def test_the_seed_is_the_scenarios_own_unless_given(tmp_path: Path) -> None:
    """Each scenario's seed decides its prompts; --seed decides them all."""
    one, other = _scenario(tmp_path), _scenario(tmp_path, "t", extra="seed: 5\n")

    def seeds(**fields: object) -> dict[str, int]:
        plan = _plan([one, other], modes=["logical"], **fields)
        return {cell.key.scenario: cell.seed for cell in plan.cells}

    assert seeds() == seeds()
    assert seeds(seed=1)["s"] == seeds()["s"]
    assert seeds(seed=1)["t"] != seeds()["t"] == seeds(seed=5)["t"]


def test_what_no_tenant_would_notice_is_not_repeated(tmp_path: Path) -> None:
    """Concurrency without a tenant that takes it, or load scale without an open loop: one cell."""
    fixed = _scenario(tmp_path).replace(".yaml", "-fixed.yaml")
    text = SCENARIO.format(name="fixed", arrival=POISSON)
    text = text.replace(
        "  - name: a\n", "  - name: a\n    arrival: {kind: closed, concurrency: 3}\n"
    )
    Path(fixed).write_text(text)
    plan = _plan([fixed], modes=["logical"], concurrency=[1, 4, 16])
    assert [cell.key.concurrency for cell in plan.cells] == [None]
    plan = _plan([_scenario(tmp_path)], modes=["logical"], load_scale=[1, 2])
    assert [cell.key.load_scale for cell in plan.cells] == [1]


def test_a_cells_identity_is_what_defines_it(tmp_path: Path) -> None:
    """The same matrix gives the same ids; another seed, window or model gives others."""
    scenario = _scenario(tmp_path)
    first = {cell.id for cell in _plan([scenario], modes=["mps"]).cells}
    assert {cell.id for cell in _plan([scenario], modes=["mps"]).cells} == first
    for change in ({"seed": 7}, {"window_s": 6}, {"model": "qwen3-0.6b"}):
        matrix = Matrix.model_validate(
            {"name": "m", "scenarios": [scenario], "modes": ["mps"], **change}
        )
        other = make_plan(settle(matrix, Flags(device="virtual:h200")))
        assert not first & {cell.id for cell in other.cells}


def test_what_cannot_exist_is_listed_with_its_reason(tmp_path: Path) -> None:
    """Two models in one server are infeasible; the other modes are planned."""
    text = SCENARIO.format(name="two", arrival=CLOSED)
    path = tmp_path / "two.yaml"
    path.write_text(text.replace("  - name: b\n", "  - name: b\n    model: qwen3-0.6b\n"))
    plan = _plan([str(path)], modes=["exclusive", "logical", "mps"])
    assert [i.cell.key.mode for i in plan.infeasible] == [Mode.LOGICAL]
    assert "qwen3-0.6b" in plan.infeasible[0].reason
    # Exclusive needs a server for each model.
    assert [d.plan.mode for d in plan.deployments] == [Mode.EXCLUSIVE, Mode.EXCLUSIVE, Mode.MPS]


def test_a_model_too_large_for_its_share_is_infeasible(tmp_path: Path) -> None:
    """The simulated GPU's memory is checked before its servers start."""
    matrix = Matrix.model_validate(
        {"name": "m", "scenarios": [_scenario(tmp_path)], "modes": ["logical", "mps"]}
    )
    plan = make_plan(settle(matrix, Flags(device="virtual:l4", model="llama-3-8b")))
    assert [i.cell.key.mode for i in plan.infeasible] == [Mode.MPS]
    assert "too little for llama-3-8b" in plan.infeasible[0].reason


def test_resuming_leaves_out_what_is_done(tmp_path: Path) -> None:
    """A deployment without cells that remain is not started."""
    plan = _plan([_scenario(tmp_path)], modes=["logical", "mps"], concurrency=[1, 4])
    done = {cell.id for cell in plan.deployments[0].cells} | {plan.deployments[1].cells[0].id}
    (left,) = plan.without(done).deployments
    assert [cell.key.slug for cell in left.cells] == ["s_mps_c4_r1"]


def test_the_estimate_counts_starts_and_cells(tmp_path: Path) -> None:
    """Warm-up, window and a typical drain for each cell, and one start for each server."""
    plan = _plan([_scenario(tmp_path)], modes=["logical", "mps"], concurrency=[1, 4])
    guess = estimate(plan, Engine.VIRTUAL)
    assert guess.cells_s == 4 * (1 + 5 + 2)
    assert guess.starts_s == 3 * 1.5
    assert guess.total_s == guess.cells_s + guess.starts_s


def test_two_scenarios_of_one_name_are_refused(tmp_path: Path) -> None:
    """Their cells could not be told apart."""
    other = tmp_path / "copy.yaml"
    other.write_text(Path(_scenario(tmp_path)).read_text())
    with pytest.raises(SpecError, match="two scenarios are named 's'"):
        _settle([_scenario(tmp_path), str(other)])


def test_a_cell_at_another_load_is_the_one_that_a_plan_would_have(tmp_path: Path) -> None:
    """A search that moves a cell to another load gets the very cell of a grid: id, seeds, all."""
    scenario = _scenario(tmp_path, arrival=POISSON)
    (first,) = _plan([scenario], modes=["mps"], load_scale=[1.0]).cells
    grid = _plan([scenario], modes=["mps"], load_scale=[1.0, 2.5], num_runs=2).cells
    moved = at(first, load_scale=2.5, repetition=2)
    (planned,) = [cell for cell in grid if cell.key == moved.key]
    assert moved == planned
    assert moved.seed != first.seed
