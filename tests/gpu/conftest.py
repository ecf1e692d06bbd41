"""Fixtures of the tests that need an NVIDIA GPU; without one they are skipped, with the reason."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from fairshare.devices.inventory import detect
from fairshare.devices.nvml import Gpu, Nvml, NvmlUnavailableError
from fairshare.sharing.mps_control import CONTROL, LOG_VARIABLE, PIPE_VARIABLE
from tests.gpu.clients import Client, running
from tests.gpu.rehearsal.machine import prepare
from tests.workplace import (
    FAKE_LAUNCHER,
    ROOT,
    Workplace,
    cache_dir,
    own_state_dir,
    wait_for,
    workplace,
)

__all__ = ["cache_dir", "own_state_dir", "wait_for", "workplace"]

# What the driver itself takes or keeps back for a while after a process has gone.
MEMORY_SLACK_BYTES = 128 * 1024**2
SETTLED_S = 20.0


def pytest_addoption(parser: pytest.Parser) -> None:
    """Changes of the driver's state are made only when they are asked for."""
    parser.addoption(
        "--allow-gpu-changes",
        action="store_true",
        help="test MIG instances and the time-slice policy too; both are put back",
    )
    parser.addoption(
        "--rehearse",
        action="store_true",
        help="without a GPU: on stand-ins of its driver, which prove the tests and not the GPU",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Lead everything that the tests start to the stand-ins, where a rehearsal is asked for."""
    if not config.getoption("--rehearse", default=False):
        return
    folder = Path(tempfile.mkdtemp(prefix="fairshare-rehearsal-"))
    config.add_cleanup(lambda: shutil.rmtree(folder))
    env = prepare(folder)
    os.environ.update(env)
    sys.path.insert(0, env["PYTHONPATH"].partition(os.pathsep)[0])


def pytest_report_header(config: pytest.Config) -> list[str]:
    """A rehearsal is called one."""
    if not config.getoption("--rehearse", default=False):
        return []
    return ["REHEARSAL on stand-ins of the driver: nothing of this ran on a GPU"]


@pytest.fixture(autouse=True)
def _lead_to_stand_ins(request: pytest.FixtureRequest) -> None:
    """A workplace has an environment of its own."""
    rehearsed = request.config.getoption("--rehearse", default=False)
    if rehearsed and "workplace" in request.fixturenames:
        place: Workplace = request.getfixturevalue("workplace")
        place.env["PYTHONPATH"] = os.environ["PYTHONPATH"]


@pytest.fixture
def may_change(request: pytest.FixtureRequest) -> None:
    """Skips a test that changes the driver's state, unless that is allowed."""
    if not request.config.getoption("--allow-gpu-changes", default=False):
        pytest.skip("it changes the state of the GPU: make test-gpu ARGS=--allow-gpu-changes")


@pytest.fixture(scope="session", name="gpu")
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
    deadline_s = time.monotonic() + SETTLED_S
    while (changed := _differences(before, _state(gpu))) and time.monotonic() < deadline_s:
        time.sleep(0.1)  # the driver lets go of a process's memory after its end
    assert not changed


def _differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    return [
        f"{what}: {before[what]} before, {now} afterwards"
        for what, now in after.items()
        if (
            abs(now - before[what]) > MEMORY_SLACK_BYTES
            if what == "used_bytes"
            else now != before[what]
        )
    ]


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


@pytest.fixture(scope="session")
def _why_no_mps(gpu: Gpu, tmp_path_factory: pytest.TempPathFactory) -> str | None:
    """Why MPS cannot be had here, found out without any code of ours; None if it can."""
    if shutil.which(CONTROL) is None:
        return f"{CONTROL} is not on PATH"
    folder = Path(tempfile.mkdtemp(prefix="mps-"))
    env = {**os.environ, PIPE_VARIABLE: str(folder), LOG_VARIABLE: str(folder)}
    env["CUDA_VISIBLE_DEVICES"] = gpu.uuid
    daemon = subprocess.Popen([CONTROL, "-f"], env=env, stdout=subprocess.DEVNULL)
    try:
        return _why_no_client(folder, env, gpu, daemon)
    finally:
        daemon.terminate()
        daemon.wait()
        shutil.rmtree(folder)


def _why_no_client(
    folder: Path, env: dict[str, str], gpu: Gpu, daemon: subprocess.Popen[bytes]
) -> str | None:
    ask = partial(subprocess.run, [CONTROL], env=env, capture_output=True, text=True, check=False)
    while ask(input="get_server_list\n").returncode != 0:
        if daemon.poll() is not None:
            return f"its daemon ends at once, with code {daemon.returncode}"
    try:
        with running(("hold",), gpu, {PIPE_VARIABLE: str(folder)}) as client:
            server = ask(input="get_server_list\n").stdout.strip()
            listed = ask(input=f"get_client_list {server}\n").stdout.split()
            client.end()
    except AssertionError as error:
        return f"a CUDA program fails with a daemon there: {error}"
    return None if server and listed else "its daemon runs, but a CUDA program is no client of it"


@pytest.fixture
def mps_here(_why_no_mps: str | None) -> None:
    """Skips a test of MPS where the driver's own programs do not get as far as one client."""
    if _why_no_mps is not None:
        pytest.skip(f"no MPS on this machine: {_why_no_mps}")


GPU_LAUNCHER = (
    FAKE_LAUNCHER.replace("fairshare.testing.fake_server", "tests.gpu.cuda_server")
    .replace("devices: [cpu]", "devices: [cuda]")
    .replace("ready_timeout_s: 10", "ready_timeout_s: 60")
)


@pytest.fixture
def launcher(tmp_path: Path) -> str:
    """A launcher whose servers hold a CUDA context and answer as an engine would."""
    path = tmp_path / "cuda-fake.yaml"
    path.write_text(
        GPU_LAUNCHER.format(python=sys.executable, args={"ttft_ms": 20, "itl_ms": 5}, root=ROOT)
    )
    return str(path)
