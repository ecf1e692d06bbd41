"""The stand-in for pynvml, through the code that reads real GPUs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pynvml
import pytest

from fairshare.devices.nvml import GpuProcess, GpuSample, Nvml, NvmlUnavailableError
from fairshare.virtual import nvidia_smi, nvml_errors
from fairshare.virtual.board import Board, own_entry
from fairshare.virtual.driver import install
from fairshare.virtual.failing import FAIL_ENV
from fairshare.virtual.nvml import StandInNvml
from fairshare.virtual.processes import in_use, note_mps_server, open_client, start_ticks
from fairshare.virtual.rules import SharingKind
from fairshare.virtual.state import STATE_ENV, mig_devices, read_state


@pytest.fixture
def gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A simulated H200."""
    install(tmp_path, "h200")
    monkeypatch.setenv(STATE_ENV, str(tmp_path))
    return tmp_path


def smi(*arguments: str) -> None:
    """A change by the stand-in nvidia-smi."""
    assert nvidia_smi.main(list(arguments)) == 0


def occupy(gpu: Path, device_uuid: str, pid: int, sharing: str = "timeslice") -> None:
    """Make the driver believe that a live process serves on a device."""
    report = {
        "pid": pid,
        "start_ticks": start_ticks(pid),
        "model": "m",
        "used_bytes": 3 * 1024**3,
        "device_uuid": device_uuid,
        "sharing": sharing,
    }
    (gpu / "servers" / f"{pid}.json").write_text(json.dumps(report))


def test_the_gpu_is_described_as_a_real_one(gpu: Path) -> None:
    """Whoever lists GPUs finds the simulated one, with what its model has."""
    (found,) = Nvml(StandInNvml(gpu)).list_gpus()
    assert (found.index, found.name, found.uuid) == (
        0,
        "NVIDIA H200",
        read_state(gpu)["gpu"]["uuid"],
    )
    assert (found.sm_count, found.architecture, found.mig_capable) == (132, "hopper", True)
    assert found.memory_bytes == 143771 * 1024**2
    assert not in_use(gpu)


def test_processes_of_every_kind_are_found(gpu: Path) -> None:
    """Servers on the GPU, MPS clients, and servers on its MIG devices."""
    library = Nvml(StandInNvml(gpu))
    used = 3 * 1024**3
    occupy(gpu, read_state(gpu)["gpu"]["uuid"], os.getpid())
    occupy(gpu, read_state(gpu)["gpu"]["uuid"], os.getppid(), "mps")
    assert library.compute_processes("virtual:h200") == [
        GpuProcess(os.getpid(), used),
        GpuProcess(os.getppid(), used),
    ]
    for pid in (os.getpid(), os.getppid()):
        (gpu / "servers" / f"{pid}.json").unlink()
    smi("-mig", "1")
    smi("mig", "-cgi", "9,9", "-C")
    occupy(gpu, mig_devices(read_state(gpu))[1].uuid, os.getpid())
    assert library.compute_processes("virtual:h200") == [GpuProcess(os.getpid(), used)]
    first, second = (device.uuid for device in mig_devices(read_state(gpu)))
    assert library.compute_processes(first) == []
    assert library.compute_processes(second) == [GpuProcess(os.getpid(), used)]


def test_an_mps_server_is_a_process_too(gpu: Path) -> None:
    """As on a real GPU: it is listed with no memory told, and keeps the MIG mode."""
    note = note_mps_server(gpu, os.getpid())
    assert Nvml(StandInNvml(gpu)).compute_processes("virtual:h200") == [
        GpuProcess(os.getpid(), None)
    ]
    assert in_use(gpu)
    note.unlink()
    assert Nvml(StandInNvml(gpu)).compute_processes("virtual:h200") == []


def test_mig_devices_have_their_own_memory_and_ids(gpu: Path) -> None:
    """A MIG device's handle tells of the device; an instance without compute instance has none."""
    smi("-mig", "1")
    smi("mig", "-cgi", "9", "-C")
    smi("mig", "-cgi", "19")
    library = StandInNvml(gpu)
    library.nvmlInit()
    whole = library.nvmlDeviceGetHandleByIndex(0)
    part = library.nvmlDeviceGetMigDeviceHandleByIndex(whole, 0)
    (device,) = mig_devices(read_state(gpu))
    assert library.nvmlDeviceGetUUID(part) == device.uuid
    assert library.nvmlDeviceGetGpuInstanceId(part) == device.gi
    assert library.nvmlDeviceGetMemoryInfo(part).total == int(69.5 * 1024**3)
    assert library.nvmlDeviceGetMigMode(whole) == [1, 1]
    with pytest.raises(library.NVMLError_NotFound):
        library.nvmlDeviceGetMigDeviceHandleByIndex(whole, 1)
    smi("mig", "-dci")
    with pytest.raises(library.NVMLError_NotFound):
        library.nvmlDeviceGetMemoryInfo(part)
    library.nvmlShutdown()


def test_a_sample_has_what_a_simulated_gpu_knows(gpu: Path) -> None:
    """Utilisation between samples, none in MIG mode; memory; power and clocks are absent."""
    uuid = read_state(gpu)["gpu"]["uuid"]
    sampler = Nvml(StandInNvml(gpu)).sampler("virtual:h200")
    occupy(gpu, uuid, os.getpid())
    with Board(gpu / "board") as board:
        entry = own_entry(0, SharingKind.TIMESLICE, 1.0, 1)
        board.join(entry)
        assert sampler.sample() == GpuSample(memory_used_bytes=3 * 1024**3, slowdowns="nothing")
        entry.busy_s = 1e9
        board.publish(entry)
        sample = sampler.sample()
    told = "nothing"
    assert sample == GpuSample(1.0, memory_used_bytes=3 * 1024**3, slowdowns=told)
    sampler.close()
    (gpu / "servers" / f"{os.getpid()}.json").unlink()
    smi("-mig", "1")
    for _ in range(2):
        assert sampler.sample() == GpuSample(memory_used_bytes=0, slowdowns="nothing")
    sampler.close()
    smi("-mig", "0")
    smi("-c", "3")
    library = StandInNvml(gpu)
    library.nvmlInit()
    handle = library.nvmlDeviceGetHandleByUUID(uuid)
    assert library.nvmlDeviceGetComputeMode(handle) == pynvml.NVML_COMPUTEMODE_EXCLUSIVE_PROCESS
    assert library.nvmlDeviceGetPersistenceMode(handle) == pynvml.NVML_FEATURE_ENABLED
    library.nvmlShutdown()


def test_an_open_session_keeps_a_mode_change_pending(gpu: Path) -> None:
    """A sampler is a client of the GPU, as in reality; closed, it is none."""
    sampler = Nvml(StandInNvml(gpu)).sampler("virtual:h200")
    sampler.sample()
    smi("-mig", "1")
    assert read_state(gpu)["mig_mode"] == {"current": "Disabled", "pending": "Enabled"}
    sampler.close()
    smi("-mig", "1")
    assert read_state(gpu)["mig_mode"] == {"current": "Enabled", "pending": "Enabled"}


def test_a_session_ends_with_its_process(gpu: Path) -> None:
    """Who dies with NVML open is no client any more."""
    code = (
        "import sys; from pathlib import Path; from fairshare.virtual.processes import *;"
        "open_client(Path(sys.argv[1])); print(in_use(Path(sys.argv[1])))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(gpu)], capture_output=True, text=True, check=True
    )
    assert done.stdout == "True\n"
    assert not in_use(gpu)
    open_client(gpu)
    assert in_use(gpu)


def test_why_there_is_no_nvml(gpu: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a simulated GPU, without its driver, and when it goes away meanwhile."""
    with pytest.raises(NvmlUnavailableError, match="libnvidia-ml"):
        Nvml(StandInNvml(gpu / "nothing")).list_gpus()
    sampler = Nvml(StandInNvml(gpu)).sampler("virtual:h200")
    assert sampler.sample() is not None
    (gpu / "state.json").unlink()
    assert sampler.sample() is None
    sampler.close()
    install(gpu, "h200")
    monkeypatch.setenv(FAIL_ENV, "driver_missing")
    with pytest.raises(NvmlUnavailableError, match="not loaded"):
        Nvml(StandInNvml(gpu)).list_gpus()


def test_a_call_without_a_session_is_refused(gpu: Path) -> None:
    """As by the real library: code that uses it after closing it is wrong."""
    library = StandInNvml(gpu)
    with pytest.raises(library.NVMLError_Uninitialized):
        library.nvmlDeviceGetCount()


def test_names_values_and_errors_are_pynvmls() -> None:
    """Whatever the stand-in defines is in the real module, with the same number and words."""
    ours = {n: v for n, v in vars(StandInNvml).items() if n.startswith(("nvml", "NVML_"))}
    assert [name for name in ours if not hasattr(pynvml, name)] == []
    constants = {name: value for name, value in ours.items() if name.startswith("NVML_")}
    assert constants == {name: getattr(pynvml, name) for name in constants}
    errors = [value for value in vars(nvml_errors).values() if isinstance(value, type)]
    for error in errors:
        real = pynvml.NVMLError(error.value)
        assert str(error()) == str(real)
        assert error.__name__ in (type(real).__name__, "NVMLError")
