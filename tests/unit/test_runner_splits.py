"""Every way to split a device, and what of them is planned."""

from __future__ import annotations

from pathlib import Path

import pytest

from fairshare.errors import SpecError
from fairshare.records import Mode
from fairshare.runner.plan import RunPlan, make_plan
from fairshare.runner.predict import predict
from fairshare.runner.rerun import replay, request_of
from fairshare.runner.settings import Flags, settle
from fairshare.runner.splits import check_step, splits
from fairshare.spec.loading import validate
from fairshare.spec.matrix import Matrix

TENANT = """\
  - name: {name}
    prompts: {{kind: synthetic, tokens: {{kind: fixed, tokens: 8}}}}
    output: {{kind: fixed, tokens: 8}}
"""


def _plan(tmp_path: Path, device: str, tenants: int = 2, **fields: object) -> RunPlan:
    path = tmp_path / "s.yaml"
    path.write_text(
        "name: s\ntenants:\n" + "".join(TENANT.format(name=f"t{i}") for i in range(tenants))
    )
    matrix = {"name": "m", "scenarios": [str(path)], "search": {"kind": "shares"}, **fields}
    return make_plan(settle(validate(matrix, Matrix), Flags(device=device)))


def test_splits_fill_the_device_and_leave_nobody_out() -> None:
    """Every combination of multiples of the step, above 0, that sums to 100, once."""
    assert list(splits(2, 25)) == [(25, 75), (50, 50), (75, 25)]
    three = list(splits(3, 10))
    assert len(three) == len(set(three)) == 36
    assert all(sum(split) == 100 and min(split) >= 10 for split in three)


def test_a_step_that_cannot_be_measured_is_refused() -> None:
    """Too many splits name the step to take; a step that leaves no split says so."""
    with pytest.raises(SpecError, match="4851 splits between 3 tenants") as error:
        check_step(3, 1)
    assert error.value.hint == "take --share-step 5"
    with pytest.raises(SpecError, match="3 tenants cannot have at least 50 % each"):
        check_step(3, 50)
    with pytest.raises(SpecError, match="does not divide"):
        validate(
            {"name": "m", "scenarios": ["x"], "search": {"kind": "shares", "step": 30}}, Matrix
        )


def test_modes_with_shares_get_a_cell_per_split(tmp_path: Path) -> None:
    """Modes without shares run once; the others once per split, on servers of their own."""
    plan = _plan(tmp_path, "virtual:h200", modes=["exclusive", "logical", "mps"])
    by_mode: dict[Mode, list[str | None]] = {}
    for cell in plan.cells:
        by_mode.setdefault(cell.key.mode, []).append(cell.key.shares)
    assert by_mode[Mode.LOGICAL] == [None]
    assert by_mode[Mode.EXCLUSIVE] == [None, None]
    assert by_mode[Mode.MPS] == [f"{share}:{100 - share}" for share in range(10, 100, 10)]
    assert len({cell.id for cell in plan.cells}) == 12
    assert len({deployment.id for deployment in plan.deployments}) == 11
    thirty = next(d for d in plan.deployments if d.cells[0].key.shares == "30:70")
    assert [slot.compute_fraction for slot in thirty.plan.slots] == [0.3, 0.7]
    assert thirty.cells[0].key.slug == "s_mps_30-70_c1_r1"


def test_mig_gets_the_layouts_that_exist(tmp_path: Path) -> None:
    """Splits that come out as the same profiles are one; those between steps are not missed."""
    plan = _plan(tmp_path, "virtual:h200", modes=["mig"])
    layouts = [cell.key.shares for cell in plan.cells]
    assert len(layouts) == len(set(layouts))
    assert {"3g.71gb+4g.71gb", "4g.71gb+3g.71gb", "3g.71gb+3g.71gb"} <= set(layouts)
    assert all(
        cell.key.shares == "+".join(str(slot.mig_profile) for slot in deployment.plan.slots)
        for deployment in plan.deployments
        for cell in deployment.cells
    )


def test_splits_have_the_same_requests(tmp_path: Path) -> None:
    """What is compared differs in the split alone."""
    plan = _plan(tmp_path, "virtual:h200", modes=["mps"], num_runs=2)
    seeds = {(cell.key.repetition, cell.seed, cell.contents_seed) for cell in plan.cells}
    assert len(seeds) == 2


def test_a_cell_of_a_sweep_over_shares_can_be_run_again(tmp_path: Path) -> None:
    """Alone it has the shares that it had among the others; nothing is swept anew."""
    path = tmp_path / "s.yaml"
    path.write_text(
        "name: s\ntiming: {warmup_s: 0, window_s: 1, drain_s: 5}\ntenants:\n"
        + "".join(TENANT.format(name=name) for name in ("a", "b"))
    )
    search = {"kind": "shares", "step": 25}
    matrix = validate(
        {"name": "m", "scenarios": [str(path)], "modes": ["mps"], "search": search}, Matrix
    )
    flags = Flags(device="virtual:h200")
    settings = settle(matrix, flags)
    folder = tmp_path / "out"
    predict(settings, make_plan(settings), folder, request=request_of(matrix, flags))
    _, plan, _ = replay(folder, "s_mps_25-75_c1_r1", Flags())
    ((cell,),) = ([*deployment.cells] for deployment in plan.deployments)
    assert [tenant.share for tenant in cell.tenants] == [0.25, 0.75]
    assert [slot.compute_fraction for slot in plan.deployments[0].plan.slots] == [0.25, 0.75]
