"""What a plan would show, by simulation: times, missed SLOs, and silence where nothing is known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fairshare.devices.device import Device
from fairshare.runner.estimate import cell_s, estimate
from fairshare.runner.foresight import foresee
from fairshare.runner.plan import make_plan
from fairshare.runner.settings import Flags, Settings, settle
from fairshare.spec.launcher import DeviceKind
from fairshare.spec.matrix import Matrix

SCENARIO = """\
name: s
timing: {warmup_s: 0, window_s: 600, drain_s: 5, requests: 4}
tenants:
  - name: calm
    prompts: {kind: synthetic, tokens: {kind: fixed, tokens: 20}}
    output: {kind: fixed, tokens: 20}
    slo: {e2e_s: 20}
  - name: hasty
    prompts: {kind: synthetic, tokens: {kind: fixed, tokens: 500}}
    output: {kind: fixed, tokens: 100}
    slo: {ttft_s: 0.001}
"""


def settled(tmp_path: Path, device: str = "h200", model: str = "qwen3-0.6b") -> Settings:
    """Two tenants on one server and by MPS, on a simulated GPU."""
    path = tmp_path / "s.yaml"
    path.write_text(SCENARIO)
    matrix = Matrix.model_validate(
        {"name": "m", "scenarios": [str(path)], "modes": ["logical", "mps"], "num_runs": 2}
    )
    return settle(matrix, Flags(device=f"virtual:{device}", model=model))


def test_times_are_predicted_and_missed_slos_told(tmp_path: Path) -> None:
    """A cell that ends by requests takes seconds, not its longest window; who is late is named."""
    settings = settled(tmp_path)
    plan = make_plan(settings)
    foreseen = foresee(settings, plan)
    assert {key.mode.value for key in foreseen} == {"logical", "mps"}
    for cell in foreseen.values():
        assert cell.missed == {"hasty": 0.0}
        assert 0.1 < cell.took_s < 20
    known = estimate(plan, settings.launcher.engine, foreseen).cells_s
    assert known == pytest.approx(2 * sum(cell.took_s for cell in foreseen.values()))
    by_timing = estimate(plan, settings.launcher.engine).cells_s
    assert by_timing == sum(cell_s(cell) for cell in plan.cells) > known


def test_a_known_gpu_is_foreseen_and_an_unknown_device_is_not(tmp_path: Path) -> None:
    """A real H200 is stood for by the simulated one; of a CPU nothing is said."""
    settings = settled(tmp_path)
    plan = make_plan(settings)
    real = Device(DeviceKind.CUDA, "GPU-1", "NVIDIA H200", 140 * 1024**3, index=0, sm_count=132)
    named = replace(settings, device=real, default_model="/models/Qwen3-0.6B")
    assert foresee(named, plan) == foresee(settings, plan)
    cpu = replace(settings, device=Device(DeviceKind.CPU, "cpu", "a CPU", 1, cores=(0,)))
    assert foresee(cpu, plan) == {}
    assert foresee(replace(named, default_model="/models/unheard-of"), plan) == {}


def test_what_the_plan_finds_infeasible_is_not_told_twice(tmp_path: Path) -> None:
    """Two models of 16 GB do not fit a GPU of 24 GB: the plan says so, the simulation not."""
    settings = settled(tmp_path, "l4", "llama-3-8b")
    plan = make_plan(settings)
    assert {each.cell.key.mode.value for each in plan.infeasible} == {"mps"}
    assert {key.mode.value for key in foresee(settings, plan)} == {"logical"}
