"""The GPU that vLLM takes a UUID for, against a small model of its platform and of NVML."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from fairshare.vllm_plugins.mig_devices import map_uuids, register

GPU = "GPU-11111111-0000-0000-0000-000000000000"
MIG = [f"MIG-{number}0000000-0000-0000-0000-000000000000" for number in range(3)]


class _Nvml:
    """Two GPUs; all MIG devices are on the second, and are numbered within it."""

    def __init__(self) -> None:
        self.open = 0

    def nvmlInit(self) -> None:  # noqa: N802
        self.open += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.open -= 1

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> tuple[str, int]:  # noqa: N802
        assert self.open
        return ("mig", MIG.index(uuid)) if uuid in MIG else ("gpu", 1)

    def nvmlDeviceGetIndex(self, handle: tuple[str, int]) -> int:  # noqa: N802
        assert self.open
        return handle[1]

    def nvmlDeviceGetDeviceHandleFromMigDeviceHandle(  # noqa: N802
        self, handle: tuple[str, int]
    ) -> tuple[str, int]:
        assert handle[0] == "mig"
        return ("gpu", 1)


def cuda_module(*, old: bool = False) -> Any:
    """What of ``vllm.platforms.cuda`` matters, as it is now or as it was before UUIDs."""
    nvml = _Nvml()

    class NvmlCudaPlatform:
        @classmethod
        def device_control_id_to_physical_device_id(cls, device_id: str) -> int:
            try:
                return int(device_id)
            except ValueError:
                nvml.nvmlInit()
                return nvml.nvmlDeviceGetIndex(nvml.nvmlDeviceGetHandleByUUID(device_id))

    class OldPlatform:
        @classmethod
        def device_id_to_physical_device_id(cls, device_id: int) -> int:
            return int(visible[device_id])

    visible = ["7", MIG[2], GPU]
    platform = OldPlatform if old else NvmlCudaPlatform
    return SimpleNamespace(pynvml=nvml, NvmlCudaPlatform=platform)


@pytest.mark.parametrize("uuid", MIG)
def test_a_mig_device_is_on_its_parent(uuid: str) -> None:
    """Whatever its number within the GPU, a MIG device maps to the GPU's own index."""
    cuda = cuda_module()
    map_uuids(cuda)
    map_uuids(cuda)
    resolve = cuda.NvmlCudaPlatform.device_control_id_to_physical_device_id
    assert resolve(uuid) == 1
    assert cuda.pynvml.open == 0


def test_the_model_has_the_mistake_that_is_mended() -> None:
    """Without the change the third MIG device is taken for a third GPU."""
    resolve = cuda_module().NvmlCudaPlatform.device_control_id_to_physical_device_id
    assert resolve(MIG[2]) == 2


def test_other_ids_are_what_they_were() -> None:
    """An index stays one, and a whole GPU's UUID stands for that GPU."""
    cuda = cuda_module()
    map_uuids(cuda)
    resolve = cuda.NvmlCudaPlatform.device_control_id_to_physical_device_id
    assert resolve("3") == 3
    assert resolve(GPU) == 1


@pytest.mark.parametrize("entry", [1, 2])
def test_versions_that_took_numbers_only(monkeypatch: pytest.MonkeyPatch, entry: int) -> None:
    """Where vLLM reads the variable itself, its UUIDs are mapped and its numbers are not."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", f"7,{MIG[2]},{GPU}")
    cuda = cuda_module(old=True)
    with pytest.raises(ValueError, match="invalid literal"):
        cuda.NvmlCudaPlatform.device_id_to_physical_device_id(entry)
    map_uuids(cuda)
    assert cuda.NvmlCudaPlatform.device_id_to_physical_device_id(entry) == 1
    assert cuda.NvmlCudaPlatform.device_id_to_physical_device_id(0) == 7


def _vllm(monkeypatch: pytest.MonkeyPatch, *, base: type, platform: type) -> None:
    """A vLLM with these two classes, for `register` to import."""
    platforms, interface = ModuleType("vllm.platforms"), ModuleType("vllm.platforms.interface")
    platforms.cuda = SimpleNamespace(pynvml=None, NvmlCudaPlatform=platform)  # type: ignore[attr-defined]
    interface.Platform = base  # type: ignore[attr-defined]
    for module in (ModuleType("vllm"), platforms, interface):
        monkeypatch.setitem(sys.modules, module.__name__, module)


def test_an_unknown_vllm_is_told_and_left_running(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A vLLM without either function gets a warning in its log and starts as it would have."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", MIG[1])
    _vllm(monkeypatch, base=object, platform=object)
    register()
    assert f"may not find its device {MIG[1]}" in caplog.text


@pytest.mark.parametrize("visible", [GPU, "0", ""])
def test_a_vllm_that_is_right_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, visible: str
) -> None:
    """Without a MIG device nothing of a vLLM that takes UUIDs is touched."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    modern = type("Platform", (), {"device_control_id_to_physical_device_id": None})
    _vllm(monkeypatch, base=modern, platform=object)
    register()
    assert not caplog.text
