"""What the doctor is told of a run, and how a run is refused."""

from __future__ import annotations

import threading
from collections.abc import Collection
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest

from fairshare.devices.device import Device
from fairshare.doctor.bounded import bounded
from fairshare.doctor.finding import Finding, fail, warn
from fairshare.errors import PreflightError
from fairshare.records import Mode, Provenance
from fairshare.runner import preflight, settings
from fairshare.runner.plan import Deployment, RunPlan
from fairshare.runner.settings import Flags
from fairshare.sharing.plan import PartitionPlan
from fairshare.spec.launcher import DeviceKind
from fairshare.spec.loading import load_launcher
from fairshare.spec.matrix import Matrix

GPU = Device(DeviceKind.CUDA, "GPU-1", "NVIDIA H200", 141 * 1024**3, index=0)
RESULTS = Path("results")
LAUNCHER = load_launcher("virtual")[0]


def matrix(*modes: str) -> Matrix:
    """A sweep in these modes."""
    return Matrix(name="x", scenarios=["x"], modes=[Mode(mode) for mode in modes])


def test_a_gpu_that_is_not_there_is_left_to_the_doctor(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason and the way out reach the findings, and nothing is raised."""

    def detect(*_: Any, **__: Any) -> Any:
        raise PreflightError("no driver", hint="use the CPU")

    monkeypatch.setattr("fairshare.devices.inventory.detect", detect)
    found, _ = preflight.intent_of_flags(matrix("logical"), Flags(device="cuda"), RESULTS)
    assert (found.kind, found.device) == (DeviceKind.CUDA, None)
    assert (found.missing, found.remedy) == ("no driver", "use the CPU")
    assert found.modes == {Mode.LOGICAL}


def test_a_driver_that_hangs_costs_the_bound() -> None:
    """A call that never returns becomes an error with what to do; others pass through."""
    release = threading.Event()
    with pytest.raises(PreflightError, match=r"the driver did not answer within 0\.05 s"):
        bounded(release.wait, "the driver", 0.05)
    release.set()
    assert bounded(lambda: 7, "x", 5) == 7
    with pytest.raises(ZeroDivisionError):
        bounded(lambda: 1 // 0, "x", 5)


def test_a_refusal_tells_every_reason_and_remedy() -> None:
    """The first is the message and the hint, the others are the evidence."""
    error = preflight.refusal([fail("disk", "full", "make room"), fail("gpu", "gone", "look")])
    assert error.exit_code == 3
    assert "disk: full" in error.message
    assert error.hint == "make room"
    assert error.evidence == ("gpu: gone -> look",)


def test_a_gpu_nobody_asked_for_is_taken_only_if_nothing_stands_against_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else the run is simulated, and its first line says why; reservations do not matter."""
    found = [warn("cores", "2 cores", "use more")]
    monkeypatch.setattr(settings, "examine", lambda _: found)
    asked = (GPU, "it is free", matrix("logical"), Flags(model="m"), None)
    assert settings._usable_cuda(*asked) == (GPU, "it is free")
    found.append(fail("compute mode", "Prohibited", "change it"))
    device, why = settings._usable_cuda(*asked)
    assert device.kind is DeviceKind.VIRTUAL
    assert "but compute mode: Prohibited; simulating instead" in why


def test_a_mode_that_is_not_ready_is_told_from_those_that_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its reasons and remedies are told; what stands against every mode is left to the refusal."""
    logical, mps = (Deployment(m, _share_plan(m), LAUNCHER, ()) for m in (Mode.LOGICAL, Mode.MPS))
    missing = {Mode.MPS: [fail("mps control", "not found", "install it")], Mode.LOGICAL: []}

    def examined(modes: Collection[Mode]) -> list[Finding]:
        return [finding for mode in modes for finding in missing[mode]]

    monkeypatch.setattr(preflight, "_intent", lambda _settings, modes, _folder: modes)
    monkeypatch.setattr(preflight, "examine", examined)
    plan = RunPlan((logical, mps))
    unready = preflight.unready_modes(ANY, plan, RESULTS)
    assert unready == {Mode.MPS: "mps control: not found (install it)"}
    assert plan.without_modes(unready).deployments == (logical,)
    missing[Mode.LOGICAL] = [fail("disk", "full", "make room")]
    assert preflight.unready_modes(ANY, plan, RESULTS) == {}


def _share_plan(mode: Mode) -> PartitionPlan:
    return PartitionPlan(mode, mode.value, Provenance.MEASURED, GPU, ())
