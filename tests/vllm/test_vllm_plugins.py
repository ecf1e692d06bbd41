"""Our plugins in the real engine's interpreter, where vLLM itself is at hand and a GPU is not."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from fairshare.serving.plugins import plugins_env, write_plugins
from fairshare.spec.loading import load_launcher

pytestmark = [pytest.mark.vllm_cpu, pytest.mark.timeout(200)]

# vLLM's own platform of NVIDIA GPUs, with an NVML of one GPU and a MIG device of index 1 on it.
ON_MIG = """
import sys, types
from importlib.metadata import entry_points
sys.modules["vllm._C_stable_libtorch"] = types.ModuleType("kernels")  # not in builds for the CPU
from vllm.platforms import cuda

class Nvml:
    def nvmlInit(self): pass
    def nvmlShutdown(self): pass
    def nvmlDeviceGetHandleByUUID(self, uuid): return "mig", 1
    def nvmlDeviceGetIndex(self, handle): return handle[1]
    def nvmlDeviceGetDeviceHandleFromMigDeviceHandle(self, handle): return "gpu", 0
    def nvmlDeviceGetUUID(self, handle): return "GPU-whole"
    def nvmlDeviceGetHandleByIndex(self, index):
        if index: raise LookupError(f"no GPU {index}")
        return "gpu", index

cuda.pynvml = Nvml()
try:
    cuda.NvmlCudaPlatform.get_device_uuid()
except LookupError as error:
    print("before:", error)
for plugin in entry_points(group="vllm.platform_plugins"):
    assert plugin.load()() is None
print("after:", cuda.NvmlCudaPlatform.get_device_uuid())
"""


def test_vllm_finds_the_gpu_of_a_mig_device(vllm_python: str, tmp_path: Path) -> None:
    """The installed vLLM takes the second MIG device for a second GPU, but not with our plugin."""
    write_plugins(tmp_path)
    env = plugins_env(load_launcher("vllm-cpu")[0], {}, tmp_path)
    done = subprocess.run(
        [vllm_python, "-c", ON_MIG],
        env={**env, "CUDA_VISIBLE_DEVICES": "MIG-1", "TMPDIR": str(tmp_path), "HOME": "/"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.splitlines()[-2:] == ["before: no GPU 1", "after: GPU-whole"], done.stderr
