"""What the doctor is told of a run, and how a run is refused."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from fairshare.devices.device import Device
from fairshare.doctor.bounded import bounded
from fairshare.doctor.finding import fail, warn
from fairshare.errors import PreflightError
from fairshare.records import Mode
from fairshare.runner import preflight, settings
from fairshare.runner.settings import Flags
from fairshare.spec.launcher import DeviceKind
from fairshare.spec.matrix import Matrix

GPU = Device(DeviceKind.CUDA, "GPU-1", "NVIDIA H200", 141 * 1024**3, index=0)
RESULTS = Path("results")


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
