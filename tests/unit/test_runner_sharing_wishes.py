"""Wishes about MPS partitions and time slices: taken over, or refused with what would help."""

from __future__ import annotations

import pytest

from fairshare.devices.device import Device
from fairshare.devices.driver import Driver
from fairshare.devices.inventory import virtual_device
from fairshare.errors import SpecError
from fairshare.records import Mode
from fairshare.runner.sharing import settle_sharing
from fairshare.sharing.options import SharingOptions
from fairshare.spec.choices import Partitioning, TimeslicePolicy
from fairshare.spec.launcher import DeviceKind
from fairshare.spec.sharing import MpsSpec, TimesliceSpec

CPU = Device(kind=DeviceKind.CPU, id="cpu", name="CPU", memory_bytes=1, cores=(0, 1))
GPU = Device(kind=DeviceKind.CUDA, id="GPU-1", name="some GPU", memory_bytes=1)
STATIC = MpsSpec(partitioning=Partitioning.STATIC)
LONG = TimesliceSpec(policy=TimeslicePolicy.LONG)


def settled(device: Device, *, changes: bool = False, **wishes: object) -> SharingOptions:
    """The options of a run in modes mps and timeslice."""
    said = {"mps": MpsSpec(), "timeslice": TimesliceSpec(), **wishes}
    return settle_sharing(
        None,
        [Mode.MPS, Mode.TIMESLICE],
        device,
        Driver(),
        allow_gpu_changes=changes,
        allow_gpu_reset=False,
        **said,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("device", [virtual_device("h200"), GPU])
def test_wishes_reach_the_modes(device: Device) -> None:
    """On a GPU, real or simulated, what was asked for is what the modes are given."""
    options = settled(device, changes=True, mps=STATIC, timeslice=LONG)
    assert (options.mps, options.timeslice) == (STATIC, LONG)


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        ({"mps": STATIC}, "--mps-partitioning out"),
        ({"timeslice": LONG}, "--timeslice-policy out"),
        ({"lock_clocks": "1410"}, "--lock-clocks is about a GPU's clocks"),
    ],
)
def test_a_cpu_has_neither(wish: dict[str, object], words: str) -> None:
    """A wish that would have no effect is an error, not a silence."""
    with pytest.raises(SpecError) as caught:
        settled(CPU, **wish)
    assert words in str(caught.value)


def test_the_drivers_time_slices_need_permission() -> None:
    """A real GPU's policy is changed only where changes are allowed; a simulated one's always."""
    with pytest.raises(SpecError, match="changes the GPU's driver") as caught:
        settled(GPU, timeslice=LONG)
    assert "--allow-gpu-changes" in str(caught.value)
    assert settled(virtual_device("h200"), timeslice=LONG).timeslice == LONG


def test_locked_clocks_need_permission() -> None:
    """As the time slices do: they are the driver's."""
    with pytest.raises(SpecError, match="changes the GPU's driver") as caught:
        settled(GPU, lock_clocks="1410")
    assert "--allow-gpu-changes" in str(caught.value)
    settled(GPU, changes=True, lock_clocks="1410")
    settled(virtual_device("h200"), lock_clocks="1410")
