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
from fairshare.devices.driver import STATE_VARIABLE, Driver
from fairshare.devices.inventory import virtual_device
from fairshare.errors import DeviceBusyError, ExitCode, PreflightError
from fairshare.sharing.lease import lease, lock_path
from fairshare.spec.launcher import DeviceKind

CPU = Device(DeviceKind.CPU, "cpu", "test", 1024)
MINE = Path("results/mine")

HOLD = """
import asyncio, sys
from pathlib import Path
from fairshare.devices.device import Device
from fairshare.devices.driver import Driver
from fairshare.sharing.lease import lease
from fairshare.spec.launcher import DeviceKind
async def hold():
    async with lease(Device(DeviceKind.CPU, "cpu", "test", 1024), Driver(), Path("results/other")):
        print("held", flush=True)
        sys.stdin.read()
asyncio.run(hold())
"""


@pytest.fixture(autouse=True)
def _own_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Locks of these tests are nobody else's."""
    monkeypatch.setenv("FAIRSHARE_LOCK_DIR", str(tmp_path / "locks"))


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
            async with lease(CPU, Driver(), MINE):
                pass
        assert caught.value.exit_code is ExitCode.DEVICE_BUSY
        assert f"pid {holder.pid}" in str(caught.value)
        assert str(Path("results/other").absolute()) in str(caught.value)  # noqa: ASYNC240
        holder.kill()
        holder.wait()
        async with lease(CPU, Driver(), MINE):
            pass


async def test_a_lease_can_be_taken_again_after_it_ended() -> None:
    """The end of a run frees the device within the same process too, and leaves no file."""
    for _ in range(2):
        async with lease(CPU, Driver(), MINE) as path:
            with pytest.raises(DeviceBusyError):
                async with lease(CPU, Driver(), MINE):
                    pass
        assert not path.exists()


async def test_devices_do_not_block_each_other(tmp_path: Path) -> None:
    """Another device is free, and so is a simulated GPU in another folder."""
    gpu = Device(DeviceKind.CUDA, "GPU-1", "test", 1024)
    virtual = virtual_device("a100-40")
    one, two = (Driver(env={STATE_VARIABLE: str(tmp_path / name)}) for name in ("one", "two"))
    async with (
        lease(CPU, Driver(), MINE),
        lease(gpu, Driver(), MINE),
        lease(virtual, one, MINE),
        lease(virtual, two, MINE),
    ):
        with pytest.raises(DeviceBusyError):
            async with lease(virtual, one, MINE):
                pass


def test_everybody_meets_at_one_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """The lock's path depends on the device alone, not on who asks or from where."""
    monkeypatch.delenv("FAIRSHARE_LOCK_DIR")
    gpu = Device(DeviceKind.CUDA, "GPU-0123/../x", "test", 1024)
    before = lock_path(gpu, Driver())
    monkeypatch.setenv("HOME", "/nowhere")
    monkeypatch.setenv("TMPDIR", "/nowhere")
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    assert lock_path(gpu, Driver()) == before
    assert before.name == "fairshare-GPU-0123_.._x.lock"


async def test_a_lock_that_is_no_file_is_an_error_for_people(tmp_path: Path) -> None:
    """A planted link is not followed, and the message says what to do."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    lock_path(CPU, Driver()).symlink_to(victim)
    with pytest.raises(PreflightError) as caught:
        async with lease(CPU, Driver(), MINE):
            pass
    assert "FAIRSHARE_LOCK_DIR" in str(caught.value)
    assert victim.read_text() == "precious"


def open_files(pid: int) -> set[Path]:
    """Files that a process has open."""
    return {path.resolve() for path in Path(f"/proc/{pid}/fd").iterdir()}


async def test_no_child_inherits_the_lock() -> None:
    """A server that outlives its run must not keep the device locked."""
    async with lease(CPU, Driver(), MINE) as path:
        with child("import sys; print('held', flush=True); sys.stdin.read()") as process:
            files = open_files(process.pid)
            process.kill()
    assert files
    assert path.resolve() not in files
