"""Fixtures of the tests that need an NVIDIA GPU; without one they are skipped, with the reason."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest

from fairshare.devices.inventory import detect
from fairshare.devices.nvml import Gpu, Nvml, NvmlUnavailableError
from tests.gpu.clients import Client, running
from tests.workplace import ROOT, cache_dir, wait_for, workplace

__all__ = ["cache_dir", "wait_for", "workplace"]

# What the driver itself takes or keeps back for a while after a process has gone.
MEMORY_SLACK_BYTES = 128 * 1024**2


def pytest_addoption(parser: pytest.Parser) -> None:
    """Changes of the driver's state are made only when they are asked for."""
    parser.addoption(
        "--allow-gpu-changes",
        action="store_true",
        help="test MIG instances and the time-slice policy too; both are put back",
    )


@pytest.fixture
def may_change(request: pytest.FixtureRequest) -> None:
    """Skips a test that changes the driver's state, unless that is allowed."""
    if not request.config.getoption("--allow-gpu-changes", default=False):
        pytest.skip("it changes the state of the GPU: make test-gpu ARGS=--allow-gpu-changes")


@pytest.fixture(name="gpu")
def _gpu() -> Gpu:
    """The GPU that fairshare itself would take."""
    try:
        gpus = {gpu.uuid: gpu for gpu in Nvml().list_gpus()}
    except NvmlUnavailableError as error:
        pytest.skip(f"there is no NVIDIA GPU here: {error}")
    if not gpus:
        pytest.skip("there is no NVIDIA GPU here: NVML lists none")
    device, _ = detect("cuda")
    return gpus[device.id]


@pytest.fixture
def left_as_found(gpu: Gpu) -> Iterator[None]:
    """The GPU has the same compute processes, memory in use and modes after the test as before."""
    before = _state(gpu)
    yield
    after = _state(gpu)
    assert after["processes"] == before["processes"]
    assert after["modes"] == before["modes"]
    assert abs(after["used_bytes"] - before["used_bytes"]) < MEMORY_SLACK_BYTES


def _state(gpu: Gpu) -> dict[str, Any]:
    (now,) = [each for each in Nvml().list_gpus() if each.uuid == gpu.uuid]
    condition = Nvml().condition(gpu.uuid)
    return {
        "processes": sorted(each.pid for each in now.processes),
        "modes": (condition.compute_mode, condition.persistent, condition.mig),
        "used_bytes": condition.used_bytes or 0,
    }


@pytest.fixture
def client(gpu: Gpu) -> Iterator[Callable[..., Client]]:
    """Start a CUDA program: ``client(work, *arguments, env={...})``; none outlives the test."""
    with ExitStack() as stack:

        def start(*arguments: str, env: dict[str, str] | None = None) -> Client:
            return stack.enter_context(running(arguments, gpu, env or {}))

        yield start


@pytest.fixture
def daemons() -> Callable[[], list[psutil.Process]]:
    """Lists every MPS daemon and server of this machine."""
    return lambda: [
        each
        for each in psutil.process_iter(["name"])
        if (each.info["name"] or "").startswith("nvidia-cuda-mps"[:15])
    ]


GPU_LAUNCHER = """\
name: cuda-fake
description: no engine, but a CUDA context with memory of its own
engine: tgi
devices: [cuda]
apis: [completions]
command:
  - {python}
  - -m
  - tests.gpu.cuda_server
  - --model
  - "{{model}}"
  - --served-model-name
  - "{{served_model}}"
  - --host
  - "{{host}}"
  - --port
  - "{{port}}"
args: {{ttft_ms: 20, itl_ms: 5}}
env: {{PYTHONPATH: {root}}}
api_key_env: VLLM_API_KEY
ready_timeout_s: 60
stop_grace_s: 5
"""


@pytest.fixture
def launcher(tmp_path: Path) -> str:
    """A launcher whose servers hold a CUDA context and answer as an engine would."""
    path = tmp_path / "cuda-fake.yaml"
    path.write_text(GPU_LAUNCHER.format(python=sys.executable, root=ROOT))
    return str(path)
