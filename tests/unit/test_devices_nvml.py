"""What NVML's answers, and its silences, become."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from fairshare.devices.nvml import GpuCondition, GpuSample, Nvml, NvmlUnavailableError


class FakeNvml:
    """As much of pynvml as we use; ``silent`` names the calls that this GPU does not answer."""

    NVML_TEMPERATURE_GPU = 0
    NVML_CLOCK_SM = 1
    NVML_CLOCK_MEM = 2

    class NVMLError(Exception):
        """Any NVML error."""

    class NVMLError_LibraryNotFound(NVMLError):  # noqa: N801, N818 - the real one's name
        """No driver library."""

    class NVMLError_DriverNotLoaded(NVMLError):  # noqa: N801, N818 - the real one's name
        """No kernel driver."""

    def __init__(self, *, silent: tuple[str, ...] = (), pids: tuple[int, ...] = ()) -> None:
        self.silent = silent
        self.pids = pids
        self.mps_pids: tuple[int, ...] = ()
        self.sessions = 0
        self.init_error: Exception | None = None

    def nvmlInit(self) -> None:  # noqa: N802 - the real one's name
        """Open a session."""
        if self.init_error:
            raise self.init_error
        self.sessions += 1

    def nvmlShutdown(self) -> None:  # noqa: N802 - the real one's name
        """Close a session."""
        self.sessions -= 1

    def __getattr__(self, name: str) -> Any:
        answers: dict[str, Any] = {
            "nvmlSystemGetDriverVersion": "580.1",
            "nvmlDeviceGetCount": 1,
            "nvmlDeviceGetHandleByIndex": "gpu",
            "nvmlDeviceGetHandleByUUID": "gpu",
            "nvmlDeviceGetName": "NVIDIA H200",
            "nvmlDeviceGetUUID": "GPU-1",
            "nvmlDeviceGetCudaComputeCapability": (9, 0),
            "nvmlDeviceGetNumGpuCores": 132 * 128,
            "nvmlDeviceGetMigMode": (0, 0),
            "nvmlDeviceGetMaxMigDeviceCount": 0,
            "nvmlDeviceGetMemoryInfo": SimpleNamespace(total=100, used=40),
            "nvmlDeviceGetComputeRunningProcesses": [
                SimpleNamespace(pid=pid, usedGpuMemory=None) for pid in self.pids
            ],
            "nvmlDeviceGetMPSComputeRunningProcesses": [
                SimpleNamespace(pid=pid, usedGpuMemory=None) for pid in self.mps_pids
            ],
            "nvmlSystemGetCudaDriverVersion": 13020,
            "nvmlDeviceGetComputeMode": 3,
            "nvmlDeviceGetPersistenceMode": 0,
            "nvmlDeviceGetCurrentClocksEventReasons": 0x40 | 0x04,
            "nvmlDeviceGetCurrentClocksThrottleReasons": 0x08,
            "nvmlDeviceGetUtilizationRates": SimpleNamespace(gpu=50, memory=25),
            "nvmlDeviceGetPowerUsage": 300_500,
            "nvmlDeviceGetTemperature": 60,
            "nvmlDeviceGetClockInfo": 1980,
        }

        def call(*_: object) -> Any:
            if name in self.silent:
                raise self.NVMLError("Not Supported")
            return answers[name]

        return call


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeNvml:
    """A machine with one H200."""
    library = FakeNvml()
    monkeypatch.setitem(sys.modules, "pynvml", library)
    return library


def test_a_gpu_is_described(fake: FakeNvml) -> None:
    """Name, memory, SMs, architecture and MIG; NVML is let go of afterwards."""
    (gpu,) = Nvml().list_gpus()
    assert (gpu.index, gpu.uuid, gpu.name, gpu.driver) == (0, "GPU-1", "NVIDIA H200", "580.1")
    assert (gpu.sm_count, gpu.architecture) == (132, "hopper")
    assert gpu.mig_capable
    assert gpu.processes == ()
    assert fake.sessions == 0


def test_a_gpu_without_mig_is_not_capable(fake: FakeNvml) -> None:
    """NVML has no MIG mode for it: not capable, and not 'disabled'."""
    fake.silent = ("nvmlDeviceGetMigMode", "nvmlDeviceGetMaxMigDeviceCount")
    (gpu,) = Nvml().list_gpus()
    assert not gpu.mig_capable


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (FakeNvml.NVMLError_LibraryNotFound(), "libnvidia-ml"),
        (FakeNvml.NVMLError_DriverNotLoaded(), "not loaded"),
        (FakeNvml.NVMLError("GPU is lost"), "GPU is lost"),
    ],
)
def test_why_there_is_no_nvml(fake: FakeNvml, error: Exception, reason: str) -> None:
    """Each way of not having a driver has its own sentence."""
    fake.init_error = error
    with pytest.raises(NvmlUnavailableError, match=reason):
        Nvml().list_gpus()


def test_a_sample_is_in_our_units(fake: FakeNvml) -> None:
    """Fractions, bytes and watts."""
    sampler = Nvml().sampler("GPU-1")
    hot = "the hardware slows it down for its heat"
    assert sampler.sample() == GpuSample(0.5, 0.25, 40, 300.5, 60, 1980, 1980, hot)
    assert fake.sessions == 1
    sampler.close()
    assert fake.sessions == 0


def test_a_sampler_can_be_used_again(fake: FakeNvml) -> None:
    """NVML is held in each window only: an open session can block a change of MIG mode."""
    sampler = Nvml().sampler("GPU-1")
    for _ in range(2):
        assert sampler.sample() is not None
        assert fake.sessions == 1
        sampler.close()
        sampler.close()
        assert fake.sessions == 0


def test_absent_values_are_none_and_not_zero(fake: FakeNvml) -> None:
    """A GPU in MIG mode has no utilisation: the field is empty."""
    fake.silent = ("nvmlDeviceGetUtilizationRates", "nvmlDeviceGetPowerUsage")
    sample = Nvml().sampler("GPU-1").sample()
    assert sample is not None
    assert (sample.gpu_utilisation, sample.memory_utilisation, sample.power_w) == (None,) * 3
    assert sample.memory_used_bytes == 40


def test_older_drivers_call_the_reasons_otherwise(fake: FakeNvml) -> None:
    """Before R535 they were throttle reasons; one that tells neither leaves the field empty."""
    fake.silent = ("nvmlDeviceGetCurrentClocksEventReasons",)
    sample = Nvml().sampler("GPU-1").sample()
    assert sample is not None
    assert sample.slowdowns == "the hardware slows it down"
    fake.silent += ("nvmlDeviceGetCurrentClocksThrottleReasons",)
    sample = Nvml().sampler("GPU-1").sample()
    assert sample is not None
    assert sample.slowdowns is None


def test_a_sampler_of_an_unknown_gpu_says_so(fake: FakeNvml) -> None:
    """It fails at the first sample, and holds nothing."""
    fake.silent = ("nvmlDeviceGetHandleByUUID",)
    with pytest.raises(NvmlUnavailableError, match="GPU-7"):
        Nvml().sampler("GPU-7").sample()
    assert fake.sessions == 0


def test_processes_on_the_gpu_are_listed(fake: FakeNvml) -> None:
    """MPS clients too, each once, and whether or not NVML tells its memory."""
    fake.pids, fake.mps_pids = (7, 8), (8, 9)
    assert [p.pid for p in Nvml().compute_processes("GPU-1")] == [7, 8, 9]


def test_the_condition_of_a_gpu_is_told_in_words(fake: FakeNvml) -> None:
    """Settings as nvidia-smi spells them; a power cap is normal under load, heat is not."""
    found = Nvml().condition("GPU-1")
    assert (found.compute_mode, found.persistent) == ("Exclusive_Process", False)
    assert found.mig == ("Disabled", "Disabled")
    assert (found.cuda, found.used_bytes) == ((13, 2), 40)
    assert found.slowdowns == ("the hardware slows it down for its heat",)
    assert fake.sessions == 0


def test_a_condition_that_nvml_does_not_tell_is_none(fake: FakeNvml) -> None:
    """What a GPU has no answer for is None, never a default."""
    fake.silent = (
        "nvmlDeviceGetComputeMode",
        "nvmlDeviceGetPersistenceMode",
        "nvmlDeviceGetMigMode",
        "nvmlDeviceGetMemoryInfo",
        "nvmlSystemGetCudaDriverVersion",
        "nvmlDeviceGetCurrentClocksEventReasons",
        "nvmlDeviceGetCurrentClocksThrottleReasons",
    )
    assert Nvml().condition("GPU-1") == GpuCondition()
