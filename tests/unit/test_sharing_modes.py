"""Plans of every mode on every kind of device."""

from __future__ import annotations

import pytest

from fairshare.devices.device import Device
from fairshare.devices.driver import Driver
from fairshare.devices.inventory import virtual_device
from fairshare.errors import InfeasibleError
from fairshare.records import Mark, Mode, Provenance
from fairshare.sharing.modes import partitioner_for
from fairshare.sharing.options import SharingOptions
from fairshare.sharing.plan import PartitionPlan, TenantDemand
from fairshare.spec.launcher import DeviceKind

GIB = 1024**3


def cpu(cores: int = 4) -> Device:
    """A CPU device with that many cores."""
    return Device(DeviceKind.CPU, "cpu", "test", 16 * GIB, cores=tuple(range(cores)))


def cuda(name: str = "NVIDIA A100-SXM4-40GB") -> Device:
    """A real GPU as the inventory would describe it."""
    return Device(
        DeviceKind.CUDA, "GPU-1234", name, 40 * GIB, index=0, sm_count=108, mig_capable=True
    )


def two(*, models: tuple[str, str] = ("m", "m"), share: float | None = None) -> list[TenantDemand]:
    """Two tenants, chat and batch; chat may have a share."""
    return [
        TenantDemand("chat", models[0], share=share),
        TenantDemand("batch", models[1], adapter="/lora"),
    ]


def planned(mode: Mode, device: Device, tenants: list[TenantDemand]) -> PartitionPlan:
    """The plan of a mode on a device."""
    return partitioner_for(mode, device, Driver(), SharingOptions()).plan(device, tenants)


@pytest.mark.parametrize("mode", [Mode.EXCLUSIVE, Mode.LOGICAL])
@pytest.mark.parametrize("device", [cpu(), cuda(), virtual_device("a100-40")], ids=lambda d: d.kind)
def test_one_server_on_the_whole_device(mode: Mode, device: Device) -> None:
    """Exclusive and logical make one slot named all that has everything."""
    plan = planned(mode, device, two())
    (slot,) = plan.slots
    assert (slot.name, slot.tenants) == ("all", ("chat", "batch"))
    assert slot.adapters == {"batch": "/lora"}
    assert (slot.compute_fraction, slot.memory_fraction, slot.memory_bytes) == (1.0, 1.0, None)
    assert slot.cpu_set == (device.cores or None)
    assert plan.label == mode.value


@pytest.mark.parametrize("mode", [Mode.EXCLUSIVE, Mode.LOGICAL])
def test_two_models_on_one_server_are_infeasible(mode: Mode) -> None:
    """One server cannot serve two models; the message names both."""
    with pytest.raises(InfeasibleError, match="2 models: small, tiny"):
        planned(mode, cpu(), two(models=("tiny", "small")))


@pytest.mark.parametrize(
    ("device", "provenance"),
    [
        (cpu(), Provenance.MEASURED_ON_CPU),
        (cuda(), Provenance.MEASURED),
        (virtual_device("a100-40"), Provenance.SIMULATED),
    ],
    ids=["cpu", "cuda", "virtual"],
)
def test_timeslice_gives_each_the_whole_compute(device: Device, provenance: Provenance) -> None:
    """Time slices divide the memory; the compute is everybody's in turn."""
    plan = planned(Mode.TIMESLICE, device, two(share=0.7))
    assert plan.provenance is provenance
    assert [s.name for s in plan.slots] == ["chat", "batch"]
    assert [s.compute_fraction for s in plan.slots] == [1.0, 1.0]
    assert [s.memory_fraction for s in plan.slots] == pytest.approx([0.7, 0.3])
    assert plan.slots[0].model == "m"


def test_cpu_mps_caps_threads_on_shared_cores() -> None:
    """On the CPU, mps lets both servers use all cores with threads by share."""
    plan = planned(Mode.MPS, cpu(4), two(share=0.75))
    assert plan.label == "mps-cpu"
    assert [s.cpu_set for s in plan.slots] == [(0, 1, 2, 3)] * 2
    assert [s.threads for s in plan.slots] == [3, 1]
    assert plan.slots[1].env == {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}


def test_cpu_mps_gives_at_least_one_thread() -> None:
    """A share below a core is still one thread."""
    plan = planned(Mode.MPS, cpu(2), two(share=0.9))
    assert [s.threads for s in plan.slots] == [2, 1]


def test_cpu_mig_makes_disjoint_core_sets() -> None:
    """On the CPU, mig gives each server cores of its own, all of them used."""
    plan = planned(Mode.MIG, cpu(4), two(share=0.75))
    assert plan.label == "mig-cpu"
    assert [s.cpu_set for s in plan.slots] == [(0, 1, 2), (3,)]
    assert [s.compute_fraction for s in plan.slots] == [0.75, 0.25]
    assert plan.notes


def test_cpu_mig_needs_a_core_each() -> None:
    """Fewer cores than tenants: infeasible, with both numbers."""
    three = [TenantDemand(name, "m") for name in "abc"]
    with pytest.raises(InfeasibleError, match=r"3 tenants.* 2"):
        planned(Mode.MIG, cpu(2), three)


@pytest.mark.parametrize("device", [cuda(), virtual_device("a100-40")], ids=["cuda", "virtual"])
def test_gpu_mps_caps_compute_and_memory(device: Device) -> None:
    """On a GPU, mps writes the percentage and the memory limit into each server's environment."""
    plan = planned(Mode.MPS, device, [TenantDemand(name, "m") for name in "abc"])
    assert plan.label == "mps"
    first = plan.slots[0]
    assert first.env["CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"] == "33.33"
    assert first.env["CUDA_MPS_PINNED_DEVICE_MEM_LIMIT"] == "0=13653M"
    assert first.memory_bytes == 13653 * 1024**2
    assert first.threads is None
    assert plan.steps
    assert plan.marks == ()


def test_uneven_mps_on_the_simulator_is_marked() -> None:
    """Nothing published supports the simulator for unequal shares: the figures say so."""
    device = virtual_device("a100-40")
    assert planned(Mode.MPS, device, two(share=0.7)).marks == (Mark.UNVALIDATED,)
    assert planned(Mode.MPS, cuda(), two(share=0.7)).marks == ()


def test_mig_on_a_real_gpu_is_emulated_unless_changes_are_allowed() -> None:
    """Without leave to change the driver, mig is MPS of a MIG slice's size, and says so."""
    plan = planned(Mode.MIG, cuda(), two())
    assert (plan.label, plan.provenance) == ("mig-emulated", Provenance.EMULATED)
    assert any("bandwidth" in note and "faults" in note for note in plan.notes)
    assert any("--allow-gpu-changes" in note for note in plan.notes)
    slot = plan.slots[0]
    assert slot.mig_profile == "3g.20gb"
    assert slot.env["CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"] == "38.89"
    assert slot.memory_bytes == int(19.5 * GIB)


def test_mig_is_real_where_changes_are_allowed() -> None:
    """With leave, the plan lists the driver commands and carries the mode's own name."""
    partitioner = partitioner_for(
        Mode.MIG, cuda(), Driver(), SharingOptions(allow_gpu_changes=True)
    )
    plan = partitioner.plan(cuda(), two())
    assert (plan.label, plan.provenance) == ("mig", Provenance.MEASURED)
    assert plan.steps[1] == "nvidia-smi mig -i GPU-1234 -cgi 9 -C   (3g.20gb)"


def test_a_gpu_without_mig_is_emulated_by_plain_shares() -> None:
    """Leave to change does not give an L4 MIG: half of the SMs and of the memory each."""
    l4 = Device(DeviceKind.CUDA, "GPU-9", "NVIDIA L4", 24 * GIB, index=0, sm_count=58)
    plan = partitioner_for(Mode.MIG, l4, Driver(), SharingOptions(allow_gpu_changes=True)).plan(
        l4, two()
    )
    assert plan.label == "mig-emulated"
    assert [s.compute_fraction for s in plan.slots] == [0.5, 0.5]
    assert [s.memory_bytes for s in plan.slots] == [12 * GIB, 12 * GIB]


def test_simulated_mig_on_a_gpu_without_it_is_infeasible() -> None:
    """The simulator has what its model has, and the reason names the model."""
    with pytest.raises(InfeasibleError, match="NVIDIA L4 has no MIG"):
        planned(Mode.MIG, virtual_device("l4"), two())


def test_mig_grants_are_in_the_notes() -> None:
    """Shares by MIG are not halves of the GPU: the note says what is granted in fact."""
    plan = planned(Mode.MIG, virtual_device("h200"), two())
    assert plan.notes == ("MIG profiles 3g.71gb + 3g.71gb: 120 of 132 SMs and 139 GiB in all",)
    assert plan.slots[0].compute_fraction == 60 / 132


def test_cuda_servers_see_their_gpu_alone() -> None:
    """A server on a real GPU is pointed at it by UUID."""
    plan = planned(Mode.TIMESLICE, cuda(), two())
    assert all(s.env["CUDA_VISIBLE_DEVICES"] == "GPU-1234" for s in plan.slots)
