"""Which device is used, and why."""

from __future__ import annotations

import pytest

from fairshare.devices.inventory import detect
from fairshare.devices.nvml import Gpu, GpuProcess, Nvml, NvmlUnavailableError
from fairshare.errors import PreflightError, SpecError
from fairshare.spec.launcher import DeviceKind


def gpu(index: int, *, pids: tuple[int, ...] = ()) -> Gpu:
    """A free or a busy GPU."""
    return Gpu(
        index=index,
        uuid=f"GPU-{index}{index}",
        name="NVIDIA H200",
        memory_bytes=2**37,
        driver="580",
        sm_count=132,
        architecture="hopper",
        mig_capable=True,
        processes=tuple(GpuProcess(pid, None) for pid in pids),
    )


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> list[Gpu]:
    """The GPUs that NVML will list: change it in place."""
    gpus: list[Gpu] = []
    monkeypatch.setattr(Nvml, "list_gpus", lambda _self: gpus)
    return gpus


@pytest.fixture
def no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without an NVIDIA driver."""

    def fail(_self: Nvml) -> list[Gpu]:
        raise NvmlUnavailableError("no NVIDIA driver: libnvidia-ml.so was not found")

    monkeypatch.setattr(Nvml, "list_gpus", fail)


@pytest.mark.usefixtures("no_driver")
def test_without_a_gpu_the_simulated_one_is_used_and_why_is_said() -> None:
    """The first line of a run tells that nothing is measured here."""
    device, why = detect(None)
    assert (device.kind, device.id) == (DeviceKind.VIRTUAL, "virtual:a100-40")
    assert "simulated" in why
    assert "no NVIDIA driver" in why


def test_the_first_free_gpu_is_taken(machine: list[Gpu]) -> None:
    """A GPU on which others compute is passed over."""
    machine[:] = [gpu(0, pids=(42,)), gpu(1)]
    device, why = detect(None)
    assert (device.kind, device.id, device.index) == (DeviceKind.CUDA, "GPU-11", 1)
    assert "GPU 1" in why


def test_a_busy_machine_gets_the_simulated_one(machine: list[Gpu]) -> None:
    """Nobody's computation is disturbed unasked."""
    machine[:] = [gpu(0, pids=(42,))]
    device, why = detect(None)
    assert device.kind is DeviceKind.VIRTUAL
    assert "other processes compute" in why


def test_of_busy_gpus_that_were_asked_for_one_is_found(machine: list[Gpu]) -> None:
    """Whether it may be used is for the doctor to say; a free one is preferred."""
    machine[:] = [gpu(0, pids=(42, 43))]
    assert detect("cuda:0")[0].id == "GPU-00"
    machine[:] = [gpu(0, pids=(42,)), gpu(1)]
    assert detect("cuda")[0].id == "GPU-11"


@pytest.mark.parametrize(
    ("spec", "which"), [("cuda:1", None), ("cuda", "1"), (None, "GPU-11"), ("cuda:GPU-11", None)]
)
def test_a_gpu_is_chosen_by_index_or_uuid(
    machine: list[Gpu], spec: str | None, which: str | None
) -> None:
    """Both ways of naming a GPU lead to it."""
    machine[:] = [gpu(0), gpu(1)]
    assert detect(spec, gpu=which)[0].index == 1


def test_a_gpu_that_is_not_there_is_refused_with_the_known_ones(machine: list[Gpu]) -> None:
    """The hint lists what there is."""
    machine[:] = [gpu(0)]
    with pytest.raises(PreflightError, match="no GPU 3") as caught:
        detect("cuda:3")
    assert "GPU-00" in str(caught.value)


@pytest.mark.usefixtures("no_driver")
def test_cuda_without_a_driver_is_refused_with_the_reason() -> None:
    """What was asked for explicitly is not replaced by something else."""
    with pytest.raises(PreflightError, match="libnvidia-ml") as caught:
        detect("cuda")
    assert "--device virtual" in str(caught.value)


def test_the_cpu_and_simulated_gpus_by_name() -> None:
    """Each kind has its name; a simulated GPU may be chosen."""
    assert detect("cpu")[0].kind is DeviceKind.CPU
    assert detect("virtual")[0].id == "virtual:a100-40"
    assert detect("virtual:h200")[0].sm_count == 132


@pytest.mark.parametrize(
    "spec", ["gpu", "cpu:1", "virtual:a1000", "virtual:nothing", "virtual:", ""]
)
def test_wrong_names_are_refused(spec: str) -> None:
    """A name that is not a device ends in a message with the known ones."""
    with pytest.raises(SpecError) as caught:
        detect(spec)
    assert "known:" in str(caught.value)


def test_choosing_a_gpu_for_another_device_is_refused() -> None:
    """--gpu with --device cpu contradicts itself."""
    with pytest.raises(SpecError, match="--gpu"):
        detect("cpu", gpu="0")
