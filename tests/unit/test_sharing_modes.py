"""Plans of every mode on every kind of device."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fairshare.devices.device import Device
from fairshare.devices.driver import Driver
from fairshare.devices.inventory import virtual_device
from fairshare.errors import InfeasibleError
from fairshare.records import Mark, Mode, Provenance
from fairshare.sharing.mig_facts import MigFacts
from fairshare.sharing.mig_table import known_table
from fairshare.sharing.modes import partitioner_for
from fairshare.sharing.options import SharingOptions
from fairshare.sharing.plan import PartitionPlan, TenantDemand
from fairshare.spec.launcher import DeviceKind
from fairshare.spec.layouts import MigHow
from fairshare.spec.mig import MigSpec

GIB = 1024**3


def cpu(cores: int = 4) -> Device:
    """A CPU device with that many cores."""
    return Device(DeviceKind.CPU, "cpu", "test", 16 * GIB, cores=tuple(range(cores)))


def cuda(name: str = "NVIDIA A100-SXM4-40GB") -> Device:
    """A real GPU as the inventory would describe it."""
    return Device(
        DeviceKind.CUDA, "GPU-1234", name, 40 * GIB, index=0, sm_count=108, mig_capable=True
    )


H200 = cuda("NVIDIA H200")


def two(*, models: tuple[str, str] = ("m", "m"), share: float | None = None) -> list[TenantDemand]:
    """Two tenants, chat and batch; chat may have a share."""
    return [
        TenantDemand("chat", models[0], share=share),
        TenantDemand("batch", models[1], adapter="/lora"),
    ]


def planned(mode: Mode, device: Device, tenants: list[TenantDemand]) -> PartitionPlan:
    """The plan of a mode on a device."""
    return partitioner_for(mode, device, Driver(), SharingOptions()).plan(device, tenants)


def mig(device: Device, options: SharingOptions) -> PartitionPlan:
    """The plan of mode mig under these options."""
    return partitioner_for(Mode.MIG, device, Driver(), options).plan(device, two())


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
    uneven = planned(Mode.MPS, device, two(share=0.7))
    assert uneven.marks == (Mark.UNVALIDATED,)
    assert any("unequal MPS shares" in note for note in uneven.notes)
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
    plan = mig(H200, SharingOptions(allow_gpu_changes=True))
    assert (plan.label, plan.provenance) == ("mig", Provenance.MEASURED)
    assert plan.steps[1:3] == (
        "nvidia-smi mig -i GPU-1234 -cgi 9:0 -C   (3g.71gb)",
        "nvidia-smi mig -i GPU-1234 -cgi 9:4 -C   (3g.71gb)",
    )


@pytest.mark.parametrize(
    ("device", "options", "reason", "remedy"),
    [
        (H200, SharingOptions(), "may not be changed", "--allow-gpu-changes makes"),
        (cuda(), SharingOptions(), "may not be changed", "--allow-gpu-reset"),
        (cuda(), SharingOptions(allow_gpu_changes=True), "survives a reboot", "--allow-gpu-reset"),
        (
            H200,
            SharingOptions(
                allow_gpu_changes=True,
                mig_facts=MigFacts(known_table(H200), hindrance="only root may change MIG"),
            ),
            "only root",
            "sudo",
        ),
        (
            cuda("NVIDIA Whatever"),
            SharingOptions(allow_gpu_changes=True),
            "neither the driver",
            "-lgip",
        ),
    ],
)
def test_why_mig_is_not_real_and_how_it_can_be(
    device: Device, options: SharingOptions, reason: str, remedy: str
) -> None:
    """Auto emulates and says so; real is infeasible, with the same reason and next step."""
    plan = mig(device, options)
    assert plan.label == "mig-emulated"
    assert any(reason in note and remedy in note for note in plan.notes)
    with pytest.raises(InfeasibleError, match=f"real MIG cannot be had.*{reason}") as caught:
        mig(device, replace(options, mig=MigSpec(how=MigHow.REAL)))
    assert remedy in str(caught.value.hint)


def test_ampere_is_real_where_a_reset_is_allowed_or_not_needed() -> None:
    """Its mode takes a reset to change; where it is on already, none."""
    assert mig(cuda(), SharingOptions(allow_gpu_changes=True, allow_gpu_reset=True)).label == "mig"
    on = MigFacts(known_table(cuda()), enabled=True)
    assert mig(cuda(), SharingOptions(allow_gpu_changes=True, mig_facts=on)).label == "mig"


def test_emulated_mig_can_be_had_on_the_simulated_gpu() -> None:
    """Its figures are simulated all the same, and the label says emulated."""
    options = SharingOptions(mig=MigSpec(how=MigHow.EMULATED, layout="4g.71gb,1g.18gb"))
    plan = mig(virtual_device("h200"), options)
    assert (plan.label, plan.provenance) == ("mig-emulated", Provenance.SIMULATED)
    assert plan.marks == (Mark.UNVALIDATED,)
    small = plan.slots[1]
    assert small.mig_profile == "1g.18gb"
    assert small.env["CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"] == "12.12"
    assert small.memory_bytes == 16 * GIB


def test_what_the_driver_lists_is_planned_with() -> None:
    """A board that differs from its model's table: its own is right."""
    known = known_table(H200)
    assert known is not None
    other = tuple(replace(p, memory_gib=p.memory_gib / 2) for p in known.profiles)
    facts = MigFacts(replace(known, profiles=other))
    plan = mig(H200, SharingOptions(allow_gpu_changes=True, mig_facts=facts))
    assert plan.slots[0].memory_bytes == 34.75 * GIB


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
    assert "MIG profiles 3g.71gb + 3g.71gb: 120 of 132 SMs and 139 GiB in all" in plan.notes
    assert plan.slots[0].compute_fraction == 60 / 132


def test_cuda_servers_see_their_gpu_alone() -> None:
    """A server on a real GPU is pointed at it by UUID."""
    plan = planned(Mode.TIMESLICE, cuda(), two())
    assert all(s.env["CUDA_VISIBLE_DEVICES"] == "GPU-1234" for s in plan.slots)


def test_what_nobody_has_validated_is_said_of_a_simulated_gpu() -> None:
    """Tails under sharing are a note of every plan that shares, language models on MIG a mark."""
    simulated = virtual_device("a100-40")
    real = replace(simulated, kind=DeviceKind.CUDA)
    for mode in (Mode.TIMESLICE, Mode.MPS, Mode.MIG):
        assert any("tail percentiles" in note for note in planned(mode, simulated, two()).notes)
        assert not any("tail percentiles" in note for note in planned(mode, real, two()).notes)
    [note] = planned(Mode.LOGICAL, simulated, two()).notes
    assert "no prediction for m on the NVIDIA A100" in note
    assert planned(Mode.MIG, simulated, two()).marks == (Mark.UNVALIDATED,)
    assert planned(Mode.TIMESLICE, simulated, two()).marks == ()


def test_a_gpu_that_nothing_was_compared_with_is_marked() -> None:
    """Whatever a simulated GPU says that no measurement has met is unvalidated, in every mode."""
    for mode in (Mode.LOGICAL, Mode.TIMESLICE, Mode.MPS, Mode.MIG):
        plan = planned(mode, virtual_device("h200"), two())
        assert plan.marks == (Mark.UNVALIDATED,)
        assert any("no prediction for the NVIDIA H200" in note for note in plan.notes)
