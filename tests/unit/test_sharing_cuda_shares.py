"""What a process sees of a GPU, against the share that it was to have."""

from __future__ import annotations

from typing import Any

import pytest

from fairshare.devices.device import Device
from fairshare.sharing.cuda_shares import differences
from fairshare.sharing.mps_control import PIPE_VARIABLE
from fairshare.sharing.plan import Slot
from fairshare.spec.launcher import DeviceKind

GIB = 1024**3
UUID = "7f57f032-34ab-a064-c37c-7a4f75601cc5"
MIG = "377e0049-554c-540b-93c6-d0976f8426cb"
H200 = Device(DeviceKind.CUDA, f"GPU-{UUID}", "NVIDIA H200", 140 * GIB, index=0, sm_count=132)
BLACKWELL = Device(DeviceKind.CUDA, f"GPU-{UUID}", "RTX PRO 6000", 96 * GIB, index=0, sm_count=188)


def slot(env: dict[str, str] | None = None, **changes: Any) -> Slot:
    """A server's slot on the GPU."""
    visible = {"CUDA_VISIBLE_DEVICES": f"GPU-{UUID}"}
    return Slot(name="a", tenants=("a",), model="m", env={**visible, **(env or {})}, **changes)


def mps(fraction: float, memory_bytes: int | None) -> Slot:
    """A slot of an MPS client."""
    return slot({PIPE_VARIABLE: "/p"}, compute_fraction=fraction, memory_bytes=memory_bytes)


def seen(**changes: Any) -> dict[str, Any]:
    """What a process on the whole H200 sees, with changes."""
    whole = {"uuid": UUID, "sm_count": 132, "total_bytes": 139 * GIB, "free_bytes": 138 * GIB}
    return {**whole, **changes}


# As NVIDIA measured them on 188 SMs: percentage and limit; SMs seen and free memory.
@pytest.mark.parametrize(
    ("fraction", "cap_gib", "sms", "free_mib"), [(0.5, 10, 94, 9728), (0.25, 5, 46, 4864)]
)
def test_a_published_share_is_in_force(
    fraction: float, cap_gib: int, sms: int, free_mib: int
) -> None:
    """Rounding of SMs and the context below the cap are no differences."""
    found = seen(sm_count=sms, total_bytes=95 * GIB, free_bytes=free_mib * 1024**2)
    assert differences(BLACKWELL, mps(fraction, cap_gib * GIB), found) == []


def test_a_client_astray_is_found_out() -> None:
    """Without MPS a client has all SMs and all memory: both are told, with both numbers."""
    found = differences(H200, mps(0.5, 20 * GIB), seen())
    assert found == [
        "SMs: planned 66 of 132, has 132",
        "memory: planned 20 GiB, but 138 GiB are free",
    ]


def test_a_memory_limit_that_fell_away_is_found_out() -> None:
    """An entry for an invisible GPU drops every limit, though the percentage holds."""
    found = differences(BLACKWELL, mps(0.5, 2 * GIB), seen(sm_count=94, free_bytes=94 * GIB))
    assert found == ["memory: planned 2 GiB, but 94 GiB are free"]


def test_an_allocation_beyond_the_cap_must_fail() -> None:
    """Whatever is told to be free, memory beyond the cap is not to be had."""
    found = seen(sm_count=66, free_bytes=19 * GIB, beyond_cap_refused=False)
    assert differences(H200, mps(0.5, 20 * GIB), found) == [
        "memory: more than the cap could be allocated"
    ]


def test_another_tenants_percentage_is_found_out() -> None:
    """A share of 30 % in place of one of 40 % is more than rounding."""
    found = differences(H200, mps(0.4, None), seen(sm_count=40))
    assert found == ["SMs: planned 53 of 132, has 40"]


@pytest.mark.parametrize("uuid", [UUID, MIG, f"MIG-{MIG}", UUID.upper()])
def test_a_mig_device_may_be_named_by_its_gpu(uuid: str) -> None:
    """Versions of CUDA differ in whose UUID a process on a MIG device sees."""
    place = {"CUDA_VISIBLE_DEVICES": f"MIG-{MIG}"}
    on_mig = slot(place, compute_fraction=16 / 132, memory_bytes=16 * GIB)
    found = seen(uuid=uuid, sm_count=16, total_bytes=16 * GIB - 10**8, free_bytes=15 * GIB)
    assert differences(H200, on_mig, found) == []


def test_another_mig_device_is_found_out() -> None:
    """A larger instance than planned differs in place, SMs and memory."""
    place = {"CUDA_VISIBLE_DEVICES": f"MIG-{MIG}"}
    on_mig = slot(place, compute_fraction=16 / 132, memory_bytes=16 * GIB)
    found = seen(uuid="0" * 32, sm_count=32, total_bytes=32 * GIB)
    assert len(differences(H200, on_mig, found)) == 3


def test_the_whole_device_is_all_of_it() -> None:
    """Without a share, fewer SMs, a part of the memory and a second GPU are differences."""
    whole = slot(memory_fraction=0.5)  # a time slice: memory is divided, not enforced
    assert differences(H200, whole, seen()) == []
    assert len(differences(H200, whole, seen(sm_count=66, total_bytes=70 * GIB))) == 2
    assert differences(H200, whole, seen(devices=2)) == ["devices: planned 1, sees 2"]


def test_what_is_not_told_is_not_verified() -> None:
    """A report without its figures, or of a GPU whose size is unknown, proves nothing."""
    assert differences(H200, slot(), {"uuid": UUID}) == [
        "sm_count: not told",
        "total_bytes: not told",
        "free_bytes: not told",
    ]
    unknown = Device(DeviceKind.CUDA, f"GPU-{UUID}", "new", 140 * GIB, index=0)
    (line,) = differences(unknown, mps(0.5, None), seen(sm_count=66))
    assert "not known" in line
    assert differences(H200, slot(), seen(uuid=None)) == [f"device: planned GPU-{UUID}, has None"]
