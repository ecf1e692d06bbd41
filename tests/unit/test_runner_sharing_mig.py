"""Wishes about MIG: taken over and kept for reruns, or refused with what would help."""

from __future__ import annotations

from pathlib import Path

import pytest

from fairshare.devices.device import Device
from fairshare.devices.driver import Driver
from fairshare.devices.inventory import virtual_device
from fairshare.errors import SpecError
from fairshare.records import CellKey, Mode
from fairshare.runner.rerun import _request, request_of
from fairshare.runner.settings import Flags
from fairshare.runner.sharing import settle_sharing
from fairshare.sharing.mig_facts import facts_unasked
from fairshare.sharing.options import SharingOptions
from fairshare.spec.launcher import DeviceKind
from fairshare.spec.layouts import MigHow
from fairshare.spec.matrix import Matrix
from fairshare.spec.mig import MigSpec
from fairshare.spec.sharing import MpsSpec, TimesliceSpec
from fairshare.virtual.driver import driver_for

CPU = Device(kind=DeviceKind.CPU, id="cpu", name="CPU", memory_bytes=1, cores=(0, 1))
LAYOUT = MigSpec(layout="3:1")
REAL = MigSpec(how=MigHow.REAL)


def settled(device: Device, mig: MigSpec | None, driver: Driver, **allowed: bool) -> SharingOptions:
    """The options of a run in mode mig."""
    return settle_sharing(
        mig,
        [Mode.MIG],
        device,
        driver,
        mps=MpsSpec(),
        timeslice=TimesliceSpec(),
        allow_gpu_changes=allowed.get("changes", False),
        allow_gpu_reset=allowed.get("reset", False),
    )


def test_a_simulated_gpu_that_is_off_is_as_its_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planning on it asks nobody, and leaves no file."""
    monkeypatch.setenv("FAIRSHARE_STATE_DIR", str(tmp_path / "state"))
    device = virtual_device("h200")
    options = settled(device, LAYOUT, driver_for(device))
    assert options.mig == LAYOUT
    assert options.mig_facts == facts_unasked(device)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("mig", "words"), [(REAL, "--mig real"), (LAYOUT, "a MIG layout")])
def test_a_cpu_has_no_mig(mig: MigSpec, words: str) -> None:
    """A wish that would have no effect is an error; its core sets are made without any."""
    with pytest.raises(SpecError, match=f"{words} has no effect on cpu") as caught:
        settled(CPU, mig, Driver())
    assert "share:" in str(caught.value.hint)
    assert settled(CPU, None, Driver()).mig_facts is None


def test_a_reset_is_a_change() -> None:
    """Leave to reset without leave to change means nothing, and is said to."""
    with pytest.raises(SpecError) as caught:
        settled(CPU, None, Driver(), reset=True)
    assert "--allow-gpu-changes" in str(caught.value)
    assert settled(CPU, None, Driver(), changes=True, reset=True).allow_gpu_reset


def test_a_rerun_makes_mig_as_the_run_did() -> None:
    """How, which layout and what is allowed come from the folder."""
    matrix = Matrix(name="m", scenarios=["s"], mig=MigSpec(how=MigHow.REAL, layout={"3g.20gb": 2}))
    flags = Flags(allow_gpu_changes=True, allow_gpu_reset=True)
    again, allowed = _request(
        {"request": request_of(matrix, flags)}, CellKey("s", Mode.MIG, None), Flags(), {}
    )
    assert again.mig == MigSpec(how=MigHow.REAL, layout="3g.20gb,3g.20gb")
    assert (allowed.allow_gpu_changes, allowed.allow_gpu_reset) == (True, True)
