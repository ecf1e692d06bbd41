"""One run at a time on a device."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fairshare.devices.device import Device
from fairshare.devices.inventory import virtual_device
from fairshare.errors import DeviceBusyError, PreflightError
from fairshare.sharing.lease import lease, lock_path
from fairshare.spec.launcher import DeviceKind

CPU = Device(DeviceKind.CPU, "cpu", "test", 1024)

HOLD = """
import asyncio, sys
from fairshare.devices.device import Device
from fairshare.sharing.lease import lease
from fairshare.spec.launcher import DeviceKind
async def hold():
    async with lease(Device(DeviceKind.CPU, "cpu", "test", 1024), "results/other"):
        print("held", flush=True)
        sys.stdin.read()
asyncio.run(hold())
"""


@pytest.fixture(autouse=True)
def _own_state_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Locks of these tests are nobody else's."""
    monkeypatch.setenv("FAIRSHARE_STATE_DIR", str(tmp_path / "state"))


@contextmanager
def child(code: str) -> Iterator[subprocess.Popen[bytes]]:
    """A Python process that has said its first line."""
    with subprocess.Popen(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        close_fds=False,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        yield process


async def test_the_holder_is_named() -> None:
    """Whoever meets the lock learns pid and results folder; a killed holder frees the device."""
    with child(HOLD) as holder:
        with pytest.raises(DeviceBusyError) as caught:
            async with lease(CPU, "results/mine"):
                pass
        assert f"pid {holder.pid}" in str(caught.value)
        assert "results/other" in str(caught.value)
        holder.kill()
    async with lease(CPU, "results/mine"):
        pass


async def test_a_lease_can_be_taken_again_after_it_ended() -> None:
    """The end of a run frees the device within the same process too."""
    for _ in range(2):
        async with lease(CPU, "results/mine"):
            with pytest.raises(DeviceBusyError):
                async with lease(CPU, "results/mine"):
                    pass


async def test_devices_do_not_block_each_other() -> None:
    """Another device, or a simulated one, is free."""
    gpu = Device(DeviceKind.CUDA, "GPU-1", "test", 1024)
    virtual = virtual_device("a100-40")
    async with lease(CPU, "a"), lease(gpu, "b"), lease(virtual, "c"), lease(virtual, "d"):
        pass


async def test_a_link_in_place_of_the_lock_is_refused(tmp_path: Path) -> None:
    """A planted link cannot make us write into another file."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    lock_path(CPU).symlink_to(victim)
    with pytest.raises(PreflightError):
        async with lease(CPU, "results/mine"):
            pass
    assert victim.read_text() == "precious"


def open_files(pid: int) -> set[Path]:
    """Files that a process has open."""
    return {path.resolve() for path in Path(f"/proc/{pid}/fd").iterdir()}


async def test_no_child_inherits_the_lock() -> None:
    """A server that outlives its run must not keep the device locked."""
    async with lease(CPU, "results/mine"):
        with child("import sys; print('held', flush=True); sys.stdin.read()") as process:
            files = open_files(process.pid)
            process.kill()
    assert files
    assert lock_path(CPU).resolve() not in files
