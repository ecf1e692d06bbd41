"""The MPS daemon's life, with NVIDIA's own control program where it is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fairshare.devices.inventory import virtual_device
from fairshare.errors import PartitionError
from fairshare.events import EventLog
from fairshare.processes.scope import run_scope
from fairshare.sharing import mps_control
from fairshare.sharing.mps_control import CONTROL, ask, mps_daemon, refuse_foreign_daemon
from fairshare.virtual.driver import install

DEVICE = virtual_device("a100-40")
CHECKOUT = Path(__file__).parents[2]


@pytest.fixture(params=["stand-in", "NVIDIA's"])
def driver_env(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    """The environment that leads to one of the two control programs."""
    if request.param == "stand-in":
        return install(tmp_path / "gpu", "a100-40")
    if shutil.which(CONTROL) is None:
        pytest.skip(f"{CONTROL} (package nvidia-cuda-mps) is not on PATH")
    return {}


@pytest.fixture(autouse=True)
def _own_state_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Journals of these tests are nobody else's."""
    monkeypatch.setenv("FAIRSHARE_STATE_DIR", str(tmp_path / "state"))


async def test_the_daemon_answers_and_ends(driver_env: dict[str, str]) -> None:
    """Ready means it answers; afterwards neither process nor pipe directory is left."""
    async with run_scope(EventLog()) as scope:
        async with mps_daemon(DEVICE, scope, driver_env) as daemon:
            assert (await daemon.ask("get_default_active_thread_percentage")).output == "100.0\n"
            changed = await daemon.ask("set_default_active_thread_percentage 25")
            assert changed.output == "25.0\n"
        assert daemon.process.returncode == 0
        assert daemon.process.tree() == []
        assert (await ask("get_server_list", daemon.pipe_dir, driver_env)).returncode == 1


async def test_another_daemon_where_cuda_looks_is_refused(
    driver_env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A daemon in the default place would take servers in that must not run under MPS."""
    async with run_scope(EventLog()) as scope:
        async with mps_daemon(DEVICE, scope, driver_env) as daemon:
            monkeypatch.setattr(mps_control, "_DEFAULT_PIPES", (str(daemon.pipe_dir),))
            with pytest.raises(PartitionError, match="somebody else's MPS daemon"):
                await refuse_foreign_daemon(driver_env)
        await refuse_foreign_daemon(driver_env)  # its socket is left behind, and answers nothing


async def test_the_undo_command_ends_the_daemon(driver_env: dict[str, str]) -> None:
    """What the journal names ends a running daemon, and does no harm a second time."""
    undo = [sys.executable, "-m", "fairshare.sharing.undo", "mps"]
    env = {**os.environ, **driver_env, "PYTHONPATH": str(CHECKOUT)}

    def run(pipe_dir: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*undo, str(pipe_dir)], env=env, cwd="/", capture_output=True, text=True, check=False
        )

    async with run_scope(EventLog()) as scope:
        with pytest.raises(PartitionError, match="died on the way"):
            async with mps_daemon(DEVICE, scope, driver_env) as daemon:
                assert run(daemon.pipe_dir).returncode == 0
                assert await daemon.process.wait() == 0
                assert run(daemon.pipe_dir).returncode == 0


async def test_a_missing_control_program_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the program the error says what is missing and where it comes from."""
    monkeypatch.setenv("PATH", str(tmp_path))
    async with run_scope(EventLog()) as scope:
        with pytest.raises(PartitionError, match=CONTROL) as caught:
            async with mps_daemon(DEVICE, scope, {}):
                pytest.fail("it must not come so far")
    assert "comes with the NVIDIA driver" in str(caught.value)
